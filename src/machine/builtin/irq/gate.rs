//! A switch in an interrupt line: the HPET takes over interrupts 0 and 8 from the interval timer and
//! the real-time clock while its legacy replacement route is on (HPET 1.0a §2.3.9.2.1).

use std::sync::{Arc, Mutex, PoisonError};

use crate::machine::builtin::device::{LineSink, Wire};

const INPUT: u32 = 0;
const CLOSE: u32 = 1;

#[derive(Default)]
struct Levels {
    input: bool,
    closed: bool,
}

/// One line with a switch.
pub struct Gate {
    output: Wire,
    levels: Mutex<Levels>,
}

impl Gate {
    /// An open gate before `output`.
    pub fn new(output: Wire) -> Arc<Self> {
        Arc::new(Self { output, levels: Mutex::default() })
    }

    /// What goes through while the gate is open.
    pub fn input(self: &Arc<Self>) -> Wire {
        Wire::new(Arc::clone(self) as Arc<dyn LineSink>, INPUT, 0)
    }

    /// High closes the gate: its output is then low.
    pub fn close(&self, closed: bool) {
        self.set_line(CLOSE, 0, closed);
    }
}

impl LineSink for Gate {
    fn set_line(&self, line: u32, _source: u32, high: bool) {
        // The output is driven under the lock, so that its levels arrive in order.
        let mut levels = self.levels.lock().unwrap_or_else(PoisonError::into_inner);
        match line {
            INPUT => levels.input = high,
            _ => levels.closed = high,
        }
        self.output.set(levels.input && !levels.closed);
    }
}

/// Several gates that one line closes.
pub struct Gates(pub Vec<Arc<Gate>>);

impl LineSink for Gates {
    fn set_line(&self, _line: u32, _source: u32, high: bool) {
        self.0.iter().for_each(|gate| gate.close(high));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::machine::builtin::device::LineProbe;

    #[test]
    fn a_closed_gate_is_low_and_opens_to_the_level_of_the_moment() {
        let probe = Arc::new(LineProbe::default());
        let gate = Gate::new(Wire::new(Arc::clone(&probe) as _, 0, 0));
        let closer = Wire::new(Arc::new(Gates(vec![Arc::clone(&gate)])), 0, 0);
        gate.input().set(true);
        assert_eq!(probe.line(0), (true, 1));
        closer.set(true);
        assert_eq!(probe.line(0), (false, 1));
        gate.input().pulse();
        gate.input().set(true);
        assert_eq!(probe.line(0), (false, 1));
        closer.set(false);
        assert_eq!(probe.line(0), (true, 2));
    }
}
