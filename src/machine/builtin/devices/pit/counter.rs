//! One counter of the 8254, evaluated when somebody looks.
//!
//! Time is a number of CLK pulses. Between two pulses at which something happens a counter only
//! counts down, so [`Counter::advance`] jumps from one such pulse to the next, and over whole
//! periods of the modes that repeat: hours cost as little as microseconds.

use super::bits::*;

/// What a counter does when it ends (8254, "Mode Definitions").
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    /// 0: OUT rises at terminal count.
    InterruptOnTerminalCount,
    /// 1: a trigger starts a low pulse.
    OneShot,
    /// 2: low for one clock in N.
    RateGenerator,
    /// 3: high for half of N clocks, low for the other.
    SquareWave,
    /// 4: low for one clock at terminal count.
    SoftwareStrobe,
    /// 5: as 4, started by a trigger.
    HardwareStrobe,
}

impl Mode {
    fn of(control: u8) -> Self {
        match control >> M_SHIFT & 7 {
            0 => Self::InterruptOnTerminalCount,
            1 => Self::OneShot,
            2 | 6 => Self::RateGenerator,
            3 | 7 => Self::SquareWave,
            4 => Self::SoftwareStrobe,
            _ => Self::HardwareStrobe,
        }
    }

    fn is_periodic(self) -> bool {
        matches!(self, Self::RateGenerator | Self::SquareWave)
    }

    /// Modes that a rising GATE starts, and nothing else.
    fn is_triggered(self) -> bool {
        matches!(self, Self::OneShot | Self::HardwareStrobe)
    }
}

/// A counter: its registers, its pins, and where it is in its sequence.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Counter {
    /// RW, M and BCD as programmed.
    control: u8,
    mode: Mode,
    gate: bool,
    out: bool,
    /// The count register CR, as written; `None` until a whole count followed the control word.
    cr: Option<u16>,
    /// First byte of a count of two.
    cr_low: Option<u8>,
    /// The next read of two gives the most significant byte.
    read_msb: bool,
    output_latch: Option<u16>,
    status_latch: Option<u8>,
    /// CR has not reached CE yet: the null count bit.
    null_count: bool,
    /// The next CLK loads CE from CR.
    load: bool,
    /// CE was loaded since the control word: there is something to count.
    loaded: bool,
    /// Terminal count was reached; only the count goes on, around and around.
    expired: bool,
    /// The counting element, 1 to the modulus until terminal count, below it after.
    ce: u32,
    /// The count that the present period began with (modes 2 and 3).
    period: u32,
}

impl Counter {
    /// A counter as after a control word for mode 0, waiting for a count: the data sheet leaves
    /// the state after power-on undefined, and OUT is low then, so that nothing is requested.
    pub fn new(gate: bool) -> Self {
        let control = RW_BOTH << RW_SHIFT;
        Self {
            control,
            mode: Mode::of(control),
            gate,
            out: false,
            cr: None,
            cr_low: None,
            read_msb: false,
            output_latch: None,
            status_latch: None,
            null_count: true,
            load: false,
            loaded: false,
            expired: false,
            ce: 0,
            period: 0,
        }
    }

    /// The OUT pin.
    pub fn out(&self) -> bool {
        self.out
    }

    /// A control word for this counter: all control logic is reset and OUT goes to its initial
    /// level at once; the counting element stands until a count comes.
    pub fn program(&mut self, control: u8) {
        let mode = Mode::of(control);
        let (gate, ce) = (self.gate, self.ce % self.modulus());
        let out = mode != Mode::InterruptOnTerminalCount;
        let control = control & STATUS_PROGRAMMED;
        *self = Self { control, mode, out, ce, ..Self::new(gate) };
        // A binary count may be beyond what four decades hold.
        self.ce %= self.modulus();
    }

    /// A byte of a count.
    pub fn write(&mut self, byte: u8) {
        let count = match (self.access(), self.cr_low.take()) {
            (RW_LSB, _) => u16::from(byte),
            (RW_MSB, _) => u16::from(byte) << 8,
            (_, Some(low)) => u16::from_le_bytes([low, byte]),
            (_, None) => {
                self.cr_low = Some(byte);
                if self.mode == Mode::InterruptOnTerminalCount {
                    // Mode 0, (1): writing the first byte disables counting and OUT goes low.
                    self.out = false;
                }
                return;
            }
        };
        self.new_count(count);
    }

    fn new_count(&mut self, count: u16) {
        self.cr = Some(count);
        self.null_count = true;
        match self.mode {
            Mode::InterruptOnTerminalCount => (self.load, self.out) = (true, false),
            Mode::SoftwareStrobe => self.load = true,
            // A period under way ends with the old count.
            Mode::RateGenerator | Mode::SquareWave => self.load |= !self.loaded,
            Mode::OneShot | Mode::HardwareStrobe => {}
        }
    }

    /// The next byte that this counter gives: a latched status, a latched count, or the count as
    /// it stands.
    pub fn read(&mut self) -> u8 {
        if let Some(status) = self.status_latch.take() {
            return status;
        }
        let [low, high] = self.output_latch.unwrap_or_else(|| self.count()).to_le_bytes();
        let (byte, last) = match self.access() {
            RW_LSB => (low, true),
            RW_MSB => (high, true),
            _ => {
                self.read_msb = !self.read_msb;
                if self.read_msb { (low, false) } else { (high, true) }
            }
        };
        if last {
            self.output_latch = None;
        }
        byte
    }

    /// Holds the count until it is read; a second latch command before that is ignored.
    pub fn latch_count(&mut self) {
        self.output_latch = self.output_latch.or_else(|| Some(self.count()));
    }

    /// Holds the status until it is read.
    pub fn latch_status(&mut self) {
        let output = if self.out { STATUS_OUTPUT } else { 0 };
        let null = if self.null_count { STATUS_NULL_COUNT } else { 0 };
        self.status_latch = self.status_latch.or(Some(output | null | self.control));
    }

    /// The GATE pin ("Gate Pin Operations Summary").
    pub fn set_gate(&mut self, high: bool) {
        let rises = high && !self.gate;
        self.gate = high;
        if self.mode.is_periodic() && !high {
            // Counting stops; an output pulse under way ends.
            self.out = true;
        }
        if rises && self.cr.is_some() && (self.mode.is_periodic() || self.mode.is_triggered()) {
            self.load = true;
        }
    }

    /// Lets `clks` CLK pulses pass.
    pub fn advance(&mut self, mut clks: u64) {
        while clks > 0 {
            if !self.load {
                if !self.counting() {
                    return;
                }
                if self.mode.is_periodic() && !self.null_count {
                    clks %= u64::from(self.period.max(1));
                }
                let quiet = self.quiet().min(clks);
                self.count_down(quiet);
                clks -= quiet;
                if clks == 0 {
                    return;
                }
            }
            self.clk();
            clks -= 1;
        }
    }

    /// CLK pulses until OUT changes; `None` when it does not without a write or a change of GATE.
    pub fn until_edge(&self) -> Option<u64> {
        let (mut probe, mut clks) = (self.clone(), 0);
        // A load, then at most the end of a period: after that OUT has changed or never will.
        for _ in 0..4 {
            if !probe.load {
                let quiet = probe.quiet();
                if !probe.counting() || quiet == u64::MAX {
                    return None;
                }
                probe.count_down(quiet);
                clks += quiet;
            }
            probe.clk();
            clks += 1;
            if probe.out != self.out {
                return Some(clks);
            }
        }
        None
    }

    fn access(&self) -> u8 {
        self.control >> RW_SHIFT & 3
    }

    fn is_bcd(&self) -> bool {
        self.control & BCD != 0
    }

    fn modulus(&self) -> u32 {
        if self.is_bcd() { MODULUS_BCD } else { MODULUS_BINARY }
    }

    /// CE as the data bus shows it.
    fn count(&self) -> u16 {
        let count = self.ce % self.modulus();
        let digits = [1000, 100, 10, 1].iter().fold(0, |bcd, unit| bcd << 4 | (count / unit % 10));
        (if self.is_bcd() { digits } else { count }) as u16
    }

    /// CR as a number of clocks. Digits above 9 count for what they are worth, and a count below
    /// the minimum of modes 2 and 3, which the data sheet forbids, for that minimum.
    fn initial_count(&self) -> u32 {
        let cr = u32::from(self.cr.unwrap_or(0));
        let digit = |shift: u32| cr >> shift & 15;
        let value = match self.is_bcd() {
            true => (digit(12) * 1000 + digit(8) * 100 + digit(4) * 10 + digit(0)) % MODULUS_BCD,
            false => cr,
        };
        match value {
            0 => self.modulus(),
            n if self.mode.is_periodic() => n.max(PERIODIC_COUNT_MIN),
            n => n,
        }
    }

    fn counting(&self) -> bool {
        let half_written = self.mode == Mode::InterruptOnTerminalCount && self.cr_low.is_some();
        self.loaded && !half_written && (self.gate || self.mode.is_triggered())
    }

    /// Pulses that do nothing but count down, before one at which OUT or CE is set.
    fn quiet(&self) -> u64 {
        let quiet = match self.mode {
            // After the one clock of a strobe nothing happens any more.
            Mode::SoftwareStrobe | Mode::HardwareStrobe if self.expired && !self.out => 0,
            _ if self.expired => return u64::MAX,
            Mode::RateGenerator if self.out => self.ce.saturating_sub(2),
            Mode::RateGenerator => 0,
            // An odd count keeps OUT high for one clock more than low.
            Mode::SquareWave if self.out && self.period & 1 != 0 => self.ce / 2,
            Mode::SquareWave => (self.ce / 2).saturating_sub(1),
            _ => self.ce.saturating_sub(1),
        };
        u64::from(quiet)
    }

    fn count_down(&mut self, clks: u64) {
        if self.mode == Mode::SquareWave {
            self.ce = self.ce.saturating_sub((2 * clks) as u32);
            return;
        }
        let modulus = u64::from(self.modulus());
        self.ce = match u64::from(self.ce).checked_sub(clks) {
            Some(ce) => ce as u32,
            None => ((u64::from(self.ce) + modulus - clks % modulus) % modulus) as u32,
        };
    }

    /// One CLK pulse at which something may happen besides counting.
    fn clk(&mut self) {
        if self.load {
            return self.load_at_trigger();
        }
        match self.mode {
            Mode::RateGenerator if !self.out => self.reload(true),
            Mode::SquareWave => self.reload(!self.out),
            _ => {
                self.count_down(1);
                self.terminal_count();
            }
        }
    }

    /// What decrementing CE to its end does to OUT.
    fn terminal_count(&mut self) {
        let ends = !self.expired && self.ce == 0;
        match self.mode {
            Mode::RateGenerator => self.out = self.ce != 1,
            Mode::InterruptOnTerminalCount | Mode::OneShot => self.out |= ends,
            _ => self.out = !ends,
        }
        self.expired |= ends;
    }

    /// The CLK after a count (modes 0, 2, 3, 4) or a trigger (1, 2, 3, 5).
    fn load_at_trigger(&mut self) {
        (self.load, self.loaded, self.expired) = (false, true, false);
        self.reload(!matches!(self.mode, Mode::InterruptOnTerminalCount | Mode::OneShot));
    }

    fn reload(&mut self, out: bool) {
        self.out = out;
        self.null_count = false;
        self.period = self.initial_count();
        self.ce = match self.mode {
            Mode::SquareWave => self.period & !1,
            _ => self.period,
        };
    }
}
