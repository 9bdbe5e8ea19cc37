//! virtio-blk: `virtio_blk_handle_read` and `_write`, `virtio_blk_rw_complete`,
//! `virtio_blk_req_complete` (QEMU `hw/block/virtio-blk.c`).
//!
//! ```text
//! virtio_blk_handle_write vdev 0x55… req 0x7f… sector 8 nsectors 1       no vdev before 2.11
//! virtio_blk_rw_complete vdev 0x55… req 0x7f… ret 0                      the block layer is done
//! virtio_blk_req_complete vdev 0x55… req 0x7f… status 0                  the guest gets the answer
//! ```
//!
//! Requests are joined by the address of their memory, which is used again and again. Flush,
//! discard, write-zeroes and get-id have no event but their completion, so these are counted. A
//! request that failed while its drive has `rerror=stop` or `werror=stop` is handled a second time
//! without having been answered.

use std::collections::HashMap;

use super::requests::{Asked, Cx, EIO, EOPNOTSUPP, Open, errno_of};
use super::{Heard, OPEN_MAX, Unheard};
use crate::base::{BlockOp, OpFlags, Result, SECTOR_SIZE};
use crate::import::qemu_log::fields::Fields;
use crate::import::summary::counted;

/// `VIRTIO_BLK_S_UNSUPP` (virtio 1.2 §5.2.6).
const VIRTIO_BLK_S_UNSUPP: u64 = 2;

const NOT_NAMED: &str = "completion of a virtio-blk request that the log does not name (flush, \
                         discard, write-zeroes, get-id)";

/// A request in flight.
struct Entry {
    /// `None` where it is not in the trace.
    open: Option<Open>,
    asked: (BlockOp, u64, u64),
    /// The block layer is done with it: when, and with which result.
    done: Option<(Option<u64>, i64)>,
}

/// The virtio-blk devices of a log.
#[derive(Default)]
pub struct Virtio {
    entries: HashMap<u64, Entry>,
    retried: u64,
}

impl Virtio {
    /// Takes an event, if it is one of these.
    pub fn event(&mut self, name: &[u8], fields: &Fields<'_>, cx: &mut Cx<'_, '_>) -> Heard {
        match name {
            b"virtio_blk_handle_read" => self.handle(BlockOp::Read, fields, cx),
            b"virtio_blk_handle_write" => self.handle(BlockOp::Write, fields, cx),
            b"virtio_blk_rw_complete" => self.rw_complete(fields, cx),
            b"virtio_blk_req_complete" => self.req_complete(fields, cx),
            b"virtio_blk_handle_zone_append" => {
                Err(Unheard::Lost("zone append: its length is not in the log"))
            }
            _ => Err(Unheard::Other),
        }
    }

    fn handle(&mut self, op: BlockOp, fields: &Fields<'_>, cx: &mut Cx<'_, '_>) -> Heard {
        let asked = || Some((fields.get("req")?, fields.get("sector")?, fields.get("nsectors")?));
        let (req, sector, sectors) = asked().ok_or(Unheard::Malformed)?;
        let asked = (op, sector, sectors);
        if let Some(old) = self.entries.get_mut(&req) {
            match old.done {
                Some((_, result)) if result < 0 && old.asked == asked => {
                    self.retried += 1;
                    old.done = None;
                    return Ok(());
                }
                _ => {}
            }
        }
        if let Some(old) = self.entries.remove(&req) {
            old.settle(cx)?;
        }
        let device = fields.get("vdev").map(|vdev| format!("virtio-blk@{vdev:#x}"));
        let asked_of = Asked {
            device: device.as_deref().unwrap_or("virtio-blk"),
            op,
            flags: OpFlags::empty(),
            offset: sector.saturating_mul(SECTOR_SIZE),
            len: sectors.saturating_mul(SECTOR_SIZE),
        };
        let open = cx.issue(&asked_of)?;
        if self.entries.len() < OPEN_MAX {
            self.entries.insert(req, Entry { open, asked, done: None });
        }
        Ok(())
    }

    fn rw_complete(&mut self, fields: &Fields<'_>, cx: &Cx<'_, '_>) -> Heard {
        let done = || Some((fields.get("req")?, fields.signed("ret")?));
        let (req, result) = done().ok_or(Unheard::Malformed)?;
        if let Some(entry) = self.entries.get_mut(&req) {
            entry.done = Some((cx.at.ns, result));
        }
        Ok(())
    }

    fn req_complete(&mut self, fields: &Fields<'_>, cx: &mut Cx<'_, '_>) -> Heard {
        let done = || Some((fields.get("req")?, fields.get("status")?));
        let (req, status) = done().ok_or(Unheard::Malformed)?;
        let entry = self.entries.remove(&req).ok_or(Unheard::Lost(NOT_NAMED))?;
        let Some(open) = entry.open else { return Ok(()) };
        let status = match (status, entry.done) {
            (0, _) => 0,
            // The answer says that it failed; the result says of what.
            (_, Some((_, result))) if result < 0 => errno_of(result),
            (VIRTIO_BLK_S_UNSUPP, _) => EOPNOTSUPP,
            _ => EIO,
        };
        Ok(cx.complete(open, Some(status))?)
    }

    /// Ends the log: requests that the block layer was done with and no answer followed.
    ///
    /// # Errors
    /// Those of the job's sink.
    pub fn finish(&mut self, cx: &mut Cx<'_, '_>) -> Result<()> {
        let mut left: Vec<_> = self.entries.drain().map(|(_, entry)| entry).collect();
        left.sort_unstable_by_key(|entry| entry.open.map(Open::tag));
        for entry in left {
            entry.settle(cx)?;
        }
        if self.retried > 0 {
            let count = counted(self.retried, "request was", "requests were");
            cx.job.summary.note(format!("{count} tried again after an error: kept once"));
        }
        Ok(())
    }
}

impl Entry {
    /// What is known of a request that was not answered in the log: the block layer's end of it is
    /// its completion where `virtio_blk_req_complete` was not traced.
    fn settle(self, cx: &mut Cx<'_, '_>) -> Result<()> {
        match (self.open, self.done) {
            (Some(open), Some((ns, result))) => cx.complete_late(open, Some(errno_of(result)), ns),
            _ => Ok(()),
        }
    }
}
