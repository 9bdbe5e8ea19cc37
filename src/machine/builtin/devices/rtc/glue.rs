//! The RTC on a PC: ports 70h and 71h, interrupt 8.

use super::bits::PORT_NMI_MASK;
use super::chip::{Mc146818, RtcModel};
use super::cmos::CmosConfig;
use crate::base::Nanos;
use crate::machine::builtin::device::{Device, Wire};

/// What a machine's RTC starts with.
#[derive(Clone, Debug, Default)]
pub struct RtcConfig {
    /// The time, in seconds since 1970, when the machine's clock reads 0.
    pub base_unix_s: i64,
    /// What firmware finds in the RAM.
    pub cmos: CmosConfig,
    /// Which chip it is.
    pub model: RtcModel,
}

/// The RTC: window 0 is ports 70h (index) and 71h (data).
#[derive(Debug)]
pub struct Rtc {
    chip: Mc146818,
    irq8: Wire,
    nmi_masked: bool,
}

impl Rtc {
    /// An RTC that pulls `irq8`.
    pub fn new(config: RtcConfig, irq8: Wire) -> Self {
        let chip = Mc146818::new(config.model, config.base_unix_s, config.cmos.bytes());
        Self { chip, irq8, nmi_masked: false }
    }

    /// Whether the program keeps NMI from the CPU: bit 7 of what it wrote last to port 70h.
    pub fn nmi_masked(&self) -> bool {
        self.nmi_masked
    }

    fn read_port(&mut self, offset: u64, now: Nanos) -> u8 {
        match offset {
            1 => self.chip.read(now),
            // The index port cannot be read on a PC.
            _ => 0xff,
        }
    }

    fn write_port(&mut self, offset: u64, value: u8, now: Nanos) {
        match offset {
            0 => {
                self.nmi_masked = value & PORT_NMI_MASK != 0;
                self.chip.select(value & !PORT_NMI_MASK);
            }
            1 => self.chip.write(value, now),
            _ => {}
        }
    }
}

impl Device for Rtc {
    fn name(&self) -> &'static str {
        "rtc"
    }

    /// The chip has a bus of eight bits: a wider access is one of each byte, from the lowest.
    fn read(&mut self, _window: usize, offset: u64, size: u8, now: Nanos) -> u64 {
        let mut bytes = [0; 8];
        for (byte, at) in bytes.iter_mut().take(size.into()).zip(offset..) {
            *byte = self.read_port(at, now);
        }
        self.irq8.set(self.chip.irq());
        u64::from_le_bytes(bytes)
    }

    fn write(&mut self, _window: usize, offset: u64, size: u8, value: u64, now: Nanos) {
        for (byte, at) in value.to_le_bytes().into_iter().take(size.into()).zip(offset..) {
            self.write_port(at, byte, now);
        }
        self.irq8.set(self.chip.irq());
    }

    fn deadline(&self) -> Option<Nanos> {
        self.chip.deadline()
    }

    fn run(&mut self, now: Nanos) {
        self.chip.run(now);
        self.irq8.set(self.chip.irq());
    }

    fn reset(&mut self, now: Nanos) {
        self.chip.reset(now);
        self.irq8.set(self.chip.irq());
    }
}
