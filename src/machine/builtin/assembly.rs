//! Putting a board together: which chip sits where, and what its pins are wired to.
//!
//! Devices act and are reset in the order in which they are added: those that pull interrupt lines
//! come before the controllers at their end.

use std::sync::Arc;

use super::acpi::AcpiPm;
use super::board::{Board, Routing};
use super::bus::BusParts;
use super::bus::reset::ResetLine;
use super::bus::windows::Placement;
use super::config::BuiltinConfig;
use super::controllers::ControllerSet;
use super::device::{Device, LineSink, Wire};
use super::devices::capture::Capture;
use super::devices::debugcon::DebugCon;
use super::devices::fw_cfg::{FwCfg, FwCfgConfig};
use super::devices::hpet::bits::{ROUTES_PC, ROUTES_Q35};
use super::devices::hpet::{Hpet, HpetWires};
use super::devices::i8042::I8042;
use super::devices::ioapic::IoApicDevice;
use super::devices::lapic::LapicDevice;
use super::devices::pic::PicDevice;
use super::devices::pit::Pit;
use super::devices::pit::chip::Refresh;
use super::devices::pm::Pm;
use super::devices::pm::bits::{GPE0_BYTES_ICH9, GPE0_BYTES_PC};
use super::devices::rtc::{CmosConfig, Rtc, RtcConfig, RtcModel};
use super::devices::serial::{Serial, SerialLine};
use super::devices::system::{AcpiCommands, System, SystemWires};
use super::irq::gate::{Gate, Gates};
use super::irq::{APIC_MESSAGES, IrqHub, LINES};
use super::pci::{PciBus, devfn};
use super::timeline::Timeline;
use super::{Chips, Reference};
use crate::machine::GuestRam;

/// Interrupt lines of a PC.
mod line {
    pub const TIMER: u32 = 0;
    pub const KEYBOARD: u32 = 1;
    pub const SERIAL: u32 = 4;
    pub const RTC: u32 = 8;
    pub const MOUSE: u32 = 12;
}

/// The HPET pulls lines as this source: the interval timer and the clock are 0.
const HPET_SOURCE: u32 = 1;
/// Where chipsets decode the HPET (HPET 1.0a leaves it to them), and its bytes.
const HPET_BASE: u64 = 0xfed0_0000;
const HPET_BYTES: u64 = 1 << 10;
/// The I/O APIC (82093AA §3.1).
const IOAPIC_BASE: u64 = 0xfec0_0000;
const PAGE: u64 = 4096;
/// Where PC firmware puts the power management block.
const PM_BASE_USUAL: u16 = 0x600;

/// What a test can reach of the chips without the bus: the far ends of their cables.
#[derive(Clone, Default)]
pub struct FarEnds {
    /// What the guest wrote to the debug console.
    pub debug: Option<Capture>,
    /// The line of the serial port.
    pub serial: Option<SerialLine>,
    /// POST codes.
    pub post: Option<Capture>,
}

/// A board in the making.
pub(super) struct Assembly<'a> {
    config: &'a BuiltinConfig,
    ram: Arc<GuestRam>,
    hub: Arc<IrqHub>,
    reset: Arc<ResetLine>,
    devices: Timeline,
    fixed: Vec<Placement>,
    pub far_ends: FarEnds,
}

impl<'a> Assembly<'a> {
    pub fn new(config: &'a BuiltinConfig, ram: &Arc<GuestRam>, hub: &Arc<IrqHub>) -> Self {
        Self {
            config,
            ram: Arc::clone(ram),
            hub: Arc::clone(hub),
            reset: Arc::default(),
            devices: Timeline::default(),
            fixed: Vec::new(),
            far_ends: FarEnds::default(),
        }
    }

    /// Adds the chips and the chipset: the board without disks, and how their pins are routed.
    pub fn build(mut self) -> (BusParts, Routing, FarEnds) {
        let (board, chips) = (self.config.board, self.config.chips);
        let south_bridge = chips.contains(Chips::SOUTH_BRIDGE);
        let routing = Routing::new(board, south_bridge, Arc::clone(&self.hub) as _);
        let controllers = ControllerSet::connect(self.config, &self.hub);
        let pm = self.add_pm(&routing, south_bridge);
        self.add_clocks();
        self.add_peripherals(pm.as_ref().map(|(pm, _)| pm));
        let pm = pm.map(|(_, index)| index);
        self.add_controllers(controllers);
        let mut pci = PciBus::default();
        pci.plug(devfn(0, 0), board.host_bridge(self.config.ram_bytes, !south_bridge));
        let has_serial = chips.contains(Chips::SERIAL);
        let reset_control = routing.plug(&mut pci, &mut self.devices, pm, has_serial);
        let parts = BusParts {
            ram: self.ram,
            clock: Arc::clone(&self.config.clock),
            pci,
            devices: self.devices,
            fixed: self.fixed,
            reset: self.reset,
            reset_control,
        };
        (parts, routing, self.far_ends)
    }

    fn has(&self, chip: Chips) -> bool {
        self.config.chips.contains(chip)
    }

    /// An interrupt line, pulled as source 0.
    fn line(&self, line: u32) -> Wire {
        Wire::new(Arc::clone(&self.hub) as Arc<dyn LineSink>, line, 0)
    }

    fn reset_wire(&self) -> Wire {
        Wire::new(Arc::clone(&self.reset) as Arc<dyn LineSink>, 0, 0)
    }

    /// Adds a device whose windows, from 0 on, are these ports.
    fn add(&mut self, device: impl Device + 'static, windows: &[(u16, u64)]) -> usize {
        let index = self.devices.add(Box::new(device));
        for (window, (port, size)) in windows.iter().enumerate() {
            self.fixed.push(Placement::ports(index, window, *port, *size));
        }
        index
    }

    /// Adds a device whose windows, from 0 on, lie one behind the other from `base`.
    fn add_memory(&mut self, device: impl Device + 'static, base: u64, windows: &[u64]) {
        let index = self.devices.add(Box::new(device));
        let mut start = base;
        for (window, size) in windows.iter().enumerate() {
            self.fixed.push(Placement::memory(index, window, start, *size));
            start += size;
        }
    }

    fn add_clocks(&mut self) {
        let timer = Gate::new(self.line(line::TIMER));
        let clock = Gate::new(self.line(line::RTC));
        if self.has(Chips::RTC) {
            self.add(Rtc::new(self.rtc_config(), clock.input()), &[(0x70, 2)]);
        }
        if self.has(Chips::PIT) {
            let refresh = match self.config.reference {
                Reference::DataSheets => Refresh::Cycles,
                Reference::Qemu => Refresh::Reads,
            };
            let pit = Pit::new(timer.input()).with_refresh(refresh);
            self.add(pit, &[(0x40, 4), (0x61, 1)]);
        }
        if self.has(Chips::HPET) {
            let lines = Arc::clone(&self.hub) as Arc<dyn LineSink>;
            let wire = |line| Wire::new(Arc::clone(&lines), line, HPET_SOURCE);
            let legacy = Wire::new(Arc::new(Gates(vec![timer, clock])), 0, 0);
            let wires = HpetWires { lines: (0..LINES as u32).map(wire).collect(), legacy };
            let routes = match self.config.board {
                Board::Pc => ROUTES_PC,
                Board::Q35 => ROUTES_Q35,
            };
            self.add_memory(Hpet::new(wires).with_routes(routes), HPET_BASE, &[HPET_BYTES]);
        }
    }

    fn rtc_config(&self) -> RtcConfig {
        RtcConfig {
            base_unix_s: self.config.rtc_base_unix_s,
            cmos: CmosConfig {
                ram_bytes: self.config.ram_bytes,
                cpus: self.config.cpus,
                ..CmosConfig::default()
            },
            model: match self.config.reference {
                Reference::DataSheets => RtcModel::Mc146818,
                Reference::Qemu => RtcModel::QemuPc,
            },
        }
    }

    /// The power management device and its index. A south bridge places its ports; without one they
    /// are where firmware usually puts them.
    fn add_pm(&mut self, routing: &Routing, south_bridge: bool) -> Option<(AcpiPm, usize)> {
        if !self.has(Chips::PM) {
            return None;
        }
        let board = self.config.board;
        let gpe_bytes = match board {
            Board::Pc => GPE0_BYTES_PC,
            Board::Q35 => GPE0_BYTES_ICH9,
        };
        let pm = AcpiPm::new(Pm::new(routing.sci(0)).with_gpe_bytes(gpe_bytes));
        let index = self.devices.add(Box::new(pm.clone()));
        if !south_bridge {
            self.fixed.extend(board.pm_ports(index, PM_BASE_USUAL));
        }
        Some((pm, index))
    }

    /// The interrupt controllers come last: when the board is reset, lines fall before them.
    fn add_controllers(&mut self, controllers: ControllerSet) {
        if let Some(pic) = controllers.pic {
            self.add(PicDevice(pic), &[(0x20, 2), (0xa0, 2), (0x4d0, 2)]);
        }
        if let Some(ioapic) = controllers.ioapic {
            self.add_memory(IoApicDevice(ioapic), IOAPIC_BASE, &[PAGE]);
        }
        if let Some(lapics) = controllers.lapics {
            // The bus is the first CPU's. Behind its registers lies where messages are written to.
            let messages = APIC_MESSAGES.end - APIC_MESSAGES.start - PAGE;
            self.add_memory(LapicDevice::new(lapics, 0), APIC_MESSAGES.start, &[PAGE, messages]);
        }
    }

    fn add_peripherals(&mut self, pm: Option<&AcpiPm>) {
        if self.has(Chips::SERIAL) {
            let serial = Serial::new(self.line(line::SERIAL));
            self.far_ends.serial = Some(serial.line());
            self.add(serial, &[(0x3f8, 8)]);
        }
        if self.has(Chips::I8042) {
            let (irq1, irq12) = (self.line(line::KEYBOARD), self.line(line::MOUSE));
            let i8042 = I8042::new(irq1, irq12, self.reset_wire(), Wire::open());
            self.add(i8042, &[(0x60, 1), (0x64, 1)]);
        }
        if self.has(Chips::FW_CFG) {
            let config = FwCfgConfig::pc(self.config.ram_bytes, self.config.cpus.into());
            let fw_cfg = FwCfg::new(config, Arc::clone(&self.ram));
            self.add(fw_cfg, &[(0x510, 2), (0x514, 8)]);
        }
        if self.has(Chips::DEBUGCON) {
            let debugcon = DebugCon::new();
            self.far_ends.debug = Some(debugcon.output());
            self.add(debugcon, &[(0x402, 1)]);
        }
        if self.has(Chips::SYSTEM) {
            let acpi = pm.map(|pm| Wire::new(Arc::new(pm.clone()), 0, 0));
            let wires = SystemWires {
                // Every address line always passes: guests of today begin with A20 open.
                a20: Wire::open(),
                reset: self.reset_wire(),
                acpi: acpi.unwrap_or_else(Wire::open),
            };
            let commands = match self.config.board {
                Board::Pc => AcpiCommands::PIIX4,
                Board::Q35 => AcpiCommands::ICH9,
            };
            let system = System::new(wires, commands);
            self.far_ends.post = Some(system.post_codes());
            self.add(system, &[(0x92, 1), (0xb2, 2), (0x80, 1)]);
        }
    }
}
