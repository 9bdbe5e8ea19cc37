//! What may be asked, and the protocol's answers to what may not.

use std::io;

use super::export::{BLOCK_BYTES, REQUEST_DATA_BYTES_MAX};
use crate::image::nbd_proto::{
    Command, NBD_CMD_FLAG_DF, NBD_CMD_FLAG_FAST_ZERO, NBD_CMD_FLAG_FUA, NBD_CMD_FLAG_NO_HOLE,
    NBD_CMD_FLAG_REQ_ONE, NBD_REQUEST_MAGIC,
};

/// Bytes of a request's header.
pub(super) const REQUEST_BYTES: usize = 28;

/// A request's header ("Request message").
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Request {
    pub(super) flags: u16,
    pub(super) command: u16,
    pub(super) cookie: u64,
    pub(super) offset: u64,
    pub(super) len: u32,
}

impl Request {
    /// `None` when it does not begin as one: what follows cannot be told apart any more.
    pub(super) fn parse(bytes: &[u8; REQUEST_BYTES]) -> Option<Self> {
        fn field<const N: usize>(bytes: &[u8; REQUEST_BYTES], at: usize) -> [u8; N] {
            let mut field = [0; N];
            field.copy_from_slice(&bytes[at..at + N]);
            field
        }
        (u32::from_be_bytes(field(bytes, 0)) == NBD_REQUEST_MAGIC).then(|| Self {
            flags: u16::from_be_bytes(field(bytes, 4)),
            command: u16::from_be_bytes(field(bytes, 6)),
            cookie: u64::from_be_bytes(field(bytes, 8)),
            offset: u64::from_be_bytes(field(bytes, 16)),
            len: u32::from_be_bytes(field(bytes, 24)),
        })
    }

    /// Bytes of data that follow its header.
    pub(super) fn data_bytes(&self) -> u32 {
        if self.command == Command::Write as u16 { self.len } else { 0 }
    }
}

/// What a valid request asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Action {
    Read { whole: bool },
    Write { fua: bool },
    Flush,
    Trim { fua: bool },
    Zeroes { fua: bool, unmap: bool, fast: bool },
    Cache,
    Status { one: bool },
    Disconnect,
}

/// Why a request is refused: an error of the protocol, which is Linux's too, and words.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Refusal {
    pub(super) errno: i32,
    pub(super) why: &'static str,
}

const fn refusal(errno: i32, why: &'static str) -> Refusal {
    Refusal { errno, why }
}

const READ_ONLY: Refusal = refusal(libc::EPERM, "the export is read-only");
const UNKNOWN: Refusal = refusal(libc::EINVAL, "there is no such command");
const BAD_FLAGS: Refusal = refusal(libc::EINVAL, "the command has no such flag");
const NO_CONTEXT: Refusal = refusal(libc::EINVAL, "no metadata context was negotiated");
const EMPTY: Refusal = refusal(libc::EINVAL, "a range of no bytes");
const NO_RANGE: Refusal = refusal(libc::EINVAL, "a flush has no offset and no length");
const TOO_LONG: Refusal = refusal(libc::EINVAL, "longer than the 32 MiB of a request");
const TOO_LONG_WHOLE: Refusal = refusal(libc::EOVERFLOW, "too long for one chunk");
const BEYOND: Refusal = refusal(libc::EINVAL, "reaches past the end of the export");
const NO_SPACE: Refusal = refusal(libc::ENOSPC, "reaches past the end of the export");
const UNALIGNED: Refusal = refusal(libc::EINVAL, "not whole blocks of 512 bytes");
pub(super) const SHUTDOWN: Refusal = refusal(libc::ESHUTDOWN, "the server is going down");

/// What was agreed on with a client, as far as requests depend on it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Agreed {
    /// Replies are structured.
    pub(super) structured: bool,
    /// `base:allocation` was chosen.
    pub(super) allocation: bool,
}

/// What `request` asks for, of an export of `size` bytes.
///
/// # Errors
/// What the protocol answers instead ("Request types", "Error values").
pub(super) fn judge(
    request: &Request,
    agreed: Agreed,
    size: u64,
    read_only: bool,
) -> Result<Action, Refusal> {
    let command = Command::from_u16(request.command).ok_or(UNKNOWN)?;
    let flag = |flag| request.flags & flag != 0;
    // FUA is valid with every command, also where it means nothing ("Command flags").
    let known = NBD_CMD_FLAG_FUA
        | match command {
            Command::Read if agreed.structured => NBD_CMD_FLAG_DF,
            Command::WriteZeroes => NBD_CMD_FLAG_NO_HOLE | NBD_CMD_FLAG_FAST_ZERO,
            Command::BlockStatus => NBD_CMD_FLAG_REQ_ONE,
            _ => 0,
        };
    if flag(!known) {
        return Err(BAD_FLAGS);
    }
    let changes = matches!(command, Command::Write | Command::Trim | Command::WriteZeroes);
    if changes && read_only {
        return Err(READ_ONLY);
    }
    let fua = flag(NBD_CMD_FLAG_FUA);
    let action = match command {
        Command::Disconnect => return Ok(Action::Disconnect),
        Command::Flush if request.offset != 0 || request.len != 0 => return Err(NO_RANGE),
        Command::Flush => return Ok(Action::Flush),
        Command::Read => Action::Read { whole: flag(NBD_CMD_FLAG_DF) },
        Command::Write => Action::Write { fua },
        Command::Trim => Action::Trim { fua },
        Command::WriteZeroes => {
            let (unmap, fast) = (!flag(NBD_CMD_FLAG_NO_HOLE), flag(NBD_CMD_FLAG_FAST_ZERO));
            Action::Zeroes { fua, unmap, fast }
        }
        Command::Cache => Action::Cache,
        Command::BlockStatus if !agreed.allocation => return Err(NO_CONTEXT),
        Command::BlockStatus if request.len == 0 => return Err(EMPTY),
        Command::BlockStatus => Action::Status { one: flag(NBD_CMD_FLAG_REQ_ONE) },
    };
    check_range(request, action, size).map(|()| action)
}

fn check_range(request: &Request, action: Action, size: u64) -> Result<(), Refusal> {
    let carries_data = matches!(action, Action::Read { .. } | Action::Write { .. });
    if carries_data && request.len > REQUEST_DATA_BYTES_MAX {
        let whole = matches!(action, Action::Read { whole: true });
        return Err(if whole { TOO_LONG_WHOLE } else { TOO_LONG });
    }
    let end = request.offset.checked_add(request.len.into());
    if end.is_none_or(|end| end > size) {
        let grows = matches!(action, Action::Write { .. } | Action::Zeroes { .. });
        return Err(if grows { NO_SPACE } else { BEYOND });
    }
    let block = u64::from(BLOCK_BYTES);
    let aligned = request.offset.is_multiple_of(block) && request.len.is_multiple_of(BLOCK_BYTES);
    if aligned { Ok(()) } else { Err(UNALIGNED) }
}

/// Linux's number for an error of the image.
pub(super) fn errno_of(error: &io::Error) -> i32 {
    use io::ErrorKind;
    error.raw_os_error().unwrap_or(match error.kind() {
        ErrorKind::PermissionDenied | ErrorKind::ReadOnlyFilesystem => libc::EPERM,
        ErrorKind::InvalidInput => libc::EINVAL,
        ErrorKind::StorageFull => libc::ENOSPC,
        ErrorKind::Unsupported => libc::EOPNOTSUPP,
        ErrorKind::OutOfMemory => libc::ENOMEM,
        _ => libc::EIO,
    })
}

/// The protocol's number for Linux's: it has a few of them ("Error values").
pub(super) fn nbd_error(errno: i32) -> u32 {
    let errno = match errno {
        libc::EPERM | libc::EACCES | libc::EROFS => libc::EPERM,
        libc::ENOSPC | libc::EDQUOT | libc::EFBIG => libc::ENOSPC,
        libc::ENOMEM | libc::EINVAL | libc::EOVERFLOW | libc::EOPNOTSUPP | libc::ESHUTDOWN => errno,
        _ => libc::EIO,
    };
    errno.unsigned_abs()
}

#[cfg(test)]
mod tests {
    use super::*;

    const SIZE: u64 = 1 << 20;
    const FULL: Agreed = Agreed { structured: true, allocation: true };

    fn ask(command: Command, flags: u16, offset: u64, len: u32) -> Request {
        Request { flags, command: command as u16, cookie: 1, offset, len }
    }

    fn errno(request: &Request) -> i32 {
        judge(request, FULL, SIZE, false).unwrap_err().errno
    }

    #[test]
    fn what_is_out_of_range_is_refused_as_the_protocol_says() {
        use Command::{BlockStatus, Cache, Read, Trim, Write, WriteZeroes};
        let size = SIZE as u32;
        for (command, want) in [
            (Read, libc::EINVAL),
            (Write, libc::ENOSPC),
            (WriteZeroes, libc::ENOSPC),
            (Trim, libc::EINVAL),
            (Cache, libc::EINVAL),
            (BlockStatus, libc::EINVAL),
        ] {
            for (offset, len) in [(SIZE, 512), (512, size), (u64::MAX - 511, 512), (u64::MAX, 1)] {
                assert_eq!(errno(&ask(command, 0, offset, len)), want, "{command:?} {offset}");
            }
            assert!(judge(&ask(command, 0, 0, size), FULL, SIZE, false).is_ok());
        }
    }

    #[test]
    fn flags_belong_to_their_commands() {
        use Command::{BlockStatus, Flush, Read, Write, WriteZeroes};
        for (command, flags) in [
            (Read, NBD_CMD_FLAG_NO_HOLE),
            (Write, NBD_CMD_FLAG_DF),
            (Flush, NBD_CMD_FLAG_REQ_ONE),
            (WriteZeroes, NBD_CMD_FLAG_REQ_ONE),
            (BlockStatus, 1 << 5),
        ] {
            let len = if command == Flush { 0 } else { 512 };
            assert_eq!(errno(&ask(command, flags, 0, len)), libc::EINVAL, "{command:?}");
            assert!(judge(&ask(command, NBD_CMD_FLAG_FUA, 0, len), FULL, SIZE, false).is_ok());
        }
        let plain = Agreed::default();
        assert!(judge(&ask(Read, NBD_CMD_FLAG_DF, 0, 512), plain, SIZE, false).is_err());
        assert!(judge(&ask(BlockStatus, 0, 0, 512), plain, SIZE, false).is_err());
        let flags = NBD_CMD_FLAG_NO_HOLE | NBD_CMD_FLAG_FUA;
        let zeroes = judge(&ask(WriteZeroes, flags, 0, 512), FULL, SIZE, false);
        assert_eq!(zeroes, Ok(Action::Zeroes { fua: true, unmap: false, fast: false }));
    }

    #[test]
    fn long_read_only_and_unknown_requests_have_their_errors() {
        let long = REQUEST_DATA_BYTES_MAX + 512;
        let size = 1 << 40;
        let judge = |request: &Request| judge(request, FULL, size, true).map_err(|e| e.errno);
        assert_eq!(judge(&ask(Command::Read, 0, 0, long)), Err(libc::EINVAL));
        assert_eq!(judge(&ask(Command::Read, NBD_CMD_FLAG_DF, 0, long)), Err(libc::EOVERFLOW));
        for command in [Command::Write, Command::Trim, Command::WriteZeroes] {
            assert_eq!(judge(&ask(command, 0, 0, 512)), Err(libc::EPERM));
        }
        assert_eq!(judge(&ask(Command::Flush, 0, 512, 0)), Err(libc::EINVAL));
        assert_eq!(
            judge(&Request { command: 99, ..ask(Command::Read, 0, 0, 0) }),
            Err(libc::EINVAL)
        );
        assert_eq!(judge(&ask(Command::Read, 0, 1, 512)), Err(libc::EINVAL));
        assert_eq!(judge(&ask(Command::Read, 0, 512, 100)), Err(libc::EINVAL));
    }

    #[test]
    fn errors_are_those_that_the_protocol_has() {
        assert_eq!(nbd_error(libc::EDQUOT), 28);
        assert_eq!(nbd_error(libc::EROFS), 1);
        assert_eq!(nbd_error(libc::ETIMEDOUT), 5);
        assert_eq!(nbd_error(libc::EOPNOTSUPP), 95);
        assert_eq!(errno_of(&io::Error::from(io::ErrorKind::PermissionDenied)), libc::EPERM);
        assert_eq!(errno_of(&io::Error::other("x")), libc::EIO);
    }
}
