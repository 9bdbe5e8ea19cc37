//! The ICH9's root complex register block ("chipset configuration registers", ICH9 §10.1): storage,
//! but for the registers that route the pins of slots 25 to 31.

use std::sync::Arc;

use super::q35::RCRB_BYTES;
use crate::base::{BusAccess, Nanos};
use crate::machine::builtin::device::Device;
use crate::machine::builtin::irq::router::Router;

/// Slots whose pins these registers route, from this one on.
pub const FIRST_ROUTED_SLOT: u8 = 24;
/// Slots from there.
pub const ROUTED_SLOTS: usize = 8;

/// DnnIR: slot and offset. Bits 2:0 choose the PIRQ of INTA#.
const D_IR: [(u8, usize); 6] =
    [(31, 0x3140), (29, 0x3144), (28, 0x3146), (27, 0x3148), (26, 0x314c), (25, 0x3150)];
/// Each pin to the PIRQ of the same place.
const D_IR_RESET: u16 = 0x3210;
/// General control and status.
const GCS: (usize, u8) = (0x3410, 0x20);
/// Slots 24 and 30 pull PIRQE: they have no register.
const FIXED: [(u8, u8); 2] = [(24, 4), (30, 4)];

/// The register block. Window 0 is all of it.
pub struct Rcrb {
    bytes: Vec<u8>,
    /// Pins of the slots, to PIRQs.
    slots: Arc<Router>,
}

impl Rcrb {
    /// The block after a reset, routing the inputs of `slots`.
    pub fn new(slots: Arc<Router>) -> Self {
        let mut rcrb = Self { bytes: vec![0; RCRB_BYTES as usize], slots };
        rcrb.reset(Nanos(0));
        rcrb
    }

    fn set(&mut self, offset: usize, bytes: &[u8]) {
        self.bytes.iter_mut().skip(offset).zip(bytes).for_each(|(cell, byte)| *cell = *byte);
    }

    fn route(&self) {
        let programmed = D_IR.iter().map(|(slot, offset)| {
            let low = self.bytes.get(*offset).copied().unwrap_or_default();
            (*slot, low & 7)
        });
        for (slot, pirq) in programmed.chain(FIXED) {
            self.slots.route(u32::from(slot - FIRST_ROUTED_SLOT), [Some(pirq), None]);
        }
    }
}

impl Device for Rcrb {
    fn name(&self) -> &'static str {
        "rcrb"
    }

    fn read(&mut self, _window: usize, offset: u64, size: u8, _now: Nanos) -> u64 {
        let bytes = self.bytes.iter().skip(offset as usize).take(size.into()).enumerate();
        bytes.fold(0, |value, (lane, byte)| value | u64::from(*byte) << (8 * lane))
            & BusAccess::ones(size)
    }

    fn write(&mut self, _window: usize, offset: u64, size: u8, value: u64, _now: Nanos) {
        let bytes = value.to_le_bytes();
        self.set(offset as usize, bytes.get(..usize::from(size)).unwrap_or_default());
        self.route();
    }

    fn reset(&mut self, _now: Nanos) {
        self.bytes.fill(0);
        for (_, offset) in D_IR {
            self.set(offset, &D_IR_RESET.to_le_bytes());
        }
        self.set(GCS.0, &[GCS.1]);
        self.route();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::Prng;
    use crate::machine::builtin::device::{LineProbe, LineSink};
    use crate::machine::builtin::walk::{SeededSteps, walk};

    #[test]
    fn a_slots_pin_follows_its_register() {
        let probe = Arc::new(LineProbe::default());
        let slots = Arc::new(Router::new(Arc::clone(&probe) as _, ROUTED_SLOTS, 0));
        let mut rcrb = Rcrb::new(Arc::clone(&slots));
        slots.set_line(25 - 24, 25, true);
        assert!(probe.line(0).0);
        assert_eq!(rcrb.read(0, 0x3150, 2, Nanos(0)), 0x3210);
        rcrb.write(0, 0x3150, 2, 0x3217, Nanos(0));
        assert_eq!((probe.line(0).0, probe.line(7).0), (false, true));
        rcrb.reset(Nanos(0));
        assert_eq!((probe.line(0).0, probe.line(7).0), (true, false));
    }

    #[test]
    fn a_walk_repeats() {
        let hash = || {
            let slots = Router::new(Arc::new(LineProbe::default()), ROUTED_SLOTS, 0);
            let mut rcrb = Rcrb::new(Arc::new(slots));
            walk(&mut rcrb, &[RCRB_BYTES], &mut SeededSteps(Prng::new(3), 100_000))
        };
        assert_eq!(hash(), hash());
    }
}
