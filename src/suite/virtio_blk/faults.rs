//! Devices that are wrong on purpose: the cases that look must fail, and pass without the fault.

use std::io::{self, IoSlice, IoSliceMut};
use std::os::fd::BorrowedFd;
use std::sync::Arc;

use super::{BLOCKS_4K, CASES, DISK_BYTES, DISKS, MULTIQUEUE, PLAIN, READ_ONLY, VirtioBlk};
use crate::base::options::Options;
use crate::base::{Clock, GuestAddr, Nanos, Result, VirtualClock};
use crate::image::{Extent, Image, ImageInfo};
use crate::machine::builtin::{
    BuiltinConfig, BuiltinMachine, Chips, DiskConfig, Personality, SharedMachine,
};
use crate::machine::{Bus, Capabilities, GuestRam, Interrupts, Machine};
use crate::suite::{Module, Outcome, Stop, TestThread};

/// Where parts of the 1.x interface lie in their BAR, and what they tell of themselves there.
mod at {
    pub const CONFIG_MSIX_VECTOR: u64 = 0x10;
    pub const DEVICE_STATUS: u64 = 0x14;
    pub const CONFIG_GENERATION: u64 = 0x15;
    pub const QUEUE_SIZE: u64 = 0x18;
    pub const ISR: u64 = 0x1000;
    pub const CAPACITY: u64 = 0x2000;
    pub const NOTIFY: u64 = 0x3000;
    pub const BAR_BYTES: u64 = 0x4000;
}

/// What registers show and take instead: offset in the BAR, size, value.
#[derive(Clone, Copy)]
struct Lie {
    read: fn(u64, u8, u64) -> u64,
    write: fn(u64, u8, u64) -> Option<u64>,
}

const TRUTH: Lie = Lie { read: |_, _, value| value, write: |_, _, value| Some(value) };

struct Liar {
    inner: SharedMachine,
    lie: Lie,
    ram_bytes: u64,
}

impl Machine for Liar {
    fn name(&self) -> &str {
        self.inner.name()
    }

    fn capabilities(&self) -> Capabilities {
        self.inner.capabilities()
    }

    fn bus(&mut self) -> Result<&mut dyn Bus> {
        Ok(self)
    }

    fn ram(&self) -> Result<Arc<GuestRam>> {
        self.inner.ram()
    }

    fn interrupts(&mut self) -> Result<&mut dyn Interrupts> {
        self.inner.interrupts()
    }

    fn clock(&self) -> Arc<dyn Clock> {
        self.inner.clock()
    }

    fn resize_disk(&mut self, disk: usize, bytes: u64) -> Result<()> {
        self.inner.resize_disk(disk, bytes)
    }

    fn poll(&mut self) -> Result<bool> {
        self.inner.poll()
    }

    fn wait(&mut self, fds: &[BorrowedFd<'_>], deadline: Option<Nanos>) -> Result<()> {
        self.inner.wait(fds, deadline)
    }
}

impl Bus for Liar {
    fn pio_read(&mut self, port: u16, size: u8) -> u32 {
        self.inner.pio_read(port, size)
    }

    fn pio_write(&mut self, port: u16, size: u8, value: u32) {
        self.inner.pio_write(port, size, value);
    }

    fn mmio_read(&mut self, addr: GuestAddr, size: u8) -> u64 {
        let value = self.inner.mmio_read(addr, size);
        match addr.0 < self.ram_bytes {
            true => value,
            false => (self.lie.read)(addr.0 % at::BAR_BYTES, size, value),
        }
    }

    fn mmio_write(&mut self, addr: GuestAddr, size: u8, value: u64) {
        let value = match addr.0 < self.ram_bytes {
            true => Some(value),
            false => (self.lie.write)(addr.0 % at::BAR_BYTES, size, value),
        };
        if let Some(value) = value {
            self.inner.mmio_write(addr, size, value);
        }
    }
}

/// How an image is wrong.
#[derive(Clone, Copy, PartialEq)]
enum Wrong {
    Reads,
    LosesWrites,
    LosesZeroes,
    DiscardsTooMuch,
    ReadsPastItsEnd,
}

struct WrongImage(Arc<dyn Image>, Wrong);

impl Image for WrongImage {
    fn size(&self) -> u64 {
        self.0.size() + if self.1 == Wrong::ReadsPastItsEnd { 512 } else { 0 }
    }

    fn info(&self) -> &ImageInfo {
        self.0.info()
    }

    fn read(&self, bufs: &mut [IoSliceMut<'_>], offset: u64) -> io::Result<()> {
        if self.1 == Wrong::ReadsPastItsEnd && offset >= self.0.size() - 512 {
            return Ok(());
        }
        self.0.read(bufs, offset)?;
        if self.1 == Wrong::Reads {
            bufs.last_mut().and_then(|buf| buf.last_mut()).into_iter().for_each(|b| *b ^= 1);
        }
        Ok(())
    }

    fn write(&self, bufs: &[IoSlice<'_>], offset: u64) -> io::Result<()> {
        if self.1 == Wrong::LosesWrites { Ok(()) } else { self.0.write(bufs, offset) }
    }

    fn flush(&self) -> io::Result<()> {
        self.0.flush()
    }

    fn discard(&self, offset: u64, len: u64) -> io::Result<()> {
        let more = if self.1 == Wrong::DiscardsTooMuch { 512 } else { 0 };
        self.0.discard(offset, len + more)
    }

    fn write_zeroes(&self, offset: u64, len: u64, unmap: bool) -> io::Result<()> {
        if self.1 == Wrong::LosesZeroes { Ok(()) } else { self.0.write_zeroes(offset, len, unmap) }
    }

    fn extent(&self, offset: u64, len: u64) -> io::Result<Extent> {
        self.0.extent(offset, len)
    }
}

/// The disks as the cases ask for them.
fn disks() -> Vec<DiskConfig> {
    let disk = |disk: &super::TestDisk| DiskConfig {
        queues: disk.queues,
        block_bytes: disk.block_bytes,
        read_only: disk.read_only,
        serial: disk.serial.into(),
        ..DiskConfig::new(disk.image().unwrap())
    };
    DISKS.iter().map(disk).collect()
}

fn run(name: &str, disks: Vec<DiskConfig>, lie: Lie) -> Outcome {
    let config = BuiltinConfig {
        ram_bytes: 16 << 20,
        clock: Arc::new(VirtualClock::new()),
        chips: Chips::FULL,
        disks,
        ..BuiltinConfig::default()
    };
    let ram_bytes = config.ram_bytes;
    let inner = BuiltinMachine::new(config).unwrap().share();
    let mut machine = Liar { inner, lie, ram_bytes };
    let mut thread = TestThread::new(&mut machine, Options::default(), 1);
    let case = CASES.iter().find(|case| case.name == name).expect("a case");
    VirtioBlk.init(&mut thread)?;
    (case.run)(&mut thread)
}

fn catches(fault: &str, names: &[&str], spoil: impl Fn(&mut Vec<DiskConfig>), lie: Lie) {
    for name in names {
        assert!(run(name, disks(), TRUTH).is_ok(), "{name} without a fault");
        let mut disks = disks();
        spoil(&mut disks);
        let outcome = run(name, disks, lie);
        let caught = matches!(&outcome, Err(Stop::Failed(_) | Stop::Error(_)));
        assert!(caught, "{fault}: {name} passed: {outcome:?}");
    }
}

#[test]
fn registers_that_lie_are_caught() {
    let reading = |read| Lie { read, ..TRUTH };
    let writing = |write| Lie { write, ..TRUTH };
    let broken = ["bad-loop", "bad-self-loop", "bad-next", "bad-head", "bad-index", "bad-address"];
    let more = ["bad-order", "bad-no-status", "bad-table-length", "bad-table-nested"];
    let broken = [&broken[..], &more, &["bad-table-long", "bad-after-good"]].concat();
    let lie: fn(u64, u8, u64) -> u64 = |offset, size, value| match (offset, size) {
        (at::DEVICE_STATUS, 1) => value & !0x40,
        _ => value,
    };
    catches("no DEVICE_NEEDS_RESET", &broken, |_| {}, reading(lie));
    let lie = |offset, size, value| match (offset, size) {
        (at::ISR, 1) => 0,
        _ => value,
    };
    catches("no ISR status", &["bad-loop", "resize", "intx"], |_| {}, reading(lie));
    let lie = |offset, size, value| match (offset, size) {
        (at::DEVICE_STATUS, 1) => value & !8,
        _ => value,
    };
    catches("no FEATURES_OK", &["features"], |_| {}, reading(lie));
    let lie = |offset, size, value| match (offset, size) {
        (at::CONFIG_GENERATION, 1) => 0,
        _ => value,
    };
    catches("a generation that stays", &["resize"], |_| {}, reading(lie));
    let lie = |offset, size, value| match (offset, size, value) {
        (at::QUEUE_SIZE, 2, 0) => 8,
        _ => value,
    };
    catches("queues without end", &["nxvirtq"], |_| {}, reading(lie));
    let lie = |offset, size, value| match (offset, size) {
        (at::CAPACITY, 4) => value + 1,
        _ => value,
    };
    catches("a sector too many", &["config", "resize"], |_| {}, reading(lie));
    let lie: fn(u64, u8, u64) -> Option<u64> = |offset, size, value| match (offset, size) {
        (at::NOTIFY.., 2) => None,
        _ => Some(value),
    };
    let all = ["basic-modern", "get-id", "layout", "indirect", "wrap", "multiqueue", "msix"];
    catches("doorbells lost", &all, |_| {}, writing(lie));
    let lie = |offset, size, value| match (offset, size) {
        (at::CONFIG_MSIX_VECTOR, 2) => None,
        _ => Some(value),
    };
    catches("no configuration vector", &["resize-msix"], |_| {}, writing(lie));
    // The message data of every vector is that of the first.
    let lie = |offset: u64, size, value| match (offset % 16, size, value) {
        (8, 4, 0x30..0x40) => Some(0x30),
        _ => Some(value),
    };
    catches("one vector for all", &["msix"], |_| {}, writing(lie));
}

#[test]
fn disks_that_are_wrong_are_caught() {
    type Spoil = fn(&mut Vec<DiskConfig>);
    let wrong: &[(&str, &[&str], Spoil)] = &[
        ("another identifier", &["get-id"], |disks| disks[PLAIN].serial = "qtrace-plane".into()),
        ("blocks of 512 bytes", &["config", "block-size"], |disks| {
            disks[BLOCKS_4K].block_bytes = 512;
        }),
        ("one queue", &["config", "multiqueue", "msix"], |disks| disks[MULTIQUEUE].queues = 1),
        ("writable", &["config", "read-only"], |disks| disks[READ_ONLY].read_only = false),
        ("no legacy interface", &["basic-legacy", "nxvirtq-legacy"], |disks| {
            disks[PLAIN].personality = Personality::Modern;
        }),
    ];
    for (fault, names, spoil) in wrong {
        catches(fault, names, spoil, TRUTH);
    }
}

#[test]
fn contents_that_are_wrong_are_caught() {
    for (fault, names, wrong) in [
        ("wrong reads", &["basic-modern", "basic-legacy", "indirect", "layout"][..], Wrong::Reads),
        ("lost writes", &["basic-modern", "basic-legacy", "layout", "flush"], Wrong::LosesWrites),
        ("zeroes not written", &["write-zeroes"], Wrong::LosesZeroes),
        ("too much discarded", &["discard"], Wrong::DiscardsTooMuch),
        ("a sector past the end", &["config", "bounds"], Wrong::ReadsPastItsEnd),
    ] {
        let spoil = |disks: &mut Vec<DiskConfig>| {
            let image = Arc::clone(&disks[PLAIN].image);
            assert_eq!(image.size(), DISK_BYTES);
            disks[PLAIN].image = Arc::new(WrongImage(image, wrong));
        };
        catches(fault, names, spoil, TRUTH);
    }
}
