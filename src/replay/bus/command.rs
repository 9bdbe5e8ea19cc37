//! What whoever runs a machine did to it from outside, as marks of a tap's recording say it.

use super::options::TAP_FORMAT;
use crate::base::{Error, Result};
use crate::trace::{Mark, Trace};

/// The stream of such marks.
pub const COMMANDS: &str = "command";

/// Longest text of one.
pub const COMMAND_BYTES_MAX: u64 = 256;

/// A command.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Command {
    /// A disk got another size.
    ResizeDisk {
        /// Its number.
        disk: usize,
        /// Bytes.
        bytes: u64,
    },
}

impl Command {
    /// The text of the mark.
    pub fn text(&self) -> String {
        match self {
            Self::ResizeDisk { disk, bytes } => format!("resize-disk {disk} {bytes}"),
        }
    }

    /// The inverse of [`Command::text`].
    pub fn parse(text: &str) -> Option<Self> {
        let mut words = text.split(' ');
        match (words.next(), words.next(), words.next(), words.next()) {
            (Some("resize-disk"), Some(disk), Some(bytes), None) => {
                Some(Self::ResizeDisk { disk: disk.parse().ok()?, bytes: bytes.parse().ok()? })
            }
            _ => None,
        }
    }
}

/// The command that a mark is, if it is one: those of a tap are.
///
/// # Errors
/// A text that cannot be read, or a command that is not known.
pub fn of(trace: &Trace, mark: &Mark) -> Result<Option<Command>> {
    let stream = trace.streams().get(mark.stream.0 as usize);
    let taps = trace.header().source_format == TAP_FORMAT;
    if !taps || stream.is_none_or(|stream| stream.device != COMMANDS) {
        return Ok(None);
    }
    let mut text = vec![0; mark.text_len.min(COMMAND_BYTES_MAX) as usize];
    trace.read_payload(mark.text, mark.text_len, 0, &mut text)?;
    match Command::parse(&String::from_utf8_lossy(&text)) {
        Some(command) => Ok(Some(command)),
        None => Err(Error::input("a command that this version does not know")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn texts_are_read_back() {
        let resize = Command::ResizeDisk { disk: 3, bytes: u64::MAX };
        assert_eq!(Command::parse(&resize.text()), Some(resize));
        for bad in ["", "resize-disk", "resize-disk 1", "resize-disk 1 x", "resize-disk 1 2 3"] {
            assert_eq!(Command::parse(bad), None, "{bad}");
        }
    }
}
