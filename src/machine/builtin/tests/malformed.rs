//! Chains and rings that break the specification: the device answers what it can, asks for a reset
//! where it cannot, and does nothing it was not asked to.

use super::rig::*;
use virtio_bindings::virtio_blk::*;
use virtio_bindings::virtio_config::*;

use crate::base::{GuestAddr, Nanos};
use crate::machine::Machine;

/// A complete read in an indirect table of three.
fn table(ring: &Ring) {
    describe(&ring.ram, TABLE, HEADER, 16, NEXT, 1);
    describe(&ring.ram, TABLE + 16, DATA, 512, NEXT | WRITE, 2);
    describe(&ring.ram, TABLE + 32, STATUS, 1, WRITE, 0);
}

type Case = (&'static str, fn(&mut Ring), &'static str);

const BROKEN: &[Case] = &[
    ("chain that loops", |r| r.describe(2, STATUS, 1, NEXT | WRITE, 1), "loops"),
    ("self-loop", |r| r.describe(0, HEADER, 16, NEXT, 0), "loops"),
    ("next out of range", |r| r.describe(0, HEADER, 16, NEXT, 64), "out of range"),
    ("data outside RAM", |r| r.describe(1, RAM_BYTES, 512, NEXT | WRITE, 2), "outside guest"),
    ("data across RAM's end", |r| r.describe(1, RAM_BYTES - 1, 512, NEXT | WRITE, 2), "outside"),
    ("address overflow", |r| r.describe(1, u64::MAX, 512, NEXT | WRITE, 2), "outside guest"),
    ("readable after writable", |r| r.describe(2, STATUS, 1, 0, 0), "readable descriptor"),
    ("no writable byte", |r| r.describe(0, HEADER, 16, 0, 0), "no writable byte"),
    (
        "empty status",
        |r| {
            r.describe(1, DATA, 0, NEXT | WRITE, 2);
            r.describe(2, STATUS, 0, WRITE, 0);
        },
        "no writable byte",
    ),
    ("indirect of length 0", |r| r.describe(0, TABLE, 0, INDIRECT, 0), "bad length"),
    ("indirect of length 47", |r| r.describe(0, TABLE, 47, INDIRECT, 0), "bad length"),
    ("indirect outside RAM", |r| r.describe(0, RAM_BYTES - 16, 48, INDIRECT, 0), "outside"),
    ("indirect with next", |r| r.describe(0, TABLE, 48, INDIRECT | NEXT, 1), "has a next"),
    (
        "indirect in indirect",
        |r| {
            describe(&r.ram, TABLE + 16, TABLE, 48, INDIRECT, 0);
            r.describe(0, TABLE, 48, INDIRECT, 0);
        },
        "holds an indirect",
    ),
    (
        "indirect next out of range",
        |r| {
            describe(&r.ram, TABLE, HEADER, 16, NEXT, 3);
            r.describe(0, TABLE, 48, INDIRECT, 0);
        },
        "out of range",
    ),
    (
        "indirect that loops",
        |r| {
            describe(&r.ram, TABLE + 32, STATUS, 1, NEXT | WRITE, 1);
            r.describe(0, TABLE, 48, INDIRECT, 0);
        },
        "loops",
    ),
    (
        "chain of 1025 descriptors",
        |r| {
            for i in 0..1100 {
                describe(&r.ram, TABLE + 16 * i, DATA, 512, NEXT | WRITE, i as u16 + 1);
            }
            r.describe(0, TABLE, 16 * 1100, INDIRECT, 0);
        },
        "too long",
    ),
];

#[test]
fn a_chain_that_cannot_be_answered_needs_a_reset_and_touches_nothing() {
    for (what, spoil, reason) in BROKEN {
        let mut rig = Rig::new();
        let mut ring = rig.start_one(USUAL);
        let disk = rig.image.bytes(0, 1024 * 512);
        rig.ram.write(GuestAddr(DATA), &[0xdd; 512]);
        let head = ring.prepare_read(0, 1);
        table(&ring);
        spoil(&mut ring);
        ring.offer(&[head]);
        rig.kick(&ring);
        assert_eq!(rig.status(), 15 | VIRTIO_CONFIG_S_NEEDS_RESET, "{what}");
        assert_eq!(ring.take(), None, "{what}");
        assert_eq!(rig.bytes(DATA, 512), [0xdd; 512], "{what}");
        assert_eq!(rig.image.bytes(0, 1024 * 512), disk, "{what}");
        // Told by a configuration interrupt, and by the machine to whoever would wait for ever.
        assert_eq!(rig.read(0x1000, 1), 2, "{what}");
        let error = rig.machine.wait(&[], None).unwrap_err().to_string();
        assert!(error.contains(reason), "{what}: {error}");
        // Nothing more happens until the reset, after which everything does.
        rig.kick(&ring);
        assert_eq!(ring.take(), None, "{what}");
        let mut ring = rig.start_one(USUAL);
        assert_eq!(rig.request(&mut ring, VIRTIO_BLK_T_IN, 1, &[], 512).0, 0, "{what}");
    }
}

#[test]
fn chains_before_a_broken_one_are_answered() {
    let mut rig = Rig::new();
    let mut ring = rig.start_one(USUAL);
    let good = ring.prepare_read(0, 1);
    ring.offer(&[good, 64, good]);
    rig.kick(&ring);
    assert_eq!(ring.take(), Some((0, 513)));
    assert_eq!(ring.take(), None);
    assert_ne!(rig.status() & VIRTIO_CONFIG_S_NEEDS_RESET, 0);
}

#[test]
fn an_index_that_jumps_past_the_ring_needs_a_reset() {
    let mut rig = Rig::new();
    let mut ring = rig.start_one(USUAL);
    let head = ring.prepare_read(0, 1);
    ring.offer(&[head; 65]);
    rig.kick(&ring);
    assert_ne!(rig.status() & VIRTIO_CONFIG_S_NEEDS_RESET, 0);
    assert_eq!(ring.take(), None);
    // Exactly the ring's size is a full ring.
    let mut ring = rig.start_one(USUAL);
    let head = ring.prepare_read(0, 1);
    ring.offer(&[head; 64]);
    rig.kick(&ring);
    assert_eq!((rig.status(), ring.used_index()), (15, 64));
}

#[test]
fn indirect_must_be_negotiated() {
    let mut rig = Rig::new();
    let mut ring = rig.start_one(1 << VIRTIO_F_VERSION_1);
    ring.prepare_read(0, 1);
    table(&ring);
    ring.describe(0, TABLE, 48, INDIRECT, 0);
    ring.offer(&[0]);
    rig.kick(&ring);
    assert_ne!(rig.status() & VIRTIO_CONFIG_S_NEEDS_RESET, 0);
}

#[test]
fn rings_outside_ram_or_misaligned_need_a_reset() {
    let spoil: [fn(&mut Ring); 5] = [
        |r| r.desc = RAM_BYTES - 512,
        |r| r.avail = u64::MAX - 1,
        |r| r.used = RAM_BYTES - 16,
        |r| r.desc += 8,
        |r| r.used += 2,
    ];
    for spoil in spoil {
        let mut rig = Rig::new();
        rig.set_status(3);
        rig.set_features(USUAL);
        rig.set_status(11);
        let mut ring = rig.ring(0, 64);
        rig.set_up_queue(&ring);
        rig.set_status(0);
        rig.set_status(3);
        rig.set_features(USUAL);
        rig.set_status(11);
        spoil(&mut ring);
        for (field, value) in [(0x20, ring.desc), (0x28, ring.avail), (0x30, ring.used)] {
            rig.write(field, 8, value);
        }
        rig.write(0x1c, 2, 1);
        rig.set_status(15);
        assert_ne!(rig.status() & VIRTIO_CONFIG_S_NEEDS_RESET, 0);
    }
}

#[test]
fn a_header_too_short_is_answered_because_it_can_be() {
    let mut rig = Rig::new();
    let mut ring = rig.start_one(USUAL);
    for len in [0, 1, 15] {
        ring.prepare_read(0, 1);
        ring.describe(0, HEADER, len, NEXT, 1);
        ring.offer(&[0]);
        rig.kick(&ring);
        assert_eq!(ring.take(), Some((0, 1)));
        assert_eq!(rig.byte(STATUS), VIRTIO_BLK_S_IOERR as u8);
    }
    assert_eq!(rig.status(), 15);
}

#[test]
fn a_read_into_the_ring_itself_stays_bounded() {
    // The data overwrites the available ring, which then says that more is available: for ever, if
    // the device followed it. The image's pattern makes the index 0x0302.
    let mut rig = Rig::new();
    let mut ring = rig.start_one(USUAL);
    let head = ring.prepare_read(0, 0);
    ring.describe(1, ring.avail, 512, NEXT | WRITE, 2);
    ring.offer(&[head]);
    rig.kick(&ring);
    for _ in 0..100 {
        rig.machine.poll().unwrap();
    }
    assert_eq!(ring.take(), Some((0, 513)));
    assert_ne!(rig.status() & VIRTIO_CONFIG_S_NEEDS_RESET, 0, "the index jumped");
}

#[test]
fn nothing_is_waited_for_that_cannot_come() {
    let mut rig = Rig::new();
    rig.start_one(USUAL);
    assert!(rig.machine.wait(&[], None).is_err());
    let now = rig.machine.clock().now();
    rig.machine.wait(&[], Some(now + 2_000_000)).unwrap();
    assert!(rig.machine.clock().now() >= now + 2_000_000);
    rig.machine.wait(&[], Some(Nanos(0))).unwrap();
}
