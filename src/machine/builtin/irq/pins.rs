//! The interrupt pins of the CPUs: INTR and NMI, counted on eventfds like everything a test watches.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use super::Line;
use crate::base::{Error, Result};
use crate::machine::IrqEvent;
use crate::machine::builtin::device::{LineSink, Wire};

/// Which pin of a CPU.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Pin {
    /// INTR: a vector can be taken.
    Intr,
    /// NMI.
    Nmi,
}

/// The pins of every CPU.
pub struct CpuPins(Vec<[Line; 2]>);

impl CpuPins {
    /// Pins of `cpus` CPUs, all low.
    pub fn new(cpus: u8) -> Arc<Self> {
        Arc::new(Self((0..cpus).map(|_| Default::default()).collect()))
    }

    /// A wire to `pin` of CPU `cpu`.
    pub fn wire(self: &Arc<Self>, cpu: u8, pin: Pin) -> Wire {
        Wire::new(Arc::clone(self) as Arc<dyn LineSink>, 2 * u32::from(cpu) + pin as u32, 0)
    }

    fn line(&self, index: u32) -> Option<&Line> {
        self.0.get(index as usize / 2)?.get(index as usize % 2)
    }

    /// Whether the pin is high.
    pub fn level(&self, cpu: u8, pin: Pin) -> bool {
        let line = self.line(2 * u32::from(cpu) + pin as u32);
        line.is_some_and(|line| line.asserted.load(Ordering::Acquire) != 0)
    }

    /// The event of a pin's rising edges.
    ///
    /// # Errors
    /// There is no such CPU, or no eventfd.
    pub fn watch(&self, cpu: u8, pin: Pin) -> Result<Arc<IrqEvent>> {
        let line = self.line(2 * u32::from(cpu) + pin as u32).ok_or_else(|| {
            Error::machine(format!("CPU {cpu}: the board has {} whose pins work", self.0.len()))
        })?;
        line.watch()
    }
}

impl LineSink for CpuPins {
    fn set_line(&self, line: u32, source: u32, high: bool) {
        if let Some(line) = self.line(line) {
            line.set(source, high);
        }
    }
}

/// One bit for each of several sources of a shared line.
pub(super) fn source_bit(source: u32) -> u64 {
    1 << (source % u64::BITS)
}

/// Sets or clears a bit; whether the whole word became, or stopped being, zero.
pub(super) fn drive(word: &AtomicU64, source: u32, high: bool) -> bool {
    let bit = source_bit(source);
    if high {
        word.fetch_or(bit, Ordering::AcqRel) == 0
    } else {
        word.fetch_and(!bit, Ordering::AcqRel) == bit
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pins_are_watched_by_cpu_and_kind() {
        let pins = CpuPins::new(2);
        let (intr, nmi) = (pins.watch(1, Pin::Intr).unwrap(), pins.watch(1, Pin::Nmi).unwrap());
        pins.wire(1, Pin::Intr).set(true);
        pins.wire(1, Pin::Intr).set(true);
        assert!(pins.level(1, Pin::Intr) && !pins.level(1, Pin::Nmi) && !pins.level(0, Pin::Intr));
        pins.wire(1, Pin::Nmi).pulse();
        assert_eq!((intr.take(), nmi.take()), (1, 1));
        assert!(pins.watch(2, Pin::Intr).is_err());
    }
}
