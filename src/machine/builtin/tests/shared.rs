//! One machine, several test threads.

use std::sync::Barrier;
use std::sync::atomic::{AtomicUsize, Ordering};

use super::rig::*;
use crate::base::{GuestAddr, HostClock};
use crate::image::{Extent, Image, ImageInfo};
use crate::machine::IrqSource;
use crate::machine::builtin::devices::virtio_pci::bits::*;
use crate::machine::builtin::*;

/// A disk whose reads begin when as many as `parties` have come: with fewer at once it hangs until
/// it gives up.
struct Rendezvous {
    image: TestImage,
    barrier: Barrier,
    together: AtomicUsize,
}

impl Image for Rendezvous {
    fn size(&self) -> u64 {
        self.image.size()
    }
    fn info(&self) -> &ImageInfo {
        self.image.info()
    }
    fn read(&self, bufs: &mut [std::io::IoSliceMut<'_>], offset: u64) -> std::io::Result<()> {
        self.barrier.wait();
        self.together.fetch_add(1, Ordering::SeqCst);
        self.image.read(bufs, offset)
    }
    fn write(&self, bufs: &[std::io::IoSlice<'_>], offset: u64) -> std::io::Result<()> {
        self.image.write(bufs, offset)
    }
    fn flush(&self) -> std::io::Result<()> {
        self.image.flush()
    }
    fn discard(&self, offset: u64, len: u64) -> std::io::Result<()> {
        self.image.discard(offset, len)
    }
    fn write_zeroes(&self, offset: u64, len: u64, unmap: bool) -> std::io::Result<()> {
        self.image.write_zeroes(offset, len, unmap)
    }
    fn extent(&self, offset: u64, len: u64) -> std::io::Result<Extent> {
        self.image.extent(offset, len)
    }
}

/// A machine with a disk of two queues, its rings started.
fn two_queues(image: Arc<dyn Image>, concurrent: bool) -> (SharedMachine, Vec<Ring>) {
    let disk = DiskConfig { queues: 2, concurrent_queues: concurrent, ..DiskConfig::new(image) };
    let config =
        BuiltinConfig { ram_bytes: RAM_BYTES, disks: vec![disk], ..BuiltinConfig::default() };
    let mut rig = Rig::of(BuiltinMachine::new(config).unwrap(), TestImage::new(8, false));
    let rings = rig.start(USUAL, 2, 64);
    (rig.machine.share(), rings)
}

fn kick(machine: &mut SharedMachine, queue: u16) {
    let doorbell = GuestAddr(MODERN_BASE + MODERN_NOTIFY + 4 * u64::from(queue));
    machine.bus().unwrap().mmio_write(doorbell, 2, queue.into());
}

#[test]
fn threads_on_different_queues_are_served_at_once() {
    let image = Arc::new(Rendezvous {
        image: TestImage::new(1024, false),
        barrier: Barrier::new(2),
        together: AtomicUsize::new(0),
    });
    let (machine, rings) = two_queues(Arc::clone(&image) as _, true);
    std::thread::scope(|scope| {
        for mut ring in rings {
            let mut machine = machine.clone();
            scope.spawn(move || {
                for round in 0..20u16 {
                    let head = ring.prepare_read(ring.index * 10 + round % 10, round.into());
                    ring.offer(&[head]);
                    kick(&mut machine, ring.index);
                    assert!(ring.take().is_some(), "answered before the doorbell returns");
                }
            });
        }
    });
    assert_eq!(image.together.load(Ordering::SeqCst), 40);
}

#[test]
fn threads_that_do_everything_at_once_neither_hang_nor_lose_a_request() {
    let (machine, rings) = two_queues(Arc::new(TestImage::new(1024, false)), true);
    let served: u64 = std::thread::scope(|scope| {
        let workers: Vec<_> = rings
            .into_iter()
            .map(|mut ring| {
                let mut machine = machine.clone();
                scope.spawn(move || {
                    let mut served = 0;
                    for round in 0..500u16 {
                        let head = ring.prepare_read(ring.index * 10 + round % 10, 3);
                        ring.offer(&[head]);
                        kick(&mut machine, ring.index);
                        machine.poll().unwrap();
                        // An access that has the machine to itself, between doorbells.
                        let status = GuestAddr(MODERN_BASE + VIRTIO_PCI_COMMON_STATUS);
                        assert_eq!(machine.bus().unwrap().mmio_read(status, 1), 15);
                        machine.interrupts().unwrap().intx_level(INTX);
                        served += u64::from(ring.take().is_some());
                    }
                    served
                })
            })
            .collect();
        workers.into_iter().map(|worker| worker.join().unwrap()).sum()
    });
    assert_eq!(served, 1000);
}

#[test]
fn one_worker_serves_all_queues_where_none_has_its_own() {
    let (machine, rings) = two_queues(Arc::new(TestImage::new(1024, false)), false);
    std::thread::scope(|scope| {
        for mut ring in rings {
            let mut machine = machine.clone();
            scope.spawn(move || {
                for round in 0..200u16 {
                    let head = ring.prepare_read(ring.index * 10 + round % 10, 3);
                    ring.offer(&[head]);
                    kick(&mut machine, ring.index);
                    assert!(ring.take().is_some());
                }
            });
        }
    });
}

fn write_cmos(machine: &mut SharedMachine, register: u32, value: u32) {
    let bus = machine.bus().unwrap();
    bus.pio_write(0x70, 1, register);
    bus.pio_write(0x71, 1, value);
}

#[test]
fn a_sleeper_wakes_for_a_timer_that_another_thread_sets() {
    let config = BuiltinConfig {
        chips: Chips::RTC,
        clock: Arc::new(HostClock::new()),
        ..BuiltinConfig::default()
    };
    let mut machine = BuiltinMachine::new(config).unwrap().share();
    let event = machine.interrupts().unwrap().watch(IrqSource::Intx(8)).unwrap();
    let patience = machine.clock().now() + 60_000_000_000;
    let start = Barrier::new(2);
    std::thread::scope(|scope| {
        let (mut other, start) = (machine.clone(), &start);
        scope.spawn(move || {
            for round in 0..40 {
                start.wait();
                // Sooner or later: before the other sleeps, while it does.
                (0..round * 20).for_each(|_| std::thread::yield_now());
                write_cmos(&mut other, 0x0a, 0x26);
                write_cmos(&mut other, 0x0b, 0x42);
                start.wait();
            }
        });
        for _ in 0..40 {
            start.wait();
            while event.take() == 0 {
                machine.wait(&[event.fd()], Some(patience)).unwrap();
                assert!(machine.clock().now() < patience, "slept through the interrupt");
            }
            start.wait();
            write_cmos(&mut machine, 0x0b, 0x02);
            machine.bus().unwrap().pio_write(0x70, 1, 0x0c);
            machine.bus().unwrap().pio_read(0x71, 1);
            event.take();
        }
    });
}
