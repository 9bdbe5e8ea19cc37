//! A block device of the host, as sysfs knows it.

use std::fs;
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::{Path, PathBuf};

use crate::base::error::IoContext;
use crate::base::{Error, Result, SECTOR_SIZE};
use crate::trace::StreamInfo;

/// A disk or a partition.
#[derive(Clone, Debug)]
pub struct Device {
    name: String,
    sys: PathBuf,
    /// Where a partition begins on its disk: the tracer names sectors of the disk.
    start: u64,
    sectors: u64,
    block_bytes: Option<u32>,
}

impl Device {
    /// The device node at `path`.
    ///
    /// # Errors
    /// Usage when it is no block device, a machine error when it cannot be traced.
    pub fn new(path: &Path) -> Result<Self> {
        let meta = fs::metadata(path).reading(path, "cannot look at the device")?;
        if !meta.file_type().is_block_device() {
            return Err(Error::usage("is no block device")
                .path(path)
                .hint("images are recorded by qtrace record nbd or vhost-user-blk"));
        }
        Self::numbered(meta.rdev()).ok_or_else(|| {
            Error::machine("the kernel knows no such block device, or cannot trace it").path(path)
        })
    }

    fn numbered(number: u64) -> Option<Self> {
        let (major, minor) = (libc::major(number), libc::minor(number));
        let sys = fs::canonicalize(format!("/sys/dev/block/{major}:{minor}")).ok()?;
        let read = |file: &str| fs::read_to_string(sys.join(file)).ok()?.trim().parse().ok();
        let queue = |sys: &Path| fs::read_to_string(sys.join("queue/logical_block_size")).ok();
        let block = queue(&sys).or_else(|| queue(sys.parent()?));
        let device = Self {
            name: sys.file_name()?.to_string_lossy().into_owned(),
            start: read("start").unwrap_or(0),
            sectors: read("size")?,
            block_bytes: block.and_then(|text| text.trim().parse().ok()),
            sys,
        };
        device.enable_path().exists().then_some(device)
    }

    /// What the kernel calls it: `sda1`.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Its first sector, and the first past its end, on its disk.
    pub fn range(&self) -> (u64, u64) {
        (self.start, self.start.saturating_add(self.sectors))
    }

    /// The stream of a recording.
    pub fn stream(&self) -> StreamInfo {
        StreamInfo {
            device: self.name.clone(),
            queue: None,
            device_bytes: Some(self.sectors.saturating_mul(SECTOR_SIZE)),
            block_bytes: self.block_bytes,
        }
    }

    /// The file that switches its tracing on.
    pub fn enable_path(&self) -> PathBuf {
        self.sys.join("trace/enable")
    }

    /// Whether it is traced.
    ///
    /// # Errors
    /// A machine error when the kernel does not tell.
    pub fn is_enabled(&self) -> Result<bool> {
        let path = self.enable_path();
        let text = fs::read_to_string(&path)
            .map_err(|e| Error::machine("cannot be read").path(&path).source(e))?;
        Ok(text.trim() != "0")
    }

    /// Switches it on or off.
    ///
    /// # Errors
    /// A machine error when the kernel refuses.
    pub fn enable(&self, on: bool) -> Result<()> {
        let path = self.enable_path();
        fs::write(&path, if on { "1" } else { "0" })
            .map_err(|e| Error::machine("the kernel does not trace it").path(&path).source(e))
    }

    /// Whether the file system of `folder` lies on it: a trace written there would record its own
    /// writing, without end.
    pub fn holds(&self, folder: &Path) -> bool {
        let Ok(meta) = fs::metadata(folder) else { return false };
        let (major, minor) = (libc::major(meta.dev()), libc::minor(meta.dev()));
        fs::canonicalize(format!("/sys/dev/block/{major}:{minor}"))
            .is_ok_and(|sys| sys.starts_with(&self.sys))
    }
}
