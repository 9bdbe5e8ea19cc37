//! The register file of the MC146818: what reads, writes and time do to it.

use super::alarm::Alarm;
use super::bits::*;
use super::calendar::{Format, TimeBytes};
use super::divider::{Divider, TimeBase};
use crate::base::Nanos;

/// Which chip it is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum RtcModel {
    /// As the data sheet has it.
    #[default]
    Mc146818,
    /// As QEMU's PCs have it, for traces recorded there. Two things differ: an update takes no
    /// time (UIP falls the moment the update begins), and PF is set only while PIE is.
    QemuPc,
}

/// The chip. Its IRQ pin is [`Mc146818::irq`].
#[derive(Clone, Debug, PartialEq)]
pub struct Mc146818 {
    model: RtcModel,
    index: u8,
    time: TimeBytes,
    /// RAM and alarm bytes; those of time and registers are not used.
    ram: [u8; BYTES],
    register_a: u8,
    control: RegisterB,
    /// PF, AF and UF.
    flags: RegisterC,
    /// `None` while the divider is held in reset.
    divider: Option<Divider>,
    /// The moment that the fields are of.
    synced: Nanos,
}

impl Mc146818 {
    /// A chip whose time is `unix_s` seconds since 1970 at time 0 of the machine, as a PC's
    /// firmware left it: BCD, 24 hours, 1024 Hz, interrupts off. Of `ram` only the bytes that are
    /// RAM count.
    pub fn new(model: RtcModel, unix_s: i64, ram: [u8; BYTES]) -> Self {
        let control = RegisterB::HOURS_24;
        let mut chip = Self {
            model,
            index: 0,
            time: TimeBytes::from_unix(unix_s, Format::of(control)),
            ram,
            register_a: REGISTER_A_PC,
            control,
            flags: RegisterC::empty(),
            divider: None,
            synced: Nanos(0),
        };
        chip.divider = Some(Divider::at_power_on(chip.update_cycle()));
        chip
    }

    /// Selects the byte that [`Mc146818::read`] and [`Mc146818::write`] reach.
    pub fn select(&mut self, index: u8) {
        self.index = index % BYTES as u8;
    }

    /// The level of the IRQ pin: an enabled flag is set (interrupts; register C, IRQF).
    pub fn irq(&self) -> bool {
        self.control.bits() & self.flags.bits() != 0
    }

    /// Reads the selected byte.
    pub fn read(&mut self, now: Nanos) -> u8 {
        self.sync(now);
        match self.index {
            REGISTER_A => self.register_a | if self.update_in_progress(now) { UIP } else { 0 },
            REGISTER_B => self.control.bits(),
            REGISTER_C => self.take_flags(),
            REGISTER_D => VRT,
            index => match self.time.byte(index) {
                Some(byte) => *byte,
                None => self.ram.get(usize::from(index)).copied().unwrap_or(0),
            },
        }
    }

    /// Writes the selected byte.
    pub fn write(&mut self, value: u8, now: Nanos) {
        self.sync(now);
        match self.index {
            REGISTER_A => self.write_a(value, now),
            REGISTER_B => self.write_b(RegisterB::from_bits_retain(value)),
            REGISTER_C | REGISTER_D => {}
            index => match self.time.byte(index) {
                Some(byte) => *byte = value,
                None => {
                    if let Some(byte) = self.ram.get_mut(usize::from(index)) {
                        *byte = value;
                    }
                }
            },
        }
    }

    /// Lets the chip see that it is `now`.
    pub fn run(&mut self, now: Nanos) {
        self.sync(now);
    }

    /// When the IRQ pin next rises by itself. While it is high, and while no interrupt is enabled,
    /// nothing can be seen to happen.
    pub fn deadline(&self) -> Option<Nanos> {
        let divider = self.divider.as_ref().filter(|_| !self.irq())?;
        let update = |ahead| divider.update_end(ahead, self.update_cycle());
        let updates = !self.control.contains(RegisterB::SET);
        let periodic = self
            .enabled_period()
            .filter(|_| self.control.contains(RegisterB::PIE))
            .map(|period| divider.next_edge(period, self.synced));
        let alarm = (updates && self.control.contains(RegisterB::AIE))
            .then(|| self.alarm().next(self.time.second_of_day(self.format())))
            .flatten()
            .map(update);
        let ended = (updates && self.control.contains(RegisterB::UIE)).then(|| update(1));
        [periodic, alarm, ended].into_iter().flatten().min()
    }

    /// The RESET pin (signal descriptions): interrupts off and flags clear; time, RAM and the
    /// divider go on.
    pub fn reset(&mut self, now: Nanos) {
        self.sync(now);
        let cleared = RegisterB::PIE | RegisterB::AIE | RegisterB::UIE | RegisterB::SQWE;
        self.control.remove(cleared);
        self.flags = RegisterC::empty();
    }

    /// Brings every field to `now`.
    fn sync(&mut self, now: Nanos) {
        let (from, cycle) = (self.synced, self.update_cycle());
        self.synced = from.max(now);
        let (period, alarm, format) = (self.enabled_period(), self.alarm(), self.format());
        let Some(divider) = &mut self.divider else { return };
        if period.is_some_and(|period| divider.edge_between(period, from, self.synced)) {
            self.flags.insert(RegisterC::PF);
        }
        let updates = divider.take_updates(self.synced, cycle);
        if updates == 0 || self.control.contains(RegisterB::SET) {
            return;
        }
        let to_alarm = alarm.next(self.time.second_of_day(format));
        if to_alarm.is_some_and(|seconds| u64::from(seconds) <= updates) {
            self.flags.insert(RegisterC::AF);
        }
        self.flags.insert(RegisterC::UF);
        self.time.advance(updates, format);
    }

    /// Register C is cleared by reading it.
    fn take_flags(&mut self) -> u8 {
        let irqf = if self.irq() { RegisterC::IRQF } else { RegisterC::empty() };
        let flags = std::mem::replace(&mut self.flags, RegisterC::empty());
        (flags | irqf).bits()
    }

    fn write_a(&mut self, value: u8, now: Nanos) {
        self.register_a = value & !UIP;
        match TimeBase::of(value) {
            TimeBase::Stopped => self.divider = None,
            _ if self.divider.is_none() => self.divider = Some(Divider::released(now)),
            _ => {}
        }
    }

    /// Register B. The program must set the time anew when it changes DM or 24/12; until it does,
    /// a running clock goes on with the time it had.
    fn write_b(&mut self, mut value: RegisterB) {
        let running = self.divider.is_some() && !self.control.contains(RegisterB::SET);
        if value.contains(RegisterB::SET) {
            value.remove(RegisterB::UIE);
        } else if running && Format::of(value) != self.format() {
            self.time.rewrite(self.format(), Format::of(value));
        }
        self.control = value;
    }

    fn format(&self) -> Format {
        Format::of(self.control)
    }

    fn alarm(&self) -> Alarm {
        let [_, second, _, minute, _, hour, ..] = self.ram;
        Alarm::new(second, minute, hour, self.format())
    }

    fn update_cycle(&self) -> Nanos {
        match self.model {
            RtcModel::Mc146818 => TimeBase::of(self.register_a).update_cycle(),
            RtcModel::QemuPc => Nanos(0),
        }
    }

    /// Ticks between the edges that set PF.
    fn enabled_period(&self) -> Option<u64> {
        let enabled = self.model == RtcModel::Mc146818 || self.control.contains(RegisterB::PIE);
        TimeBase::of(self.register_a).period(self.register_a).filter(|_| enabled)
    }

    fn update_in_progress(&self, now: Nanos) -> bool {
        let inhibited = self.control.contains(RegisterB::SET);
        let cycle = self.update_cycle();
        self.divider.as_ref().is_some_and(|d| !inhibited && d.update_in_progress(now, cycle))
    }
}
