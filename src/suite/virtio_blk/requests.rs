//! What each request does, and what it refuses.

use super::rig::{Answer, Request, Rig, Start, USUAL, same};
use super::{BLOCKS_4K, DISK_BYTES, DISKS, MULTIQUEUE, PLAIN, READ_ONLY, SCRATCH, SERIALS, case};
use crate::driver::virtio::Transport;
use crate::driver::virtio::spec::*;
use crate::machine::Capabilities;
use crate::suite::module::Case;
use crate::suite::outcome::Outcome;
use crate::suite::setup::TestDisk;
use crate::suite::thread::TestThread;

pub(super) const CASES: [Case; 11] = [
    case("config", "capacity, block size, queues and limits are the disk's", config),
    case("basic-modern", "read, write and flush by the 1.x interface", |thread| {
        basic(thread, Transport::Modern)
    }),
    case("basic-legacy", "read, write and flush by the legacy interface", |thread| {
        basic(thread, Transport::Legacy)
    })
    .needs(super::REGISTERS.union(Capabilities::PIO)),
    case("bounds", "what lies outside the disk is refused and changes nothing", bounds),
    case("unknown-type", "request types that do not exist are unsupported", unknown_type),
    case("get-id", "the identifier, whole and as far as the buffer reaches", get_id)
        .needs(super::NEEDS.union(Capabilities::DISK_IDS)),
    case("flush", "writes and flushes one after the other", flush),
    case("discard", "ranges to forget, and their bounds", discard),
    case("write-zeroes", "ranges that become zeros, and their bounds", write_zeroes),
    case("read-only", "a read-only disk refuses every change", read_only),
    case("block-size", "a disk with blocks of 4096 bytes says so; parts of them", block_size),
];

/// Offsets in `struct virtio_blk_config` (§5.2.4).
pub(super) const CONFIG_CAPACITY: u64 = 0;
const CONFIG_BLK_SIZE: u64 = 20;
const CONFIG_NUM_QUEUES: u64 = 34;
const CONFIG_MAX_DISCARD_SECTORS: u64 = 36;
const CONFIG_MAX_DISCARD_SEG: u64 = 40;
const CONFIG_MAX_WRITE_ZEROES_SECTORS: u64 = 48;

/// A read of `len` bytes.
const fn read(sector: u64, into: u32) -> Request<'static> {
    Request { kind: VIRTIO_BLK_T_IN, sector, out: &[], into }
}

/// A write.
const fn write(sector: u64, out: &[u8]) -> Request<'_> {
    Request { kind: VIRTIO_BLK_T_OUT, sector, out, into: 0 }
}

/// A discard or write-zeroes of ranges.
const fn ranges(kind: u32, out: &[u8]) -> Request<'_> {
    Request { kind, sector: 0, out, into: 0 }
}

/// `struct virtio_blk_discard_write_zeroes`.
fn range(sector: u64, sectors: u32, flags: u32) -> Vec<u8> {
    [&sector.to_le_bytes()[..], &sectors.to_le_bytes(), &flags.to_le_bytes()].concat()
}

/// What filled disks hold.
fn pattern(sector: u64, len: usize) -> Vec<u8> {
    let mut bytes = vec![0; len];
    TestDisk::pattern(sector * 512, &mut bytes);
    bytes
}

fn random(thread: &mut TestThread<'_>, len: usize) -> Vec<u8> {
    let mut bytes = vec![0; len];
    thread.prng().fill(&mut bytes);
    bytes
}

pub(super) fn field(
    thread: &mut TestThread<'_>,
    rig: &mut Rig,
    offset: u64,
    size: u8,
) -> Outcome<u64> {
    Ok(rig.device.read_config(thread.machine(), |reader| match size {
        2 => reader.u16(offset).into(),
        4 => reader.u32(offset).into(),
        _ => reader.u64(offset),
    })?)
}

fn config(thread: &mut TestThread<'_>) -> Outcome {
    for (disk, spec) in DISKS.iter().enumerate() {
        let features = USUAL | VIRTIO_BLK_F_MQ;
        let mut rig = Rig::start(thread, Start { disk, features, ..Start::default() })?;
        let capacity = field(thread, &mut rig, CONFIG_CAPACITY, 8)?;
        thread.expect("capacity", capacity, spec.bytes / 512)?;
        let read_only = rig.device.features & VIRTIO_BLK_F_RO != 0;
        thread.expect("VIRTIO_BLK_F_RO", read_only, spec.read_only)?;
        if rig.device.features & VIRTIO_BLK_F_BLK_SIZE != 0 {
            let size = field(thread, &mut rig, CONFIG_BLK_SIZE, 4)?;
            thread.expect("blk_size", size, spec.block_bytes.into())?;
        }
        let queues = match rig.device.features & VIRTIO_BLK_F_MQ {
            0 => 1,
            _ => field(thread, &mut rig, CONFIG_NUM_QUEUES, 2)?,
        };
        thread.expect("num_queues", queues, spec.queues.into())?;
        for (feature, offset, name) in [
            (VIRTIO_BLK_F_DISCARD, CONFIG_MAX_DISCARD_SECTORS, "max_discard_sectors"),
            (
                VIRTIO_BLK_F_WRITE_ZEROES,
                CONFIG_MAX_WRITE_ZEROES_SECTORS,
                "max_write_zeroes_sectors",
            ),
        ] {
            if rig.device.features & feature != 0 {
                let most = field(thread, &mut rig, offset, 4)?;
                thread.check(most >= u64::from(spec.block_bytes) / 512, name)?;
            }
        }
        rig.finish(thread)?;
    }
    Ok(())
}

fn basic(thread: &mut TestThread<'_>, transport: Transport) -> Outcome {
    let mut rig = Rig::start(thread, Start { transport, ..Start::default() })?;
    let answer = rig.expect(thread, "read", read(7, 1024), VIRTIO_BLK_S_OK)?;
    same(thread, "sectors 7 and 8", &answer.data, &pattern(7, 1024))?;
    let new = random(thread, 1536);
    let written = rig.expect(thread, "write", write(SCRATCH + 3, &new), VIRTIO_BLK_S_OK)?;
    rig.expect_sectors(thread, "what was written", SCRATCH + 3, &new)?;
    rig.expect_sectors(thread, "the half not written", SCRATCH - 2, &pattern(SCRATCH - 2, 1024))?;
    if rig.device.features & VIRTIO_BLK_F_FLUSH != 0 {
        let flush = Request { kind: VIRTIO_BLK_T_FLUSH, ..Request::default() };
        rig.expect(thread, "flush", flush, VIRTIO_BLK_S_OK)?;
    }
    // Before 1.0 the length is not to be relied on (§2.7.8.1).
    if transport == Transport::Modern {
        thread.expect("used length of a read of 1024 bytes", answer.len, 1025)?;
        thread.expect("used length of a write", written.len, 1)?;
    }
    rig.finish(thread)
}

fn bounds(thread: &mut TestThread<'_>) -> Outcome {
    let mut rig = Rig::usual(thread)?;
    let end = DISK_BYTES / 512;
    let old = random(thread, 1024);
    rig.expect(thread, "write", write(end - 2, &old), VIRTIO_BLK_S_OK)?;
    for (what, request) in [
        ("read past the end", read(end - 1, 1024)),
        ("read at the end", read(end, 512)),
        ("read at sector 2^64 - 1", read(u64::MAX, 512)),
        ("read at byte 2^64", read(1 << 55, 512)),
        ("read of half a sector", read(0, 256)),
        ("read of a sector and a half", read(0, 768)),
        ("write past the end", write(end - 1, &[1; 1024])),
        ("write at the end", write(end, &[1; 512])),
        ("write at byte 2^64", write(1 << 55, &[1; 512])),
        ("write of 513 bytes", write(end - 2, &[1; 513])),
    ] {
        rig.expect(thread, what, request, VIRTIO_BLK_S_IOERR)?;
    }
    rig.expect_sectors(thread, "the last two sectors", end - 2, &old)?;
    rig.expect_sectors(thread, "the first sector", 0, &pattern(0, 512))?;
    rig.finish(thread)
}

fn unknown_type(thread: &mut TestThread<'_>) -> Outcome {
    const VIRTIO_BLK_T_SECURE_ERASE: u32 = 14;
    let mut rig = Rig::usual(thread)?;
    for kind in [77, 0x1000, VIRTIO_BLK_T_SECURE_ERASE] {
        let request = Request { kind, sector: 0, out: &[0; 16], into: 0 };
        rig.expect(thread, &format!("type {kind}"), request, VIRTIO_BLK_S_UNSUPP)?;
    }
    rig.expect_sectors(thread, "a read afterwards", 0, &pattern(0, 512))?;
    rig.finish(thread)
}

fn get_id(thread: &mut TestThread<'_>) -> Outcome {
    for disk in [PLAIN, MULTIQUEUE] {
        let serial = SERIALS.get(disk).copied().unwrap_or_default().as_bytes();
        let mut rig = Rig::start(thread, Start { disk, ..Start::default() })?;
        let get = |into| Request { kind: VIRTIO_BLK_T_GET_ID, into, ..Request::default() };
        rig.put(super::rig::DATA, &[0xee; 32]);
        let id = rig.expect(thread, "get id", get(VIRTIO_BLK_ID_BYTES), VIRTIO_BLK_S_OK)?.data;
        let (name, rest) = id.split_at(serial.len().min(id.len()));
        same(thread, "identifier", name, serial)?;
        // Shorter than 20 bytes, it ends with a zero (§5.2.6).
        thread.check(rest.first().is_none_or(|byte| *byte == 0), "a zero ends the identifier")?;
        let short = rig.expect(thread, "get id of 5 bytes", get(5), VIRTIO_BLK_S_OK)?.data;
        same(thread, "identifier cut off", &short, serial.get(..5).unwrap_or_default())?;
        rig.finish(thread)?;
    }
    Ok(())
}

fn flush(thread: &mut TestThread<'_>) -> Outcome {
    let mut rig = Rig::usual(thread)?;
    offers(thread, &rig, VIRTIO_BLK_F_FLUSH, "flush")?;
    let flush = Request { kind: VIRTIO_BLK_T_FLUSH, ..Request::default() };
    for sector in SCRATCH..SCRATCH + 16 {
        let new = random(thread, 512);
        rig.expect(thread, "write", write(sector, &new), VIRTIO_BLK_S_OK)?;
        rig.expect(thread, "flush", flush, VIRTIO_BLK_S_OK)?;
        rig.expect_sectors(thread, "what was flushed", sector, &new)?;
    }
    rig.finish(thread)
}

/// Skips the case where the device lacks a feature.
fn offers(thread: &TestThread<'_>, rig: &Rig, feature: u64, name: &str) -> Outcome {
    match rig.device.features & feature {
        0 => thread.skip(format!("the device does not offer {name}")),
        _ => Ok(()),
    }
}

/// What both kinds of range request refuse; `SCRATCH` is left as it was.
fn range_bounds(thread: &mut TestThread<'_>, rig: &mut Rig, kind: u32, most: u64) -> Outcome {
    let end = DISK_BYTES / 512;
    let old = random(thread, 4096);
    rig.expect(thread, "write", write(SCRATCH, &old), VIRTIO_BLK_S_OK)?;
    for (what, bytes, status) in [
        ("past the end", range(end - 1, 2, 0), VIRTIO_BLK_S_IOERR),
        ("at sector 2^64 - 1", range(u64::MAX, 1, 0), VIRTIO_BLK_S_IOERR),
        ("a reserved flag", range(SCRATCH, 1, 2), VIRTIO_BLK_S_UNSUPP),
        ("a high reserved flag", range(SCRATCH, 1, 1 << 31), VIRTIO_BLK_S_UNSUPP),
    ] {
        rig.expect(thread, what, ranges(kind, &bytes), status)?;
    }
    if let Some(more) = u32::try_from(most).ok().and_then(|most| most.checked_add(1)) {
        let bytes = range(SCRATCH, more, 0);
        rig.expect(thread, "more than the most", ranges(kind, &bytes), VIRTIO_BLK_S_IOERR)?;
    }
    for bytes in [&[][..], &[0; 8], &[0; 15]] {
        let what = format!("a range of {} bytes", bytes.len());
        rig.expect_refusal(thread, &what, ranges(kind, bytes))?;
    }
    rig.expect_sectors(thread, "the range that was refused", SCRATCH, &old)
}

fn discard(thread: &mut TestThread<'_>) -> Outcome {
    let mut rig = Rig::usual(thread)?;
    offers(thread, &rig, VIRTIO_BLK_F_DISCARD, "discard")?;
    let most = field(thread, &mut rig, CONFIG_MAX_DISCARD_SECTORS, 4)?;
    range_bounds(thread, &mut rig, VIRTIO_BLK_T_DISCARD, most)?;
    let unmap = range(SCRATCH, 1, VIRTIO_BLK_WRITE_ZEROES_FLAG_UNMAP);
    let request = ranges(VIRTIO_BLK_T_DISCARD, &unmap);
    rig.expect(thread, "discard with unmap", request, VIRTIO_BLK_S_UNSUPP)?;
    // What a discarded sector reads as is the device's choice; its neighbours stay.
    let old = random(thread, 1536);
    rig.expect(thread, "write", write(SCRATCH, &old), VIRTIO_BLK_S_OK)?;
    let one = range(SCRATCH + 1, 1, 0);
    rig.expect(thread, "discard", ranges(VIRTIO_BLK_T_DISCARD, &one), VIRTIO_BLK_S_OK)?;
    rig.expect_sectors(thread, "before it", SCRATCH, old.get(..512).unwrap_or_default())?;
    rig.expect_sectors(thread, "behind it", SCRATCH + 2, old.get(1024..).unwrap_or_default())?;
    rig.expect(thread, "read of it", read(SCRATCH + 1, 512), VIRTIO_BLK_S_OK)?;
    if field(thread, &mut rig, CONFIG_MAX_DISCARD_SEG, 4)? > 1 {
        let two = [range(SCRATCH, 1, 0), range(SCRATCH + 2, 1, 0)].concat();
        rig.expect(thread, "two ranges", ranges(VIRTIO_BLK_T_DISCARD, &two), VIRTIO_BLK_S_OK)?;
    }
    rig.finish(thread)
}

fn write_zeroes(thread: &mut TestThread<'_>) -> Outcome {
    let mut rig = Rig::usual(thread)?;
    offers(thread, &rig, VIRTIO_BLK_F_WRITE_ZEROES, "write-zeroes")?;
    let most = field(thread, &mut rig, CONFIG_MAX_WRITE_ZEROES_SECTORS, 4)?;
    range_bounds(thread, &mut rig, VIRTIO_BLK_T_WRITE_ZEROES, most)?;
    for flags in [0, VIRTIO_BLK_WRITE_ZEROES_FLAG_UNMAP] {
        let mut want = random(thread, 2048);
        rig.expect(thread, "write", write(SCRATCH, &want), VIRTIO_BLK_S_OK)?;
        let middle = range(SCRATCH + 1, 2, flags);
        let request = ranges(VIRTIO_BLK_T_WRITE_ZEROES, &middle);
        rig.expect(thread, "write zeroes", request, VIRTIO_BLK_S_OK)?;
        want.iter_mut().skip(512).take(1024).for_each(|byte| *byte = 0);
        rig.expect_sectors(thread, &format!("zeroed, flags {flags}"), SCRATCH, &want)?;
    }
    rig.finish(thread)
}

fn read_only(thread: &mut TestThread<'_>) -> Outcome {
    let mut rig = Rig::start(thread, Start { disk: READ_ONLY, ..Start::default() })?;
    let one = range(SCRATCH, 1, 0);
    rig.expect(thread, "write", write(SCRATCH, &[1; 512]), VIRTIO_BLK_S_IOERR)?;
    for kind in [VIRTIO_BLK_T_DISCARD, VIRTIO_BLK_T_WRITE_ZEROES] {
        let answer = rig.request(thread, ranges(kind, &one))?;
        thread.check(answer.status != VIRTIO_BLK_S_OK, format!("type {kind} is refused"))?;
    }
    rig.expect_sectors(thread, "the sector", SCRATCH, &pattern(SCRATCH, 512))?;
    rig.finish(thread)
}

/// Whether a request was done; else it was refused.
fn done(thread: &TestThread<'_>, what: &str, answer: &Answer) -> Outcome<bool> {
    match answer.status {
        VIRTIO_BLK_S_OK => Ok(true),
        status => {
            thread.expect(&format!("{what}: status"), status, VIRTIO_BLK_S_IOERR)?;
            Ok(false)
        }
    }
}

fn block_size(thread: &mut TestThread<'_>) -> Outcome {
    let mut rig = Rig::start(thread, Start { disk: BLOCKS_4K, ..Start::default() })?;
    offers(thread, &rig, VIRTIO_BLK_F_BLK_SIZE, "blk_size")?;
    let size = field(thread, &mut rig, CONFIG_BLK_SIZE, 4)?;
    thread.expect("blk_size", size, 4096)?;
    rig.expect_sectors(thread, "a whole block", 8, &pattern(8, 4096))?;
    // The size tells what is best, and the unit of requests stays 512 bytes (§5.2.5): a device does
    // them as they are, or not at all.
    for (what, sector, len) in
        [("read of a sector", 8, 512), ("read that begins inside a block", 1, 4096)]
    {
        let answer = rig.request(thread, read(sector, len))?;
        if done(thread, what, &answer)? {
            same(thread, what, &answer.data, &pattern(sector, len as usize))?;
        }
    }
    let mut want = pattern(SCRATCH, 4096);
    let answer = rig.request(thread, write(SCRATCH + 1, &[1; 512]))?;
    if done(thread, "write of a sector", &answer)? {
        want.iter_mut().skip(512).take(512).for_each(|byte| *byte = 1);
    }
    rig.expect_sectors(thread, "the block written to", SCRATCH, &want)?;
    rig.finish(thread)
}
