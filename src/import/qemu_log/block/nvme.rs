//! The nvme controller (QEMU `hw/nvme/ctrl.c`, before 6.1 `hw/block/nvme.c`).
//!
//! ```text
//! pci_nvme_io_cmd cid 1 nsid 0x1 sqid 1 opc 0x2 opname 'NVME_NVM_CMD_READ'
//! pci_nvme_read cid 1 nsid 1 nlb 8 count 4096 lba 0x10
//! pci_nvme_write cid 2 opname 'NVME_NVM_CMD_WRITE_ZEROES' nsid 1 nlb 8 count 4096 lba 0x10
//! pci_nvme_flush_ns nsid 0x1
//! pci_nvme_dsm_deallocate slba 64 nlb 8
//! pci_nvme_enqueue_req_completion cid 1 cqid 1 dw0 0x0 dw1 0x0 status 0x0
//!
//! pci_nvme_rw cid 1 opname 'NVME_NVM_CMD_WRITE' nsid 1 nlb 8 count 4096 lba 0x10       5.2
//! pci_nvme_write_zeroes cid 2 nsid 1 slba 16 nlb 8                                      5.2
//! pci_nvme_rw write 8 blocks (4096 bytes) from LBA 16                                   5.0, 5.1
//! nvme_rw write 8 blocks (4096 bytes) from LBA 16                                       before
//! ```
//!
//! - `nlb` is the number of blocks (the command's own field is one less); `count` is bytes with
//!   metadata, which gives the block's size. Where an event has none (deallocate, 5.2's
//!   write-zeroes), the size is that of the namespace's other requests, or `--unit`, or 512.
//! - Commands are joined to completions by `cid` and the queues that `pci_nvme_io_cmd` and
//!   `pci_nvme_create_sq` tell of. No event names the controller: namespaces of the same number on
//!   two controllers are one device.
//! - A deallocate names no command: it belongs to the last one of that kind. FUA, and whether a
//!   write-zeroes deallocates, are not in the log.

use std::collections::HashMap;

use super::requests::{Asked, Cx, Open};
use super::{Heard, OPEN_MAX, Unheard};
use crate::base::{BlockOp, OpFlags, Result, SECTOR_SIZE};
use crate::import::job::Job;
use crate::import::nvme_status;
use crate::import::qemu_log::fields::Fields;

/// Opcodes of I/O commands (NVMe 1.4 §6).
const FLUSH: u64 = 0x00;
const DSM: u64 = 0x09;
/// All namespaces.
const NSID_BROADCAST: u64 = 0xffff_ffff;
/// Namespaces whose block size is remembered, and queues.
const NAMESPACES_MAX: usize = 1 << 12;
/// The queue of commands where the log does not say.
const SQID_UNKNOWN: u16 = u16::MAX;
/// The largest block that a controller can have: 2^16, the page's own maximum.
const BLOCK_SIZE_MAX: u64 = 1 << 16;

const NOT_NAMED: &str = "completion of an nvme command that the log does not name";

/// A command in flight: its identifier and its queue.
type Command = (u16, u16);

/// What a command asked for.
#[derive(Default)]
struct Entry {
    /// A deallocate has many.
    open: Vec<Open>,
    /// The block layer is done with it.
    done: Option<Option<u64>>,
}

/// The nvme controllers of a log.
#[derive(Default)]
pub struct Nvme {
    /// The completion queue of a submission queue.
    queues: HashMap<u16, u16>,
    /// The queue from which a command identifier was last fetched.
    fetched: HashMap<u16, u16>,
    blocks: HashMap<u64, u64>,
    entries: HashMap<Command, Entry>,
    ranges_open: usize,
    /// The last deallocate, and the namespace it is for.
    dsm: Option<(Command, u64)>,
    /// A flush of all namespaces.
    broadcast: Option<Command>,
    told_block: Option<u64>,
    /// Any request was seen.
    pub seen: bool,
}

impl Nvme {
    /// `block` is the size of a block where the user tells it.
    pub fn new(told_block: Option<u64>) -> Self {
        Self { told_block, ..Self::default() }
    }

    /// Takes an event, if it is one of these.
    pub fn event(&mut self, name: &[u8], fields: &Fields<'_>, cx: &mut Cx<'_, '_>) -> Heard {
        // Versions before 5.1 have no prefix; else that is QEMU's own driver of such disks.
        let name = match name {
            b"nvme_rw" => name,
            _ => name.strip_prefix(b"pci_").ok_or(Unheard::Other)?,
        };
        match name {
            b"nvme_io_cmd" => self.fetch(fields, cx),
            b"nvme_read" => self.read_write(BlockOp::Read, fields, cx),
            b"nvme_write" | b"nvme_rw" => {
                let op = verb(fields).ok_or(Unheard::Malformed)?;
                self.read_write(op, fields, cx)
            }
            b"nvme_write_zeroes" => self.write_zeroes(fields, cx),
            b"nvme_flush_ns" | b"nvme_flush" => self.flush(fields, cx),
            b"nvme_dsm_deallocate" => self.deallocate(fields, cx),
            b"nvme_rw_cb" | b"nvme_rw_complete_cb" | b"nvme_misc_cb" | b"nvme_aio_flush_cb" => {
                self.done(fields, cx)
            }
            b"nvme_create_sq" => self.create_queue(fields),
            b"nvme_enqueue_req_completion" => self.complete(fields, cx),
            b"nvme_compare" | b"nvme_verify" | b"nvme_copy" => {
                Err(Unheard::Lost("nvme compare, verify or copy: no operation of a trace"))
            }
            _ => Err(Unheard::Other),
        }
    }

    /// The controller takes a command from its queue.
    fn fetch(&mut self, fields: &Fields<'_>, cx: &mut Cx<'_, '_>) -> Heard {
        let taken = || {
            let (cid, sqid) = (fields.short("cid")?, fields.short("sqid")?);
            Some(((cid, sqid), fields.get("nsid")?, fields.get("opc")?))
        };
        let (command, nsid, opcode) = taken().ok_or(Unheard::Malformed)?;
        self.fetched.insert(command.0, command.1);
        self.begin(command, cx)?;
        match opcode {
            FLUSH if nsid == NSID_BROADCAST => self.broadcast = Some(command),
            FLUSH => {
                self.issue(Some(command), nsid, BlockOp::Flush, (0, 0), cx)?;
            }
            DSM => self.dsm = Some((command, nsid)),
            _ => {}
        }
        Ok(())
    }

    /// A command takes the place of one with the same identifier that was not answered in the log.
    fn begin(&mut self, command: Command, cx: &mut Cx<'_, '_>) -> Result<()> {
        if let Some(old) = self.entries.remove(&command) {
            self.settle(old, cx)?;
        }
        if self.entries.len() < OPEN_MAX {
            self.entries.insert(command, Entry::default());
        }
        Ok(())
    }

    /// The command that a request with this identifier belongs to.
    fn command(&mut self, cid: u16, cx: &mut Cx<'_, '_>) -> Result<Command> {
        match self.fetched.get(&cid) {
            Some(sqid) => Ok((cid, *sqid)),
            None => {
                self.begin((cid, SQID_UNKNOWN), cx)?;
                Ok((cid, SQID_UNKNOWN))
            }
        }
    }

    fn read_write(&mut self, op: BlockOp, fields: &Fields<'_>, cx: &mut Cx<'_, '_>) -> Heard {
        let verb = if op == BlockOp::Read { "read" } else { "write" };
        let asked = || {
            let nlb = fields.get("nlb").or_else(|| fields.get(verb))?;
            let count = fields.get("count").or_else(|| fields.get("blocks"))?;
            Some((nlb, count, fields.get("lba").or_else(|| fields.get("LBA"))?))
        };
        let (nlb, count, lba) = asked().ok_or(Unheard::Malformed)?;
        let block = block_size(nlb, count).ok_or(Unheard::Malformed)?;
        let nsid = fields.get("nsid").unwrap_or(0);
        if self.blocks.len() < NAMESPACES_MAX {
            self.blocks.insert(nsid, block);
        }
        let command = match fields.short("cid") {
            Some(cid) => Some(self.command(cid, cx)?),
            None => None,
        };
        self.issue(command, nsid, op, (lba.saturating_mul(block), nlb.saturating_mul(block)), cx)
    }

    fn write_zeroes(&mut self, fields: &Fields<'_>, cx: &mut Cx<'_, '_>) -> Heard {
        let asked = || Some((fields.short("cid")?, fields.get("slba")?, fields.get("nlb")?));
        let (cid, lba, nlb) = asked().ok_or(Unheard::Malformed)?;
        let nsid = fields.get("nsid").unwrap_or(0);
        let block = self.block_of(nsid, cx.job);
        let command = self.command(cid, cx)?;
        let range = (lba.saturating_mul(block), nlb.saturating_mul(block));
        self.issue(Some(command), nsid, BlockOp::WriteZeroes, range, cx)
    }

    fn flush(&mut self, fields: &Fields<'_>, cx: &mut Cx<'_, '_>) -> Heard {
        let nsid = fields.get("nsid").ok_or(Unheard::Malformed)?;
        if let Some(command) = self.broadcast {
            return self.issue(Some(command), nsid, BlockOp::Flush, (0, 0), cx);
        }
        // Where commands are logged the flush stands already.
        if !self.fetched.is_empty() {
            return Ok(());
        }
        let command = match fields.short("cid") {
            Some(cid) => Some(self.command(cid, cx)?),
            None => None,
        };
        self.issue(command, nsid, BlockOp::Flush, (0, 0), cx)
    }

    fn deallocate(&mut self, fields: &Fields<'_>, cx: &mut Cx<'_, '_>) -> Heard {
        let asked = || Some((fields.get("slba")?, fields.get("nlb")?));
        let (lba, nlb) = asked().ok_or(Unheard::Malformed)?;
        let (command, last) = self.dsm.unzip();
        let nsid = fields.get("nsid").or(last).or_else(|| self.only_namespace()).unwrap_or(0);
        let block = self.block_of(nsid, cx.job);
        let range = (lba.saturating_mul(block), nlb.saturating_mul(block));
        self.issue(command, nsid, BlockOp::Discard, range, cx)
    }

    fn only_namespace(&self) -> Option<u64> {
        let mut known = self.blocks.keys();
        known.next().copied().filter(|_| known.next().is_none())
    }

    fn block_of(&self, nsid: u64, job: &mut Job<'_>) -> u64 {
        let known = self.told_block.or_else(|| self.blocks.get(&nsid).copied());
        known.unwrap_or_else(|| {
            job.summary.note(format!(
                "the log does not say how large a block of nvme namespace {nsid} is: 512 bytes \
                 assumed until it does (--unit tells another size)"
            ));
            SECTOR_SIZE
        })
    }

    fn issue(
        &mut self,
        command: Option<Command>,
        nsid: u64,
        op: BlockOp,
        (offset, len): (u64, u64),
        cx: &mut Cx<'_, '_>,
    ) -> Heard {
        self.seen = true;
        let device = if nsid == 0 { "nvme".to_owned() } else { format!("nvme-ns{nsid}") };
        let asked = Asked { device: &device, op, flags: OpFlags::empty(), offset, len };
        let open = cx.issue(&asked)?;
        if let Some(open) = open
            && let Some(entry) = command.and_then(|command| self.entries.get_mut(&command))
            && self.ranges_open < OPEN_MAX
        {
            entry.open.push(open);
            self.ranges_open += 1;
        }
        Ok(())
    }

    fn done(&mut self, fields: &Fields<'_>, cx: &Cx<'_, '_>) -> Heard {
        let cid = fields.short("cid").ok_or(Unheard::Malformed)?;
        let sqid = self.fetched.get(&cid).copied().unwrap_or(SQID_UNKNOWN);
        if let Some(entry) = self.entries.get_mut(&(cid, sqid)) {
            entry.done = Some(cx.at.ns);
        }
        Ok(())
    }

    fn create_queue(&mut self, fields: &Fields<'_>) -> Heard {
        let queue = || Some((fields.short("sqid")?, fields.short("cqid")?));
        let (sqid, cqid) = queue().ok_or(Unheard::Malformed)?;
        self.queues.insert(sqid, cqid);
        Ok(())
    }

    fn complete(&mut self, fields: &Fields<'_>, cx: &mut Cx<'_, '_>) -> Heard {
        let answered =
            || Some((fields.short("cid")?, fields.short("cqid")?, fields.short("status")?));
        let (cid, cqid, status) = answered().ok_or(Unheard::Malformed)?;
        if cqid == 0 {
            return Err(Unheard::Lost("completion of an nvme admin command"));
        }
        let command = self.answered(cid, cqid).ok_or(Unheard::Lost(NOT_NAMED))?;
        let Some(entry) = self.entries.remove(&command) else { return Ok(()) };
        self.ranges_open -= entry.open.len();
        if self.broadcast == Some(command) {
            self.broadcast = None;
        }
        for open in entry.open {
            cx.complete(open, Some(nvme_status::errno(status.into())))?;
        }
        Ok(())
    }

    /// The command in flight that a completion answers: of the queue that its queue belongs to.
    fn answered(&self, cid: u16, cqid: u16) -> Option<Command> {
        let is_open = |command: &Command| self.entries.contains_key(command);
        let last = self.fetched.get(&cid).map(|sqid| (cid, *sqid));
        let belongs = |command: &Command| match self.queues.get(&command.1) {
            Some(queue) => *queue == cqid,
            None => command.1 == cqid,
        };
        let mut known = self.queues.iter().filter(|(_, queue)| **queue == cqid);
        let by_last = last.filter(|command| belongs(command) && is_open(command));
        by_last
            .or_else(|| known.find_map(|(sqid, _)| Some((cid, *sqid)).filter(is_open)))
            .or_else(|| Some((cid, cqid)).filter(is_open))
            .or_else(|| Some((cid, SQID_UNKNOWN)).filter(is_open))
    }

    /// Ends the log: requests that the block layer was done with and no completion followed.
    ///
    /// # Errors
    /// Those of the job's sink.
    pub fn finish(&mut self, cx: &mut Cx<'_, '_>) -> Result<()> {
        let mut left: Vec<_> = self.entries.drain().map(|(_, entry)| entry).collect();
        left.sort_unstable_by_key(|entry| entry.open.first().map(|open| open.tag()));
        for entry in left {
            settle(&entry, cx)?;
        }
        Ok(())
    }

    fn settle(&mut self, entry: Entry, cx: &mut Cx<'_, '_>) -> Result<()> {
        self.ranges_open -= entry.open.len();
        settle(&entry, cx)
    }
}

/// Where the block layer's end of a command is known and no completion, that is its completion.
fn settle(entry: &Entry, cx: &mut Cx<'_, '_>) -> Result<()> {
    let Some(ns) = entry.done else { return Ok(()) };
    entry.open.iter().try_for_each(|open| cx.complete_late(*open, None, ns))
}

/// Read or write, or a write of zeroes, by the command's name or an older version's word for it.
fn verb(fields: &Fields<'_>) -> Option<BlockOp> {
    let name = fields.text();
    let has = |word: &[u8]| name.windows(word.len()).any(|part| part.eq_ignore_ascii_case(word));
    if has(b"WRITE_ZEROES") {
        Some(BlockOp::WriteZeroes)
    } else if has(b"WRITE") || has(b"APPEND") {
        Some(BlockOp::Write)
    } else if has(b"READ") {
        Some(BlockOp::Read)
    } else {
        None
    }
}

/// The bytes of a block: what is left of `count` without metadata, which is smaller than a block.
fn block_size(nlb: u64, count: u64) -> Option<u64> {
    let with_metadata = count.checked_div(nlb)?;
    let block = 1 << with_metadata.checked_ilog2()?;
    (SECTOR_SIZE..=BLOCK_SIZE_MAX).contains(&block).then_some(block)
}
