//! A seeded walk over registers, rings and descriptors: whatever a guest does, the device neither
//! panics nor hangs, and a reset always brings it back.

use super::rig::*;
use virtio_bindings::virtio_blk::*;

use crate::base::{GuestAddr, Prng};
use crate::machine::builtin::devices::virtio_pci::bits::*;
use crate::machine::builtin::*;

/// Values that sit on edges more often than chance would.
fn odd(prng: &mut Prng) -> u64 {
    match prng.below(6) {
        0 => prng.next_u64(),
        1 => prng.below(16),
        2 => u64::MAX - prng.below(16),
        3 => RAM_BYTES - prng.below(1024),
        4 => 1 << prng.below(64),
        _ => 0x1_0000 + prng.below(RAM_BYTES - 0x1_0000),
    }
}

fn pick<T: Copy>(prng: &mut Prng, from: &[T]) -> T {
    from[prng.below(from.len() as u64) as usize]
}

/// A register access anywhere.
fn touch(rig: &mut Rig, prng: &mut Prng) {
    let size = pick(prng, &[1, 2, 4, 8]);
    let value = odd(prng);
    let write = prng.below(3) > 0;
    match prng.below(8) {
        0 => {
            let port = IO_BASE + prng.below(LEGACY_BAR_SIZE) as u16;
            rig.bus().pio_write(port, size, value as u32);
            rig.bus().pio_read(port, size);
        }
        1 => {
            let at = GuestAddr(MSIX_BASE + prng.below(4096));
            rig.bus().mmio_write(at, size, value);
            rig.bus().mmio_read(at, size);
        }
        // Configuration space, but not what moves the BARs away for good.
        2 => {
            let reg = prng.below(256) as u32;
            rig.config_read(4, reg, size.min(4));
            if reg >= 0x40 {
                rig.config_write(4, reg, size.min(4), value as u32);
            }
        }
        3 => {
            rig.config_write(4, 4, 2, value as u32 | 3);
        }
        4 => {
            rig.bus().mmio_read(GuestAddr(value), size);
            rig.bus().pio_read(value as u16, size);
        }
        _ => {
            let page = pick(prng, &[MODERN_COMMON, MODERN_COMMON, MODERN_DEVICE, MODERN_NOTIFY]);
            let field = page + prng.below(VIRTIO_PCI_COMMON_LEN);
            if write {
                rig.write(field, size, value);
            }
            rig.read(field, size);
        }
    }
}

/// A chain of up to six descriptors, most of them nearly right.
fn chain(rig: &mut Rig, ring: &mut Ring, prng: &mut Prng) {
    let kinds = [
        VIRTIO_BLK_T_IN,
        VIRTIO_BLK_T_OUT,
        VIRTIO_BLK_T_FLUSH,
        VIRTIO_BLK_T_GET_ID,
        VIRTIO_BLK_T_DISCARD,
        VIRTIO_BLK_T_WRITE_ZEROES,
        77,
    ];
    let sector = if prng.below(4) == 0 { odd(prng) } else { prng.below(1100) };
    rig.ram.write(GuestAddr(HEADER), &header_bytes(pick(prng, &kinds), sector));
    rig.ram.write(GuestAddr(DATA), &range_bytes(prng.below(1100), prng.below(64) as u32, 0));
    let head = prng.below(u64::from(ring.size)) as u16;
    let (mut at, parts) = (head, 1 + prng.below(5));
    for part in 0..=parts {
        let (mut addr, mut len) = match part {
            0 => (HEADER, 16),
            p if p == parts => (STATUS, 1),
            _ => (DATA + 16 * prng.below(64), 16 * prng.below(130)),
        };
        let first_writable = 1 + prng.below(2) * 4;
        let mut flags = if part >= first_writable.min(parts) { WRITE } else { 0 };
        flags |= if part < parts { NEXT } else { 0 };
        let mut next = prng.below(u64::from(ring.size)) as u16;
        if prng.below(24) == 0 {
            addr = odd(prng);
            len = odd(prng);
            flags ^= pick(prng, &[NEXT, WRITE, INDIRECT, 0x8000]);
            next = odd(prng) as u16;
        }
        let target = match prng.below(16) {
            0 => TABLE + 16 * u64::from(at % 8),
            _ => ring.desc + 16 * u64::from(at),
        };
        describe(&rig.ram, target, addr, len as u32, flags, next);
        at = next % ring.size;
    }
    if prng.below(8) == 0 {
        ring.describe(head, TABLE, 16 * prng.below(9) as u32, INDIRECT, 0);
    }
    ring.offer(&[head]);
    if prng.below(512) == 0 {
        ring.offered = odd(prng) as u16;
    }
    rig.kick(ring);
}

fn walk(mut rig: Rig, seed: u64, steps: u32, threaded: bool) {
    let mut prng = Prng::new(seed);
    let mut ring = rig.start_one(USUAL | 1 << 29);
    let mut answered = 0u32;
    for _ in 0..steps {
        if prng.below(3) == 0 {
            touch(&mut rig, &mut prng);
        } else {
            chain(&mut rig, &mut ring, &mut prng);
        }
        rig.machine.poll().expect("a guest cannot kill the machine");
        if prng.below(16) == 0 {
            // An iothread may need a moment; a device that does its work in here needs none.
            let soon = rig.machine.clock().now() + 50_000;
            rig.machine.wait(&[], Some(soon).filter(|_| threaded)).ok();
            answered += u32::from(ring.used_index() > 0);
            rig.assign();
            ring = rig.start_one(USUAL | prng.below(2) << 29);
        }
    }
    assert!(answered > steps / 100, "all noise: {answered} rings with answers");
    // It still works.
    rig.assign();
    let mut ring = rig.start_one(USUAL);
    let head = ring.prepare_read(0, 3);
    ring.offer(&[head]);
    rig.kick(&ring);
    while ring.used_index() == 0 {
        rig.machine.wait(&[], None).unwrap();
    }
    assert_eq!((ring.take(), rig.byte(STATUS)), (Some((0, 513)), 0));
}

#[test]
fn a_random_guest_breaks_nothing() {
    for seed in 0..4 {
        walk(Rig::new(), seed, 50_000, false);
    }
}

#[test]
fn a_random_guest_breaks_no_asynchronous_image() {
    let rig = Rig::build(TestImage::new(1024, true), Board::Q35, |disk| disk.aio_depth = 3);
    walk(rig, 10, 50_000, false);
}

#[test]
fn a_random_guest_breaks_no_iothread() {
    walk(Rig::with(|disk| disk.iothread = true), 20, 20_000, true);
}
