//! A machine with a hand-driven disk, and an image to look into.

use std::collections::VecDeque;
use std::io::{self, IoSlice, IoSliceMut};
use std::os::fd::{AsRawFd, RawFd};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use virtio_bindings::virtio_blk::*;
use virtio_bindings::virtio_config::*;
use virtio_bindings::virtio_ring::*;

use crate::base::GuestAddr;
use crate::image::{Extent, ExtentKind, Image, ImageInfo, IoQueue, QueuedOp};
use crate::machine::builtin::devices::virtio_pci::bits::*;
use crate::machine::builtin::*;
use crate::machine::{GuestRam, IrqEvent};

/// What a test can see and set of its image.
pub struct Inner {
    pub bytes: Mutex<Vec<u8>>,
    pub log: Mutex<Vec<String>>,
    pub flushes: AtomicUsize,
    pub fail: AtomicBool,
    pub panic: AtomicBool,
    info: ImageInfo,
    asynchronous: bool,
}

#[derive(Clone)]
pub struct TestImage(pub Arc<Inner>);

impl TestImage {
    pub fn new(sectors: usize, asynchronous: bool) -> Self {
        let bytes = (0..sectors * 512).map(|i| (i / 512) as u8 ^ i as u8).collect();
        let info = ImageInfo {
            path: "".into(),
            format: "test".into(),
            via: "".into(),
            read_only: false,
            discard_zeroes: true,
        };
        Self(Arc::new(Inner {
            bytes: Mutex::new(bytes),
            log: Mutex::default(),
            flushes: AtomicUsize::new(0),
            fail: AtomicBool::new(false),
            panic: AtomicBool::new(false),
            info,
            asynchronous,
        }))
    }

    pub fn bytes(&self, offset: usize, len: usize) -> Vec<u8> {
        self.0.bytes.lock().unwrap()[offset..offset + len].to_vec()
    }

    pub fn flushes(&self) -> usize {
        self.0.flushes.load(Ordering::SeqCst)
    }

    pub fn log(&self) -> Vec<String> {
        self.0.log.lock().unwrap().clone()
    }

    fn zero(&self, name: &str, offset: u64, len: u64) -> io::Result<()> {
        self.check()?;
        self.0.log.lock().unwrap().push(format!("{name} {offset}+{len}"));
        self.0.bytes.lock().unwrap()[offset as usize..(offset + len) as usize].fill(0);
        Ok(())
    }

    fn check(&self) -> io::Result<()> {
        assert!(!self.0.panic.load(Ordering::SeqCst), "the test asked for a panic");
        if self.0.fail.load(Ordering::SeqCst) { Err(io::Error::other("test")) } else { Ok(()) }
    }
}

impl Image for TestImage {
    fn size(&self) -> u64 {
        self.0.bytes.lock().unwrap().len() as u64
    }
    fn info(&self) -> &ImageInfo {
        &self.0.info
    }
    fn read(&self, bufs: &mut [IoSliceMut<'_>], offset: u64) -> io::Result<()> {
        self.check()?;
        let bytes = self.0.bytes.lock().unwrap();
        let mut at = offset as usize;
        for buf in bufs {
            let len = buf.len();
            buf.copy_from_slice(&bytes[at..at + len]);
            at += buf.len();
        }
        Ok(())
    }
    fn write(&self, bufs: &[IoSlice<'_>], offset: u64) -> io::Result<()> {
        self.check()?;
        let mut bytes = self.0.bytes.lock().unwrap();
        let mut at = offset as usize;
        for buf in bufs {
            bytes[at..at + buf.len()].copy_from_slice(buf);
            at += buf.len();
        }
        Ok(())
    }
    fn flush(&self) -> io::Result<()> {
        self.check()?;
        self.0.flushes.fetch_add(1, Ordering::SeqCst);
        Ok(())
    }
    fn discard(&self, offset: u64, len: u64) -> io::Result<()> {
        self.zero("discard", offset, len)
    }
    fn write_zeroes(&self, offset: u64, len: u64, unmap: bool) -> io::Result<()> {
        self.zero(if unmap { "unmap" } else { "zero" }, offset, len)
    }
    fn extent(&self, _offset: u64, len: u64) -> io::Result<Extent> {
        Ok(Extent { kind: ExtentKind::Data, len })
    }
    fn queue(&self, _depth: usize) -> io::Result<Option<Box<dyn IoQueue>>> {
        let queue = || {
            let event = IrqEvent::new()?;
            Ok(Box::new(TestQueue { image: self.clone(), event, waiting: VecDeque::new() }) as _)
        };
        self.0.asynchronous.then(queue).transpose()
    }
}

/// Requests that happen when they are reaped.
struct TestQueue {
    image: TestImage,
    event: IrqEvent,
    waiting: VecDeque<(u64, QueuedOp, u64, *const [libc::iovec])>,
}

// SAFETY: the pointers among `waiting` are of buffers that `submit`'s caller keeps for this queue,
// in whichever thread it is reaped.
unsafe impl Send for TestQueue {}

impl IoQueue for TestQueue {
    // SAFETY: the caller's promise, of the trait, is kept for `reap`.
    unsafe fn submit(
        &mut self,
        token: u64,
        op: QueuedOp,
        offset: u64,
        bufs: &[libc::iovec],
    ) -> io::Result<Option<io::Result<()>>> {
        self.waiting.push_back((token, op, offset, bufs));
        Ok(None)
    }
    fn kick(&mut self) -> io::Result<()> {
        self.event.signal();
        Ok(())
    }
    fn reap(&mut self, done: &mut Vec<(u64, io::Result<()>)>) -> io::Result<()> {
        if self.event.take() == 0 {
            return Ok(());
        }
        for (token, op, offset, bufs) in self.waiting.drain(..) {
            let (list, len) = (bufs.cast::<libc::iovec>(), bufs.len());
            let result = match op {
                QueuedOp::Read => {
                    // SAFETY: IoSliceMut is laid out as iovec (std), and the caller of `submit`
                    // promised that nothing else touches the buffers until this token comes back.
                    let bufs =
                        unsafe { std::slice::from_raw_parts_mut(list.cast_mut().cast(), len) };
                    self.image.read(bufs, offset)
                }
                QueuedOp::Write => {
                    // SAFETY: as above, of IoSlice.
                    let bufs = unsafe { std::slice::from_raw_parts(list.cast(), len) };
                    self.image.write(bufs, offset)
                }
                QueuedOp::Flush => self.image.flush(),
            };
            done.push((token, result));
        }
        Ok(())
    }
    fn in_flight(&self) -> usize {
        self.waiting.len()
    }
    fn event_fd(&self) -> RawFd {
        self.event.fd().as_raw_fd()
    }
}

pub const MODERN_BASE: u64 = 0x80_0000_0000;
pub const MSIX_BASE: u64 = 0xe000_0000;
pub const IO_BASE: u16 = 0xc000;
pub const RAM_BYTES: u64 = 16 << 20;
/// Where requests are built: header, status, data, indirect table.
pub const HEADER: u64 = 0x10_0000;
pub const STATUS: u64 = 0x10_1000;
pub const DATA: u64 = 0x20_0000;
pub const TABLE: u64 = 0x18_0000;

pub const NEXT: u16 = VRING_DESC_F_NEXT as u16;
pub const WRITE: u16 = VRING_DESC_F_WRITE as u16;
pub const INDIRECT: u16 = VRING_DESC_F_INDIRECT as u16;

/// Everything a modern driver of today takes.
pub const USUAL: u64 = 1 << VIRTIO_F_VERSION_1
    | 1 << VIRTIO_RING_F_INDIRECT_DESC
    | 1 << VIRTIO_BLK_F_FLUSH
    | 1 << VIRTIO_BLK_F_DISCARD
    | 1 << VIRTIO_BLK_F_WRITE_ZEROES;

/// The interrupt of slot 4 on an i440fx.
pub const INTX: u32 = 11;

pub struct Rig {
    pub machine: BuiltinMachine,
    pub image: TestImage,
    pub ram: Arc<GuestRam>,
}

/// A guest's side of a ring, without any cleverness.
pub struct Ring {
    pub ram: Arc<GuestRam>,
    pub index: u16,
    pub size: u16,
    pub desc: u64,
    pub avail: u64,
    pub used: u64,
    pub offered: u16,
    pub taken: u16,
}

impl Ring {
    pub fn describe(&self, index: u16, addr: u64, len: u32, flags: u16, next: u16) {
        describe(&self.ram, self.desc + 16 * u64::from(index), addr, len, flags, next);
    }
    /// Puts heads on the available ring and publishes them at once.
    pub fn offer(&mut self, heads: &[u16]) {
        for head in heads {
            let slot = u64::from(self.offered % self.size);
            self.ram.store_u16(GuestAddr(self.avail + 4 + 2 * slot), *head);
            self.offered = self.offered.wrapping_add(1);
        }
        self.ram.store_u16(GuestAddr(self.avail + 2), self.offered);
    }
    pub fn used_index(&self) -> u16 {
        self.ram.load_u16(GuestAddr(self.used + 2))
    }
    pub fn take(&mut self) -> Option<(u32, u32)> {
        if self.used_index() == self.taken {
            return None;
        }
        let slot = u64::from(self.taken % self.size);
        self.taken = self.taken.wrapping_add(1);
        let word = |at| {
            let mut bytes = [0; 4];
            assert!(self.ram.read(GuestAddr(self.used + 4 + 8 * slot + at), &mut bytes));
            u32::from_le_bytes(bytes)
        };
        Some((word(0), word(4)))
    }
    pub fn set_used_event(&self, value: u16) {
        self.ram.store_u16(GuestAddr(self.avail + 4 + 2 * u64::from(self.size)), value);
    }
    pub fn avail_event(&self) -> u16 {
        self.ram.load_u16(GuestAddr(self.used + 4 + 8 * u64::from(self.size)))
    }
    /// A read of one sector from descriptors 3n.. with its own buffers.
    pub fn prepare_read(&self, n: u16, sector: u64) -> u16 {
        let (header, status) = (HEADER + 16 * u64::from(n), STATUS + u64::from(n));
        self.ram.write(GuestAddr(header), &header_bytes(VIRTIO_BLK_T_IN, sector));
        self.ram.write(GuestAddr(status), &[0xff]);
        let head = 3 * n;
        self.describe(head, header, 16, NEXT, head + 1);
        self.describe(head + 1, DATA + 512 * u64::from(n), 512, NEXT | WRITE, head + 2);
        self.describe(head + 2, status, 1, WRITE, 0);
        head
    }
}

pub fn describe(ram: &GuestRam, at: u64, addr: u64, len: u32, flags: u16, next: u16) {
    let mut bytes = addr.to_le_bytes().to_vec();
    bytes.extend(len.to_le_bytes());
    bytes.extend(flags.to_le_bytes());
    bytes.extend(next.to_le_bytes());
    assert!(ram.write(GuestAddr(at), &bytes));
}

pub fn header_bytes(kind: u32, sector: u64) -> Vec<u8> {
    [&kind.to_le_bytes()[..], &[0; 4], &sector.to_le_bytes()].concat()
}

pub fn range_bytes(sector: u64, sectors: u32, flags: u32) -> Vec<u8> {
    [&sector.to_le_bytes()[..], &sectors.to_le_bytes(), &flags.to_le_bytes()].concat()
}

impl Rig {
    pub fn new() -> Self {
        Self::with(|_| {})
    }

    pub fn with(change: impl FnOnce(&mut DiskConfig)) -> Self {
        Self::build(TestImage::new(1024, false), Board::Pc, change)
    }

    pub fn build(image: TestImage, board: Board, change: impl FnOnce(&mut DiskConfig)) -> Self {
        let mut disk = DiskConfig::new(Arc::new(image.clone()));
        disk.serial = "serial-0123456789-and-more".into();
        change(&mut disk);
        let config =
            BuiltinConfig { ram_bytes: RAM_BYTES, board, disks: vec![disk], ..Default::default() };
        Self::of(BuiltinMachine::new(config).unwrap(), image)
    }

    pub fn of(machine: BuiltinMachine, image: TestImage) -> Self {
        let ram = machine.ram().unwrap();
        let mut rig = Self { machine, image, ram };
        rig.assign();
        rig
    }

    pub fn bus(&mut self) -> &mut dyn Bus {
        self.machine.bus().unwrap()
    }

    /// The register's bits 10:8 are the function.
    pub fn config_read(&mut self, slot: u32, reg: u32, size: u8) -> u32 {
        self.bus().pio_write(0xcf8, 4, 0x8000_0000 | slot << 11 | reg & 0x7fc);
        self.bus().pio_read(0xcfc + (reg & 3) as u16, size)
    }

    pub fn config_write(&mut self, slot: u32, reg: u32, size: u8, value: u32) {
        self.bus().pio_write(0xcf8, 4, 0x8000_0000 | slot << 11 | reg & 0x7fc);
        self.bus().pio_write(0xcfc + (reg & 3) as u16, size, value);
    }

    /// BARs and command register, as firmware and a driver would.
    pub fn assign(&mut self) {
        self.config_write(4, 0x10, 4, IO_BASE.into());
        self.config_write(4, 0x14, 4, MSIX_BASE as u32);
        self.config_write(4, 0x20, 4, MODERN_BASE as u32);
        self.config_write(4, 0x24, 4, (MODERN_BASE >> 32) as u32);
        self.config_write(4, 4, 2, 7);
    }

    pub fn read(&mut self, field: u64, size: u8) -> u64 {
        self.bus().mmio_read(GuestAddr(MODERN_BASE + field), size)
    }

    pub fn write(&mut self, field: u64, size: u8, value: u64) {
        self.bus().mmio_write(GuestAddr(MODERN_BASE + field), size, value);
    }

    pub fn status(&mut self) -> u32 {
        self.read(VIRTIO_PCI_COMMON_STATUS, 1) as u32
    }

    pub fn set_status(&mut self, status: u32) {
        self.write(VIRTIO_PCI_COMMON_STATUS, 1, status.into());
    }

    pub fn set_features(&mut self, features: u64) {
        for select in 0..2 {
            self.write(VIRTIO_PCI_COMMON_GFSELECT, 4, select);
            self.write(VIRTIO_PCI_COMMON_GF, 4, features >> (32 * select) & 0xffff_ffff);
        }
    }

    pub fn features(&mut self) -> u64 {
        (0..2).fold(0, |all, select| {
            self.write(VIRTIO_PCI_COMMON_DFSELECT, 4, select);
            all | self.read(VIRTIO_PCI_COMMON_DF, 4) << (32 * select)
        })
    }

    pub fn ring(&self, index: u16, size: u16) -> Ring {
        let base = 0x1_0000 * (1 + u64::from(index));
        Ring {
            ram: Arc::clone(&self.ram),
            index,
            size,
            desc: base,
            avail: base + 0x8000,
            used: base + 0xa000,
            offered: 0,
            taken: 0,
        }
    }

    pub fn set_up_queue(&mut self, ring: &Ring) {
        self.ram.write(GuestAddr(ring.desc), &[0; 0x1_0000]);
        self.write(VIRTIO_PCI_COMMON_Q_SELECT, 2, ring.index.into());
        self.write(VIRTIO_PCI_COMMON_Q_SIZE, 2, ring.size.into());
        self.write(VIRTIO_PCI_COMMON_Q_DESCLO, 8, ring.desc);
        self.write(VIRTIO_PCI_COMMON_Q_AVAILLO, 8, ring.avail);
        self.write(VIRTIO_PCI_COMMON_Q_USEDLO, 8, ring.used);
        self.write(VIRTIO_PCI_COMMON_Q_ENABLE, 2, 1);
    }

    /// The whole initialisation of virtio 1.2 §3.1.1.
    pub fn start(&mut self, features: u64, queues: u16, size: u16) -> Vec<Ring> {
        self.set_status(0);
        self.set_status(3);
        self.set_features(features);
        self.set_status(11);
        assert_eq!(self.status(), 11, "features refused");
        let rings: Vec<Ring> = (0..queues).map(|q| self.ring(q, size)).collect();
        rings.iter().for_each(|ring| self.set_up_queue(ring));
        self.set_status(15);
        rings
    }

    pub fn start_one(&mut self, features: u64) -> Ring {
        self.start(features, 1, 64).remove(0)
    }

    pub fn kick(&mut self, ring: &Ring) {
        self.write(MODERN_NOTIFY + 4 * u64::from(ring.index), 2, ring.index.into());
    }

    /// Builds, sends and collects one request: status, used length, data.
    pub fn request(
        &mut self,
        ring: &mut Ring,
        kind: u32,
        sector: u64,
        out: &[u8],
        into: u32,
    ) -> (u8, u32, Vec<u8>) {
        self.ram.write(GuestAddr(HEADER), &header_bytes(kind, sector));
        self.ram.write(GuestAddr(STATUS), &[0xff]);
        self.ram.write(GuestAddr(DATA), out);
        ring.describe(0, HEADER, 16, NEXT, 1);
        let mut next = 1;
        if !out.is_empty() {
            ring.describe(next, DATA, out.len() as u32, NEXT, next + 1);
            next += 1;
        }
        if into > 0 {
            ring.describe(next, DATA, into, NEXT | WRITE, next + 1);
            next += 1;
        }
        ring.describe(next, STATUS, 1, WRITE, 0);
        ring.offer(&[0]);
        self.kick(ring);
        let (id, len) = ring.take().expect("answered inline");
        assert_eq!(id, 0);
        (self.byte(STATUS), len, self.bytes(DATA, into as usize))
    }

    pub fn byte(&self, addr: u64) -> u8 {
        self.bytes(addr, 1)[0]
    }

    pub fn bytes(&self, addr: u64, len: usize) -> Vec<u8> {
        let mut bytes = vec![0; len];
        assert!(self.ram.read(GuestAddr(addr), &mut bytes));
        bytes
    }
}
