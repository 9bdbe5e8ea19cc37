//! The commands of the qtest protocol, as QEMU's `system/qtest.c` takes them: words between
//! blanks, numbers as C's `strtoul` with base 0, words beyond those needed ignored.

use crate::base::limits::REQUEST_BYTES_MAX;
use crate::base::{BusAccess, BusSpace};
use crate::import::lines::{c_number, word};

/// A command.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Command<'l> {
    /// `outb` to `outl`, `writeb` to `writeq`; the value is cut to the size.
    Store(BusAccess),
    /// `inb` to `inl`, `readb` to `readq`; the value is the reply's.
    Load(BusAccess),
    /// `write` (hexadecimal) and `b64write`.
    Write { addr: u64, len: u64, data: &'l [u8], base64: bool },
    /// `memset`.
    Fill { addr: u64, len: u64, byte: u8 },
    /// `read` and `b64read`.
    Read { addr: u64, len: u64, base64: bool },
    /// `clock_step`: by so much, or to the next deadline.
    Step(Option<u64>),
    /// `clock_set`.
    Set(u64),
    /// `irq_intercept_in` and `irq_intercept_out`: the device whose lines are reported, and the
    /// name of the lines, if it has one.
    Intercept { device: &'l [u8], lines: &'l [u8] },
    /// `set_irq_in`: the test drives an input of a device.
    SetIrq,
    /// `endianness`, `module_load`: nothing that the machine's devices notice.
    Setup,
}

/// What is said of a command whose words are missing, or are no numbers.
pub const MALFORMED: &str = "malformed command";

/// Words that the command in `text` lacks at its end.
pub fn words_lacking(text: &[u8]) -> usize {
    let (name, args) = word(text);
    let (needed, _) = words(name);
    needed - blank_separated(args).take(needed).count()
}

/// The command in `text` as QEMU reads it: single blanks, and no words beyond those it looks at.
pub fn tidy(text: &[u8]) -> Vec<u8> {
    let (name, args) = word(text);
    let (_, most) = words(name);
    let all = std::iter::once(name).chain(blank_separated(args).take(most));
    all.collect::<Vec<_>>().join(&b' ')
}

fn blank_separated(text: &[u8]) -> impl Iterator<Item = &[u8]> {
    text.split(u8::is_ascii_whitespace).filter(|word| !word.is_empty())
}

/// Words behind the name of a command: those it needs, and those it looks at.
fn words(name: &[u8]) -> (usize, usize) {
    match name {
        b"write" | b"b64write" | b"memset" => (3, 3),
        b"read" | b"b64read" => (2, 2),
        b"clock_step" => (0, 1),
        b"clock_set" => (1, 1),
        b"irq_intercept_in" | b"irq_intercept_out" => (1, 2),
        b"set_irq_in" => (4, 4),
        b"module_load" => (2, 2),
        name if name.starts_with(b"out") || name.starts_with(b"write") => (2, 2),
        name if name.starts_with(b"in") || name.starts_with(b"read") => (1, 1),
        _ => (0, 0),
    }
}

/// The command in `text`; `None` when it begins with no word of the protocol.
pub fn parse(text: &[u8]) -> Option<Result<Command<'_>, &'static str>> {
    let (name, args) = word(text);
    let command = match name {
        b"outb" | b"outw" | b"outl" => access(BusSpace::Pio, name, true, args),
        b"inb" | b"inw" | b"inl" => access(BusSpace::Pio, name, false, args),
        b"writeb" | b"writew" | b"writel" | b"writeq" => access(BusSpace::Mmio, name, true, args),
        b"readb" | b"readw" | b"readl" | b"readq" => access(BusSpace::Mmio, name, false, args),
        b"write" | b"b64write" => write(args, name == b"b64write"),
        b"memset" => fill(args),
        b"read" | b"b64read" => range(args).and_then(|(addr, len, _)| match len {
            0 => Err("read of length 0 (QEMU aborts)"),
            _ => Ok(Command::Read { addr, len, base64: name == b"b64read" }),
        }),
        b"clock_step" if args.is_empty() => Ok(Command::Step(None)),
        b"clock_step" => time(args).map(|time| Command::Step(Some(time))),
        b"clock_set" => time(args).map(Command::Set),
        b"irq_intercept_in" | b"irq_intercept_out" => {
            let (device, rest) = word(args);
            let lines = word(rest).0;
            if device.is_empty() {
                Err(MALFORMED)
            } else {
                Ok(Command::Intercept { device, lines })
            }
        }
        b"set_irq_in" => set_irq(args),
        b"endianness" => Ok(Command::Setup),
        b"module_load" if word(word(args).1).0.is_empty() => Err(MALFORMED),
        b"module_load" => Ok(Command::Setup),
        _ => return None,
    };
    Some(command)
}

/// A register access; the last letter of its name says the size.
fn access<'l>(
    space: BusSpace,
    name: &[u8],
    write: bool,
    args: &[u8],
) -> Result<Command<'l>, &'static str> {
    let size = match name.last() {
        Some(b'b') => 1,
        Some(b'w') => 2,
        Some(b'l') => 4,
        _ => 8,
    };
    let (addr, rest) = word(args);
    let addr = c_number(addr).ok_or(MALFORMED)?;
    if !space.holds(addr, size) {
        return Err("port beyond 0xffff (QEMU aborts)");
    }
    if !write {
        return Ok(Command::Load(BusAccess { space, write, addr, size, value: 0 }));
    }
    let value = c_number(word(rest).0).ok_or(MALFORMED)? & BusAccess::ones(size);
    Ok(Command::Store(BusAccess { space, write, addr, size, value }))
}

/// `ADDR SIZE` and what follows.
fn range(args: &[u8]) -> Result<(u64, u64, &[u8]), &'static str> {
    let (addr, rest) = word(args);
    let (len, rest) = word(rest);
    let (addr, len) = (c_number(addr).ok_or(MALFORMED)?, c_number(len).ok_or(MALFORMED)?);
    if len > REQUEST_BYTES_MAX || addr.checked_add(len).is_none() {
        return Err("range past the end of any memory");
    }
    Ok((addr, len, rest))
}

fn write(args: &[u8], base64: bool) -> Result<Command<'_>, &'static str> {
    let (addr, len, rest) = range(args)?;
    let data = word(rest).0;
    match data.len() {
        0 => Err(MALFORMED),
        1 | 2 => Err("data of less than 3 characters (QEMU refuses it)"),
        _ => Ok(Command::Write { addr, len, data, base64 }),
    }
}

/// As C's `memset`, it takes the low byte of the value.
fn fill<'l>(args: &[u8]) -> Result<Command<'l>, &'static str> {
    let (addr, len, rest) = range(args)?;
    let value = c_number(word(rest).0).ok_or(MALFORMED)?;
    Ok(Command::Fill { addr, len, byte: value as u8 })
}

/// `DEVICE LINES NUMBER LEVEL`
fn set_irq<'l>(args: &[u8]) -> Result<Command<'l>, &'static str> {
    let (_, rest) = word(args);
    let (_, rest) = word(rest);
    let (number, rest) = word(rest);
    let level = word(rest).0;
    let in_range = |text| c_number(text).filter(|n| i32::try_from(*n).is_ok());
    in_range(number).and(in_range(level)).map(|_| Command::SetIrq).ok_or(MALFORMED)
}

/// A time is signed in QEMU, and time does not go back.
fn time(args: &[u8]) -> Result<u64, &'static str> {
    c_number(word(args).0).filter(|time| i64::try_from(*time).is_ok()).ok_or(MALFORMED)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn ok(text: &str) -> Command<'_> {
        parse(text.as_bytes()).expect("a command").expect(text)
    }

    #[test]
    fn register_accesses() {
        for (text, space, write, addr, size, value) in [
            ("outb 0x70 0x8f", BusSpace::Pio, true, 0x70, 1, 0x8f),
            ("outw 0xcfc 07", BusSpace::Pio, true, 0xcfc, 2, 7),
            ("outl 3320 0x80001010", BusSpace::Pio, true, 0xcf8, 4, 0x8000_1010),
            ("inb 0x71", BusSpace::Pio, false, 0x71, 1, 0),
            ("inw 0x1f0", BusSpace::Pio, false, 0x1f0, 2, 0),
            ("inl 0xffff", BusSpace::Pio, false, 0xffff, 4, 0),
            ("writeb 0xfee00000 0x1ff", BusSpace::Mmio, true, 0xfee0_0000, 1, 0xff),
            ("writew 0x990000ff 0x5ea2", BusSpace::Mmio, true, 0x9900_00ff, 2, 0x5ea2),
            ("writel 0xf0001038 1", BusSpace::Mmio, true, 0xf000_1038, 4, 1),
            (
                "writeq 0x9f0d000000002000 0xff2f9e0000000000",
                BusSpace::Mmio,
                true,
                0x9f0d_0000_0000_2000,
                8,
                0xff2f_9e00_0000_0000,
            ),
            ("readq 0xe2000000 and more", BusSpace::Mmio, false, 0xe200_0000, 8, 0),
        ] {
            let access = BusAccess { space, write, addr, size, value };
            let want = if write { Command::Store(access) } else { Command::Load(access) };
            assert_eq!(ok(text), want, "{text}");
        }
    }

    #[test]
    fn memory() {
        let data = b"0x01020";
        assert_eq!(
            ok("write 0xff000010 0x4 0x01020"),
            Command::Write { addr: 0xff00_0010, len: 4, data, base64: false }
        );
        assert_eq!(
            ok("b64write 0x1000 3 AQID"),
            Command::Write { addr: 0x1000, len: 3, data: b"AQID", base64: true }
        );
        assert_eq!(ok("memset 0 0x10 0x1ff"), Command::Fill { addr: 0, len: 16, byte: 0xff });
        assert_eq!(ok("read 0x10 0x20"), Command::Read { addr: 16, len: 32, base64: false });
        assert_eq!(ok("b64read 0x10 1"), Command::Read { addr: 16, len: 1, base64: true });
    }

    #[test]
    fn the_clock_and_interrupts() {
        assert_eq!(ok("clock_step"), Command::Step(None));
        assert_eq!(ok("clock_step 1000000"), Command::Step(Some(1_000_000)));
        assert_eq!(ok("clock_set 0x10"), Command::Set(16));
        assert_eq!(
            ok("irq_intercept_in ioapic"),
            Command::Intercept { device: b"ioapic", lines: b"" }
        );
        assert_eq!(
            ok("irq_intercept_out /machine/x gpio"),
            Command::Intercept { device: b"/machine/x", lines: b"gpio" }
        );
        assert_eq!(ok("set_irq_in ioapic unnamed-gpio-in 3 1"), Command::SetIrq);
        assert_eq!(ok("endianness"), Command::Setup);
        assert_eq!(ok("module_load block- nfs"), Command::Setup);
    }

    #[test]
    fn a_tidy_command_has_the_words_that_qemu_looks_at() {
        for (text, want) in [
            ("outl  0xcf8\t0x80001010 # BAR 0", "outl 0xcf8 0x80001010"),
            (" inb 0x71 ", "inb 0x71"),
            ("write 0x0 0x2 0x0102 x", "write 0x0 0x2 0x0102"),
            ("readq 0x10 0x20", "readq 0x10"),
            ("clock_step", "clock_step"),
            ("clock_step 5 6", "clock_step 5"),
            ("endianness x", "endianness"),
            ("set_irq_in a b 3 1 x", "set_irq_in a b 3 1"),
        ] {
            assert_eq!(tidy(text.as_bytes()), want.as_bytes(), "{text}");
        }
    }

    #[test]
    fn bad_commands_say_why() {
        for (text, why) in [
            ("outl 0xcf8", MALFORMED),
            ("outl", MALFORMED),
            ("outl 0xcg8 1", MALFORMED),
            ("outb 0x70 -1", MALFORMED),
            ("outb 0x10000 1", "port beyond 0xffff (QEMU aborts)"),
            ("inl 0x10000", "port beyond 0xffff (QEMU aborts)"),
            ("write 0x0 0x1", MALFORMED),
            ("write 0x0 0x1 04", "data of less than 3 characters (QEMU refuses it)"),
            ("memset 0x0 0xffffffffffffffff 0", "range past the end of any memory"),
            ("memset 0xffffffffffffffff 1 0", "range past the end of any memory"),
            ("memset 0x0 0x10", MALFORMED),
            ("read 0x0 0", "read of length 0 (QEMU aborts)"),
            ("clock_step -5", MALFORMED),
            ("clock_step 0x8000000000000000", MALFORMED),
            ("clock_set", MALFORMED),
            ("irq_intercept_in", MALFORMED),
            ("set_irq_in ioapic unnamed-gpio-in 3", MALFORMED),
            ("set_irq_in ioapic unnamed-gpio-in x 1", MALFORMED),
            ("module_load block-", MALFORMED),
        ] {
            assert_eq!(parse(text.as_bytes()), Some(Err(why)), "{text}");
        }
        for text in ["", "outx 1", "OK", "outl0xcf8 1", "Outl 0xcf8 1"] {
            assert_eq!(parse(text.as_bytes()), None, "{text}");
        }
    }
}
