//! Which request reaches the CPU, and the acknowledge cycle that takes it (SDM §11.8, §11.9).

use super::super::bits::*;
use super::super::vectors::Vectors;
use super::{Acknowledged, Lapic, PINS};
use crate::base::Nanos;

impl Lapic {
    /// The acknowledge cycle. External interrupts go before any vector: they ignore priorities.
    pub fn acknowledge(&mut self, now: Nanos) -> Acknowledged {
        self.advance(now);
        if self.external_requested() {
            self.external = false;
            return Acknowledged::External;
        }
        if !std::mem::take(&mut self.requested) {
            return Acknowledged::Nothing;
        }
        let Some(vector) = self.deliverable() else {
            return Acknowledged::Vector(self.svr as u8);
        };
        self.irr.set(vector, false);
        self.isr.set(vector, true);
        self.settle();
        Acknowledged::Vector(vector)
    }

    /// Whether INTR is high for the 8259A.
    pub fn external_requested(&self) -> bool {
        if !self.is_enabled() {
            return self.pins[0];
        }
        let pin = |(index, high): (&usize, &bool)| {
            let external = self.lvt.signal(*index).is_some_and(|s| s.mode == MODE_EXTINT);
            external && self.lvt.is_active(*index, *high)
        };
        self.external || PINS.iter().zip(&self.pins).any(pin)
    }

    /// A vector that is deliverable raises INTR, until the acknowledge.
    pub(super) fn settle(&mut self) {
        self.requested |= self.deliverable().is_some();
    }

    /// The vector to deliver: the highest requested, if its class is above the processor's.
    fn deliverable(&self) -> Option<u8> {
        self.irr.highest().filter(|vector| vector >> 4 > self.priority() >> 4)
    }

    /// The processor priority (SDM §11.8.3.1).
    pub(super) fn priority(&self) -> u8 {
        let serving = self.isr.highest().unwrap_or(0);
        if self.tpr >> 4 >= serving >> 4 { self.tpr } else { serving & 0xf0 }
    }

    /// The arbitration priority, by which a lowest-priority message chooses (SDM §11.6.2.4).
    pub fn arbitration_priority(&self) -> u8 {
        let class = |vectors: &Vectors| vectors.highest().unwrap_or(0) & 0xf0;
        let (waiting, serving) = (class(&self.irr), class(&self.isr));
        let task = self.tpr & 0xf0;
        if task >= waiting && task > serving { self.tpr } else { task.max(waiting).max(serving) }
    }
}
