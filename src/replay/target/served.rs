//! A target that a server holds which was there before: it is looked at through its own device.

use std::io::{self, IoSlice, IoSliceMut};
use std::sync::{Arc, Mutex, PoisonError};

use crate::base::{BlockOp, Error, Result, SECTOR_SIZE};
use crate::driver::virtio::VirtioBlk;
use crate::driver::{BlockDriver, BlockRequest, BlockStatus, Completion, Submitted};
use crate::image::{Extent, ExtentKind, Image, ImageInfo};
use crate::machine::Machine;

/// How long a read may take before the device counts as one that answers no more.
const PATIENCE_NS: u64 = 60_000_000_000;

/// A disk as its device gives it. Nothing is written.
pub struct DeviceImage {
    device: Mutex<Device>,
    info: ImageInfo,
    size: u64,
    /// Reads are of whole blocks.
    block: u64,
    transfer: u64,
}

struct Device {
    driver: VirtioBlk,
    machine: Box<dyn Machine + Send>,
}

impl DeviceImage {
    /// Of a device that nothing is asked of any more. `name`: what users call it.
    pub fn new(driver: VirtioBlk, machine: Box<dyn Machine + Send>, name: &str) -> Arc<Self> {
        let limits = driver.limits();
        let block = u64::from(limits.block_bytes).max(SECTOR_SIZE);
        let info = ImageInfo {
            path: name.into(),
            format: "served".into(),
            via: machine.name().to_owned(),
            read_only: true,
            discard_zeroes: false,
        };
        let size = limits.capacity_sectors.saturating_mul(SECTOR_SIZE);
        let transfer = (limits.transfer_bytes_max as u64 / block).max(1) * block;
        Arc::new(Self {
            device: Mutex::new(Device { driver, machine }),
            info,
            size,
            block,
            transfer,
        })
    }

    /// Lets go of the device.
    ///
    /// # Errors
    /// Its machine is gone.
    pub fn close(&self) -> Result<()> {
        let mut device = self.device.lock().unwrap_or_else(PoisonError::into_inner);
        let Device { driver, machine } = &mut *device;
        driver.shutdown(&mut **machine).and_then(|()| machine.quit())
    }

    /// At most one transfer from `offset`; how many bytes of `buf` it filled.
    fn part(&self, buf: &mut [u8], offset: u64) -> Result<usize> {
        let first = offset - offset % self.block;
        let skip = usize::try_from(offset - first).unwrap_or(usize::MAX);
        let end = offset.saturating_add(buf.len() as u64).min(first + self.transfer);
        let len = (end.next_multiple_of(self.block).min(self.size) - first) as usize;
        let mut device = self.device.lock().unwrap_or_else(PoisonError::into_inner);
        let count = device.read(first, len, |bytes| {
            let from = bytes.get(skip..).unwrap_or_default();
            let count = from.len().min(buf.len());
            if let (Some(to), Some(from)) = (buf.get_mut(..count), from.get(..count)) {
                to.copy_from_slice(from);
            }
            count
        })?;
        match count {
            0 => Err(Error::machine("the device gave nothing")),
            count => Ok(count),
        }
    }
}

impl Device {
    /// Reads `len` bytes, which are whole blocks, and shows them.
    fn read(
        &mut self,
        offset: u64,
        len: usize,
        show: impl FnOnce(&[u8]) -> usize,
    ) -> Result<usize> {
        let Self { driver, machine } = self;
        let machine = &mut **machine;
        let buffer = driver.buffer(len).ok_or_else(|| Error::machine("guest RAM is used up"))?;
        let (sector, sectors) = (offset / SECTOR_SIZE, (len as u64 / SECTOR_SIZE) as u32);
        let request = BlockRequest { op: BlockOp::Read, sector, sectors, unmap: false };
        if let Submitted::Full(_) = driver.submit(0, 0, &request, Some(buffer))? {
            return Err(Error::machine("the ring is full"));
        }
        driver.kick(machine)?;
        let clock = machine.clock();
        let end = clock.now() + PATIENCE_NS;
        let mut done = Vec::new();
        loop {
            driver.reap(machine, &mut done)?;
            if let Some(Completion { status, buffer, .. }) = done.pop() {
                let shown = match (status, &buffer) {
                    (BlockStatus::Ok, Some(buffer)) => {
                        Ok(show(driver.bytes(buffer).get(..len).unwrap_or_default()))
                    }
                    (status, _) => Err(Error::machine(format!(
                        "reading {sectors} sectors at {sector} gave {status:?}"
                    ))),
                };
                if let Some(buffer) = buffer {
                    driver.release(buffer);
                }
                return shown;
            }
            if clock.now() >= end {
                return Err(Error::machine("the device does not answer a read"));
            }
            driver.wait(machine, Some(end))?;
        }
    }
}

impl Image for DeviceImage {
    fn size(&self) -> u64 {
        self.size
    }

    fn info(&self) -> &ImageInfo {
        &self.info
    }

    fn read(&self, bufs: &mut [IoSliceMut<'_>], mut offset: u64) -> io::Result<()> {
        let whole = bufs.iter().fold(0u64, |sum, buf| sum.saturating_add(buf.len() as u64));
        if offset.checked_add(whole).is_none_or(|end| end > self.size) {
            return Err(io::Error::new(io::ErrorKind::InvalidInput, "past the end of the disk"));
        }
        for buf in bufs {
            let mut left = &mut buf[..];
            while !left.is_empty() {
                let count = self.part(left, offset).map_err(io::Error::other)?;
                offset += count as u64;
                left = left.get_mut(count..).unwrap_or_default();
            }
        }
        Ok(())
    }

    fn write(&self, _bufs: &[IoSlice<'_>], _offset: u64) -> io::Result<()> {
        Err(read_only())
    }

    fn flush(&self) -> io::Result<()> {
        Ok(())
    }

    fn discard(&self, _offset: u64, _len: u64) -> io::Result<()> {
        Err(read_only())
    }

    fn write_zeroes(&self, _offset: u64, _len: u64, _unmap: bool) -> io::Result<()> {
        Err(read_only())
    }

    /// A device tells nothing of what is stored.
    fn extent(&self, offset: u64, len: u64) -> io::Result<Extent> {
        match self.size.checked_sub(offset) {
            None | Some(0) => {
                Err(io::Error::new(io::ErrorKind::InvalidInput, "past the end of the disk"))
            }
            Some(left) => Ok(Extent { kind: ExtentKind::Data, len: len.min(left) }),
        }
    }
}

fn read_only() -> io::Error {
    io::Error::new(io::ErrorKind::PermissionDenied, "a disk that is looked at is not written")
}
