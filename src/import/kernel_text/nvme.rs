//! The events of the NVMe driver.
//!
//! ```text
//! nvme_setup_cmd: nvme0: disk=nvme0n1, qid=2, cmdid=12656, nsid=1, flags=0x0, meta=0x0,
//!                 cmd=(nvme_cmd_read slba=524160, len=7, ctrl=0x8000, dsmgmt=7, reftag=0)
//! nvme_complete_rq: nvme0: disk=nvme0n1, qid=2, cmdid=12656, res=0x0, retries=0, flags=0x0, status=0x0
//! ```
//!
//! Linux 4.16 and 4.17 name neither controller nor disk:
//!
//! ```text
//! nvme_setup_nvm_cmd: qid=2, nsid=1, cmdid=12656, flags=0x0, meta=0x0, cmd=(nvme_cmd_read slba=…
//! nvme_setup_admin_cmd: cmdid=3, flags=0x0, meta=0x0, cmd=(nvme_admin_identify cns=1, ctrlid=0)
//! nvme_complete_rq: cmdid=12656, qid=2, res=0, retries=0, flags=0x0, status=0
//! ```
//!
//! - `slba` counts the namespace's logical blocks, whose size no event says; `len` counts from 0.
//! - `ctrl`: bit 14 FUA, of write-zeroes bit 9 deallocate (NVM Command Set 1.0, figures 51 and 63).
//! - `nvme_cmd_dsm`: how many ranges are discarded, and not which.
//! - perf and trace-cmd know none of the kernel's functions that print a command: they print the
//!   fields, `[FAILED TO PARSE] disk=nvme0n1 ctrl_id=0 qid=2 opcode=2 ... cid=12656 ...
//!   cdw10=ARRAY[80, ff, 07, ...]`.
//! - `status` is the status field of the completion queue entry (NVM Express Base 2.0, §3.3.3.2.1).
//!
//! Sources: Linux `drivers/nvme/host/trace.h`, `trace.c`.

use crate::base::{BlockOp, OpFlags};
use crate::import::lines::{c_number, hex};

/// `DISK_NAME_LEN`.
const NAME_BYTES_MAX: usize = 32;

/// FUA of a write; deallocate of a write-zeroes.
const CTRL_FUA: u64 = 1 << 14;
const CTRL_DEAC: u64 = 1 << 9;

/// Joins a command to its completion.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) struct Key {
    /// The controller's number; `None` where the kernel does not tell.
    pub controller: Option<u32>,
    /// The queue; 0 is the admin queue.
    pub queue: u32,
    /// The command's identifier on it.
    pub command: u32,
}

/// What an event says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Command {
    /// Which command.
    pub key: Key,
    /// On which CPU it was seen.
    pub cpu: Option<u16>,
    /// What of it.
    pub what: What,
}

/// A command, or its end.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum What {
    /// Handed to the device.
    Setup {
        /// The namespace's disk.
        disk: Name,
        /// What is asked; else why it cannot stand in a trace.
        request: Result<Request, &'static str>,
    },
    /// Answered, with this status.
    Complete(u64),
}

/// A request, in logical blocks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Request {
    pub op: BlockOp,
    pub flags: OpFlags,
    pub block: u64,
    pub blocks: u64,
}

/// The name of a disk.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Name([u8; NAME_BYTES_MAX], usize);

impl Name {
    fn new(text: &[u8]) -> Self {
        let mut name = [0; NAME_BYTES_MAX];
        let len = text.len().min(NAME_BYTES_MAX);
        name.iter_mut().zip(text).for_each(|(to, from)| *to = *from);
        Self(name, len)
    }

    /// The name.
    pub fn as_bytes(&self) -> &[u8] {
        self.0.get(..self.1).unwrap_or_default()
    }
}

impl Command {
    /// The event's name.
    pub fn event(&self) -> &'static str {
        match self.what {
            What::Setup { .. } => SETUP,
            What::Complete(_) => COMPLETE,
        }
    }
}

const SETUP: &str = "nvme_setup_cmd";
const SETUP_OLD: [&[u8]; 2] = [b"nvme_setup_nvm_cmd", b"nvme_setup_admin_cmd"];
const COMPLETE: &str = "nvme_complete_rq";

/// Reads the arguments of an event; `None` when it is neither of the two.
///
/// # Errors
/// Why it cannot be read.
pub(super) fn parse(
    name: &[u8],
    args: &[u8],
    cpu: Option<u16>,
) -> Result<Option<Command>, &'static str> {
    let setup = name == SETUP.as_bytes() || SETUP_OLD.contains(&name);
    if !setup && name != COMPLETE.as_bytes() {
        return Ok(None);
    }
    let key = key(args).ok_or("NVMe event without controller, qid or cmdid")?;
    let what = if setup {
        let disk = field(args, b"disk").filter(|disk| !disk.is_empty());
        let disk = disk.map_or_else(|| unnamed(&key, args), Name::new);
        What::Setup { disk, request: request(&key, args)? }
    } else {
        let status = field(args, b"status").and_then(c_number);
        What::Complete(status.ok_or("NVMe completion without status")?)
    };
    Ok(Some(Command { key, cpu, what }))
}

/// A command without a disk is the controller's; else it is named as the driver names namespaces.
fn unnamed(key: &Key, args: &[u8]) -> Name {
    let controller = key.controller.map(|number| number.to_string()).unwrap_or_default();
    let name = match field(args, b"nsid").and_then(c_number) {
        Some(namespace) if key.queue > 0 => format!("nvme{controller}n{namespace}"),
        _ => format!("nvme{controller}"),
    };
    Name::new(name.as_bytes())
}

fn key(args: &[u8]) -> Option<Key> {
    let small = |text: &[u8]| u32::try_from(c_number(text)?).ok();
    let command = field(args, b"cmdid").or_else(|| field(args, b"cid"))?;
    let queue = field(args, b"qid");
    let controller = match args.strip_prefix(b"nvme") {
        Some(rest) => Some(rest.split(|byte| *byte == b':').next()?),
        None => field(args, b"ctrl_id"),
    };
    // An admin command of Linux 4.16.
    let no_queue = args.starts_with(b"cmdid=").then_some(0);
    Some(Key {
        controller: match controller {
            Some(text) => Some(small(text)?),
            None => None,
        },
        queue: queue.map_or(no_queue, small)?,
        command: small(command)?,
    })
}

/// The value of `NAME=VALUE`, which ends at a comma, a blank or a parenthesis.
fn field<'l>(args: &'l [u8], name: &[u8]) -> Option<&'l [u8]> {
    let ends = |byte: &u8| matches!(byte, b',' | b' ' | b'(' | b')');
    args.split(ends).find_map(|word| word.strip_prefix(name)?.strip_prefix(b"="))
}

fn request(key: &Key, args: &[u8]) -> Result<Result<Request, &'static str>, &'static str> {
    if key.queue == 0 {
        return Ok(Err("command of the admin queue"));
    }
    let (name, words) = match words(args) {
        Some(words) => (opcode(args), Some(words)),
        None => (command_name(args), None),
    };
    let name = name.ok_or("NVMe command without a name or an opcode")?;
    let (op, fixed) = match name {
        b"nvme_cmd_flush" => (BlockOp::Flush, true),
        b"nvme_cmd_read" => (BlockOp::Read, false),
        b"nvme_cmd_write" => (BlockOp::Write, false),
        b"nvme_cmd_write_zeroes" => (BlockOp::WriteZeroes, false),
        b"nvme_cmd_dsm" => return Ok(Err("discard whose ranges the event does not show")),
        b"nvme_cmd_zone_append" => return Ok(Err("zone append (the device chose the place)")),
        _ => return Ok(Err("NVMe command that is no read, write, flush or write-zeroes")),
    };
    let (mut flags, mut block, mut blocks) = (OpFlags::empty(), 0, 0);
    if !fixed {
        let why = "NVMe command without slba, len or ctrl";
        let (place, len, ctrl) = match words {
            Some(words) => words,
            None => printed(args).ok_or(why)?,
        };
        (block, blocks) = (place, len.saturating_add(1));
        flags.set(OpFlags::FUA, op != BlockOp::Read && ctrl & CTRL_FUA != 0);
        flags.set(OpFlags::UNMAP, op == BlockOp::WriteZeroes && ctrl & CTRL_DEAC != 0);
    }
    Ok(Ok(Request { op, flags, block, blocks }))
}

/// `cmd=(NAME ...`.
fn command_name(args: &[u8]) -> Option<&[u8]> {
    let at = memchr::memmem::find(args, b"cmd=(")?;
    args.get(at + 5..)?.split(|byte| matches!(byte, b' ' | b')')).next()
}

/// First block, blocks from 0, control, as the kernel prints them.
fn printed(args: &[u8]) -> Option<(u64, u64, u64)> {
    let value = |name: &[u8]| field(args, name).and_then(c_number);
    Some((value(b"slba")?, value(b"len")?, value(b"ctrl")?))
}

/// The same out of the command's words 10 to 12, as an array of bytes.
fn words(args: &[u8]) -> Option<(u64, u64, u64)> {
    let at = memchr::memmem::find(args, b"cdw10=ARRAY[")?;
    let text = args.get(at + 12..)?;
    let text = text.get(..text.iter().position(|byte| *byte == b']')?)?;
    let mut bytes = [0u8; 12];
    let mut digits = text.split(|byte| *byte == b',').map(<[u8]>::trim_ascii);
    for byte in &mut bytes {
        let text = digits.next()?;
        *byte = u8::try_from(hex(text.strip_prefix(b"0x").unwrap_or(text))?).ok()?;
    }
    let [low @ .., l0, l1, c0, c1] = bytes;
    let short = |low, high| u64::from(u16::from_le_bytes([low, high]));
    Some((u64::from_le_bytes(low), short(l0, l1), short(c0, c1)))
}

/// The name of the opcode that stands as a number.
fn opcode(args: &[u8]) -> Option<&'static [u8]> {
    let name: &[u8] = match field(args, b"opcode").and_then(c_number)? {
        0x00 => b"nvme_cmd_flush",
        0x01 => b"nvme_cmd_write",
        0x02 => b"nvme_cmd_read",
        0x08 => b"nvme_cmd_write_zeroes",
        0x09 => b"nvme_cmd_dsm",
        0x7d => b"nvme_cmd_zone_append",
        _ => b"",
    };
    Some(name)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn setup(args: &str) -> (String, Result<Request, &'static str>) {
        match parse(b"nvme_setup_cmd", args.as_bytes(), None).unwrap().unwrap().what {
            What::Setup { disk, request } => {
                (String::from_utf8(disk.as_bytes().to_vec()).unwrap(), request)
            }
            other => panic!("{other:?}"),
        }
    }

    const HEAD: &str = "nvme0: disk=nvme0n1, qid=2, cmdid=7, nsid=1, flags=0x0, meta=0x0, cmd=";

    #[test]
    fn commands_as_the_kernel_prints_them() {
        let one = |cmd: &str| setup(&format!("{HEAD}({cmd})"));
        let rw = |name: &str, ctrl: &str| {
            one(&format!("nvme_cmd_{name} slba=524160, len=7, ctrl={ctrl}, dsmgmt=7, reftag=0")).1
        };
        let none = OpFlags::empty();
        let want = |op, flags| Ok(Request { op, flags, block: 524_160, blocks: 8 });
        assert_eq!(rw("read", "0xc000"), want(BlockOp::Read, none));
        assert_eq!(rw("write", "0x0"), want(BlockOp::Write, none));
        assert_eq!(rw("write", "0x4000"), want(BlockOp::Write, OpFlags::FUA));
        assert_eq!(rw("write_zeroes", "0x200"), want(BlockOp::WriteZeroes, OpFlags::UNMAP));
        let (disk, flush) = one("nvme_cmd_flush cdw10=00 00 00 00");
        let nothing = Request { op: BlockOp::Flush, flags: none, block: 0, blocks: 0 };
        assert_eq!((disk.as_str(), flush), ("nvme0n1", Ok(nothing)));
        assert!(one("nvme_cmd_dsm nr=0, attributes=4").1.unwrap_err().starts_with("discard whose"));
        let identify = "nvme3: qid=0, cmdid=7, nsid=0, flags=0x0, meta=0x0, \
                        cmd=(nvme_admin_identify cns=1, ctrlid=0)";
        assert_eq!(setup(identify), ("nvme3".to_owned(), Err("command of the admin queue")));
    }

    #[test]
    fn commands_as_fields() {
        let fields = "[FAILED TO PARSE] disk=nvme0n1 ctrl_id=1 qid=2 opcode=2 flags=0 fctype=0 \
            cid=12656 nsid=1 metadata=0 cdw10=ARRAY[80, ff, 07, 00, 00, 00, 00, 00, 07, 00, 00, 80, \
            07, 00, 00, 00, 00, 00, 00, 00, 00, 00, 00, 00]";
        let read =
            Request { op: BlockOp::Read, flags: OpFlags::empty(), block: 524_160, blocks: 8 };
        assert_eq!(setup(fields), ("nvme0n1".to_owned(), Ok(read)));
        let command = parse(b"nvme_setup_cmd", fields.as_bytes(), Some(3)).unwrap().unwrap();
        assert_eq!(command.key, Key { controller: Some(1), queue: 2, command: 12_656 });
    }

    #[test]
    fn commands_of_linux_4_16() {
        let read = |name: &[u8], args: &[u8]| parse(name, args, None).unwrap().unwrap();
        let args = b"qid=2, nsid=1, cmdid=7, flags=0x0, meta=0x0, \
            cmd=(nvme_cmd_write slba=16, len=7, ctrl=0x4000, dsmgmt=0, reftag=0)";
        let write = read(b"nvme_setup_nvm_cmd", args);
        assert_eq!(write.key, Key { controller: None, queue: 2, command: 7 });
        let What::Setup { disk, request } = write.what else { panic!("a command") };
        assert_eq!(disk.as_bytes(), b"nvmen1");
        let want = Request { op: BlockOp::Write, flags: OpFlags::FUA, block: 16, blocks: 8 };
        assert_eq!(request, Ok(want));
        let args = b"cmdid=3, flags=0x0, meta=0x0, cmd=(nvme_admin_identify cns=1, ctrlid=0)";
        let admin = read(b"nvme_setup_admin_cmd", args);
        assert_eq!(admin.key, Key { controller: None, queue: 0, command: 3 });
        let done = b"cmdid=7, qid=2, res=0, retries=0, flags=0x0, status=8193";
        let done = read(b"nvme_complete_rq", done);
        assert_eq!((done.key, done.what), (write.key, What::Complete(0x2001)));
    }

    #[test]
    fn completions_and_what_is_damaged() {
        let args = b"nvme0: disk=nvme0n1, qid=2, cmdid=12656, res=0x0, retries=0, flags=0x0, status=0x4281";
        let command = parse(b"nvme_complete_rq", args, None).unwrap().unwrap();
        assert_eq!(command.what, What::Complete(0x4281));
        assert_eq!(parse(b"nvme_sq", b"", None), Ok(None));
        for (name, args) in [
            ("nvme_complete_rq", "nvme0: qid=2, cmdid=1"),
            ("nvme_complete_rq", "nvme0: cmdid=1, status=0"),
            ("nvme_complete_rq", "nvme0n1: qid=1, cmdid=1, status=0"),
            ("nvme_setup_cmd", "nvme0: qid=1, cmdid=1, cmd=(nvme_cmd_read slba=1, len=1)"),
            ("nvme_setup_cmd", "nvme0: qid=1, cmdid=1"),
        ] {
            assert!(parse(name.as_bytes(), args.as_bytes(), None).is_err(), "{args}");
        }
    }
}
