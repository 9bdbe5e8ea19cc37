//! Chains of every shape that a driver may make, and rings at their limits.

use super::rig::{DATA, HEADER, Request, Rig, STATUS, Start, TABLE, USUAL, linked, same};
use super::{DISK_BYTES, MULTIQUEUE, SCRATCH, case};
use crate::driver::virtio::queue::RawDescriptor;
use crate::driver::virtio::spec::*;
use crate::suite::module::Case;
use crate::suite::outcome::Outcome;
use crate::suite::setup::TestDisk;
use crate::suite::thread::TestThread;

pub(super) const CASES: [Case; 5] = [
    case("layout", "header, data and status cut at any byte, or joined", layout),
    case("indirect", "chains through tables, in any order of entries", indirect),
    case("indirect-behind", "a table at the end of a chain of descriptors", indirect_behind),
    case("wrap", "a ring filled to the brim, past the end of its indices", wrap),
    case("multiqueue", "each queue is answered by itself", multiqueue),
];

const W: u16 = VIRTQ_DESC_F_WRITE;
const NEXT: u16 = VIRTQ_DESC_F_NEXT;
const INDIRECT: u16 = VIRTQ_DESC_F_INDIRECT;

fn pattern(sector: u64, len: usize) -> Vec<u8> {
    let mut bytes = vec![0; len];
    TestDisk::pattern(sector * 512, &mut bytes);
    bytes
}

/// `len` bytes from `offset` as one to five descriptors, none of them empty.
fn cut(
    thread: &mut TestThread<'_>,
    rig: &Rig,
    (offset, len): (u64, u32),
    flags: u16,
) -> Vec<RawDescriptor> {
    let mut cuts: Vec<u32> = (0..thread.prng().below(5))
        .map(|_| 1 + thread.prng().below(u64::from(len.saturating_sub(1)).max(1)) as u32)
        .filter(|at| *at < len)
        .collect();
    cuts.extend([0, len]);
    cuts.sort_unstable();
    cuts.dedup();
    let pieces = cuts.iter().zip(cuts.iter().skip(1));
    pieces.map(|(from, to)| rig.part(offset + u64::from(*from), to - from, flags)).collect()
}

fn layout(thread: &mut TestThread<'_>) -> Outcome {
    const ROUNDS: u64 = 100;
    /// What the device writes, apart from what it reads.
    const INTO: u64 = DATA + 0x8000;
    let mut rig = Rig::usual(thread)?;
    for round in 0..ROUNDS {
        // A write: header and data stand together and are cut anywhere, between them or not.
        let sector = SCRATCH + round;
        let mut new = vec![0; 1024];
        thread.prng().fill(&mut new);
        rig.header(VIRTIO_BLK_T_OUT, sector);
        let header = rig.bytes(HEADER, 16);
        rig.put(DATA, &[header, new.clone()].concat());
        let mut chain = cut(thread, &rig, (DATA, 16 + 1024), 0);
        chain.push(rig.part(STATUS, 1, W));
        rig.send(thread, 0, &linked(chain))?;
        rig.used(thread, 0)?;
        same(thread, "status of a write", &rig.bytes(STATUS, 1), &[VIRTIO_BLK_S_OK])?;
        // A read: data and status stand together and are cut anywhere.
        rig.header(VIRTIO_BLK_T_IN, sector);
        rig.put(INTO, &[0xee; 1025]);
        let mut chain = cut(thread, &rig, (HEADER, 16), 0);
        chain.extend(cut(thread, &rig, (INTO, 1025), W));
        rig.send(thread, 0, &linked(chain))?;
        let used = rig.used(thread, 0)?;
        thread.expect("used length of a read", used.len, 1025)?;
        new.push(VIRTIO_BLK_S_OK);
        same(thread, "data and status of a read", &rig.bytes(INTO, 1025), &new)?;
    }
    rig.finish(thread)
}

/// A table in which the entries of a read of two sectors stand in no order: 0, 2, 1.
fn shuffled_table(rig: &Rig, sector: u64) {
    rig.header(VIRTIO_BLK_T_IN, sector);
    rig.put(DATA, &[0xee; 1024]);
    let entry = |part: RawDescriptor, next| RawDescriptor { next: Some(next), ..part };
    rig.entry(TABLE, 0, entry(rig.part(HEADER, 16, NEXT), 2));
    rig.entry(TABLE, 2, entry(rig.part(DATA, 1024, W | NEXT), 1));
    rig.entry(TABLE, 1, entry(rig.part(STATUS, 1, W), 0));
}

fn indirect(thread: &mut TestThread<'_>) -> Outcome {
    let mut rig = Rig::usual(thread)?;
    negotiated(thread, &rig)?;
    // WRITE on the descriptor of a table says nothing (§2.7.5.3.2).
    for (sector, flags) in [(5, INDIRECT), (9, INDIRECT | W)] {
        shuffled_table(&rig, sector);
        let table = rig.part(TABLE, 48, flags);
        rig.send(thread, 0, &[table])?;
        let used = rig.used(thread, 0)?;
        thread.expect("used length", used.len, 1025)?;
        same(thread, "status", &rig.bytes(STATUS, 1), &[VIRTIO_BLK_S_OK])?;
        same(thread, "data", &rig.bytes(DATA, 1024), &pattern(sector, 1024))?;
    }
    // A table in RAM that is not aligned to anything.
    shuffled_table(&rig, 11);
    rig.put(TABLE + 1001, &rig.bytes(TABLE, 48));
    let table = rig.part(TABLE + 1001, 48, INDIRECT);
    rig.send(thread, 0, &[table])?;
    rig.used(thread, 0)?;
    same(thread, "data by a table at an odd address", &rig.bytes(DATA, 1024), &pattern(11, 1024))?;
    rig.finish(thread)
}

fn indirect_behind(thread: &mut TestThread<'_>) -> Outcome {
    let mut rig = Rig::usual(thread)?;
    negotiated(thread, &rig)?;
    rig.header(VIRTIO_BLK_T_IN, 3);
    let entry = |part: RawDescriptor, next| RawDescriptor { next: Some(next), ..part };
    rig.entry(TABLE, 0, entry(rig.part(DATA, 512, W | NEXT), 1));
    rig.entry(TABLE, 1, entry(rig.part(STATUS, 1, W), 0));
    let chain = [rig.part(HEADER, 16, NEXT), rig.part(TABLE, 32, INDIRECT)];
    rig.send(thread, 0, &chain)?;
    // A device must take it (§2.7.5.3.2), unusual as it is.
    let Some(used) = rig.take(thread, 0)? else {
        return thread.failed("a table behind a descriptor", "an answer", "none");
    };
    thread.expect("used length", used.len, 513)?;
    same(thread, "data", &rig.bytes(DATA, 512), &pattern(3, 512))?;
    rig.finish(thread)
}

fn negotiated(thread: &TestThread<'_>, rig: &Rig) -> Outcome {
    match rig.device.features & VIRTIO_F_INDIRECT_DESC {
        0 => thread.skip("the device does not offer indirect descriptors"),
        _ => Ok(()),
    }
}

fn wrap(thread: &mut TestThread<'_>) -> Outcome {
    let mut rig = Rig::start(thread, Start { queue_size: 16, ..Start::default() })?;
    let request =
        Request { kind: VIRTIO_BLK_T_GET_ID, into: VIRTIO_BLK_ID_BYTES, ..Request::default() };
    let chain = rig.chain(&request);
    let mut answered = 0u32;
    // Indices have 16 bits: twice round, with as many chains at once as descriptors allow.
    while answered < 2 << 16 {
        let queue = rig.queue(0)?;
        let mut sent = 0;
        while queue.ring.add_raw(&chain).is_some() {
            sent += 1;
        }
        thread.expect("chains that a ring of 16 holds", sent, 5)?;
        queue.kick(thread.machine())?;
        for _ in 0..sent {
            let used = rig.used(thread, 0)?;
            thread.expect("used length", used.len, VIRTIO_BLK_ID_BYTES + 1)?;
        }
        answered += sent;
    }
    let more = rig.queue(0)?.ring.pop()?;
    thread.expect("chains returned twice", more.is_none(), true)?;
    rig.finish(thread)
}

fn multiqueue(thread: &mut TestThread<'_>) -> Outcome {
    const QUEUES: u16 = 4;
    let features = USUAL | VIRTIO_BLK_F_MQ;
    let start = Start { disk: MULTIQUEUE, queues: QUEUES, features, ..Start::default() };
    let mut rig = Rig::start(thread, start)?;
    if rig.device.features & VIRTIO_BLK_F_MQ == 0 {
        return thread.skip("the device does not offer several queues");
    }
    for _ in 0..64 {
        let index = thread.prng().below(QUEUES.into()) as usize;
        let sector = thread.prng().below(DISK_BYTES / 1024);
        let read = Request { kind: VIRTIO_BLK_T_IN, sector, into: 512, ..Request::default() };
        let answer = rig.request_on(thread, index, read)?;
        thread.expect("status", answer.status, VIRTIO_BLK_S_OK)?;
        same(thread, "data", &answer.data, &pattern(sector, 512))?;
        for other in (0..QUEUES.into()).filter(|other| *other != index) {
            let other = rig.queue(other)?.ring.has_used();
            thread.check(!other, "the other queues return nothing")?;
        }
    }
    rig.finish(thread)
}
