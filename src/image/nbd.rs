//! An image behind an NBD server.

use std::io::{self, IoSlice, IoSliceMut};
use std::sync::{Mutex, MutexGuard, PoisonError};

use super::iov::{check_range, total, total_mut};
use super::nbd_proto::{
    Command, NBD_CMD_FLAG_NO_HOLE, NBD_FLAG_READ_ONLY, NBD_FLAG_SEND_FLUSH, NBD_FLAG_SEND_TRIM,
    NBD_FLAG_SEND_WRITE_ZEROES,
};
use super::nbd_wire::Connection;
use super::qemu_nbd::Server;
use super::raw::read_only;
use super::{Extent, ExtentKind, Image, ImageInfo};
use crate::base::SECTOR_SIZE;

/// Most data of one request: half of what every server takes (32 MiB).
const DATA_BYTES_MAX: usize = 16 << 20;

/// Longest range of a request without data: a round number below 2^32.
const RANGE_BYTES_MAX: u64 = 1 << 30;

/// See the module.
pub struct NbdImage {
    connection: Mutex<Connection>,
    size: u64,
    flags: u16,
    has_block_status: bool,
    info: ImageInfo,
    /// Ended, and waited for, after the connection.
    _server: Option<Server>,
}

impl NbdImage {
    /// The export behind `connection`, described by `info`.
    pub fn new(connection: Connection, mut info: ImageInfo, server: Option<Server>) -> Self {
        let flags = connection.flags;
        info.read_only |= flags & NBD_FLAG_READ_ONLY != 0;
        // NBD_CMD_TRIM promises nothing about what is read afterwards.
        info.discard_zeroes = false;
        Self {
            size: connection.size / SECTOR_SIZE * SECTOR_SIZE,
            flags,
            has_block_status: connection.has_block_status(),
            connection: Mutex::new(connection),
            info,
            _server: server,
        }
    }

    fn connection(&self) -> MutexGuard<'_, Connection> {
        // A panic half-way would leave the stream out of step; the cookie check finds that.
        self.connection.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn check(&self, offset: u64, len: u64, writes: bool) -> io::Result<()> {
        if writes && self.info.read_only {
            return Err(read_only());
        }
        check_range(self.size, offset, len)
    }

    /// Sends a command without data for the whole range, in pieces.
    fn ranged(
        &self,
        command: Command,
        flags: u16,
        mut offset: u64,
        mut len: u64,
    ) -> io::Result<()> {
        while len > 0 {
            let n = len.min(RANGE_BYTES_MAX);
            // At most 2^30.
            self.connection().command(command, flags, offset, n as u32)?;
            offset += n;
            len -= n;
        }
        Ok(())
    }
}

impl Image for NbdImage {
    fn size(&self) -> u64 {
        self.size
    }

    fn info(&self) -> &ImageInfo {
        &self.info
    }

    fn read(&self, bufs: &mut [IoSliceMut<'_>], mut offset: u64) -> io::Result<()> {
        self.check(offset, total_mut(bufs), false)?;
        for buf in bufs {
            for piece in buf.chunks_mut(DATA_BYTES_MAX) {
                self.connection().read(piece, offset)?;
                offset += piece.len() as u64;
            }
        }
        Ok(())
    }

    fn write(&self, bufs: &[IoSlice<'_>], mut offset: u64) -> io::Result<()> {
        self.check(offset, total(bufs), true)?;
        for buf in bufs {
            for piece in buf.chunks(DATA_BYTES_MAX) {
                self.connection().write(piece, offset)?;
                offset += piece.len() as u64;
            }
        }
        Ok(())
    }

    fn flush(&self) -> io::Result<()> {
        if self.info.read_only || self.flags & NBD_FLAG_SEND_FLUSH == 0 {
            return Ok(());
        }
        self.connection().command(Command::Flush, 0, 0, 0)
    }

    fn discard(&self, offset: u64, len: u64) -> io::Result<()> {
        self.check(offset, len, true)?;
        if self.flags & NBD_FLAG_SEND_TRIM == 0 {
            return Ok(());
        }
        self.ranged(Command::Trim, 0, offset, len)
    }

    fn write_zeroes(&self, mut offset: u64, mut len: u64, unmap: bool) -> io::Result<()> {
        self.check(offset, len, true)?;
        if self.flags & NBD_FLAG_SEND_WRITE_ZEROES != 0 {
            let flags = if unmap { 0 } else { NBD_CMD_FLAG_NO_HOLE };
            return self.ranged(Command::WriteZeroes, flags, offset, len);
        }
        let zeros = vec![0; len.min(1 << 20) as usize];
        while len > 0 {
            let n = len.min(zeros.len() as u64);
            self.connection().write(&zeros[..n as usize], offset)?;
            offset += n;
            len -= n;
        }
        Ok(())
    }

    fn extent(&self, offset: u64, len: u64) -> io::Result<Extent> {
        self.check(offset, len, false)?;
        if len == 0 || !self.has_block_status {
            return Ok(Extent { kind: ExtentKind::Data, len });
        }
        let asked = len.min(RANGE_BYTES_MAX);
        let (zero, known) = self.connection().block_status(offset, asked as u32)?;
        let kind = if zero { ExtentKind::Zero } else { ExtentKind::Data };
        Ok(Extent { kind, len: known.min(len) })
    }
}

impl Drop for NbdImage {
    fn drop(&mut self) {
        self.connection().disconnect();
    }
}
