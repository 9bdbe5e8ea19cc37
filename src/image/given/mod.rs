//! Images that another program opens: QEMU, whose block layer serves them.
//!
//! The image is judged here first, as if this program were to use it: every guard on its headers
//! and on the files it names, and the locks. Then it is closed, described as a block node in QEMU's
//! words (`BlockdevOptions`), and left alone until that program has ended; [`Handover::reopen`]
//! shows what it became. Nothing in a node is left to be found out: every format is said, the
//! backing files are nodes of their own, and an image without one is told so.
//!
//! Files are handed over as descriptors that cannot be read, written or locked (`O_PATH`), and
//! named `/proc/self/fd/N`: what was judged is what is opened, whatever happens to its name
//! meanwhile, and a file that has no name yet can be opened too.

mod node;
mod stack;
#[cfg(test)]
mod tests;

use std::fs::File;
use std::os::fd::{AsRawFd, OwnedFd, RawFd};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use nix::fcntl::{FcntlArg, fcntl};
use nix::sys::memfd::{MFdFlags, memfd_create};
use serde_json::Value;

use self::node::{Access, Describe};
use self::stack::{Stack, format_of, needs_qemu};
use super::chain::Layer;
use super::host::HostFile;
use super::open::open_as;
use super::raw::RawImage;
use super::{
    AioMode, CacheMode, Image, OpenOptions, PendingFile, lock, null, qcow2, qcow2_header, qemu_nbd,
};
use crate::base::error::IoContext;
use crate::base::{Error, Result, SECTOR_SIZE};

/// Descriptors are handed over under numbers from here on: below are those that programs give a
/// meaning to.
const INHERITED_FD_MIN: RawFd = 32;

/// A file that the other program inherits.
#[derive(Clone, Debug)]
pub struct InheritedFile {
    /// The descriptor, close-on-exec here. Its number here is its number there: the description
    /// says `/proc/self/fd/N`.
    pub fd: Arc<OwnedFd>,
    /// What users call the file.
    pub name: PathBuf,
    block_device: bool,
    /// Whether its file system has locks.
    lockable: bool,
}

/// An image as the other program is to open it.
#[derive(Clone, Debug)]
pub struct GivenImage {
    /// A block node in QEMU's words (`BlockdevOptions`), every format in it said, without a
    /// `node-name`.
    pub node: Value,
    /// The files that `node` names.
    pub files: Vec<InheritedFile>,
    /// Guest-visible bytes, as they were found before.
    pub size: u64,
}

/// How QEMU reads and writes a file (`BlockdevAioOptions`).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum GivenAio {
    /// preadv and pwritev in a pool of threads.
    #[default]
    Threads,
    /// Linux's own asynchronous I/O; wants [`CacheMode::None`].
    Native,
    /// io_uring.
    IoUring,
}

impl GivenImage {
    /// The same with its files read and written in another way.
    #[must_use]
    pub fn with_aio(mut self, aio: GivenAio) -> Self {
        node::set_aio(&mut self.node, aio);
        self
    }
}

/// An image that is ready for another program, and for us when that has finished.
#[derive(Debug)]
pub struct Handover {
    image: GivenImage,
    format: String,
    back: Back,
}

/// How the image is opened again.
#[derive(Debug)]
enum Back {
    /// It keeps nothing.
    Null,
    /// It has no other name than its descriptor.
    Memory(InheritedFile),
    /// By the name that it was opened by.
    File { path: PathBuf, name: PathBuf, top: InheritedFile, options: OpenOptions },
    /// A temporary qcow2 over an image that stays as it is.
    Overlay { top: InheritedFile, base: PathBuf, options: OpenOptions },
}

impl Handover {
    /// The image at `path`, to be written in place as `options` say; without a format its content
    /// decides.
    ///
    /// # Errors
    /// Those of [`open`](super::open()).
    pub fn in_place(path: &Path, options: &OpenOptions, aio: GivenAio) -> Result<Self> {
        Self::file(path, path, options, aio)
    }

    /// An image just created.
    ///
    /// # Errors
    /// Those of [`open`](super::open()).
    pub fn created(file: &PendingFile, options: &OpenOptions, aio: GivenAio) -> Result<Self> {
        let options = OpenOptions { format: Some(file.format().to_owned()), ..options.clone() };
        Self::file(&file.path(), file.target(), &options, aio)
    }

    fn file(path: &Path, name: &Path, options: &OpenOptions, aio: GivenAio) -> Result<Self> {
        let options = OpenOptions {
            format: Some(format_of(path, name, options)?),
            writable: true,
            ..options.clone()
        };
        let size = open_as(path, name, &for_reading(&options))?.size();
        let stack = Stack::resolve(path, name, &options)?;
        let mut describe = Describe::new(options.cache, aio);
        let node = stack.node(&mut describe, Access::Write)?;
        let top = inherit(stack.top()?)?;
        Ok(Self {
            image: GivenImage { node, files: describe.files, size },
            format: options.format.clone().unwrap_or_default(),
            back: Back::File { path: path.into(), name: name.into(), top, options },
        })
    }

    /// A temporary overlay over the image at `path`, which is only read. The overlay's file has no
    /// name, lies in `TMPDIR`, and is gone when this and the other program are.
    ///
    /// # Errors
    /// Those of [`open`](super::open()), and of making the temporary file.
    pub fn snapshot(path: &Path, options: &OpenOptions, aio: GivenAio) -> Result<Self> {
        let options = OpenOptions {
            format: Some(format_of(
                path,
                path,
                &OpenOptions { writable: false, ..options.clone() },
            )?),
            writable: false,
            ..options.clone()
        };
        let size = open_as(path, path, &for_reading(&options))?.size();
        let stack = Stack::resolve(path, path, &options)?;
        let mut describe = Describe::new(options.cache, aio);
        let base = stack.node(&mut describe, Access::Read)?;
        let top = overlay_file(size)?;
        let node = describe.as_temporary().qcow2(top.clone(), base, Access::Write);
        Ok(Self {
            image: GivenImage { node, files: describe.files, size },
            format: options.format.clone().unwrap_or_default(),
            back: Back::Overlay { top, base: path.into(), options },
        })
    }

    /// A disk of zeros in memory, `size` bytes in whole sectors.
    ///
    /// # Errors
    /// The system has no memory file to give.
    pub fn mem(size: u64, aio: GivenAio) -> Result<Self> {
        const WHAT: &str = "cannot make a disk in memory";
        let file = memfd_create(c"qtrace-disk", MFdFlags::MFD_CLOEXEC)
            .map_err(|e| Error::machine(WHAT).source(e))?;
        let (file, name) = (File::from(file), Path::new("memory"));
        file.set_len(size.next_multiple_of(SECTOR_SIZE)).writing(name, WHAT)?;
        let host = HostFile::from_file(file, name)?;
        let top = inherit(&host)?;
        // It has no page cache to bypass, and no disk to reach.
        let mut describe = Describe::new(CacheMode::Unsafe, aio);
        let node = describe.raw(top.clone(), Access::Write);
        Ok(Self {
            image: GivenImage { node, files: describe.files, size: host.len },
            format: "mem".into(),
            back: Back::Memory(top),
        })
    }

    /// A disk of `size` bytes in whole sectors that reads as zeros and forgets what is written.
    pub fn null(size: u64) -> Self {
        let size = size.next_multiple_of(SECTOR_SIZE);
        let node = node::null(size);
        let image = GivenImage { node, files: Vec::new(), size };
        Self { image, format: "null".into(), back: Back::Null }
    }

    /// What the other program is given.
    pub fn image(&self) -> &GivenImage {
        &self.image
    }

    /// `raw`, `qcow2`, …, `mem`, `null`.
    pub fn format(&self) -> &str {
        &self.format
    }

    /// A disk in memory, open to be given its contents before the other program has it.
    ///
    /// # Errors
    /// An image that is a file is not filled here.
    pub fn writable(&self) -> Result<Arc<dyn Image>> {
        let Back::Memory(file) = &self.back else {
            return Err(Error::usage("only a disk in memory is filled before it is handed over"));
        };
        let options = OpenOptions { writable: true, ..OpenOptions::default() };
        Ok(Arc::new(RawImage::new(HostFile::open(&file.path(), true)?, &options)?))
    }

    /// The image as it is now, for reading. The other program must have ended, or closed it.
    ///
    /// # Errors
    /// Those of [`open`](super::open()); a file that no longer is the one that was handed over.
    pub fn reopen(&self) -> Result<Arc<dyn Image>> {
        match &self.back {
            Back::Null => Ok(null(self.image.size)),
            Back::Memory(file) => {
                let host = HostFile::open(&file.path(), false)?;
                Ok(Arc::new(RawImage::new(host, &OpenOptions::default())?))
            }
            Back::File { path, name, top, options } => {
                same_file(
                    &HostFile::open(path, false)?,
                    &HostFile::open(&top.path(), false)?,
                    name,
                )?;
                open_as(path, name, &for_reading(options))
            }
            Back::Overlay { top, base, options } => self.reopen_overlay(top, base, options),
        }
    }

    fn reopen_overlay(
        &self,
        top: &InheritedFile,
        base: &Path,
        options: &OpenOptions,
    ) -> Result<Arc<dyn Image>> {
        let stack = Stack::resolve(base, base, options)?;
        let Stack::Layers(mut layers) = stack else {
            return self.reopen_by_qemu(&stack, top, base);
        };
        if needs_qemu(&layers).is_some() {
            return self.reopen_by_qemu(&Stack::Layers(layers), top, base);
        }
        let mut host = HostFile::open(&top.path(), false)?;
        lock::take(&host, false)?;
        host.path = base.to_path_buf();
        let header = Some(qcow2_header::read(&host)?);
        layers.insert(0, Layer { host, header, data_file: None });
        qcow2::open(layers, &OpenOptions { writable: false, ..OpenOptions::default() })
    }

    /// Through the very description that the other program had, for reading.
    fn reopen_by_qemu(
        &self,
        base: &Stack,
        top: &InheritedFile,
        name: &Path,
    ) -> Result<Arc<dyn Image>> {
        let mut describe = Describe::new(CacheMode::Writeback, GivenAio::Threads);
        let below = base.node(&mut describe, Access::Read)?;
        let node = describe.qcow2(top.clone(), below, Access::Read);
        qemu_nbd::open_node(&node, &describe.files, name)
    }
}

/// The same image, to look at.
fn for_reading(options: &OpenOptions) -> OpenOptions {
    OpenOptions { writable: false, aio: AioMode::Auto, ..options.clone() }
}

fn same_file(now: &HostFile, before: &HostFile, name: &Path) -> Result<()> {
    use std::os::unix::fs::MetadataExt;
    let identity = |host: &HostFile| {
        let meta = host.file.metadata().reading(name, "cannot examine the image")?;
        Ok::<_, Error>((meta.dev(), meta.ino()))
    };
    if identity(now)? == identity(before)? {
        return Ok(());
    }
    Err(Error::incomplete("the image was replaced by another file while the machine used it")
        .path(name))
}

/// An empty qcow2 of `size` bytes without a name.
fn overlay_file(size: u64) -> Result<InheritedFile> {
    const WHAT: &str = "cannot create the temporary overlay";
    let folder = std::env::temp_dir();
    let file = tempfile::tempfile().writing(&folder, WHAT)?;
    qcow2::format(file.try_clone().writing(&folder, WHAT)?, size).writing(&folder, WHAT)?;
    inherit(&HostFile::from_file(file, Path::new("temporary overlay"))?)
}

/// The file behind `host`, as a descriptor that carries no lock.
fn inherit(host: &HostFile) -> Result<InheritedFile> {
    const WHAT: &str = "cannot hand over the file";
    let place = File::options()
        .read(true)
        .custom_flags(libc::O_PATH)
        .open(format!("/proc/self/fd/{}", host.fd()))
        .reading(&host.path, WHAT)?;
    let number = fcntl(&place, FcntlArg::F_DUPFD_CLOEXEC(INHERITED_FD_MIN))
        .map_err(std::io::Error::from)
        .reading(&host.path, WHAT)?;
    // SAFETY: just made by fcntl(2), and owned by nobody else.
    let fd = unsafe { std::os::fd::FromRawFd::from_raw_fd(number) };
    Ok(InheritedFile {
        fd: Arc::new(fd),
        name: host.path.clone(),
        block_device: host.block_device,
        lockable: lock::works(host),
    })
}

impl InheritedFile {
    /// The descriptor's number, here and in the process that inherits it.
    pub fn number(&self) -> RawFd {
        self.fd.as_raw_fd()
    }

    /// The name by which this process, and the one that inherits it, opens the file.
    pub fn path(&self) -> PathBuf {
        PathBuf::from(format!("/proc/self/fd/{}", self.number()))
    }

    /// QEMU's driver for such a file.
    fn driver(&self) -> &'static str {
        if self.block_device { "host_device" } else { "file" }
    }
}
