//! Modules whose cases end in every way there is, for tests of the framework.

use super::module::{Case, Module};
use super::outcome::{Outcome, Stop};
use super::select::Modules;
use super::setup::TestDisk;
use super::thread::TestThread;
use crate::base::options::{OptionSpec, Options};
use crate::base::{Error, GuestAddr, Nanos, Result};
use crate::machine::Capabilities;
use crate::machine::builtin::Chips;

/// All of them.
pub const MODULES: Modules = &[&Good, &Bad, &Disks];

struct Good;

const NUMBER: &[OptionSpec] =
    &[OptionSpec { name: "number", value: "N", default: "7", help: "said" }];

impl Module for Good {
    fn name(&self) -> &'static str {
        "good"
    }

    fn purpose(&self) -> &'static str {
        "cases that pass"
    }

    fn cases(&self) -> &'static [Case] {
        const CASES: &[Case] = &[
            Case::new("pass", "passes", |_| Ok(())),
            Case::new("options", "says its number and a random one", |thread| {
                let number: u32 = thread.options().number("number", 7)?;
                let random = thread.prng().below(1000);
                thread.say(format!("number {number} random {random}"));
                Ok(())
            })
            .options(NUMBER),
            Case::new("time", "an hour passes", |thread| {
                thread.step(Nanos(3_600_000_000_000))?;
                thread.check(thread.now().0 >= 3_600_000_000_000, "an hour")
            })
            .needs(Capabilities::VIRTUAL_CLOCK),
        ];
        CASES
    }

    fn chips(&self) -> Chips {
        Chips::MINIMAL
    }
}

struct Bad;

fn hang(thread: &mut TestThread<'_>) -> Outcome {
    thread.say("before it hangs");
    thread.outl(0xcf8, 0x8000_0000)?;
    loop {
        std::thread::park();
    }
}

impl Module for Bad {
    fn name(&self) -> &'static str {
        "bad"
    }

    fn purpose(&self) -> &'static str {
        "cases that do not pass"
    }

    fn cases(&self) -> &'static [Case] {
        const CASES: &[Case] = &[
            Case::new("fail", "fails after an access", |thread| {
                thread.say("a <line> & \u{1}");
                thread.outl(0xcf8, 0x8000_0000)?;
                let id = thread.inl(0xcfc)?;
                thread.expect("host bridge", id, 0)
            }),
            Case::new("panic", "panics", |thread| {
                thread.say("before it panics");
                panic!("as asked")
            }),
            Case::new("hang", "never ends", hang),
            Case::new("skip", "says why not", |thread| thread.skip("it is Sunday")),
            Case::new("needs", "needs what no machine has", |_| Ok(())).needs(Capabilities::VRINGS),
            Case::new("driver", "its driver meets a machine error", |_| {
                Err(Error::machine("id 9 is not in flight").into())
            }),
            Case::new("usage", "gets a wrong value", |_| {
                Err(Stop::Error(Error::usage("option x=y: expected z").hint("try z")))
            }),
        ];
        CASES
    }

    fn chips(&self) -> Chips {
        Chips::MINIMAL
    }
}

struct Disks;

const MARK: GuestAddr = GuestAddr(0x1000);

impl Module for Disks {
    fn name(&self) -> &'static str {
        "disks"
    }

    fn purpose(&self) -> &'static str {
        "cases with a disk, that leave a mark in RAM"
    }

    fn cases(&self) -> &'static [Case] {
        const CASES: &[Case] = &[
            Case::new("first", "says what is marked", |thread| {
                let mut mark = [0; 8];
                thread.ram()?.read(MARK, &mut mark);
                thread.say(format!("marked {}", u64::from_le_bytes(mark)));
                thread.ram()?.write(MARK, &7u64.to_le_bytes());
                Ok(())
            }),
            Case::new("fail", "fails with a disk", |thread| thread.failed("x", "y", "z")),
        ];
        CASES
    }

    fn chips(&self) -> Chips {
        Chips::MINIMAL
    }

    fn disks(&self, _case: &Case, _options: &Options) -> Result<Vec<TestDisk>> {
        Ok(vec![TestDisk::new("marked", 64 << 10)])
    }
}
