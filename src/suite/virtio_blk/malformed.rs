//! Chains and rings that no driver may make. A device answers what it can, asks for a reset where
//! it cannot (virtio 1.2 §2.1.2), does nothing that it was not asked to, and works after a reset.

use super::REGISTERS;
use super::rig::{DATA, HEADER, LOOK, Rig, STATUS, Start, TABLE, USUAL, linked};
use crate::base::{Error, GuestAddr};
use crate::driver::virtio::queue::RawDescriptor;
use crate::driver::virtio::spec::*;
use crate::suite::module::Case;
use crate::suite::outcome::Outcome;
use crate::suite::setup::TestDisk;
use crate::suite::thread::TestThread;

const W: u16 = VIRTQ_DESC_F_WRITE;
const NEXT: u16 = VIRTQ_DESC_F_NEXT;
const INDIRECT: u16 = VIRTQ_DESC_F_INDIRECT;

/// A device asks for a reset by its status, which is its own where it has registers. What a
/// vhost-user back-end does with a broken ring is not said.
const fn case(
    name: &'static str,
    purpose: &'static str,
    run: fn(&mut TestThread<'_>) -> Outcome,
) -> Case {
    Case::new(name, purpose, run).needs(REGISTERS)
}

pub(super) const CASES: [Case; 24] = [
    case("bad-loop", "a chain that comes back to its second descriptor", |t| {
        broken(t, |rig| with_links(rig, [None, None, Some(1)], NEXT))
    }),
    case("bad-self-loop", "a descriptor whose next is itself", |t| {
        broken(t, |rig| with_links(rig, [Some(0), None, None], 0))
    }),
    case("bad-next", "a next past the end of the descriptor table", |t| {
        broken(t, |rig| with_links(rig, [Some(64), None, None], 0))
    }),
    case("bad-head", "a head past the end of the descriptor table", bad_head),
    case("bad-index", "an available index that jumps by more than the ring", bad_index),
    case("bad-address", "data behind the end of RAM", |t| {
        elsewhere(t, |rig| with_data(rig, rig.ram.size().max(1 << 40), 512))
    }),
    case("bad-end", "data that begins in RAM and ends behind it", |t| {
        elsewhere(t, |rig| with_data(rig, rig.ram.size() - 1, 512))
    }),
    case("bad-overflow", "data whose end is past 2^64", |t| {
        elsewhere(t, |rig| with_data(rig, u64::MAX, 512))
    }),
    case("bad-order", "a readable descriptor behind a writable one", |t| {
        broken(t, |rig| {
            let parts = [(HEADER, 16, 0), (DATA, 512, W), (STATUS, 1, 0)];
            linked(parts.map(|(at, len, flags)| rig.part(at, len, flags)).to_vec())
        })
    }),
    case("bad-no-status", "no writable byte for the status", |t| {
        broken(t, |rig| vec![rig.part(HEADER, 16, 0)])
    }),
    case("bad-empty-status", "a status descriptor of no bytes", |t| {
        broken(t, |rig| {
            let parts = [(HEADER, 16, 0), (DATA, 0, W), (STATUS, 0, W)];
            linked(parts.map(|(at, len, flags)| rig.part(at, len, flags)).to_vec())
        })
    }),
    case("bad-table-empty", "an indirect table of no bytes", |t| {
        broken(t, |rig| vec![rig.part(TABLE, 0, INDIRECT)])
    }),
    case("bad-table-length", "an indirect table that ends inside an entry", |t| {
        broken(t, |rig| vec![rig.part(TABLE, 47, INDIRECT)])
    }),
    case("bad-table-address", "an indirect table that ends behind RAM", |t| {
        broken(t, |rig| {
            let addr = rig.ram.size() - 16;
            vec![RawDescriptor { addr, len: 48, flags: INDIRECT, next: None }]
        })
    }),
    case("bad-table-next", "a descriptor that is a table and has a next", |t| {
        table_taken(t, USUAL, |rig| {
            vec![rig.part(TABLE, 48, INDIRECT | NEXT), rig.part(STATUS, 1, W)]
        })
    }),
    case("bad-table-nested", "a table inside a table", |t| {
        broken(t, |rig| {
            rig.entry(TABLE, 1, rig.part(TABLE, 48, INDIRECT));
            vec![rig.part(TABLE, 48, INDIRECT)]
        })
    }),
    case("bad-table-link", "a next past the end of the table", |t| {
        broken(t, |rig| {
            rig.entry(TABLE, 0, RawDescriptor { next: Some(3), ..rig.part(HEADER, 16, NEXT) });
            vec![rig.part(TABLE, 48, INDIRECT)]
        })
    }),
    case("bad-table-loop", "a table whose chain comes back", |t| {
        broken(t, |rig| {
            let status = RawDescriptor { next: Some(1), ..rig.part(STATUS, 1, W | NEXT) };
            rig.entry(TABLE, 2, status);
            vec![rig.part(TABLE, 48, INDIRECT)]
        })
    }),
    case("bad-table-long", "a chain of 1100 descriptors", |t| {
        broken(t, |rig| {
            for index in 0..1100 {
                let next = Some(index as u16 + 1);
                let part = RawDescriptor { next, ..rig.part(DATA, 512, W | NEXT) };
                rig.entry(TABLE, index, part);
            }
            vec![rig.part(TABLE, 16 * 1100, INDIRECT)]
        })
    }),
    case("bad-after-good", "chains before a broken one are answered whole or not", after_good),
    case("bad-header", "a header of less than 16 bytes", short_header),
    case("bad-unnegotiated", "a table without VIRTIO_F_INDIRECT_DESC", |t| {
        let features = USUAL & !VIRTIO_F_INDIRECT_DESC;
        table_taken(t, features, |rig| vec![rig.part(TABLE, 48, INDIRECT)])
    }),
    case("bad-target", "a read into the available ring", into_the_ring),
    case("bad-rings", "rings outside RAM", rings_outside),
];

/// Header, data, status as they should be, linked by `next`; `last`: further flags of the last.
fn with_links(rig: &Rig, next: [Option<u16>; 3], last: u16) -> Vec<RawDescriptor> {
    let parts =
        [rig.part(HEADER, 16, NEXT), rig.part(DATA, 512, W | NEXT), rig.part(STATUS, 1, W | last)];
    let linked = parts.into_iter().zip(next).map(|(part, next)| RawDescriptor { next, ..part });
    linked.collect()
}

/// A read into any place.
fn with_data(rig: &Rig, addr: u64, len: u32) -> Vec<RawDescriptor> {
    let data = RawDescriptor { addr, len, flags: W, next: None };
    linked(vec![rig.part(HEADER, 16, 0), data, rig.part(STATUS, 1, W)])
}

/// A read that would be good, and a table that would be, for `spoil` to build upon.
fn prepare(rig: &Rig) {
    rig.header(VIRTIO_BLK_T_IN, 1);
    rig.put(DATA, &[0xdd; 512]);
    let entry = |part: RawDescriptor, next| RawDescriptor { next: Some(next), ..part };
    rig.entry(TABLE, 0, entry(rig.part(HEADER, 16, NEXT), 1));
    rig.entry(TABLE, 1, entry(rig.part(DATA, 512, W | NEXT), 2));
    rig.entry(TABLE, 2, entry(rig.part(STATUS, 1, W), 0));
}

/// Sends what `spoil` makes: it must put the device in need of a reset, and do nothing else.
fn broken(thread: &mut TestThread<'_>, spoil: impl Fn(&Rig) -> Vec<RawDescriptor>) -> Outcome {
    let mut rig = Rig::usual(thread)?;
    prepare(&rig);
    let chain = spoil(&rig);
    rig.send(thread, 0, &chain)?;
    gave_up(thread, &mut rig)?;
    thread.expect(
        "data of a chain that cannot be answered",
        rig.bytes(DATA, 512),
        vec![0xdd; 512],
    )?;
    recovers(thread, rig)
}

/// Sends a read to a place that is not RAM, or not all of it. A device on a bus may see no more of
/// it than a host bridge that discards what it writes (PCI 3.0 §3.3.3.1) and answer; or it may know
/// and give up.
fn elsewhere(thread: &mut TestThread<'_>, spoil: impl Fn(&Rig) -> Vec<RawDescriptor>) -> Outcome {
    let mut rig = Rig::usual(thread)?;
    prepare(&rig);
    let chain = spoil(&rig);
    let head = rig.send(thread, 0, &chain)?;
    if let Some(used) = rig.used_or_reset(thread, 0)? {
        thread.expect("head returned", used.head, head)?;
        thread.check(used.len <= 513, "no more is written than there is room for")?;
        let status = rig.bytes(STATUS, 1);
        let known = status == [VIRTIO_BLK_S_OK] || status == [VIRTIO_BLK_S_IOERR];
        thread.check(known, format!("status {status:?} is one of a read"))?;
    }
    thread.expect("data of another place", rig.bytes(DATA, 512), vec![0xdd; 512])?;
    recovers(thread, rig)
}

/// The device asks for a reset, tells of it by ISR, and returns nothing.
fn gave_up(thread: &mut TestThread<'_>, rig: &mut Rig) -> Outcome {
    /// ISR status: the configuration changed (§4.1.4.5).
    const ISR_CONFIG: u8 = 2;
    let asked = rig.needs_reset(thread)?;
    thread.check(asked, "DEVICE_NEEDS_RESET is set")?;
    let isr = rig.device.transport.isr(thread.machine())?;
    thread.expect("ISR status, configuration bit", isr & ISR_CONFIG, ISR_CONFIG)?;
    let used = rig.queue(0)?.ring.pop()?;
    thread.check(used.is_none(), "nothing is returned")?;
    // Until the reset it does nothing more.
    rig.queue(0)?.doorbell.ring(thread.machine())?;
    thread.step(LOOK)?;
    let used = rig.queue(0)?.ring.pop()?;
    thread.check(used.is_none(), "nothing is returned when it is rung again")
}

/// After a reset all is well.
fn recovers(thread: &mut TestThread<'_>, mut rig: Rig) -> Outcome {
    rig.restart(thread)?;
    let mut want = [0; 512];
    TestDisk::pattern(512, &mut want);
    rig.expect_sectors(thread, "a read after the reset", 1, &want)?;
    TestDisk::pattern(0, &mut want);
    rig.expect_sectors(thread, "the first sector", 0, &want)?;
    rig.finish(thread)
}

fn bad_head(thread: &mut TestThread<'_>) -> Outcome {
    let mut rig = Rig::usual(thread)?;
    let queue = rig.queue(0)?;
    queue.ring.add_bogus_head(queue.ring.size());
    queue.kick(thread.machine())?;
    gave_up(thread, &mut rig)?;
    recovers(thread, rig)
}

fn bad_index(thread: &mut TestThread<'_>) -> Outcome {
    let mut rig = Rig::usual(thread)?;
    prepare(&rig);
    let queue = rig.queue(0)?;
    for _ in 0..=queue.ring.size() {
        queue.ring.add_bogus_head(0);
    }
    queue.kick(thread.machine())?;
    gave_up(thread, &mut rig)?;
    recovers(thread, rig)
}

fn after_good(thread: &mut TestThread<'_>) -> Outcome {
    let mut rig = Rig::usual(thread)?;
    prepare(&rig);
    let good = with_links(&rig, [None; 3], 0);
    let queue = rig.queue(0)?;
    let head = queue.ring.add_raw(&good).ok_or_else(|| Error::machine("the ring is full"))?;
    queue.ring.add_bogus_head(queue.ring.size());
    queue.kick(thread.machine())?;
    let asked = rig.needs_reset(thread)?;
    thread.check(asked, "DEVICE_NEEDS_RESET is set")?;
    // "The driver can't assume requests in flight will be completed if DEVICE_NEEDS_RESET is set,
    // nor can it assume that they have not been completed" (§2.1.1).
    thread.step(LOOK)?;
    if let Some(used) = rig.queue(0)?.ring.pop()? {
        thread.expect("head returned", (used.head, used.len), (head, 513))?;
        thread.expect("status", rig.bytes(STATUS, 1), vec![VIRTIO_BLK_S_OK])?;
    }
    gave_up(thread, &mut rig)?;
    recovers(thread, rig)
}

fn short_header(thread: &mut TestThread<'_>) -> Outcome {
    for len in [1, 8, 15] {
        let mut rig = Rig::usual(thread)?;
        prepare(&rig);
        let parts = [(HEADER, len, 0), (DATA, 512, W), (STATUS, 1, W)];
        let chain = linked(parts.map(|(at, len, flags)| rig.part(at, len, flags)).to_vec());
        rig.send(thread, 0, &chain)?;
        if rig.used_or_reset(thread, 0)?.is_some() {
            let status = rig.bytes(STATUS, 1);
            thread.expect("status", status, vec![VIRTIO_BLK_S_IOERR])?;
        }
        thread.expect("data", rig.bytes(DATA, 512), vec![0xdd; 512])?;
        recovers(thread, rig)?;
    }
    Ok(())
}

/// Sends a good table in a way that no driver may (§2.7.5.3.1), and no rule tells a device how to
/// take: it reads the table, or gives up.
fn table_taken(
    thread: &mut TestThread<'_>,
    features: u64,
    spoil: impl Fn(&Rig) -> Vec<RawDescriptor>,
) -> Outcome {
    let mut rig = Rig::start(thread, Start { features, ..Start::default() })?;
    prepare(&rig);
    let chain = spoil(&rig);
    rig.send(thread, 0, &chain)?;
    let mut want = vec![0xdd; 512];
    if rig.used_or_reset(thread, 0)?.is_some() {
        TestDisk::pattern(512, &mut want);
    }
    thread.expect("data", rig.bytes(DATA, 512), want)?;
    recovers(thread, rig)
}

/// The data overwrites the ring's index, which then says that more is available: the device must
/// not follow it for ever.
fn into_the_ring(thread: &mut TestThread<'_>) -> Outcome {
    let mut rig = Rig::usual(thread)?;
    prepare(&rig);
    let avail = rig.queue(0)?.ring.layout().avail.0;
    let chain = with_data(&rig, avail, 512);
    rig.send(thread, 0, &chain)?;
    thread.step(LOOK)?;
    rig.status(thread)?;
    recovers(thread, rig)
}

fn rings_outside(thread: &mut TestThread<'_>) -> Outcome {
    let end = thread.ram()?.size();
    for part in 0..3 {
        let mut rig = Rig::usual(thread)?;
        prepare(&rig);
        rig.reset(thread)?;
        let machine = thread.machine();
        rig.device.negotiate(machine, USUAL)?;
        let mut layout = *rig.queue(0)?.ring.layout();
        let outside = GuestAddr(end.max(1 << 40));
        match part {
            0 => layout.desc = outside,
            1 => layout.avail = outside,
            _ => layout.used = outside,
        }
        // The device may refuse at once or when it looks; it must not touch what is not there.
        let doorbell = rig.device.transport.queue_setup(machine, 0, &layout, None);
        let _ = rig.device.driver_ok(machine);
        if let Ok(doorbell) = doorbell {
            doorbell.ring(machine)?;
        }
        thread.step(LOOK)?;
        thread.expect("data", rig.bytes(DATA, 512), vec![0xdd; 512])?;
        recovers(thread, rig)?;
    }
    Ok(())
}
