//! A machine for a bus trace: the one that the trace was recorded on, as far as a kind can build it.

use std::sync::Arc;

use super::machines::MachineChoice;
use super::spec::MachineSpec;
use crate::base::options::Options;
use crate::base::{Clock, Error, Result, VirtualClock};
use crate::machine::Machine;
use crate::machine::builtin::{Board, Chips};

/// Options of machines, and the words that a bus trace's own options have for the same.
const SAME: &[(&str, &str)] = &[("type", "board"), ("ram", "ram"), ("cpus", "cpus")];

/// A machine that a bus trace can be replayed on.
pub struct BusMachine {
    /// The machine, as new.
    pub machine: Box<dyn Machine>,
    /// The chips it has and a test thread can reach.
    pub chips: Chips,
    /// It may have devices that are in no list of chips: graphics, IDE, a network card.
    pub others: bool,
    /// What it is, for reports.
    pub text: String,
}

/// What a machine's own options say that a [`MachineSpec`] says too.
#[derive(Clone, Copy, Debug)]
pub struct Basics {
    /// The chipset.
    pub board: Board,
    /// Guest RAM.
    pub ram_bytes: u64,
    /// CPUs.
    pub cpus: u8,
}

impl MachineChoice {
    /// Refuses what is said of the machine twice, in `--machine` and in a bus trace's `options`.
    ///
    /// # Errors
    /// A usage error that names both.
    pub fn check_against(&self, options: &Options) -> Result<()> {
        for (ours, theirs) in SAME {
            if let (true, Some(value)) = (self.has(ours), options.get(theirs)) {
                let kind = self.kind().name();
                let what = format!("{theirs}={value} and --machine {kind},{ours}=… say the same");
                return Err(Error::usage(what).hint("leave one of them out"));
            }
        }
        Ok(())
    }

    /// `spec` with what `--machine` says.
    ///
    /// # Errors
    /// A usage error for a wrong value.
    pub fn refine(&self, mut spec: MachineSpec) -> Result<MachineSpec> {
        let Basics { board, ram_bytes, cpus } = self.basics()?;
        if self.has("type") {
            spec.board = board;
        }
        if self.has("ram") {
            spec.ram_bytes = ram_bytes;
        }
        if self.has("cpus") {
            spec.cpus = cpus;
        }
        Ok(spec)
    }
}

/// The builtin machine of a description.
///
/// # Errors
/// A machine that cannot be.
pub(super) fn builtin(spec: &MachineSpec) -> Result<BusMachine> {
    let clock: Arc<dyn Clock> = Arc::new(VirtualClock::new());
    Ok(BusMachine {
        machine: Box::new(spec.build(clock)?),
        chips: spec.chips,
        others: false,
        text: format!("builtin {}", spec.text()),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::suite::spec::MACHINE_OPTIONS;

    #[test]
    fn a_machine_is_described_in_one_place() {
        let choice = MachineChoice::parse("builtin,type=q35,ram=64M").unwrap();
        let spec = choice.refine(MachineSpec { cpus: 3, ..MachineSpec::default() }).unwrap();
        assert_eq!((spec.board, spec.ram_bytes, spec.cpus), (Board::Q35, 64 << 20, 3));
        for (text, fine) in [("cpus=2", true), ("ram=64M", false), ("board=q35", false)] {
            let options = Options::parse(text, MACHINE_OPTIONS).unwrap();
            assert_eq!(choice.check_against(&options).is_ok(), fine, "{text}");
        }
    }
}
