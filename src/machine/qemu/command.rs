//! The commands of the qtest protocol, as QEMU's `system/qtest.c` takes them.
//!
//! A malformed command aborts QEMU, so that none can be written here that is: sizes and ports are
//! checked when a [`Command`] is made, and text from outside goes through [`Text::parse`].

use std::io::Write as _;

use crate::import::qtest::command as syntax;

/// Bytes that one bulk transfer carries at most; longer ones are cut into several. QEMU holds the
/// whole line in memory three times.
pub const TRANSFER_BYTES_MAX: usize = 1 << 20;

/// A command. Values are cut to their sizes, which are 1, 2, 4 and, in memory, 8.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Command<'a> {
    /// `inb`, `inw`, `inl`: answers the value.
    In(u16, Size),
    /// `outb`, `outw`, `outl`.
    Out(u16, Size, u32),
    /// `readb` to `readq`: answers the value.
    Load(u64, Size),
    /// `writeb` to `writeq`.
    Store(u64, Size, u64),
    /// `b64read`: answers `len` bytes, which are not 0.
    Read {
        /// First address.
        addr: u64,
        /// Bytes.
        len: u64,
    },
    /// `read`: the same in hexadecimal.
    ReadHex {
        /// First address.
        addr: u64,
        /// Bytes.
        len: u64,
    },
    /// `b64write` of bytes, of which there is one at least.
    Write(u64, &'a [u8]),
    /// `write`: the same in hexadecimal.
    WriteHex(u64, &'a [u8]),
    /// `memset`.
    Fill {
        /// First address.
        addr: u64,
        /// Bytes.
        len: u64,
        /// What they become.
        byte: u8,
    },
    /// `clock_step`: by so many nanoseconds, or to the next deadline of a device; answers the time.
    ClockStep(Option<u64>),
    /// `clock_set`: to a time in nanoseconds; answers it.
    ClockSet(u64),
    /// `irq_intercept_in`: the inputs of a device are reported from now on.
    InterceptIn(&'a Name),
    /// `irq_intercept_out`: the unnamed outputs of a device are.
    InterceptOut(&'a Name),
    /// `set_irq_in`: drives an input of a device.
    SetIrqIn {
        /// Path of the device.
        device: &'a Name,
        /// Name of the inputs; `unnamed-gpio-in` for those without.
        input: &'a Name,
        /// Which of them.
        number: u32,
        /// The level.
        level: bool,
    },
    /// `endianness`: answers the guest's byte order, and does nothing. Good as a barrier.
    Endianness,
    /// A command that was checked as text.
    Text(&'a Text),
}

/// The size of a register access in bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Size {
    /// 1
    Byte,
    /// 2
    Word,
    /// 4
    Long,
    /// 8, in memory only
    Quad,
}

impl Size {
    /// Of a number of bytes; what is none of the sizes is the next larger one.
    pub fn of(bytes: u8) -> Self {
        match bytes {
            0 | 1 => Self::Byte,
            2 => Self::Word,
            3 | 4 => Self::Long,
            _ => Self::Quad,
        }
    }

    fn letter(self) -> char {
        match self {
            Self::Byte => 'b',
            Self::Word => 'w',
            Self::Long => 'l',
            Self::Quad => 'q',
        }
    }

    /// All bits of the size.
    pub fn ones(self) -> u64 {
        match self {
            Self::Byte => 0xff,
            Self::Word => 0xffff,
            Self::Long => 0xffff_ffff,
            Self::Quad => u64::MAX,
        }
    }
}

/// A word of a command: a path in QEMU's object tree, the name of a line.
#[derive(Debug, PartialEq, Eq)]
#[repr(transparent)]
pub struct Name(str);

impl Name {
    /// `None` for what is no one word of printable ASCII.
    pub fn new(text: &str) -> Option<&Self> {
        if text.is_empty() || !text.bytes().all(|byte| byte.is_ascii_graphic()) {
            return None;
        }
        // SAFETY: `Name` is a transparent wrapper of `str`.
        Some(unsafe { &*(std::ptr::from_ref(text) as *const Self) })
    }
}

/// One command as text, known to be well formed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Text(String);

impl Text {
    /// Checks one line.
    ///
    /// # Errors
    /// Says what is wrong with it, and what QEMU would do.
    pub fn parse(line: &str) -> Result<Self, &'static str> {
        let line = line.trim_ascii();
        if !line.bytes().all(|byte| byte.is_ascii_graphic() || byte == b' ') {
            return Err("a character that no command has");
        }
        match syntax::parse(line.as_bytes()) {
            None => Err("no command of the qtest protocol"),
            Some(Err(why)) => Err(why),
            // QEMU takes two blanks for an empty word, and aborts.
            Some(Ok(_)) => Ok(Self(line.split_ascii_whitespace().collect::<Vec<_>>().join(" "))),
        }
    }

    /// The line, without its end.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl Command<'_> {
    /// Refuses what QEMU would abort at.
    ///
    /// # Errors
    /// Says why.
    pub fn check(&self) -> Result<(), &'static str> {
        let bad = match self {
            Self::In(_, Size::Quad) | Self::Out(_, Size::Quad, _) => "a port has 4 bytes at most",
            Self::Read { len: 0, .. } | Self::ReadHex { len: 0, .. } => "a read of nothing",
            Self::Read { len, .. } | Self::ReadHex { len, .. }
                if *len > TRANSFER_BYTES_MAX as u64 =>
            {
                "a read of more than one transfer"
            }
            Self::Write(_, bytes) | Self::WriteHex(_, bytes) if bytes.is_empty() => {
                "a write of nothing"
            }
            Self::Write(_, bytes) | Self::WriteHex(_, bytes)
                if bytes.len() > TRANSFER_BYTES_MAX =>
            {
                "a write of more than one transfer"
            }
            Self::ClockStep(Some(ns)) | Self::ClockSet(ns) if i64::try_from(*ns).is_err() => {
                "a time past the end of time"
            }
            _ => return Ok(()),
        };
        Err(bad)
    }

    /// Appends the line to `out`, with its end.
    pub fn write_to(&self, out: &mut Vec<u8>) {
        // Writing to memory does not fail.
        let _ = match self {
            Self::In(port, size) => writeln!(out, "in{} {port:#x}", size.letter()),
            Self::Out(port, size, value) => {
                let value = u64::from(*value) & size.ones();
                writeln!(out, "out{} {port:#x} {value:#x}", size.letter())
            }
            Self::Load(addr, size) => writeln!(out, "read{} {addr:#x}", size.letter()),
            Self::Store(addr, size, value) => {
                writeln!(out, "write{} {addr:#x} {:#x}", size.letter(), value & size.ones())
            }
            Self::Read { addr, len } => writeln!(out, "b64read {addr:#x} {len:#x}"),
            Self::ReadHex { addr, len } => writeln!(out, "read {addr:#x} {len:#x}"),
            Self::Write(addr, bytes) => write_base64(out, *addr, bytes),
            Self::WriteHex(addr, bytes) => write_hex(out, *addr, bytes),
            Self::Fill { addr, len, byte } => {
                writeln!(out, "memset {addr:#x} {len:#x} {byte:#x}")
            }
            Self::ClockStep(None) => writeln!(out, "clock_step"),
            Self::ClockStep(Some(ns)) => writeln!(out, "clock_step {ns}"),
            Self::ClockSet(ns) => writeln!(out, "clock_set {ns}"),
            Self::InterceptIn(device) => writeln!(out, "irq_intercept_in {}", &device.0),
            Self::InterceptOut(device) => writeln!(out, "irq_intercept_out {}", &device.0),
            Self::SetIrqIn { device, input, number, level } => {
                let level = u8::from(*level);
                writeln!(out, "set_irq_in {} {} {number} {level}", &device.0, &input.0)
            }
            Self::Endianness => writeln!(out, "endianness"),
            Self::Text(text) => writeln!(out, "{}", text.0),
        };
    }
}

fn write_hex(out: &mut Vec<u8>, addr: u64, bytes: &[u8]) -> std::io::Result<()> {
    write!(out, "write {addr:#x} {:#x} 0x", bytes.len())?;
    bytes.iter().try_for_each(|byte| write!(out, "{byte:02x}"))?;
    writeln!(out)
}

fn write_base64(out: &mut Vec<u8>, addr: u64, bytes: &[u8]) -> std::io::Result<()> {
    write!(out, "b64write {addr:#x} {:#x} ", bytes.len())?;
    crate::import::qtest::data::to_base64(bytes, out);
    writeln!(out)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn line(command: &Command<'_>) -> String {
        command.check().unwrap();
        let mut out = Vec::new();
        command.write_to(&mut out);
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn every_command_is_one_that_the_syntax_knows() {
        let (path, gpio) = (Name::new("/machine/x[0]").unwrap(), Name::new("gpio").unwrap());
        let text = Text::parse("  outl  0xcf8 0x80000000 ").unwrap();
        for (command, want) in [
            (Command::In(0x71, Size::Byte), "inb 0x71"),
            (Command::Out(0xcf8, Size::Long, 0x8000_0000), "outl 0xcf8 0x80000000"),
            (Command::Out(0x70, Size::Byte, 0x18f), "outb 0x70 0x8f"),
            (Command::Load(0xfed0_0000, Size::Quad), "readq 0xfed00000"),
            (Command::Store(0x1000, Size::Word, 0x1_2345), "writew 0x1000 0x2345"),
            (Command::Read { addr: 16, len: 3 }, "b64read 0x10 0x3"),
            (Command::ReadHex { addr: 16, len: 3 }, "read 0x10 0x3"),
            (Command::Write(16, &[1, 2, 3]), "b64write 0x10 0x3 AQID"),
            (Command::Write(16, &[1]), "b64write 0x10 0x1 AQ=="),
            (Command::WriteHex(16, &[1, 255]), "write 0x10 0x2 0x01ff"),
            (Command::Fill { addr: 1, len: 2, byte: 3 }, "memset 0x1 0x2 0x3"),
            (Command::ClockStep(None), "clock_step"),
            (Command::ClockStep(Some(5)), "clock_step 5"),
            (Command::ClockSet(5), "clock_set 5"),
            (Command::InterceptIn(path), "irq_intercept_in /machine/x[0]"),
            (Command::InterceptOut(path), "irq_intercept_out /machine/x[0]"),
            (
                Command::SetIrqIn { device: path, input: gpio, number: 3, level: true },
                "set_irq_in /machine/x[0] gpio 3 1",
            ),
            (Command::Endianness, "endianness"),
            (Command::Text(&text), "outl 0xcf8 0x80000000"),
        ] {
            assert_eq!(line(&command), format!("{want}\n"));
            assert!(matches!(syntax::parse(want.as_bytes()), Some(Ok(_))), "{want}");
        }
    }

    #[test]
    fn what_aborts_qemu_is_not_sent() {
        for command in [
            Command::In(0, Size::Quad),
            Command::Out(0, Size::Quad, 0),
            Command::Read { addr: 0, len: 0 },
            Command::ReadHex { addr: 0, len: u64::MAX },
            Command::Write(0, &[]),
            Command::WriteHex(0, &vec![0; TRANSFER_BYTES_MAX + 1]),
            Command::ClockStep(Some(u64::MAX)),
        ] {
            assert!(command.check().is_err());
        }
        for text in ["", "quit", "outl 0xcf8", "inb 0x10000", "outb 0x1\n0x2 0x3", "inb 0x71\u{e9}"]
        {
            assert!(Text::parse(text).is_err(), "{text}");
        }
        assert!(Name::new("two words").is_none() && Name::new("").is_none());
        assert!(Name::new("line\nend").is_none());
    }
}
