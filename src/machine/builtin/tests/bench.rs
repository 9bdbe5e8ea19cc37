//! What the device's half of a request costs. Not a check: run it by name, with `--release` and
//! `--ignored --nocapture`.

use std::io::{self, IoSlice, IoSliceMut};
use std::sync::Arc;

use super::rig::*;
use virtio_queue::{Queue, QueueT};
use vm_memory::Bytes;

use crate::image::{Extent, ExtentKind, Image, ImageInfo};
use crate::machine::builtin::devices::virtio_queue::{Chain, DeviceQueue, QueueConfig};
use crate::machine::builtin::*;

const BATCH: u16 = 32;
const ROUNDS: u32 = 200_000;

struct Null(ImageInfo);

impl Image for Null {
    fn size(&self) -> u64 {
        1 << 30
    }
    fn info(&self) -> &ImageInfo {
        &self.0
    }
    fn read(&self, _bufs: &mut [IoSliceMut<'_>], _offset: u64) -> io::Result<()> {
        Ok(())
    }
    fn write(&self, _bufs: &[IoSlice<'_>], _offset: u64) -> io::Result<()> {
        Ok(())
    }
    fn flush(&self) -> io::Result<()> {
        Ok(())
    }
    fn discard(&self, _offset: u64, _len: u64) -> io::Result<()> {
        Ok(())
    }
    fn write_zeroes(&self, _offset: u64, _len: u64, _unmap: bool) -> io::Result<()> {
        Ok(())
    }
    fn extent(&self, _offset: u64, len: u64) -> io::Result<Extent> {
        Ok(Extent { kind: ExtentKind::Zero, len })
    }
}

fn null() -> Arc<dyn Image> {
    Arc::new(Null(ImageInfo {
        path: "".into(),
        format: "null".into(),
        via: "".into(),
        read_only: false,
        discard_zeroes: true,
    }))
}

/// Processor time of this thread: what other programs do meanwhile does not count.
struct Cpu(f64);

impl Cpu {
    fn now() -> Self {
        let clock = nix::time::ClockId::CLOCK_THREAD_CPUTIME_ID;
        let time = nix::time::clock_gettime(clock).unwrap();
        Self(time.tv_sec() as f64 * 1e9 + time.tv_nsec() as f64)
    }
}

fn report(what: &str, start: Cpu, requests: u64) {
    let ns = (Cpu::now().0 - start.0) / requests as f64;
    println!("{what:40} {ns:8.1} ns per request, {:6.2} M/s", 1e3 / ns);
}

/// Requests of 4 KiB on the ring once; every round offers the same heads again.
fn device_half(batch: u16, observed: bool) {
    let config = BuiltinConfig {
        ram_bytes: RAM_BYTES,
        disks: vec![DiskConfig::new(null())],
        ..BuiltinConfig::default()
    };
    struct Silent;
    impl BlkObserver for Silent {}
    let observers: Vec<Option<Box<dyn BlkObserver>>> =
        if observed { vec![Some(Box::new(Silent))] } else { Vec::new() };
    let machine = BuiltinMachine::with_observers(config, observers).unwrap();
    let mut rig = Rig::of(machine, TestImage::new(1, false));
    let mut ring = rig.start(USUAL | 1 << 29, 1, 256).remove(0);
    let heads: Vec<u16> = (0..batch)
        .map(|n| {
            let head = ring.prepare_read(n, u64::from(n) * 8);
            ring.describe(head + 1, DATA + 4096 * u64::from(n), 4096, NEXT | WRITE, head + 2);
            head
        })
        .collect();
    let rounds = ROUNDS * u32::from(BATCH) / u32::from(batch);
    let start = Cpu::now();
    for _ in 0..rounds {
        ring.set_used_event(ring.offered.wrapping_sub(1));
        ring.offer(&heads);
        rig.kick(&ring);
    }
    let requests = u64::from(rounds) * u64::from(batch);
    assert_eq!(ring.used_index(), requests as u16);
    report(&format!("device, batch {batch}, observer {observed}"), start, requests);
}

#[test]
#[ignore = "a measurement, not a check"]
fn bench_device_half() {
    for batch in [1, 8, 32, 64] {
        device_half(batch, false);
    }
    device_half(32, true);
}

/// Walking three descriptors and giving the chain back, by us and by the `virtio-queue` crate.
#[test]
#[ignore = "a measurement, not a check"]
fn bench_against_virtio_queue() {
    let mut rig = Rig::new();
    let mut ring = rig.start(USUAL, 1, 256).remove(0);
    let heads: Vec<u16> = (0..BATCH).map(|n| ring.prepare_read(n, 0)).collect();
    let requests = u64::from(ROUNDS) * u64::from(BATCH);
    let areas = QueueConfig { size: 256, desc: ring.desc, avail: ring.avail, used: ring.used };

    let mut ours = DeviceQueue::new(&rig.ram, &areas, USUAL, false).unwrap();
    let mut chain = Chain::default();
    let start = Cpu::now();
    for _ in 0..ROUNDS {
        ring.offer(&heads);
        ours.refresh().unwrap();
        while ours.pop(&mut chain).unwrap() {
            chain.take_readable::<16>().unwrap();
            ours.push_used(chain.head(), chain.writable_bytes() as u32);
        }
        ours.publish();
        std::hint::black_box(ours.wants_interrupt());
    }
    report("our queue", start, requests);

    ring.offered = 0;
    ring.offer(&[]);
    let memory = rig.ram.memory();
    let mut theirs = Queue::new(256).unwrap();
    theirs.set_size(256);
    theirs.set_desc_table_address(Some(areas.desc as u32), Some(0));
    theirs.set_avail_ring_address(Some(areas.avail as u32), Some(0));
    theirs.set_used_ring_address(Some(areas.used as u32), Some(0));
    theirs.set_ready(true);
    let start = Cpu::now();
    for _ in 0..ROUNDS {
        ring.offer(&heads);
        while let Some(chain) = theirs.pop_descriptor_chain(memory) {
            let (head, mut writable) = (chain.head_index(), 0);
            for desc in chain {
                if desc.is_write_only() {
                    writable += desc.len();
                } else {
                    let header: [u8; 16] = memory.read_obj(desc.addr()).unwrap();
                    std::hint::black_box(header);
                }
            }
            theirs.add_used(memory, head, writable).unwrap();
        }
        std::hint::black_box(theirs.needs_notification(memory).unwrap());
    }
    report("the virtio-queue crate", start, requests);
}
