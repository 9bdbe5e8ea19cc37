//! Where a trace is written: a temporary beside its final name, or, while it is recorded, that
//! name itself; whole frames only.

use std::fs::{File, Permissions};
use std::io::{self, IoSlice, Read, Seek, SeekFrom, Write};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use nix::fcntl::{AT_FDCWD, RenameFlags, renameat2};
use tempfile::{Builder, NamedTempFile, TempPath};
use zerocopy::IntoBytes;

use super::behind::Behind;
use super::format::{FRAME_ALIGNMENT, FrameHeader, MAGIC, Preamble, Record, padded};
use crate::base::error::IoContext;
use crate::base::{Error, Result};

/// What the umask is applied to, as for any file that a program creates.
pub(super) const CREATE_MODE: u32 = 0o666;

/// What is said when a write fails.
const CANNOT_WRITE: &str = "cannot write the trace";

/// The file of an unfinished trace.
enum Target {
    /// Nobody sees it before it is whole; dropped, it is removed.
    Temporary(NamedTempFile),
    /// It stands under its name: whatever ends the program leaves what was written.
    Live(File),
}

impl Target {
    fn file(&self) -> &File {
        match self {
            Self::Temporary(temporary) => temporary.as_file(),
            Self::Live(file) => file,
        }
    }
}

/// An unfinished trace. Dropped, it is removed, unless it is [live](Sink::publish).
pub(super) struct Sink {
    target: Target,
    /// The final name.
    path: PathBuf,
    /// Bytes written.
    at: u64,
    /// A write failed or something was left out: the file may never get its name.
    broken: bool,
    /// The thread that writes, if this one does not.
    behind: Option<Behind>,
    /// The file that had the name before.
    pub(super) replaced: Option<TempPath>,
}

impl Sink {
    /// Begins a trace that will be called `path`, with its preamble. The umask is applied to `mode`.
    pub(super) fn create(path: &Path, mode: u32) -> Result<Self> {
        let path = final_name(path)?;
        let folder = folder(&path);
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        let temporary = Builder::new()
            .prefix(&format!(".{name}."))
            .suffix(".part")
            .permissions(Permissions::from_mode(mode))
            .tempfile_in(folder)
            // Its text names the temporary file, of which nobody knows.
            .map_err(|e| e.raw_os_error().map_or(e, io::Error::from_raw_os_error))
            .writing(&path, "cannot create a temporary file beside it")?;
        let target = Target::Temporary(temporary);
        let mut sink = Self { target, path, at: 0, broken: false, behind: None, replaced: None };
        sink.write([Preamble::current().as_bytes()])?;
        Ok(sink)
    }

    /// Gives what is written so far its final name: from here on readers find it there, and it
    /// stays whatever happens. Without `replace` a file of that name is an error; with it the file is
    /// kept under a temporary name, as `replaced`.
    pub(super) fn publish(mut self, replace: bool) -> Result<Self> {
        self.catch_up()?;
        let Self { target, path, at, broken, behind, .. } = self;
        if replace {
            refuse_others(&path)?;
        }
        let named = match target {
            Target::Temporary(temporary) if replace => exchange(temporary, &path),
            Target::Temporary(temporary) => {
                temporary.persist_noclobber(&path).map(|file| (file, None)).map_err(|e| e.error)
            }
            live => return Ok(Self { target: live, path, at, broken, behind, replaced: None }),
        };
        let (file, replaced) = match named {
            Err(e) if e.kind() == io::ErrorKind::AlreadyExists => {
                return Err(Error::usage("the output exists")
                    .path(&path)
                    .hint("--force replaces it"));
            }
            persisted => persisted.writing(&path, "cannot give the trace its name")?,
        };
        // For readers (see [`is_being_written`]); where there are no locks nothing else is lost.
        let _ = file.try_lock_shared();
        sync_folder(&path)?;
        Ok(Self { target: Target::Live(file), path, at, broken, behind, replaced })
    }

    /// Frames are written by another thread from now on: a failure may be told by a later one, or
    /// by [`Sink::catch_up`] and what ends the file. Only for a file that nobody sees yet.
    pub(super) fn write_behind(&mut self) -> Result<()> {
        if let Target::Temporary(temporary) = &self.target
            && self.behind.is_none()
        {
            let file = temporary.as_file().try_clone().and_then(Behind::start);
            self.behind = Some(file.writing(&self.path, "cannot start a thread to write it")?);
        }
        Ok(())
    }

    /// Ends [`Sink::write_behind`]: everything is in the file.
    pub(super) fn catch_up(&mut self) -> Result<()> {
        let written = match self.behind.take() {
            Some(behind) => behind.finish().writing(&self.path, CANNOT_WRITE),
            None => Ok(()),
        };
        self.broken |= written.is_err();
        written.and_then(|()| self.check())
    }

    /// The final name, for messages.
    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    /// The file as it is so far.
    pub(super) fn file(&self) -> &File {
        self.target.file()
    }

    /// Offset of the next frame.
    pub(super) fn at(&self) -> u64 {
        self.at
    }

    /// Writes a frame, whose body is `parts`, and returns its offset.
    pub(super) fn frame(&mut self, header: &mut FrameHeader, parts: &[&[u8]]) -> Result<u64> {
        let (offset, len) = (self.at, parts.iter().map(|part| part.len()).sum::<usize>());
        let padding = [0; FRAME_ALIGNMENT];
        let padding = padding.get(..padded(len as u64) as usize - len).unwrap_or_default();
        let body = || parts.iter().copied().chain([padding]);
        if let Some(behind) = &mut self.behind {
            header.body_len = (len as u64).into();
            let taken = behind.frame(*header, body(), len);
            return self.handed_over(header, taken);
        }
        header.seal(body(), len);
        let written = self.write([header.as_bytes()].into_iter().chain(body()));
        if written.is_err() {
            self.cut(offset);
            return written.map(|()| offset);
        }
        debug_assert_eq!(self.at, offset + header.frame_bytes());
        Ok(offset)
    }

    /// Writes a frame of records, which are gone then, and returns its offset.
    ///
    /// # Errors
    /// Those of [`Sink::frame`].
    pub(super) fn records(
        &mut self,
        header: &mut FrameHeader,
        records: &mut Vec<Record>,
    ) -> Result<u64> {
        let Some(behind) = &mut self.behind else {
            let offset = self.frame(header, &[records.as_bytes()])?;
            records.clear();
            return Ok(offset);
        };
        header.body_len = (size_of_val(records.as_slice()) as u64).into();
        let taken = behind.records(*header, records);
        self.handed_over(header, taken)
    }

    /// A frame was given to the thread that writes; returns its offset.
    fn handed_over(&mut self, header: &FrameHeader, taken: io::Result<()>) -> Result<u64> {
        let offset = self.at;
        self.broken |= taken.is_err();
        self.at += header.frame_bytes();
        taken.writing(&self.path, CANNOT_WRITE).map(|()| offset)
    }

    /// Ends a live trace with its last whole frame. A reader would stop there by itself.
    fn cut(&mut self, end: u64) {
        if let Target::Live(file) = &self.target
            && file.set_len(end).is_ok()
        {
            self.at = end;
        }
    }

    /// After a write that failed: whether a live trace ends with a whole frame all the same, so that
    /// smaller ones may still find room.
    pub(super) fn try_again(&mut self) -> bool {
        let Target::Live(file) = &self.target else { return false };
        let mut file: &File = file;
        let whole = file.metadata().is_ok_and(|meta| meta.len() == self.at)
            && file.seek(SeekFrom::Start(self.at)).is_ok();
        self.broken &= !whole;
        whole
    }

    /// Makes sure that a trace which lacks something is never taken for a whole one.
    pub(super) fn break_off(&mut self) {
        self.broken = true;
    }

    fn check(&self) -> Result<()> {
        if self.broken {
            return Err(Error::incomplete("writing the trace failed before").path(&self.path));
        }
        Ok(())
    }

    fn write<'a>(&mut self, parts: impl IntoIterator<Item = &'a [u8]>) -> Result<()> {
        self.check()?;
        let mut parts: Vec<IoSlice<'_>> = parts.into_iter().map(IoSlice::new).collect();
        let len: usize = parts.iter().map(|part| part.len()).sum();
        let written =
            write_all_vectored(self.target.file(), &mut parts).writing(&self.path, CANNOT_WRITE);
        self.broken = written.is_err();
        self.at += len as u64;
        written
    }

    /// The file under its temporary name, which goes when it is dropped.
    pub(super) fn into_temporary(mut self) -> Result<TempPath> {
        self.catch_up()?;
        match self.target {
            Target::Temporary(temporary) => Ok(temporary.into_temp_path()),
            Target::Live(_) => {
                Err(Error::incomplete("a recording has no other name than its own")
                    .path(&self.path))
            }
        }
    }

    /// Makes everything durable, then visible under the final name.
    pub(super) fn commit(mut self) -> Result<()> {
        self.catch_up()?;
        let Self { target, path, .. } = self;
        target.file().sync_all().writing(&path, "cannot sync the trace")?;
        if let Target::Temporary(temporary) = target {
            temporary
                .persist(&path)
                .map_err(|e| e.error)
                .writing(&path, "cannot give the trace its name")?;
        }
        sync_folder(&path)
    }
}

/// One after the other without joining them first; `Write::write_all_vectored` is not stable yet.
pub(super) fn write_all_vectored(mut file: &File, mut parts: &mut [IoSlice<'_>]) -> io::Result<()> {
    IoSlice::advance_slices(&mut parts, 0);
    while !parts.is_empty() {
        match file.write_vectored(parts) {
            Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
            Ok(written) => IoSlice::advance_slices(&mut parts, written),
            Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
            Err(e) => return Err(e),
        }
    }
    Ok(())
}

/// Whether somebody is writing the live trace at `path`: who does holds a lock on it (flock(2)),
/// which goes with the program however it ends.
pub fn is_being_written(path: &Path) -> bool {
    File::open(path)
        .is_ok_and(|file| matches!(file.try_lock(), Err(std::fs::TryLockError::WouldBlock)))
}

/// Refuses to replace at once what is neither a trace nor empty: a slip of the hand there would be
/// the end of an image.
fn refuse_others(path: &Path) -> Result<()> {
    let mut file = match File::open(path) {
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(()),
        opened => opened.reading(path, "cannot see whether it is a trace that may be replaced")?,
    };
    let mut magic = [0; MAGIC.len()];
    match file.read_exact(&mut magic) {
        Ok(()) if magic == MAGIC => Ok(()),
        Err(_) if file.metadata().is_ok_and(|meta| meta.len() == 0) => Ok(()),
        _ => Err(Error::usage("exists and is no trace: it is not replaced")
            .path(path)
            .hint("remove it, or name another file")),
    }
}

/// Gives `temporary` the name `path`; the file that has it gets the temporary one, to be removed, or
/// to be put back where nothing comes of the trace.
fn exchange(temporary: NamedTempFile, path: &Path) -> io::Result<(File, Option<TempPath>)> {
    let flags = RenameFlags::RENAME_EXCHANGE;
    match renameat2(AT_FDCWD, temporary.path(), AT_FDCWD, path, flags) {
        Ok(()) => {
            let (file, old) = temporary.into_parts();
            Ok((file, Some(old)))
        }
        // There is none, or the file system exchanges nothing.
        Err(_) => temporary.persist(path).map(|file| (file, None)).map_err(|e| e.error),
    }
}

fn sync_folder(path: &Path) -> Result<()> {
    let folder = folder(path);
    File::open(folder).and_then(|folder| folder.sync_all()).writing(folder, "cannot sync")
}

fn folder(path: &Path) -> &Path {
    path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."))
}

/// Links followed one after the other, as the kernel has it (`MAXSYMLINKS`).
const SYMLINKS_MAX: usize = 40;

/// Follows a symbolic link, also to what is not there yet, so that the file behind it is replaced and not the link; refuses what
/// a rename would destroy.
fn final_name(path: &Path) -> Result<PathBuf> {
    if path.as_os_str() == "-" {
        return Err(Error::usage("a trace is completed in its file, and cannot go to stdout")
            .hint("name a file; ./- is one called -"));
    }
    if path.file_name().is_none() {
        return Err(Error::usage("not a file name to write a trace to").path(path));
    }
    match std::fs::canonicalize(path) {
        Ok(real) if real.is_file() => Ok(real),
        Ok(_) => Err(Error::usage("exists and is not a regular file").path(path)),
        Err(_) => end_of_links(path),
    }
}

fn end_of_links(path: &Path) -> Result<PathBuf> {
    let mut end = path.to_path_buf();
    for _ in 0..SYMLINKS_MAX {
        match std::fs::read_link(&end) {
            Ok(to) => end = folder(&end).join(to),
            Err(_) if end.file_name().is_some() => return Ok(end),
            Err(_) => break,
        }
    }
    Err(Error::usage("a symbolic link that leads to no file name").path(path))
}
