//! Asynchronous images, iothreads, resets in mid-flight, clocks, observers.

use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex};

use super::rig::*;
use virtio_bindings::virtio_blk::*;
use virtio_bindings::virtio_config::*;
use virtio_bindings::virtio_ring::*;

use crate::base::{GuestAddr, Nanos, VirtualClock};
use crate::machine::IrqSource;
use crate::machine::builtin::devices::virtio_blk::bits::CONFIG_WRITEBACK;
use crate::machine::builtin::devices::virtio_pci::bits::*;
use crate::machine::builtin::*;

fn asynchronous(depth: usize) -> Rig {
    Rig::build(TestImage::new(1024, true), Board::Pc, |disk| disk.aio_depth = depth)
}

fn threaded(change: impl FnOnce(&mut DiskConfig)) -> Rig {
    Rig::with(|disk| {
        disk.iothread = true;
        change(disk);
    })
}

/// Waits, without a deadline, until `n` entries are used.
fn wait_used(rig: &mut Rig, ring: &mut Ring, n: u16) {
    while ring.used_index().wrapping_sub(ring.taken) < n {
        rig.machine.wait(&[], None).unwrap();
    }
    ring.taken = ring.taken.wrapping_add(n);
}

#[test]
fn asynchronous_requests_complete_when_the_image_is_ready() {
    let mut rig = asynchronous(2);
    let mut ring = rig.start_one(USUAL);
    let heads: Vec<u16> = (0..5).map(|n| ring.prepare_read(n, n.into())).collect();
    ring.offer(&heads);
    rig.kick(&ring);
    assert_eq!(ring.used_index(), 0);
    // Two at a time, because the image takes two: the others follow by themselves.
    rig.machine.wait(&[], None).unwrap();
    assert_eq!(ring.used_index(), 2);
    wait_used(&mut rig, &mut ring, 5);
    for n in 0..5 {
        assert_eq!(rig.bytes(DATA + 512 * n, 512), rig.image.bytes(512 * n as usize, 512));
    }
    assert!(rig.machine.wait(&[], None).is_err(), "nothing is left to wait for");
}

#[test]
fn a_reset_waits_for_the_image_and_answers_nothing() {
    let mut rig = asynchronous(8);
    let mut ring = rig.start_one(USUAL);
    let head = ring.prepare_read(0, 3);
    ring.offer(&[head]);
    rig.kick(&ring);
    rig.set_status(0);
    assert_eq!(rig.status(), 0);
    assert_eq!((ring.used_index(), rig.byte(STATUS)), (0, 0));
    // The buffer is the driver's again: nothing arrives in it any more.
    rig.ram.write(GuestAddr(DATA), &[0xaa; 512]);
    while rig.machine.poll().unwrap() {}
    assert_eq!(rig.bytes(DATA, 512), [0xaa; 512]);
    let mut ring = rig.start_one(USUAL);
    let head = ring.prepare_read(0, 3);
    ring.offer(&[head]);
    rig.kick(&ring);
    wait_used(&mut rig, &mut ring, 1);
    assert_eq!(rig.byte(STATUS), 0);
}

#[test]
fn asynchronous_write_through_flushes_before_the_answer() {
    let mut rig = asynchronous(4);
    let mut ring = rig.start_one(USUAL | 1 << VIRTIO_BLK_F_CONFIG_WCE);
    rig.write(MODERN_DEVICE + CONFIG_WRITEBACK as u64, 1, 0);
    let flushes = rig.image.flushes();
    let head = ring.prepare_read(0, 3);
    ring.describe(head + 1, DATA, 512, NEXT, head + 2);
    rig.ram.write(GuestAddr(HEADER), &header_bytes(VIRTIO_BLK_T_OUT, 3));
    rig.ram.write(GuestAddr(DATA), &[0x5a; 512]);
    ring.offer(&[head]);
    rig.kick(&ring);
    rig.machine.poll().unwrap();
    assert_eq!((ring.used_index(), rig.image.flushes()), (0, flushes), "written, not flushed");
    assert_eq!(rig.image.bytes(3 * 512, 512), [0x5a; 512]);
    wait_used(&mut rig, &mut ring, 1);
    assert_eq!((rig.byte(STATUS), rig.image.flushes()), (0, flushes + 1));
}

#[test]
fn an_asynchronous_error_is_ioerr() {
    let mut rig = asynchronous(4);
    let mut ring = rig.start_one(USUAL);
    rig.image.0.fail.store(true, Ordering::SeqCst);
    let head = ring.prepare_read(0, 3);
    ring.offer(&[head]);
    rig.kick(&ring);
    wait_used(&mut rig, &mut ring, 1);
    assert_eq!(rig.byte(STATUS), VIRTIO_BLK_S_IOERR as u8);
}

#[test]
fn an_iothread_serves_all_queues_and_wakes_the_waiter() {
    for event_idx in [0, 1 << VIRTIO_RING_F_EVENT_IDX] {
        let mut rig = threaded(|disk| disk.queues = 2);
        let features = USUAL | 1 << VIRTIO_BLK_F_MQ | event_idx;
        let mut rings = rig.start(features, 2, 16);
        for round in 0..2000u16 {
            for ring in &mut rings {
                let batch = 1 + round % 4;
                let heads: Vec<u16> =
                    (0..batch).map(|n| ring.prepare_read(n, round as u64 % 1000)).collect();
                ring.offer(&heads);
                rig.kick(ring);
                wait_used(&mut rig, ring, batch);
                assert_eq!(rig.byte(STATUS), 0);
            }
        }
        // The last batches may still be news to the waiter; then both sides are idle.
        assert!((0..5).any(|_| rig.machine.wait(&[], None).is_err()));
    }
}

#[test]
fn an_iothread_misses_no_doorbell_and_no_interrupt() {
    // A driver that rings only when the device asks and sleeps only on the interrupt: if either
    // side's barrier were missing, this would stop.
    for event_idx in [0, 1 << VIRTIO_RING_F_EVENT_IDX] {
        let mut rig = threaded(|_| {});
        let mut ring = rig.start_one(USUAL | event_idx);
        let event = rig.machine.interrupts().unwrap().watch(IrqSource::Intx(INTX)).unwrap();
        let head = ring.prepare_read(0, 0);
        for _ in 0..5000 {
            let old = ring.offered;
            ring.offer(&[head]);
            std::sync::atomic::fence(Ordering::SeqCst);
            let wanted = match event_idx {
                0 => rig.ram.load_u16(GuestAddr(ring.used)) & VRING_USED_F_NO_NOTIFY as u16 == 0,
                _ => ring.avail_event() == old,
            };
            if wanted {
                rig.kick(&ring);
            }
            ring.set_used_event(ring.taken);
            std::sync::atomic::fence(Ordering::SeqCst);
            while ring.take().is_none() {
                let deadline = rig.machine.clock().now() + 20_000_000_000;
                rig.machine.wait(&[event.fd()], Some(deadline)).unwrap();
                assert!(rig.machine.clock().now() < deadline, "a wake-up was lost");
                event.take();
                rig.read(MODERN_ISR, 1);
            }
        }
    }
}

#[test]
fn an_iothread_stands_still_for_resets_in_mid_flight() {
    let image = TestImage::new(1024, true);
    let mut rig = Rig::build(image, Board::Pc, |disk| (disk.iothread, disk.aio_depth) = (true, 4));
    for round in 0..500 {
        let mut ring = rig.start_one(USUAL);
        let heads: Vec<u16> = (0..8).map(|n| ring.prepare_read(n, 7)).collect();
        ring.offer(&heads);
        rig.kick(&ring);
        if round % 3 == 0 {
            wait_used(&mut rig, &mut ring, 1 + round % 8);
        }
        rig.set_status(0);
        rig.ram.write(GuestAddr(DATA), &[0xaa; 8 * 512]);
        let used = ring.used_index();
        assert_eq!(rig.read(MODERN_DEVICE, 8), 1024);
        assert_eq!(rig.bytes(DATA, 8 * 512), [0xaa; 8 * 512]);
        assert_eq!(ring.used_index(), used);
    }
}

#[test]
fn a_panic_in_an_iothread_is_an_error_and_no_hang() {
    let mut rig = threaded(|_| {});
    let mut ring = rig.start_one(USUAL);
    rig.image.0.panic.store(true, Ordering::SeqCst);
    let head = ring.prepare_read(0, 0);
    ring.offer(&[head]);
    rig.kick(&ring);
    let error = loop {
        if let Err(error) = rig.machine.wait(&[], None) {
            break error;
        }
    };
    assert!(error.to_string().contains("iothread died"), "{error}");
    assert_ne!(rig.status() & VIRTIO_CONFIG_S_NEEDS_RESET, 0);
    rig.set_status(0);
    assert!(rig.machine.poll().is_err());
    rig.kick(&ring);
}

#[test]
fn a_malformed_chain_in_an_iothread_wakes_the_waiter_with_the_reason() {
    let mut rig = threaded(|_| {});
    let mut ring = rig.start_one(USUAL);
    ring.offer(&[64]);
    rig.kick(&ring);
    let error = loop {
        if let Err(error) = rig.machine.wait(&[], None) {
            break error.to_string();
        }
    };
    assert!(error.contains("out of range"), "{error}");
    assert_ne!(rig.status() & VIRTIO_CONFIG_S_NEEDS_RESET, 0);
}

#[test]
fn a_virtual_clock_steps_and_never_waits() {
    let clock = Arc::new(VirtualClock::new());
    let image = TestImage::new(64, true);
    let disk = DiskConfig { aio_depth: 4, ..DiskConfig::new(Arc::new(image.clone())) };
    let config = BuiltinConfig {
        ram_bytes: RAM_BYTES,
        clock,
        disks: vec![disk],
        ..BuiltinConfig::default()
    };
    let mut rig = Rig::of(BuiltinMachine::new(config).unwrap(), image);
    assert!(rig.machine.capabilities().contains(crate::machine::Capabilities::VIRTUAL_CLOCK));
    let hour = Nanos(3_600_000_000_000);
    rig.machine.wait(&[], Some(hour)).unwrap();
    assert_eq!(rig.machine.clock().now(), hour);
    assert!(rig.machine.wait(&[], None).is_err());
    // What is there already takes no time.
    let event = rig.machine.interrupts().unwrap().watch(IrqSource::Intx(INTX)).unwrap();
    event.signal();
    rig.machine.wait(&[event.fd()], Some(hour + 5)).unwrap();
    assert_eq!(rig.machine.clock().now(), hour);
    // Nor does image I/O.
    let mut ring = rig.start_one(USUAL);
    let head = ring.prepare_read(0, 0);
    ring.offer(&[head]);
    rig.kick(&ring);
    rig.machine.wait(&[], Some(hour + 5)).unwrap();
    assert_eq!((ring.used_index(), rig.machine.clock().now()), (1, hour));
}

#[derive(Clone, Default)]
struct Log(Arc<Mutex<Vec<String>>>);

impl BlkObserver for Log {
    fn issue(&mut self, token: u64, r: &ObservedRequest<'_>) {
        let data: usize = r.data.iter().map(|d| d.len()).sum();
        let line =
            format!("{token} q{} {} {}+{} {} {data}", r.queue, r.op, r.offset, r.len, r.unmap);
        self.0.lock().unwrap().push(line);
    }
    fn complete(&mut self, token: u64, status: u8) {
        self.0.lock().unwrap().push(format!("{token} = {status}"));
    }
}

#[test]
fn an_observer_sees_each_request_and_its_answer() {
    let (log, image) = (Log::default(), TestImage::new(64, false));
    let config = BuiltinConfig {
        ram_bytes: RAM_BYTES,
        disks: vec![DiskConfig::new(Arc::new(image.clone()))],
        ..BuiltinConfig::default()
    };
    let observers: Vec<Option<Box<dyn BlkObserver>>> = vec![Some(Box::new(log.clone()))];
    let mut rig = Rig::of(BuiltinMachine::with_observers(config, observers).unwrap(), image);
    let mut ring = rig.start_one(USUAL);
    rig.request(&mut ring, VIRTIO_BLK_T_OUT, 2, &[1; 1024], 0);
    rig.request(&mut ring, VIRTIO_BLK_T_IN, 63, &[], 512);
    rig.request(&mut ring, VIRTIO_BLK_T_IN, 64, &[], 512);
    rig.request(&mut ring, VIRTIO_BLK_T_FLUSH, 0, &[], 0);
    let ranges = [range_bytes(0, 1, 1), range_bytes(8, 2, 0)].concat();
    rig.request(&mut ring, VIRTIO_BLK_T_WRITE_ZEROES, 0, &ranges, 0);
    let want = [
        "1 q0 write 1024+1024 false 1024",
        "1 = 0",
        "2 q0 read 32256+512 false 0",
        "2 = 0",
        "3 = 1",
        "4 q0 flush 0+0 false 0",
        "4 = 0",
        "5 q0 write-zeroes 0+512 true 0",
        "5 q0 write-zeroes 4096+1024 false 0",
        "5 = 0",
    ];
    assert_eq!(*log.0.lock().unwrap(), want);
}
