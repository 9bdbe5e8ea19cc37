//! The console's port, and its log.

use super::READBACK;
use crate::base::Nanos;
use crate::machine::builtin::device::Device;
use crate::machine::builtin::devices::capture::Capture;
use crate::machine::builtin::devices::lanes;

/// The debug console. Window 0: port 402h.
#[derive(Debug, Default)]
pub struct DebugCon(Capture);

impl DebugCon {
    /// A console that has said nothing.
    pub fn new() -> Self {
        Self::default()
    }

    /// What is written to it.
    pub fn output(&self) -> Capture {
        self.0.clone()
    }
}

impl Device for DebugCon {
    fn name(&self) -> &'static str {
        "debugcon"
    }

    fn read(&mut self, _window: usize, offset: u64, size: u8, _now: Nanos) -> u64 {
        lanes::read(offset, size, |_| READBACK)
    }

    fn write(&mut self, _window: usize, offset: u64, size: u8, value: u64, _now: Nanos) {
        lanes::write(offset, size, value, |_, byte| self.0.push(byte));
    }

    /// Nothing to reset: the log goes on over a reboot.
    fn reset(&mut self, _now: Nanos) {}
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::Prng;
    use crate::machine::builtin::devices::recorded;
    use crate::machine::builtin::walk::{SeededSteps, walk};

    #[test]
    fn it_answers_the_probe_and_keeps_what_is_said() {
        let mut console = DebugCon::new();
        let log = console.output();
        assert_eq!(console.read(0, 0, 1, Nanos(0)), 0xe9);
        b"Hi".iter().for_each(|byte| console.write(0, 0, 1, u64::from(*byte), Nanos(0)));
        console.reset(Nanos(0));
        assert_eq!(log.take(), b"Hi");
    }

    #[test]
    fn a_walk_changes_nothing() {
        let run = || walk(&mut DebugCon::new(), &[1], &mut SeededSteps(Prng::new(1), 1_000_000));
        assert_eq!(run(), run());
    }

    #[test]
    fn seabios_finds_the_console_and_logs_to_it() {
        for log in ["seabios/boot-tcg.log.xz", "seabios/boot-tcg-ts.log.xz"] {
            let Some(accesses) = recorded::accesses(log, &["isa-debugcon"]) else { return };
            let mut console = DebugCon::new();
            recorded::replay(&mut console, &[(0x402, 1)], &accesses);
            assert!(console.output().take().starts_with(b"SeaBIOS"));
        }
    }
}
