//! The UART.
//!
//! `vm-superio` has a serial port, and it is not this one: it ignores FIFO control and always
//! reports FIFOs, identifies two interrupts at once and forgets both when identification is read,
//! has neither overrun nor character timeout nor modem interrupts, holds 64 characters where a
//! 16550 holds 16 (or one), and pulses its interrupt where a 16550 has a level. Firmware and Linux
//! read most of these (Linux sizes the UART by them), so the chip is written here. What the two have
//! in common is compared in a test.
//!
//! The line is infinitely fast: a character leaves the moment it is written. Only the character
//! timeout takes the time that the divisor gives it. Modem control powers on with OUT2 set, as on
//! QEMU, where the data sheet has 0.

use std::collections::VecDeque;

use super::bits::*;
use crate::base::{Frequency, Nanos};

/// Half periods of the crystal: stop bits may be one and a half.
const HALF_CLOCK: Frequency = Frequency::new(2 * CRYSTAL_HZ);

/// A 16550A.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Uart {
    divisor: u16,
    ier: u8,
    lcr: u8,
    mcr: u8,
    scr: u8,
    fifo: bool,
    trigger: usize,
    received: VecDeque<u8>,
    /// What an empty receiver buffer shows.
    last: u8,
    overrun: bool,
    /// The holding register became empty and nobody was told.
    thr_empty: bool,
    /// The character on its way out.
    sending: Option<u8>,
    /// The modem's lines, as MSR bits 7:4.
    modem: u8,
    delta: u8,
    /// When a character last came or went.
    activity: Nanos,
    timed_out: bool,
}

impl Default for Uart {
    fn default() -> Self {
        Self {
            divisor: DIVISOR_DEFAULT,
            ier: 0,
            lcr: 0,
            mcr: MCR_OUT2,
            scr: 0,
            fifo: false,
            trigger: FCR_TRIGGERS[0],
            received: VecDeque::new(),
            last: 0,
            overrun: false,
            thr_empty: false,
            sending: None,
            modem: MSR_DCD | MSR_DSR | MSR_CTS,
            delta: 0,
            activity: Nanos(0),
            timed_out: false,
        }
    }
}

impl Uart {
    /// The level of the interrupt output, as of the last access or [`Uart::advance`].
    pub fn interrupt(&self) -> bool {
        self.pending() != IIR_NONE
    }

    /// The pending enabled interrupt of the highest priority (§8.6).
    fn pending(&self) -> u8 {
        let enabled = |bit| self.ier & bit != 0;
        if enabled(IER_RLSI) && self.overrun {
            IIR_RLSI
        } else if enabled(IER_RDI) && self.triggered() {
            IIR_RDI
        } else if enabled(IER_RDI) && self.timed_out {
            IIR_CTI
        } else if enabled(IER_THRI) && self.thr_empty {
            IIR_THRI
        } else if enabled(IER_MSI) && self.delta != 0 {
            IIR_MSI
        } else {
            IIR_NONE
        }
    }

    fn triggered(&self) -> bool {
        let level = if self.fifo { self.trigger } else { 1 };
        self.received.len() >= level
    }

    fn depth(&self) -> usize {
        if self.fifo { FIFO_CHARS } else { 1 }
    }

    /// Characters that the receiver takes from outside without loss: none in loopback.
    pub fn room(&self) -> usize {
        if self.mcr & MCR_LOOP != 0 {
            0
        } else {
            self.depth() - self.received.len().min(self.depth())
        }
    }

    /// The moment of the character timeout, when one is under way and would be noticed.
    pub fn deadline(&self) -> Option<Nanos> {
        let armed = self.ier & IER_RDI != 0 && !self.timed_out && !self.triggered();
        if armed { self.timeout_at() } else { None }
    }

    /// When characters will have waited in the FIFO for four character times (§8.11).
    fn timeout_at(&self) -> Option<Nanos> {
        if !self.fifo || self.received.is_empty() {
            return None;
        }
        let start = HALF_CLOCK.ticks(self.activity);
        Some(HALF_CLOCK.time_of(start.saturating_add(TIMEOUT_CHARS * self.half_clocks_per_char())))
    }

    /// A character with start, parity and stop bits (§8.1), in half periods of the crystal.
    fn half_clocks_per_char(&self) -> u64 {
        let data = u64::from(self.lcr & LCR_WORD) + 5;
        let parity = u64::from(self.lcr & LCR_PARITY != 0);
        let stop_halves = match (self.lcr & LCR_STOP != 0, data) {
            (false, _) => 2,
            (true, 5) => 3,
            (true, _) => 4,
        };
        let half_bits = 2 * (1 + data + parity) + stop_halves;
        half_bits * CLOCKS_PER_BIT * u64::from(self.divisor.max(1))
    }

    /// Lets time pass up to `now`.
    pub fn advance(&mut self, now: Nanos) {
        self.timed_out |= self.timeout_at().is_some_and(|at| at <= now);
    }

    fn dlab(&self) -> bool {
        self.lcr & LCR_DLAB != 0
    }

    /// Reads a register.
    pub fn read(&mut self, register: u64, now: Nanos) -> u8 {
        self.advance(now);
        match register {
            RBR_THR_DLL if self.dlab() => self.divisor as u8,
            IER_DLM if self.dlab() => (self.divisor >> 8) as u8,
            RBR_THR_DLL => self.read_receiver(now),
            IER_DLM => self.ier,
            IIR_FCR => self.read_identification(),
            LCR => self.lcr,
            MCR => self.mcr,
            LSR => self.read_line_status(),
            MSR => self.modem_lines() | std::mem::take(&mut self.delta),
            _ => self.scr,
        }
    }

    fn read_receiver(&mut self, now: Nanos) -> u8 {
        (self.activity, self.timed_out) = (now, false);
        match self.received.pop_front() {
            Some(byte) => self.last = byte,
            None if self.fifo => return 0,
            None => {}
        }
        self.last
    }

    /// Identification, which takes back the holding register's interrupt when it says it.
    fn read_identification(&mut self) -> u8 {
        let pending = self.pending();
        if pending == IIR_THRI {
            self.thr_empty = false;
        }
        if self.fifo { pending | IIR_FIFO } else { pending }
    }

    fn read_line_status(&mut self) -> u8 {
        let ready = if self.received.is_empty() { 0 } else { LSR_DR };
        let overrun = if std::mem::take(&mut self.overrun) { LSR_OE } else { 0 };
        LSR_THRE | LSR_TEMT | ready | overrun
    }

    /// MSR bits 7:4: the modem's lines, or in loopback the modem control bits (§8.8).
    fn modem_lines(&self) -> u8 {
        if self.mcr & MCR_LOOP == 0 {
            return self.modem;
        }
        let wires =
            [(MCR_RTS, MSR_CTS), (MCR_DTR, MSR_DSR), (MCR_OUT1, MSR_RI), (MCR_OUT2, MSR_DCD)];
        wires.iter().filter(|(from, _)| self.mcr & from != 0).fold(0, |lines, (_, to)| lines | to)
    }

    /// Writes a register. A character for the line is then fetched by [`Uart::transmit`]; until
    /// that, the holding register is full and its interrupt gone.
    pub fn write(&mut self, register: u64, value: u8, now: Nanos) {
        self.advance(now);
        match register {
            RBR_THR_DLL if self.dlab() => self.divisor = self.divisor & 0xff00 | u16::from(value),
            IER_DLM if self.dlab() => {
                self.divisor = self.divisor & 0x00ff | u16::from(value) << 8;
            }
            RBR_THR_DLL => {
                self.thr_empty = false;
                self.sending = Some(value);
            }
            IER_DLM => self.write_interrupt_enable(value & IER_BITS),
            IIR_FCR => self.write_fifo_control(value, now),
            LCR => self.lcr = value,
            MCR => self.write_modem_control(value & MCR_BITS),
            // "Writing to the LSR is for factory testing" (§8.4); the modem's status is its own.
            LSR | MSR => {}
            _ => self.scr = value,
        }
    }

    /// Enabling the holding register's interrupt while the register is empty asserts it (§8.11).
    fn write_interrupt_enable(&mut self, value: u8) {
        if (self.ier ^ value) & IER_THRI != 0 {
            self.thr_empty = value & IER_THRI != 0;
        }
        self.ier = value;
    }

    /// Switching the FIFOs on or off empties them (§8.5). The transmitter's is always empty here.
    fn write_fifo_control(&mut self, value: u8, now: Nanos) {
        let enable = value & FCR_ENABLE != 0;
        if enable != self.fifo || enable && value & FCR_CLEAR_RCVR != 0 {
            self.received.clear();
            (self.activity, self.timed_out) = (now, false);
        }
        self.fifo = enable;
        if enable {
            let level = FCR_TRIGGERS.get(usize::from(value >> 6)).copied();
            self.trigger = level.unwrap_or(1);
        }
    }

    /// In loopback a change of the outputs is one of the inputs. Going into loopback and out of it
    /// swaps the inputs without an edge: Linux, which probes that way, reads no delta on QEMU.
    fn write_modem_control(&mut self, value: u8) {
        let before = self.modem_lines();
        let stays = self.mcr & value & MCR_LOOP != 0;
        self.mcr = value;
        if stays {
            let changed = before ^ self.modem_lines();
            let fell = before & changed & MSR_RI;
            let ring = if fell != 0 { MSR_TERI } else { 0 };
            self.delta |= (changed & !MSR_RI) >> 4 & MSR_DELTA | ring;
        }
    }

    /// Sends the written character: to the line, or in loopback to the own receiver (`None`). The
    /// holding register is empty again.
    pub fn transmit(&mut self, now: Nanos) -> Option<u8> {
        let byte = self.sending.take()?;
        self.thr_empty = true;
        if self.mcr & MCR_LOOP == 0 {
            return Some(byte);
        }
        self.receive(byte, now);
        None
    }

    /// A character arrives, cut to the word length. A full FIFO keeps what it has; without FIFOs
    /// the new character takes the old one's place (§8.4).
    pub fn receive(&mut self, byte: u8, now: Nanos) {
        self.advance(now);
        let byte = byte & 0xff >> (3 - (self.lcr & LCR_WORD));
        if self.received.len() >= self.depth() {
            self.overrun = true;
            if !self.fifo {
                self.received.clear();
            }
        }
        if self.received.len() < self.depth() {
            self.received.push_back(byte);
        }
        (self.activity, self.timed_out) = (now, false);
    }
}
