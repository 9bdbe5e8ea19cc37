//! What a test module is.

use super::outcome::Outcome;
use super::setup::TestDisk;
use super::thread::TestThread;
use crate::base::Result;
use crate::base::options::{OptionSpec, Options};
use crate::machine::Capabilities;
use crate::machine::builtin::Chips;

/// Port I/O, and a clock that a case can move.
const TIMED: Capabilities = Capabilities::PIO.union(Capabilities::VIRTUAL_CLOCK);

/// One named test of a module.
#[derive(Clone, Copy)]
pub struct Case {
    /// Its name within the module: `drift` of `rtc/drift`.
    pub name: &'static str,
    /// One line: what it checks.
    pub purpose: &'static str,
    /// The options it understands, besides those that every case has (`clock`, …).
    pub options: &'static [OptionSpec],
    /// The facets it needs of a machine; where one is missing the case is skipped.
    pub needs: Capabilities,
    /// It measures the host: its clock is the host's unless `clock=` says otherwise.
    pub real_time: bool,
    /// The test.
    pub run: fn(&mut TestThread<'_>) -> Outcome,
}

impl Case {
    /// A case without options that needs port I/O only.
    pub const fn new(
        name: &'static str,
        purpose: &'static str,
        run: fn(&mut TestThread<'_>) -> Outcome,
    ) -> Self {
        Self { name, purpose, options: &[], needs: Capabilities::PIO, real_time: false, run }
    }

    /// A case that looks at time, and so needs to move it.
    pub const fn timed(
        name: &'static str,
        purpose: &'static str,
        run: fn(&mut TestThread<'_>) -> Outcome,
    ) -> Self {
        Self::new(name, purpose, run).needs(TIMED)
    }

    /// A case that looks at time and at an interrupt line.
    pub const fn irq(
        name: &'static str,
        purpose: &'static str,
        run: fn(&mut TestThread<'_>) -> Outcome,
    ) -> Self {
        Self::new(name, purpose, run).needs(TIMED.union(Capabilities::INTX))
    }

    /// The same case with these options.
    #[must_use]
    pub const fn options(self, options: &'static [OptionSpec]) -> Self {
        Self { options, ..self }
    }

    /// The same case with these needs.
    #[must_use]
    pub const fn needs(self, needs: Capabilities) -> Self {
        Self { needs, ..self }
    }

    /// The same case in real time: what it says are measurements, which differ from run to run.
    #[must_use]
    pub const fn real_time(self) -> Self {
        Self { real_time: true, ..self }
    }
}

/// The cases of several lists, one behind the other; `N` is how many there are.
///
/// # Panics
/// When `N` is another number, which in a constant is an error of the compiler's.
pub const fn join<const N: usize>(lists: &[&[Case]]) -> [Case; N] {
    const NONE: Case = Case::new("", "", |_| Ok(()));
    let (mut cases, mut count, mut list) = ([NONE; N], 0, 0);
    while list < lists.len() {
        let mut at = 0;
        while at < lists[list].len() {
            cases[count] = lists[list][at];
            (count, at) = (count + 1, at + 1);
        }
        list += 1;
    }
    assert!(count == N);
    cases
}

/// The tests of one device.
pub trait Module: Sync {
    /// The first part of its cases' names: `rtc`.
    fn name(&self) -> &'static str;

    /// One line: what it tests.
    fn purpose(&self) -> &'static str;

    /// Its cases, in the order in which they run.
    fn cases(&self) -> &'static [Case];

    /// The chips its cases need.
    fn chips(&self) -> Chips;

    /// The chips of a minimal machine: those its cases need, and those they look at where they are
    /// there. A full machine has all.
    fn minimal_chips(&self) -> Chips {
        self.chips()
    }

    /// The disks of the machine that `case` runs on. Modules that may share a machine with others
    /// ask for the same disks in every case.
    ///
    /// # Errors
    /// Options whose values make no disk.
    fn disks(&self, case: &Case, options: &Options) -> Result<Vec<TestDisk>> {
        let _ = (case, options);
        Ok(Vec::new())
    }

    /// Prepares the machine before each case: what firmware would have done.
    ///
    /// # Errors
    /// As a case's.
    fn init(&self, thread: &mut TestThread<'_>) -> Outcome {
        let _ = thread;
        Ok(())
    }

    /// Leaves the machine so that another module can use it: quiet, with its interrupts off.
    ///
    /// # Errors
    /// As a case's.
    fn cleanup(&self, thread: &mut TestThread<'_>) -> Outcome {
        let _ = thread;
        Ok(())
    }
}
