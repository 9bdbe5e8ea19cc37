//! Interrupts at will, for tests of interrupt controllers: devices that raise their line when a
//! case asks for it and keep it high until it asks again, and the CPU that takes the vector.

use std::sync::Arc;

use super::{Outcome, TestThread};
use crate::base::Nanos;
use crate::driver::apic::{IoApic, LocalApic};
use crate::driver::pic;
use crate::machine::builtin::Chips;
use crate::machine::{Bus, IrqEvent, IrqSource};

/// The chips whose interrupts [`Source`] raises.
pub const SOURCE_CHIPS: Chips =
    Chips::PIT.union(Chips::RTC).union(Chips::SERIAL).union(Chips::I8042);

/// Time within which the slowest source raises its line.
const RAISE_TIME: Nanos = Nanos(2_000_000);

/// Requests that a CPU could have pending: more than there are vectors.
const PENDING_MAX: usize = 300;

/// A device that raises its interrupt line.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Source {
    /// Interrupt 0: channel 0 of the i8254 reaches its terminal count.
    Timer,
    /// Interrupt 1: the i8042 has a byte, as if of the keyboard.
    Keyboard,
    /// Interrupt 4: the 16550's transmitter is empty.
    Serial,
    /// Interrupt 8: the MC146818's periodic interrupt.
    Clock,
    /// Interrupt 12: the i8042 has a byte, as if of the mouse.
    Mouse,
}

use Source::{Clock, Keyboard, Mouse, Serial, Timer};

/// All of them.
pub const SOURCES: [Source; 5] = [Timer, Keyboard, Serial, Clock, Mouse];

/// i8254: control word and counter 0. Mode 0, whose output is low from the control word until the
/// count is done.
const PIT_CONTROL: u16 = 0x43;
const PIT_COUNTER0: u16 = 0x40;
const PIT_MODE0: u8 = 0x30;
/// i8042: write the command byte; put a byte into the output buffer, as of either device.
const KBD_COMMAND: u16 = 0x64;
const KBD_DATA: u16 = 0x60;
const KBD_WRITE_CTR: u8 = 0x60;
const KBD_LOOP: u8 = 0xd2;
const AUX_LOOP: u8 = 0xd3;
/// Both interrupts on; the mouse's clock is held. Some controllers make no interrupt of a byte while
/// the keyboard's is, and by itself a keyboard sends none.
const CTR_INTERRUPTS: u8 = 0x23;
const CTR_QUIET: u8 = 0x30;
/// 16550: interrupt enable, transmitter empty; OUT2 lets the line through.
const UART_IER: u16 = 0x3f9;
const UART_MCR: u16 = 0x3fc;
const IER_THRI: u8 = 1 << 1;
const MCR_OUT2: u8 = 1 << 3;
/// MC146818: 1024 Hz in register A, the periodic interrupt in register B.
const RTC_INDEX: u16 = 0x70;
const RTC_DATA: u16 = 0x71;
const RTC_A_1024_HZ: u8 = 0x26;
const RTC_B_PIE: u8 = 1 << 6;
const RTC_B_INTERRUPTS: u8 = 0x70;

impl Source {
    /// Its line: the number that the 8259As give it.
    pub fn irq(self) -> u8 {
        match self {
            Timer => 0,
            Keyboard => 1,
            Serial => 4,
            Clock => 8,
            Mouse => 12,
        }
    }

    /// The input of the I/O APIC that its line reaches: the interval timer's is 2.
    pub fn input(self) -> u8 {
        if self == Timer { 2 } else { self.irq() }
    }

    /// Makes its line rise, from low.
    pub fn raise(self, t: &mut TestThread<'_>) -> Outcome {
        self.lower(t)?;
        match self {
            Timer => {
                t.outb(PIT_COUNTER0, 100)?;
                t.outb(PIT_COUNTER0, 0)?;
                t.step(RAISE_TIME)
            }
            Keyboard => loop_back(t, KBD_LOOP),
            Mouse => loop_back(t, AUX_LOOP),
            Serial => {
                t.outb(UART_MCR, MCR_OUT2)?;
                t.outb(UART_IER, IER_THRI)
            }
            Clock => {
                rtc_write(t, 0x0a, RTC_A_1024_HZ)?;
                let b = rtc_read(t, 0x0b)?;
                rtc_write(t, 0x0b, b | RTC_B_PIE)?;
                t.step(RAISE_TIME)
            }
        }
    }

    /// Makes its line fall, and keeps it low.
    pub fn lower(self, t: &mut TestThread<'_>) -> Outcome {
        match self {
            Timer => t.outb(PIT_CONTROL, PIT_MODE0),
            Keyboard | Mouse => t.inb(KBD_DATA).map(|_| ()),
            Serial => t.outb(UART_IER, 0),
            Clock => {
                let b = rtc_read(t, 0x0b)?;
                rtc_write(t, 0x0b, b & !RTC_B_INTERRUPTS)?;
                rtc_read(t, 0x0c).map(|_| ())
            }
        }
    }
}

fn loop_back(t: &mut TestThread<'_>, command: u8) -> Outcome {
    t.outb(KBD_COMMAND, KBD_WRITE_CTR)?;
    t.outb(KBD_DATA, CTR_INTERRUPTS)?;
    t.outb(KBD_COMMAND, command)?;
    t.outb(KBD_DATA, 0x5a)
}

fn rtc_read(t: &mut TestThread<'_>, register: u8) -> Outcome<u8> {
    t.outb(RTC_INDEX, register)?;
    t.inb(RTC_DATA)
}

fn rtc_write(t: &mut TestThread<'_>, register: u8, value: u8) -> Outcome {
    t.outb(RTC_INDEX, register)?;
    t.outb(RTC_DATA, value)
}

/// Lowers every source and turns its interrupt off.
pub fn quiet(t: &mut TestThread<'_>) -> Outcome {
    for source in SOURCES {
        source.lower(t)?;
    }
    t.outb(KBD_COMMAND, KBD_WRITE_CTR)?;
    t.outb(KBD_DATA, CTR_QUIET)
}

/// The machine's bus, for a driver.
pub fn bus<'a>(t: &'a mut TestThread<'_>) -> Outcome<&'a mut dyn Bus> {
    Ok(t.machine().bus()?)
}

/// What firmware leaves behind, whatever a case before did: sources quiet, 8259As initialized with
/// these vectors and masked, I/O APIC masked, local APIC (where there is one) enabled with its pins
/// masked and nothing in service, no request at the CPU.
pub fn initialize(t: &mut TestThread<'_>, setup: pic::Setup) -> Outcome {
    quiet(t)?;
    let bus = bus(t)?;
    pic::initialize(bus, setup);
    pic::set_level_triggered(bus, 0);
    IoApic::default().mask_all(bus);
    let lapic = LocalApic::default();
    if lapic.is_there(bus) {
        // Disabled, it masks its whole vector table.
        lapic.disable(bus, SPURIOUS);
        lapic.stop_timer(bus);
        lapic.enable(bus, SPURIOUS);
    }
    drain(t)
}

/// The spurious vector that [`initialize`] sets.
pub const SPURIOUS: u8 = 0xff;

/// Takes and ends whatever is left at the CPU.
fn drain(t: &mut TestThread<'_>) -> Outcome {
    for _ in 0..PENDING_MAX {
        let taken = t.machine().interrupts()?.acknowledge(0);
        let (lapic, bus) = (LocalApic::default(), bus(t)?);
        if lapic.is_there(bus) {
            lapic.end_of_interrupt(bus);
        }
        if taken.is_none() {
            return Ok(());
        }
    }
    t.failed("INTR with every source quiet", "no request", "one after another")
}

/// A CPU, by its INTR pin and its acknowledge cycle.
pub struct Cpu {
    number: u8,
    intr: Arc<IrqEvent>,
}

impl Cpu {
    /// CPU `number`, from now on.
    pub fn watch(t: &mut TestThread<'_>, number: u8) -> Outcome<Self> {
        Ok(Self { number, intr: t.watch(IrqSource::Intr { cpu: number })? })
    }

    /// The acknowledge cycle.
    pub fn acknowledge(&self, t: &mut TestThread<'_>) -> Outcome<Option<u8>> {
        Ok(t.machine().interrupts()?.acknowledge(self.number))
    }

    /// INTR has risen: its acknowledge gives `vector`.
    pub fn expect(&self, t: &mut TestThread<'_>, what: &str, vector: u8) -> Outcome {
        self.expect_within(t, what, vector, Nanos(0))
    }

    /// INTR rises within `time`: its acknowledge gives `vector`.
    pub fn expect_within(
        &self,
        t: &mut TestThread<'_>,
        what: &str,
        vector: u8,
        time: Nanos,
    ) -> Outcome {
        t.expect_irq(what, &self.intr, time)?;
        let got = self.acknowledge(t)?;
        t.expect(what, got, Some(vector))
    }

    /// INTR has not risen, and there is nothing to acknowledge.
    pub fn expect_none(&self, t: &mut TestThread<'_>, what: &str) -> Outcome {
        let (edges, got) = (self.intr.take(), self.acknowledge(t)?);
        t.expect(what, (edges, got), (0, None))
    }

    /// INTR has risen, and the case does not take the vector yet.
    pub fn expect_request(&self, t: &mut TestThread<'_>, what: &str) -> Outcome {
        t.expect_irq(what, &self.intr, Nanos(0)).map(|_| ())
    }
}
