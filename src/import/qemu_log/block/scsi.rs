//! SCSI disks, of every controller (QEMU `hw/scsi/scsi-bus.c`).
//!
//! ```text
//! scsi_req_parsed target 0 lun 0 tag 25 command 40 dir 1 length 4096      bytes; command in decimal
//! scsi_req_parsed_lba target 0 lun 0 tag 25 command 40 lba 2048           blocks; follows it
//! scsi_req_dequeue target 0 lun 0 tag 25                                  done, well or not
//! ```
//!
//! - Blocks have 512 bytes unless `--unit` tells another size: no event says.
//! - No event names the controller: disks of the same target and LUN on two of them are one device.
//! - The length of WRITE SAME, the ranges of UNMAP, FUA, and how a request ended are not in the log.

use std::collections::HashMap;

use super::requests::{Asked, Cx, Open};
use super::{Heard, OPEN_MAX, Unheard};
use crate::base::{BlockOp, OpFlags, SECTOR_SIZE};
use crate::import::qemu_log::fields::Fields;

/// Commands (SBC-4, table 32) of 6, 10, 12 and 16 bytes, and WRITE AND VERIFY.
const READ: &[u64] = &[0x08, 0x28, 0xa8, 0x88];
const WRITE: &[u64] = &[0x0a, 0x2a, 0xaa, 0x8a, 0x2e, 0xae, 0x8e];
const SYNCHRONIZE_CACHE: &[u64] = &[0x35, 0x91];
const WRITE_SAME: &[u64] = &[0x41, 0x93];
const UNMAP: u64 = 0x42;

const NOT_NAMED: &str = "completion of a scsi request that the log does not name";

/// Target, LUN and tag.
type Key = (u64, u64, u64);

/// A request in flight.
enum Entry {
    /// Its place comes next.
    Parsed(BlockOp, u64),
    /// It stands in the trace, unless it cannot.
    Issued(Option<Open>),
    /// It is no request of the trace.
    Left,
}

/// The SCSI disks of a log.
#[derive(Default)]
pub struct Scsi {
    entries: HashMap<Key, Entry>,
    told_block: Option<u64>,
    /// Any request was seen.
    pub seen: bool,
}

impl Scsi {
    /// `block` is the size of a block where the user tells it.
    pub fn new(told_block: Option<u64>) -> Self {
        Self { told_block, ..Self::default() }
    }

    /// Takes an event, if it is one of these.
    pub fn event(&mut self, name: &[u8], fields: &Fields<'_>, cx: &mut Cx<'_, '_>) -> Heard {
        let key = || Some((fields.get("target")?, fields.get("lun")?, fields.get("tag")?));
        let known: fn(&mut Self, Key, &Fields<'_>, &mut Cx<'_, '_>) -> Heard = match name {
            b"scsi_req_parsed" => Self::parsed,
            b"scsi_req_parsed_lba" => Self::placed,
            b"scsi_req_dequeue" => Self::done,
            b"scsi_req_cancel" => |scsi, key, _, _| {
                scsi.entries.remove(&key);
                Ok(())
            },
            // Where a request is set up, of those that are followed.
            b"scsi_req_alloc" => |_, _, _, _| Ok(()),
            _ => return Err(Unheard::Other),
        };
        known(self, key().ok_or(Unheard::Malformed)?, fields, cx)
    }

    fn parsed(&mut self, key: Key, fields: &Fields<'_>, cx: &mut Cx<'_, '_>) -> Heard {
        let asked = || Some((fields.get("command")?, fields.get("length")?));
        let (command, len) = asked().ok_or(Unheard::Malformed)?;
        let left = |reason| (Entry::Left, Err(Unheard::Lost(reason)));
        let (entry, heard) = if READ.contains(&command) {
            (Entry::Parsed(BlockOp::Read, len), Ok(()))
        } else if WRITE.contains(&command) {
            (Entry::Parsed(BlockOp::Write, len), Ok(()))
        } else if SYNCHRONIZE_CACHE.contains(&command) {
            (Entry::Issued(self.issue(key, BlockOp::Flush, 0, 0, cx)?), Ok(()))
        } else if WRITE_SAME.contains(&command) {
            left("scsi WRITE SAME: its length is not in the log")
        } else if command == UNMAP {
            left("scsi UNMAP: the log does not say which ranges")
        } else {
            left("scsi command that is no request for the disk's data")
        };
        if self.entries.len() < OPEN_MAX || self.entries.contains_key(&key) {
            self.entries.insert(key, entry);
        }
        heard
    }

    fn placed(&mut self, key: Key, fields: &Fields<'_>, cx: &mut Cx<'_, '_>) -> Heard {
        let lba = fields.get("lba").ok_or(Unheard::Malformed)?;
        let Some(Entry::Parsed(op, len)) = self.entries.get(&key) else {
            return match self.entries.contains_key(&key) {
                true => Ok(()),
                false => Err(Unheard::Lost("scsi request whose length is not in the log")),
            };
        };
        let (op, len) = (*op, *len);
        let open = self.issue(key, op, lba, len, cx)?;
        self.entries.insert(key, Entry::Issued(open));
        Ok(())
    }

    fn done(&mut self, key: Key, _: &Fields<'_>, cx: &mut Cx<'_, '_>) -> Heard {
        match self.entries.remove(&key) {
            Some(Entry::Issued(Some(open))) => Ok(cx.complete(open, None)?),
            Some(Entry::Issued(None) | Entry::Left) => Ok(()),
            Some(Entry::Parsed(..)) => {
                Err(Unheard::Lost("scsi request whose place is not in the log"))
            }
            None => Err(Unheard::Lost(NOT_NAMED)),
        }
    }

    fn issue(
        &mut self,
        (target, lun, _): Key,
        op: BlockOp,
        lba: u64,
        len: u64,
        cx: &mut Cx<'_, '_>,
    ) -> Result<Option<Open>, Unheard> {
        self.seen = true;
        if self.told_block.is_none() && lba > 0 {
            cx.job.summary.note(
                "the log does not say how large a block of a scsi disk is: 512 bytes assumed \
                 (--unit tells another size)",
            );
        }
        let offset = lba.saturating_mul(self.told_block.unwrap_or(SECTOR_SIZE));
        let device = format!("scsi-{target}:{lun}");
        Ok(cx.issue(&Asked { device: &device, op, flags: OpFlags::empty(), offset, len })?)
    }
}
