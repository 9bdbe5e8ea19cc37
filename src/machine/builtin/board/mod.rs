//! The boards: their chipsets, how interrupts are routed, and which slots the disks sit in.

mod function;
mod i440fx;
mod q35;
mod rcrb;

use std::sync::Arc;

use self::rcrb::{FIRST_ROUTED_SLOT, ROUTED_SLOTS, Rcrb};
use super::bus::reset::ResetControl;
use super::bus::windows::Placement;
use super::device::{LineSink, Wire};
use super::irq::router::Router;
use super::pci::{PciBus, PciFunction};
use super::timeline::Timeline;

/// End of the RAM that a board can have: the q35's ECAM, and with it the PCI hole, begins there.
pub const RAM_END_MAX: u64 = 0xb000_0000;

/// Slot of the first disk unless another is asked for.
pub const FIRST_DISK_SLOT: u8 = 4;

/// The PIRQs drive their lines as these sources; lower ones belong to devices.
const ROUTER_FIRST_SOURCE: u32 = 32;

/// RST_CNT bits that stay: system reset, and on the ICH full reset.
const RST_CNT_KEPT_PIIX: u8 = 1 << 1;
const RST_CNT_KEPT_ICH: u8 = 1 << 1 | 1 << 3;

/// A PC chipset.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Board {
    /// i440fx: configuration mechanism #1.
    #[default]
    Pc,
    /// q35: the same, and ECAM.
    Q35,
}

impl Board {
    /// The name in options and reports.
    pub fn name(self) -> &'static str {
        match self {
            Self::Pc => "pc",
            Self::Q35 => "q35",
        }
    }

    /// The interrupt of a slot's pin A where no ISA bridge routes it, and as PC firmware does: the
    /// PIRQs of four neighbouring slots are different, two share interrupt 10 and two 11.
    pub fn interrupt_of(self, slot: u8) -> u8 {
        let pirq = match self {
            Self::Pc => i440fx::pirq_of(slot),
            Self::Q35 => slot & 3,
        };
        if pirq < 2 { 10 } else { 11 }
    }

    /// The slot of the ISA bridge and its fellows.
    pub fn south_bridge_slot(self) -> u8 {
        match self {
            Self::Pc => i440fx::PIIX_SLOT,
            Self::Q35 => q35::ICH_SLOT,
        }
    }

    /// The ports of the power management device `pm` when its block is at `base`.
    pub fn pm_ports(self, pm: usize, base: u16) -> Vec<Placement> {
        match self {
            Self::Pc => i440fx::pm_ports(pm, base),
            Self::Q35 => q35::pm_ports(pm, base),
        }
    }

    /// The function at 00:00.0 of a board with `ram_bytes` of RAM. `mapped` opens the memory-mapped
    /// configuration space of a q35 from the start.
    pub fn host_bridge(self, ram_bytes: u64, mapped: bool) -> Box<dyn PciFunction> {
        match self {
            Self::Pc => Box::new(i440fx::host_bridge(ram_bytes)),
            Self::Q35 => Box::new(q35::host_bridge(mapped)),
        }
    }
}

/// What a chipset places.
struct ChipsetParts {
    /// The power management device.
    pm: Option<usize>,
    /// The root complex registers.
    rcrb: usize,
    /// Functions tell which serial ports there are.
    has_serial: bool,
}

/// How the pins of slots, and the chipset's own interrupt, reach the interrupt lines.
pub enum Routing {
    /// Each slot to the line that firmware would have chosen.
    Fixed(Board, Arc<dyn LineSink>),
    /// Through the PIIX's PIRQs.
    Piix(Arc<Router>, Arc<dyn LineSink>),
    /// Through the ICH's PIRQs; for the last slots, through the root complex first.
    Ich(Arc<Router>, Arc<Router>),
}

impl Routing {
    /// Pins and PIRQs of a board, unrouted until registers say otherwise; fixed where it has no
    /// south bridge.
    pub fn new(board: Board, south_bridge: bool, lines: Arc<dyn LineSink>) -> Self {
        let router = |lines, inputs| Arc::new(Router::new(lines, inputs, ROUTER_FIRST_SOURCE));
        match board {
            _ if !south_bridge => Self::Fixed(board, lines),
            Board::Pc => Self::Piix(router(Arc::clone(&lines), i440fx::PIRQS), lines),
            Board::Q35 => {
                let pirqs = router(lines, q35::PIRQS + 1);
                let slots = router(Arc::clone(&pirqs) as _, ROUTED_SLOTS);
                Self::Ich(pirqs, slots)
            }
        }
    }

    /// INTA# of a slot.
    pub fn pin(&self, slot: u8) -> Wire {
        let source = u32::from(slot);
        match self {
            Self::Fixed(board, lines) => {
                Wire::new(Arc::clone(lines), board.interrupt_of(slot).into(), source)
            }
            Self::Piix(pirqs, _) => {
                Wire::new(Arc::clone(pirqs) as _, i440fx::pirq_of(slot).into(), source)
            }
            Self::Ich(pirqs, slots) => match slot.checked_sub(FIRST_ROUTED_SLOT) {
                Some(input) => Wire::new(Arc::clone(slots) as _, input.into(), source),
                // The first slots pull PIRQE to PIRQH in turn.
                None => Wire::new(Arc::clone(pirqs) as _, 4 + u32::from(slot & 3), source),
            },
        }
    }

    /// The interrupt line register of the function in a slot after a reset: 0 where software has
    /// yet to route it.
    pub fn interrupt_line(&self, slot: u8) -> u8 {
        match self {
            Self::Fixed(board, _) => board.interrupt_of(slot),
            Self::Piix(..) | Self::Ich(..) => 0,
        }
    }

    /// The system control interrupt of ACPI, as source `source` where it is a plain line.
    pub fn sci(&self, source: u32) -> Wire {
        match self {
            Self::Fixed(_, lines) | Self::Piix(_, lines) => {
                Wire::new(Arc::clone(lines), SCI_LINE, source)
            }
            Self::Ich(pirqs, _) => Wire::new(Arc::clone(pirqs) as _, q35::SCI_INPUT, source),
        }
    }

    /// Plugs in the south bridge, which places the windows of the power management device `pm`.
    /// Gives the board its reset control register.
    pub fn plug(
        &self,
        pci: &mut PciBus,
        devices: &mut Timeline,
        pm: Option<usize>,
        has_serial: bool,
    ) -> Option<ResetControl> {
        match self {
            Self::Fixed(..) => None,
            Self::Piix(router, _) => {
                i440fx::plug(pci, &ChipsetParts { pm, rcrb: usize::MAX, has_serial }, router);
                Some(ResetControl::new(RST_CNT_KEPT_PIIX))
            }
            Self::Ich(router, slots) => {
                let rcrb = devices.add(Box::new(Rcrb::new(Arc::clone(slots))));
                q35::plug(pci, &ChipsetParts { pm, rcrb, has_serial }, router);
                Some(ResetControl::new(RST_CNT_KEPT_ICH))
            }
        }
    }
}

/// Interrupt 9 by convention, and wired so on the PIIX4.
const SCI_LINE: u32 = 9;
