//! Who takes what the I/O APIC delivers: the local APIC of the CPU, or nobody on a machine whose
//! CPU has none. There the messages are seen on the bus (Intel SDM volume 3, §11.11), and levels
//! are ended by the EOI register of version 20h.

use super::super::sources::{Cpu, bus};
use super::super::{Outcome, TestThread};
use crate::driver::apic::local::register;
use crate::driver::apic::{DeliveryMode, Destination, IoApic, LocalApic, Redirection};
use crate::machine::ApicMessage;

/// Address of a message: bits 31:20, and where its fields are.
const MESSAGES: u64 = 0xfee;
const LOGICAL: u64 = 1 << 2;
/// Data of a message.
const LEVEL: u32 = 1 << 15;
/// Data of a message: assert. Without meaning for an edge.
pub const ASSERT: u32 = 1 << 14;

/// Who takes interrupts.
pub enum Receiver {
    /// The CPU, by its local APIC.
    Cpu(Cpu),
    /// Nobody.
    Bus,
}

/// Messages since the last call; none where local APICs take them.
pub fn messages(t: &mut TestThread<'_>) -> Outcome<Vec<ApicMessage>> {
    Ok(t.machine().interrupts()?.apic_messages()?)
}

/// The entry that sends such a message; `None` for what is no message to local APICs.
pub fn entry_of(message: ApicMessage) -> Option<Redirection> {
    let ApicMessage { addr, data } = message;
    let mode = DeliveryMode::of_code((data >> 8) as u8);
    let is_known = u32::from(mode.code()) == data >> 8 & 7;
    if addr >> 20 != MESSAGES || addr & 0b1011 != 0 || data >> 16 != 0 || !is_known {
        return None;
    }
    Some(Redirection {
        vector: data as u8,
        mode,
        destination: Destination::of_fields((addr >> 12) as u8, addr & LOGICAL != 0),
        level: data & LEVEL != 0,
        ..Redirection::default()
    })
}

/// What the message of `entry` says of it.
fn said(entry: Redirection) -> Redirection {
    let Redirection { vector, mode, destination, level, .. } = entry;
    Redirection { vector, mode, destination, level, ..Redirection::default() }
}

/// A message for people.
fn words(entry: Option<Redirection>) -> String {
    let Some(entry) = entry else { return "no message to local APICs".to_owned() };
    let Redirection { vector, mode, destination, level, .. } = entry;
    let trigger = if level { "level" } else { "edge" };
    format!("{vector:#x} {mode:?} to {destination:x?}, {trigger}")
}

impl Receiver {
    /// Whoever there is, from now on.
    pub fn watch(t: &mut TestThread<'_>) -> Outcome<Self> {
        if LocalApic::default().is_there(bus(t)?) {
            return Cpu::watch(t, 0).map(Self::Cpu);
        }
        messages(t).map(|_| Self::Bus)
    }

    /// One interrupt of `entry` has come. It is not ended.
    pub fn expect(&self, t: &mut TestThread<'_>, what: &str, entry: Redirection) -> Outcome {
        match self {
            Self::Cpu(cpu) => {
                cpu.expect(t, what, entry.vector)?;
                let level = LocalApic::default().has(bus(t)?, register::TMR, entry.vector);
                t.expect("level, by the local APIC's TMR", level, entry.level)
            }
            Self::Bus => {
                let seen: Vec<_> = messages(t)?.into_iter().map(entry_of).collect();
                if seen == [Some(said(entry))] {
                    return Ok(());
                }
                let seen: Vec<String> = seen.into_iter().map(words).collect();
                t.failed(what, words(Some(entry)), format!("[{}]", seen.join("; ")))
            }
        }
    }

    /// None has come.
    pub fn expect_none(&self, t: &mut TestThread<'_>, what: &str) -> Outcome {
        match self {
            Self::Cpu(cpu) => cpu.expect_none(t, what),
            Self::Bus => {
                let seen: Vec<_> = messages(t)?.into_iter().map(entry_of).map(words).collect();
                if seen.is_empty() {
                    return Ok(());
                }
                t.failed(what, "no message", seen.join("; "))
            }
        }
    }

    /// Ends the interrupt of `entry`.
    pub fn end(&self, t: &mut TestThread<'_>, entry: Redirection) -> Outcome {
        let bus = bus(t)?;
        match self {
            Self::Cpu(_) => LocalApic::default().end_of_interrupt(bus),
            Self::Bus if entry.level => IoApic::default().end_of_interrupt(bus, entry.vector),
            // Nobody tells the I/O APIC of the end of an edge.
            Self::Bus => {}
        }
        Ok(())
    }
}
