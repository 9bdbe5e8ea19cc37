//! Event, control, timer and general-purpose event registers, as a function of time.

use super::bits::*;
use crate::base::Nanos;

/// The fixed registers and one GPE block.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PmChip {
    /// PM1 status but for TMR_STS, which follows from time.
    sts: u16,
    en: u16,
    cnt: u16,
    /// Ticks of [`CLK`] seen, and those at which the timer was 0.
    tick: u64,
    origin: u64,
    /// Tick of the next change of the timer's most significant bit; at or before `tick` TMR_STS is
    /// set.
    overflow: u64,
    /// Sleep type of the last write with SLP_EN.
    sleep: Option<u8>,
    gpe: Gpe,
}

/// A general-purpose event block: its first half is status, its second enables (ACPI §4.7.4.1).
#[derive(Clone, Debug, PartialEq, Eq)]
struct Gpe {
    sts: u64,
    en: u64,
    half: u64,
}

impl Gpe {
    fn new(bytes: usize) -> Self {
        Self { sts: 0, en: 0, half: (bytes as u64 / 2).clamp(1, 8) }
    }

    fn read(&self, offset: u64) -> u8 {
        let (register, byte) = match offset.checked_sub(self.half) {
            None => (self.sts, offset),
            Some(byte) => (self.en, byte),
        };
        if byte < self.half { (register >> (8 * byte)) as u8 } else { u8::MAX }
    }

    fn write(&mut self, offset: u64, value: u8) {
        match offset.checked_sub(self.half) {
            None => self.sts &= !(u64::from(value) << (8 * offset)),
            Some(byte) if byte < self.half => {
                self.en = self.en & !(0xff << (8 * byte)) | u64::from(value) << (8 * byte);
            }
            Some(_) => {}
        }
    }
}

impl PmChip {
    /// Registers after reset; the GPE block has `gpe_bytes`.
    pub fn new(gpe_bytes: usize) -> Self {
        let gpe = Gpe::new(gpe_bytes);
        let (tick, origin, overflow) = (0, 0, TMR_MSB_TICKS);
        Self { sts: 0, en: 0, cnt: 0, tick, origin, overflow, sleep: None, gpe }
    }

    /// The state after a reset at `now`. The timer begins at 0.
    pub fn reset(&mut self, now: Nanos) {
        let tick = CLK.ticks(now);
        let overflow = tick.saturating_add(TMR_MSB_TICKS);
        let fresh = Self::new(2 * self.gpe.half as usize);
        *self = Self { tick, origin: tick, overflow, ..fresh };
    }

    /// Brings the timer to `now`.
    pub fn run(&mut self, now: Nanos) {
        self.tick = self.tick.max(CLK.ticks(now));
    }

    fn timer(&self) -> u64 {
        self.tick - self.origin
    }

    fn status(&self) -> u16 {
        self.sts | if self.overflow <= self.tick { TMR_STS } else { 0 }
    }

    /// The SCI line: an enabled event, in ACPI mode (§4.7.2.5).
    pub fn sci(&self) -> bool {
        let pm1 = self.status() & self.en & PM1_EVENTS != 0;
        self.cnt & SCI_EN != 0 && (pm1 || self.gpe.sts & self.gpe.en != 0)
    }

    /// When the timer next raises SCI.
    pub fn deadline(&self) -> Option<Nanos> {
        let watched = self.en & TMR_STS != 0 && self.cnt & SCI_EN != 0;
        let pending = self.overflow <= self.tick;
        let time = CLK.time_of(self.overflow);
        (watched && !pending && time < Nanos(u64::MAX)).then_some(time)
    }

    /// Enters or leaves ACPI mode, as firmware does on a write of the SMI command port.
    pub fn set_acpi_enabled(&mut self, enabled: bool) {
        self.cnt = if enabled { self.cnt | SCI_EN } else { self.cnt & !SCI_EN };
    }

    /// Sets PM1 status bits: a button, an alarm, a wake.
    pub fn raise(&mut self, events: u16) {
        self.sts |= events & !TMR_STS;
    }

    /// Sets bit `event` of the GPE status.
    pub fn raise_gpe(&mut self, event: u32) {
        if u64::from(event) < 8 * self.gpe.half {
            self.gpe.sts |= 1 << event;
        }
    }

    /// SLP_TYP of the last write that had SLP_EN set.
    pub fn sleep(&self) -> Option<u8> {
        self.sleep
    }

    /// Reads a byte of the block, as of the last [`PmChip::run`]. What is not modelled answers as
    /// nothing does.
    pub fn read(&self, offset: u64) -> u8 {
        let (register, base) = match offset {
            PM1_STS..PM1_EN => (u64::from(self.status()), PM1_STS),
            PM1_EN..PM1_CNT => (u64::from(self.en), PM1_EN),
            // The 16 bits after PM1 control are reserved.
            PM1_CNT..PM_TMR => (u64::from(self.cnt), PM1_CNT),
            PM_TMR..PM_END => (self.timer() & TMR_VAL, PM_TMR),
            _ => return u8::MAX,
        };
        (register >> (8 * (offset - base))) as u8
    }

    /// Writes a byte of the block.
    pub fn write(&mut self, offset: u64, value: u8) {
        let lane = 8 * (offset & 1) as u32;
        let (bits, mask) = (u16::from(value) << lane, 0xff << lane);
        match offset {
            PM1_STS..PM1_EN => self.clear(bits),
            PM1_EN..PM1_CNT => self.en = (self.en & !mask | bits) & PM1_EN_WRITABLE,
            PM1_CNT..=0x05 => {
                self.cnt = (self.cnt & !mask | bits) & PM1_CNT_WRITABLE;
                if bits & SLP_EN != 0 {
                    self.sleep = Some(((bits & SLP_TYP) >> SLP_TYP_SHIFT) as u8);
                }
            }
            _ => {}
        }
    }

    /// Clears status bits; TMR_STS comes back with the next change of the timer's top bit.
    fn clear(&mut self, bits: u16) {
        self.sts &= !bits;
        if bits & TMR_STS != 0 && self.overflow <= self.tick {
            let changes = self.timer() / TMR_MSB_TICKS + 1;
            self.overflow = self.origin.saturating_add(changes.saturating_mul(TMR_MSB_TICKS));
        }
    }

    /// Reads a byte of the GPE block.
    pub fn read_gpe(&self, offset: u64) -> u8 {
        self.gpe.read(offset)
    }

    /// Writes a byte of the GPE block.
    pub fn write_gpe(&mut self, offset: u64, value: u8) {
        self.gpe.write(offset, value);
    }
}
