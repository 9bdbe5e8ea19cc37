//! Routing of chipset interrupts: the PIRQs of an ISA bridge, and the SCI, to the lines that
//! registers choose. A level moves with its route.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::pins::source_bit;
use crate::machine::builtin::device::LineSink;

/// Lines that one input may drive: the routed one, and a fixed input of the I/O APIC.
type Outputs = [Option<u8>; 2];

#[derive(Clone, Default)]
struct Input {
    /// One bit for each function that pulls it.
    asserted: u64,
    outputs: Outputs,
}

/// Inputs of which each drives the lines it is routed to.
pub struct Router {
    lines: Arc<dyn LineSink>,
    /// As which source the first input drives a line; the others follow.
    first_source: u32,
    inputs: Mutex<Vec<Input>>,
}

impl Router {
    /// `inputs` inputs that go nowhere. On a line of `lines`, input n is source `first_source` + n.
    pub fn new(lines: Arc<dyn LineSink>, inputs: usize, first_source: u32) -> Self {
        Self { lines, first_source, inputs: Mutex::new(vec![Input::default(); inputs]) }
    }

    fn inputs(&self) -> MutexGuard<'_, Vec<Input>> {
        // Nothing in here panics while it holds the lock.
        self.inputs.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn drive(&self, input: u32, outputs: Outputs, high: bool) {
        for line in outputs.into_iter().flatten() {
            self.lines.set_line(line.into(), self.first_source + input, high);
        }
    }

    /// Routes an input to these lines, and to no others.
    pub fn route(&self, input: u32, outputs: Outputs) {
        let mut inputs = self.inputs();
        let Some(state) = inputs.get_mut(input as usize).filter(|i| i.outputs != outputs) else {
            return;
        };
        let old = std::mem::replace(&mut state.outputs, outputs);
        if state.asserted != 0 {
            // A line that stays in use must see no edge.
            self.drive(input, outputs, true);
            let left = old.map(|line| line.filter(|line| !outputs.contains(&Some(*line))));
            self.drive(input, left, false);
        }
    }
}

impl LineSink for Router {
    fn set_line(&self, line: u32, source: u32, high: bool) {
        let mut inputs = self.inputs();
        let Some(input) = inputs.get_mut(line as usize) else { return };
        let before = input.asserted != 0;
        if high {
            input.asserted |= source_bit(source);
        } else {
            input.asserted &= !source_bit(source);
        }
        if before != (input.asserted != 0) {
            self.drive(line, input.outputs, !before);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::machine::builtin::device::LineProbe;

    #[test]
    fn a_level_moves_with_its_route() {
        let probe = Arc::new(LineProbe::default());
        let router = Router::new(Arc::clone(&probe) as _, 4, 40);
        router.set_line(1, 7, true);
        router.route(1, [Some(10), Some(17)]);
        assert_eq!((probe.line(10), probe.line(17)), ((true, 1), (true, 1)));
        router.route(1, [Some(11), Some(17)]);
        assert_eq!((probe.line(10), probe.line(11)), ((false, 1), (true, 1)));
        assert_eq!(probe.line(17), (true, 1), "its route did not change");
        router.set_line(1, 8, true);
        router.set_line(1, 7, false);
        assert_eq!(probe.line(11), (true, 1), "shared");
        router.route(1, [None, None]);
        assert_eq!((probe.line(11), probe.line(17)), ((false, 1), (false, 1)));
        router.set_line(4, 0, true);
    }
}
