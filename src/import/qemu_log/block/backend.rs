//! Block back-ends: `blk_co_preadv` and `blk_co_pwritev` (QEMU `block/block-backend.c`), one layer
//! below the devices. For logs in which no device's events stand.
//!
//! ```text
//! blk_co_pwritev blk 0x55… bs 0x55… offset 4096 bytes 512 flags 0x10
//! ```
//!
//! Flags are QEMU's `BdrvRequestFlags`: FUA, and a write of zeroes that may unmap. Nothing tells of
//! completions, flushes and discards.

use super::requests::{Asked, Cx};
use super::{Heard, Unheard};
use crate::base::{BlockOp, OpFlags};
use crate::import::qemu_log::fields::Fields;

/// `BdrvRequestFlags` (QEMU `include/block/block-common.h`).
const BDRV_REQ_ZERO_WRITE: u64 = 0x2;
const BDRV_REQ_MAY_UNMAP: u64 = 0x4;
const BDRV_REQ_FUA: u64 = 0x10;

/// Takes an event, if it is one of these.
pub fn event(name: &[u8], fields: &Fields<'_>, cx: &mut Cx<'_, '_>) -> Heard {
    let write = match name {
        b"blk_co_preadv" => false,
        b"blk_co_pwritev" => true,
        _ => return Err(Unheard::Other),
    };
    let asked = || {
        let (offset, bytes) = (fields.get("offset")?, fields.get("bytes")?);
        Some((fields.get("blk")?, offset, bytes, fields.get("flags")?))
    };
    let (blk, offset, len, bits) = asked().ok_or(Unheard::Malformed)?;
    let zeroes = write && bits & BDRV_REQ_ZERO_WRITE != 0;
    let mut flags = OpFlags::empty();
    flags.set(OpFlags::FUA, write && bits & BDRV_REQ_FUA != 0);
    flags.set(OpFlags::UNMAP, zeroes && bits & BDRV_REQ_MAY_UNMAP != 0);
    let op = match (write, zeroes) {
        (false, _) => BlockOp::Read,
        (true, false) => BlockOp::Write,
        (true, true) => BlockOp::WriteZeroes,
    };
    let device = format!("blk@{blk:#x}");
    cx.issue(&Asked { device: &device, op, flags, offset, len })?;
    Ok(())
}
