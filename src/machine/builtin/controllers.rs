//! The interrupt controllers of a board, and the cables between them.
//!
//! INTR of the i8259 pair is LINT0 of the local APICs, and INTR of the CPU where there are none.
//! The I/O APIC and devices send messages, which the local APICs take.

use std::sync::Arc;

use super::Chips;
use super::config::BuiltinConfig;
use super::device::{LineSink, MessageSink, Wire};
use super::devices::ioapic::IoApic;
use super::devices::lapic::{LINT0, LapicConfig, LocalApics};
use super::devices::pic::PicPair;
use super::irq::pins::{CpuPins, Pin};
use super::irq::{Acknowledge, Controllers, IrqHub};

/// The controllers, as devices of the board.
#[derive(Default)]
pub(super) struct ControllerSet {
    pub pic: Option<Arc<PicPair>>,
    pub ioapic: Option<Arc<IoApic>>,
    pub lapics: Option<Arc<LocalApics>>,
}

impl ControllerSet {
    /// Builds what the board has, connected to `hub`.
    pub fn connect(config: &BuiltinConfig, hub: &Arc<IrqHub>) -> Self {
        let has = |chip| config.chips.contains(chip);
        let pins = CpuPins::new(config.cpus);
        let lapics = has(Chips::LAPIC).then(|| local_apics(config, &pins));
        let intr = match &lapics {
            Some(lapics) => Wire::new(Arc::clone(lapics) as Arc<dyn LineSink>, LINT0, 0),
            None => pins.wire(0, Pin::Intr),
        };
        let pic = has(Chips::PIC).then(|| PicPair::new(intr));
        let ioapic = has(Chips::IOAPIC).then(|| IoApic::new(Arc::clone(hub) as _));
        if let (Some(lapics), Some(pic)) = (&lapics, &pic) {
            lapics.connect_pic(pic);
        }
        if let (Some(lapics), Some(ioapic)) = (&lapics, &ioapic) {
            lapics.connect_ioapic(ioapic);
        }
        let acknowledge: Option<Arc<dyn Acknowledge>> = match (&lapics, &pic) {
            (Some(lapics), _) => Some(Arc::clone(lapics) as _),
            (None, Some(pic)) => Some(Arc::clone(pic) as _),
            (None, None) => None,
        };
        hub.connect(Controllers {
            pins,
            pic: pic.clone().map(|pic| pic as _),
            ioapic: ioapic.clone().map(|ioapic| ioapic as _),
            lapics: lapics.clone().map(|lapics| lapics as Arc<dyn MessageSink>),
            acknowledge,
        });
        Self { pic, ioapic, lapics }
    }
}

fn local_apics(config: &BuiltinConfig, pins: &Arc<CpuPins>) -> Arc<LocalApics> {
    let wires = |pin| (0..config.cpus).map(|cpu| pins.wire(cpu, pin)).collect();
    LocalApics::new(LapicConfig {
        cpus: config.cpus,
        clock: Arc::clone(&config.clock),
        intr: wires(Pin::Intr),
        nmi: wires(Pin::Nmi),
    })
}

impl Acknowledge for LocalApics {
    fn acknowledge(&self, cpu: u8) -> Option<u8> {
        LocalApics::acknowledge(self, cpu)
    }
}

/// The pair serves the first CPU. It would answer a cycle that nothing asked for with a spurious
/// vector; a CPU begins none.
impl Acknowledge for PicPair {
    fn acknowledge(&self, cpu: u8) -> Option<u8> {
        (cpu == 0 && self.output()).then(|| PicPair::acknowledge(self))
    }
}
