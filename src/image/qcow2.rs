//! qcow2 images, through imago behind our own trait.
//!
//! imago takes no locks, opens encrypted images as if they were not, and loses a write that races
//! an unaligned write-zeroes in the same cluster; `chain`, `qcow2_header` and
//! `qcow2_check` guard the opening, and the `exclusive` lock here keeps everything that changes mappings apart from reads and writes.

use std::io::{self, IoSlice, IoSliceMut};
use std::sync::{Arc, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};

use imago::file::File as ImagoFile;
use imago::io_buffers::{IoVector, IoVectorMut};
use imago::qcow2::Qcow2;
use imago::raw::Raw;
use imago::{
    DenyImplicitOpenGate, FormatAccess, FormatCreateBuilder, FormatDriverBuilder, Mapping, Storage,
    StorageOpenOptions,
};

use super::chain::Layer;
use super::host::HostFile;
use super::iov::{check_range, total, total_mut};
use super::raw::read_only;
use super::{CacheMode, Extent, ExtentKind, Image, ImageInfo, Located, OpenOptions, qcow2_check};
use crate::base::error::IoContext;
use crate::base::{Error, Result, SECTOR_SIZE};

/// Zeros written at a time where the format has no faster way.
static ZERO_BUFFER: [u8; 64 << 10] = [0; 64 << 10];

/// Mappings merged into one extent before a caller has to ask again.
const MAPPINGS_PER_EXTENT: usize = 256;

/// An open qcow2 image with its backing files.
pub struct Qcow2Image {
    /// Flushes imago's caches when dropped, while the files are still open and locked.
    access: FormatAccess<ImagoFile>,
    /// Held for reading by reads and writes, for writing by what changes mappings under them.
    exclusive: RwLock<()>,
    /// Every file of the chain, the top layer's first.
    files: Vec<HostFile>,
    /// How many of them belong to the top layer: what a flush must bring to the disk.
    top_files: usize,
    size: u64,
    info: ImageInfo,
    cache: CacheMode,
    /// Version 2 has no zero clusters, hence neither write-zeroes nor discard.
    has_zero_clusters: bool,
}

impl Qcow2Image {
    /// Hands `layers`, which passed the guards and are locked, to imago.
    pub fn open(layers: Vec<Layer>, options: &OpenOptions) -> Result<Self> {
        let (mut files, mut top_files, mut below) = (Vec::new(), 0, None);
        let mut has_zero_clusters = true;
        for (depth, layer) in layers.into_iter().enumerate().rev() {
            let writable = options.writable && depth == 0;
            if let Some(header) = layer.header.as_ref().filter(|_| writable) {
                qcow2_check::check(&layer.host, header.version, header.data_file.is_some())?;
            }
            let access = open_layer(&layer, below.take(), writable, options.cache)
                .reading(&layer.host.path, "cannot open the qcow2 image")?;
            below = Some(access);
            if depth == 0 {
                has_zero_clusters = layer.header.is_none_or(|header| header.version >= 3);
                top_files = 1 + usize::from(layer.data_file.is_some());
            }
            files.splice(0..0, std::iter::once(layer.host).chain(layer.data_file));
        }
        let (Some(access), Some(top)) = (below, files.first()) else {
            return Err(Error::input("an image without layers"));
        };
        let info = ImageInfo {
            path: top.path.clone(),
            format: "qcow2".into(),
            via: String::new(),
            read_only: !options.writable,
            discard_zeroes: has_zero_clusters,
        };
        // A guest has whole sectors, whatever the header says.
        let size = access.size() / SECTOR_SIZE * SECTOR_SIZE;
        Ok(Self {
            access,
            exclusive: RwLock::new(()),
            files,
            top_files,
            size,
            info,
            cache: options.cache,
            has_zero_clusters,
        })
    }

    fn shared(&self) -> RwLockReadGuard<'_, ()> {
        self.exclusive.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn alone(&self) -> RwLockWriteGuard<'_, ()> {
        self.exclusive.write().unwrap_or_else(PoisonError::into_inner)
    }

    fn check(&self, offset: u64, len: u64, writes: bool) -> io::Result<()> {
        if writes && self.info.read_only {
            return Err(read_only());
        }
        check_range(self.size, offset, len)
    }

    fn write_zero_data(&self, mut offset: u64, mut len: u64) -> io::Result<()> {
        while len > 0 {
            let n = len.min(ZERO_BUFFER.len() as u64);
            self.access.write(&ZERO_BUFFER[..n as usize], offset)?;
            offset += n;
            len -= n;
        }
        Ok(())
    }

    fn one_extent(&self, offset: u64, len: u64) -> io::Result<Extent> {
        let (mapping, mapped) = self.access.get_mapping(offset, len)?;
        let kind = match mapping {
            Mapping::Zero { .. } | Mapping::Eof { .. } => ExtentKind::Zero,
            _ => ExtentKind::Data,
        };
        Ok(Extent { kind, len: if mapped == 0 { len } else { mapped.min(len) } })
    }
}

/// imago's view of one layer on top of `below`.
fn open_layer(
    layer: &Layer,
    below: Option<FormatAccess<ImagoFile>>,
    writable: bool,
    cache: CacheMode,
) -> io::Result<FormatAccess<ImagoFile>> {
    let file = storage(&layer.host, writable, cache)?;
    let deny = DenyImplicitOpenGate::default();
    if layer.header.is_none() {
        return Ok(FormatAccess::new(Raw::builder(file).write(writable).open(deny)?));
    }
    let data = match &layer.data_file {
        Some(host) => Some(storage(host, writable, cache)?),
        None => None,
    };
    let builder = Qcow2::<ImagoFile>::builder(file).write(writable);
    Ok(FormatAccess::new(builder.backing(below).data_file(data).open(deny)?))
}

/// A duplicate of the descriptor, which shares its locks, as imago's storage.
fn storage(host: &HostFile, writable: bool, cache: CacheMode) -> io::Result<ImagoFile> {
    let direct = cache == CacheMode::None;
    if direct {
        host.set_direct().map_err(io::Error::other)?;
    }
    let options = StorageOpenOptions::new().write(writable).direct(direct).filename(&host.path);
    ImagoFile::from_open_file(host.file.try_clone()?, options)
}

/// Makes an empty qcow2 image (version 3, 64 KiB clusters) of `size` bytes in `file`.
pub fn format(file: std::fs::File, size: u64) -> io::Result<()> {
    let storage = ImagoFile::try_from(file)?;
    Qcow2::<ImagoFile>::create_builder(storage).size(size).create()
}

/// Opens the chain whose layers are `layers`.
pub fn open(layers: Vec<Layer>, options: &OpenOptions) -> Result<Arc<dyn Image>> {
    Ok(Arc::new(Qcow2Image::open(layers, options)?))
}

impl Image for Qcow2Image {
    fn size(&self) -> u64 {
        self.size
    }

    fn info(&self) -> &ImageInfo {
        &self.info
    }

    fn read(&self, bufs: &mut [IoSliceMut<'_>], offset: u64) -> io::Result<()> {
        self.check(offset, total_mut(bufs), false)?;
        let _shared = self.shared();
        if let [one] = bufs {
            return self.access.read(&mut one[..], offset);
        }
        let mut vector = IoVectorMut::with_capacity(bufs.len());
        for buf in bufs.iter_mut().filter(|b| !b.is_empty()) {
            vector.push(buf);
        }
        self.access.readv(vector, offset)
    }

    fn write(&self, bufs: &[IoSlice<'_>], offset: u64) -> io::Result<()> {
        self.check(offset, total(bufs), true)?;
        let _shared = self.shared();
        if let [one] = bufs {
            return self.access.write(&one[..], offset);
        }
        let mut vector = IoVector::with_capacity(bufs.len());
        for buf in bufs.iter().filter(|b| !b.is_empty()) {
            vector.push(buf);
        }
        self.access.writev(vector, offset)
    }

    fn flush(&self) -> io::Result<()> {
        if self.info.read_only {
            return Ok(());
        }
        self.access.flush()?;
        if self.cache == CacheMode::Unsafe {
            return Ok(());
        }
        self.files.iter().take(self.top_files).try_for_each(|host| host.file.sync_data())
    }

    fn discard(&self, offset: u64, len: u64) -> io::Result<()> {
        self.check(offset, len, true)?;
        if !self.has_zero_clusters || len == 0 {
            // Version 2: dropping clusters would show what is below. Advice need not be taken.
            return Ok(());
        }
        let _alone = self.alone();
        // SAFETY: nobody else uses the image while `exclusive` is held for writing, so no mapping
        // is in use.
        unsafe { self.access.discard_to_zero_unsafe(offset, len) }
    }

    fn write_zeroes(&self, offset: u64, len: u64, unmap: bool) -> io::Result<()> {
        self.check(offset, len, true)?;
        if len == 0 {
            return Ok(());
        }
        let _alone = self.alone();
        if !self.has_zero_clusters {
            return self.write_zero_data(offset, len);
        }
        if unmap {
            // SAFETY: as in `discard`.
            unsafe { self.access.discard_to_zero_unsafe(offset, len) }
        } else {
            self.access.write_zeroes(offset, len)
        }
    }

    fn extent(&self, offset: u64, len: u64) -> io::Result<Extent> {
        self.check(offset, len, false)?;
        if len == 0 {
            return Ok(Extent { kind: ExtentKind::Zero, len: 0 });
        }
        let _shared = self.shared();
        let mut extent = self.one_extent(offset, len)?;
        for _ in 0..MAPPINGS_PER_EXTENT {
            if extent.len >= len {
                break;
            }
            let next = self.one_extent(offset + extent.len, len - extent.len)?;
            if next.kind != extent.kind {
                break;
            }
            extent.len += next.len;
        }
        Ok(extent)
    }

    fn located(&self, offset: u64, len: u64) -> io::Result<Option<Located<'_>>> {
        self.check(offset, len, false)?;
        if self.cache == CacheMode::None {
            return Ok(None);
        }
        let _shared = self.shared();
        let (mapping, mapped) = self.access.get_mapping(offset, len)?;
        let Mapping::Raw { storage, offset, .. } = mapping else { return Ok(None) };
        let Some(name) = storage.get_filename() else { return Ok(None) };
        let host = self.files.iter().find(|host| host.path == name && !host.block_device);
        let len = mapped.min(len);
        Ok(host.filter(|_| len > 0).map(|host| Located { file: &host.file, offset, len }))
    }
}
