//! Interrupt lines as QEMU reports them, and the events of those that are watched.

use std::collections::BTreeMap;
use std::sync::Arc;

use crate::base::{Error, Result};
use crate::machine::IrqEvent;

/// Lines that a device may have (QEMU `system/qtest.c`, `MAX_IRQ`).
const LINES: usize = 256;

/// Levels and events of the lines of the device that is intercepted. All begin low.
#[derive(Debug)]
pub struct IrqLines {
    high: [bool; LINES],
    events: BTreeMap<u32, Arc<IrqEvent>>,
    changes: u64,
}

impl Default for IrqLines {
    fn default() -> Self {
        Self { high: [false; LINES], events: BTreeMap::new(), changes: 0 }
    }
}

impl IrqLines {
    /// A line changed. A line beyond those that a device may have is nobody's.
    pub fn change(&mut self, line: u32, high: bool) {
        let Some(level) = self.high.get_mut(line as usize) else { return };
        let was_high = std::mem::replace(level, high);
        self.changes += 1;
        if high
            && !was_high
            && let Some(event) = self.events.get(&line)
        {
            event.signal();
        }
    }

    /// A line that stayed high means something new.
    pub fn again(&mut self, line: u32) {
        if let Some(event) = self.events.get(&line).filter(|_| self.level(line)) {
            event.signal();
        }
    }

    /// The level of a line.
    pub fn level(&self, line: u32) -> bool {
        self.high.get(line as usize).copied().unwrap_or(false)
    }

    /// Changes so far.
    pub fn changes(&self) -> u64 {
        self.changes
    }

    /// The event that counts each rising edge of a line; the same each time.
    ///
    /// # Errors
    /// A machine error for a line that no device has, or when the system has no descriptor.
    pub fn watch(&mut self, line: u32) -> Result<Arc<IrqEvent>> {
        if line as usize >= LINES {
            return Err(Error::machine(format!(
                "interrupt {line}: QEMU reports 0 to {}",
                LINES - 1
            )));
        }
        if let Some(event) = self.events.get(&line) {
            return Ok(Arc::clone(event));
        }
        let event = IrqEvent::new().map_err(|e| Error::machine("no eventfd").source(e))?;
        let event = Arc::new(event);
        self.events.insert(line, Arc::clone(&event));
        Ok(event)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rising_edges_are_counted() {
        let mut lines = IrqLines::default();
        let event = lines.watch(8).unwrap();
        lines.change(8, true);
        lines.change(8, true);
        lines.change(8, false);
        lines.change(8, true);
        lines.change(9, true);
        lines.change(4096, true);
        assert_eq!((event.take(), lines.level(8), lines.level(9)), (2, true, true));
        lines.again(8);
        assert_eq!(event.take(), 1);
        lines.change(8, false);
        lines.again(8);
        assert_eq!(lines.watch(8).unwrap().take(), 0);
        assert!(lines.watch(256).is_err());
        assert!(!lines.level(4096));
    }
}
