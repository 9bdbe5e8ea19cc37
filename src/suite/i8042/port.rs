//! The controller as its driver sees it (IBM PS/2 Hardware Interface Technical Reference, "Keyboard
//! and Auxiliary Device Controller").

use crate::base::Nanos;
use crate::suite::{Outcome, TestThread};

/// Data port.
pub const DATA: u16 = 0x60;
/// Status when read, command when written.
pub const COMMAND: u16 = 0x64;

/// Status: a byte waits at the data port.
pub const OBF: u8 = 0x01;
/// Status: the controller has not taken the last write yet.
pub const IBF: u8 = 0x02;
/// Status: system flag.
pub const SYS: u8 = 0x04;
/// Status: the byte is the auxiliary device's.
pub const AUX: u8 = 0x20;

/// Command byte: interrupt 1.
pub const KBDINT: u8 = 0x01;
/// Command byte: interrupt 12.
pub const AUXINT: u8 = 0x02;
/// Command byte: keyboard held.
pub const KBDDIS: u8 = 0x10;
/// Command byte: auxiliary device held.
pub const AUXDIS: u8 = 0x20;
/// Command byte: translation to scan set 1.
pub const XLATE: u8 = 0x40;

/// An acknowledged device command.
pub const ACK: u8 = 0xfa;
/// Sends the next data byte to the mouse.
pub const AUX_SEND: u8 = 0xd4;

/// How often status is looked at, and how long: a keyboard's self test takes up to half a second.
const POLL: Nanos = Nanos(1_000_000);
const POLLS_MAX: usize = 1000;

/// Waits until status `bit` is `set`; a finding when that takes longer than a device may.
fn wait_status(t: &mut TestThread<'_>, what: &str, bit: u8, set: bool) -> Outcome {
    for _ in 0..POLLS_MAX {
        if (t.inb(COMMAND)? & bit != 0) == set {
            return Ok(());
        }
        t.step(POLL)?;
    }
    t.failed(what, format!("status bit {bit:#04x} {}", u8::from(set)), "it did not come")
}

/// Writes a controller command.
pub fn command(t: &mut TestThread<'_>, byte: u8) -> Outcome {
    wait_status(t, "the controller takes a command", IBF, false)?;
    t.outb(COMMAND, byte)
}

/// Writes a data byte.
pub fn data(t: &mut TestThread<'_>, byte: u8) -> Outcome {
    wait_status(t, "the controller takes a byte", IBF, false)?;
    t.outb(DATA, byte)
}

/// A controller command with its argument.
pub fn command_with(t: &mut TestThread<'_>, byte: u8, argument: u8) -> Outcome {
    command(t, byte)?;
    data(t, argument)
}

/// Sends a byte to the mouse.
pub fn to_mouse(t: &mut TestThread<'_>, byte: u8) -> Outcome {
    command_with(t, AUX_SEND, byte)
}

/// Writes the command byte.
pub fn set_ctr(t: &mut TestThread<'_>, value: u8) -> Outcome {
    command_with(t, 0x60, value)
}

/// Reads the command byte.
pub fn ctr(t: &mut TestThread<'_>) -> Outcome<u8> {
    command(t, 0x20)?;
    Ok(next(t, "the command byte")?.0)
}

/// The next byte, and whether it is the mouse's.
pub fn next(t: &mut TestThread<'_>, what: &str) -> Outcome<(u8, bool)> {
    wait_status(t, what, OBF, true)?;
    let aux = t.inb(COMMAND)? & AUX != 0;
    Ok((t.inb(DATA)?, aux))
}

/// A finding unless the next bytes are these, of the mouse or not, and no more follow.
pub fn expect(t: &mut TestThread<'_>, what: &str, bytes: &[u8], aux: bool) -> Outcome {
    for byte in bytes {
        let got = next(t, what)?;
        t.expect(what, got, (*byte, aux))?;
    }
    let more = t.inb(COMMAND)? & OBF;
    t.expect(&format!("OBF after {what}"), more, 0)
}

/// Both devices answer and hold nothing back; no interrupts, no translation, nothing waits.
pub fn quiet(t: &mut TestThread<'_>) -> Outcome {
    set_ctr(t, 0)?;
    drain(t)?;
    // Defaults: a mouse that had been enabled would go on reporting.
    data(t, 0xf6)?;
    drain(t)?;
    to_mouse(t, 0xf6)?;
    drain(t)
}

/// Reads what waits: no device holds more than 64 bytes.
fn drain(t: &mut TestThread<'_>) -> Outcome {
    for _ in 0..64 {
        if t.inb(COMMAND)? & OBF == 0 {
            break;
        }
        t.inb(DATA)?;
    }
    Ok(())
}
