//! Images being made: nothing stands under the target's name before it is whole.

use std::ffi::CString;
use std::fs::{File, Permissions};
use std::io;
use std::os::fd::AsRawFd;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::open::open_as;
use super::{CacheMode, Image, OpenOptions, foreign, home_of, qcow2, qemu_nbd};
use crate::base::error::IoContext;
use crate::base::limits::DISK_BYTES_MAX;
use crate::base::{Error, Result, SECTOR_SIZE};

/// What a new file may be used for, before the umask.
const MODE: u32 = 0o666;

/// An image being made. Dropping it, or dying, leaves nothing behind; [`PendingImage::commit`]
/// gives it its name.
pub struct PendingImage {
    image: Arc<dyn Image>,
    file: Unfinished,
    target: PathBuf,
}

/// An image being made, closed while another program writes it. Dropping it removes it;
/// [`PendingFile::commit`] gives it its name.
pub struct PendingFile {
    file: Unfinished,
    target: PathBuf,
    format: String,
}

/// A file in the target's folder that is not yet the target.
enum Unfinished {
    /// Without any name: gone with the process, however that ends.
    Nameless(File),
    /// With a temporary name: where the file system cannot do better, or another program must
    /// open it.
    Named(tempfile::TempPath),
}

/// Creates an image of `size` bytes (rounded up to whole sectors, or to what the format can say)
/// that will stand at `path`. An existing file there is never replaced.
pub fn create(path: &Path, format: &str, size: u64, options: &OpenOptions) -> Result<PendingImage> {
    let size = checked_size(size)?;
    refuse_existing(path)?;
    let is_foreign = foreign::FORMATS.contains(&format);
    if !is_foreign && !["raw", "qcow2"].contains(&format) {
        return Err(Error::usage(format!("images of format {format} cannot be created"))
            .hint(format!("formats: raw, qcow2, {}", foreign::FORMATS.join(", "))));
    }
    let file =
        Unfinished::new(path, is_foreign).writing(path, "cannot create the image in its folder")?;
    match format {
        "raw" => file
            .open()
            .and_then(|file| file.set_len(size))
            .writing(path, "cannot give the new image its size")?,
        "qcow2" => file
            .open()
            .and_then(|file| qcow2::format(file, size))
            .writing(path, "cannot create the qcow2 image")?,
        other => qemu_nbd::create(&file.path(), path, other, size)?,
    }
    let options = OpenOptions { format: Some(format.into()), writable: true, ..options.clone() };
    let image = open_as(&file.path(), path, &options)?;
    // Some formats have whole blocks or cylinders only.
    if image.size() < size {
        return Err(Error::usage(format!(
            "a {format} image cannot have {size} bytes; the nearest is {}",
            image.size()
        ))
        .path(path));
    }
    Ok(PendingImage { image, file, target: path.to_path_buf() })
}

fn checked_size(size: u64) -> Result<u64> {
    size.checked_next_multiple_of(SECTOR_SIZE).filter(|s| *s <= DISK_BYTES_MAX).ok_or_else(|| {
        Error::usage(format!("an image of {size} bytes is too large (at most {DISK_BYTES_MAX})"))
    })
}

fn refuse_existing(path: &Path) -> Result<()> {
    let folder = home_of(path);
    if !folder.is_dir() {
        let what = if folder.exists() { "is no folder" } else { "there is no such folder" };
        return Err(Error::usage(format!("{what} to create the image in"))
            .path(folder)
            .hint("make it first, or name another target_img="));
    }
    match path.symlink_metadata() {
        Ok(_) => Err(Error::usage("the image to be created exists already").path(path)),
        Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(()),
        Err(e) => Err(e).writing(path, "cannot create the image"),
    }
}

impl Unfinished {
    fn new(target: &Path, needs_name: bool) -> io::Result<Self> {
        let folder = home_of(target);
        if !needs_name {
            let nameless = File::options()
                .read(true)
                .write(true)
                .mode(MODE)
                .custom_flags(libc::O_TMPFILE)
                .open(folder);
            match nameless {
                Ok(file) => return Ok(Self::Nameless(file)),
                // Not every file system has them; whatever else is wrong shows again below.
                Err(e) => tracing::debug!("no nameless files in {}: {e}", folder.display()),
            }
        }
        let named = tempfile::Builder::new()
            .prefix(".qtrace-")
            .suffix(".partial")
            .permissions(Permissions::from_mode(MODE))
            .tempfile_in(folder)?;
        Ok(Self::Named(named.into_temp_path()))
    }

    /// A name by which this process can open it.
    fn path(&self) -> PathBuf {
        match self {
            Self::Nameless(file) => PathBuf::from(format!("/proc/self/fd/{}", file.as_raw_fd())),
            Self::Named(path) => path.to_path_buf(),
        }
    }

    fn open(&self) -> io::Result<File> {
        File::options().read(true).write(true).open(self.path())
    }

    /// Gives the file the name `target`, which must be free.
    fn name(self, target: &Path) -> io::Result<()> {
        let nameless = match self {
            Self::Named(path) => return path.persist_noclobber(target).map_err(|e| e.error),
            Self::Nameless(file) => file,
        };
        let from = CString::new(format!("/proc/self/fd/{}", nameless.as_raw_fd()))?;
        let to = CString::new(target.as_os_str().as_bytes())?;
        // SAFETY: both are valid C strings that outlive the call.
        let rc = unsafe {
            libc::linkat(
                libc::AT_FDCWD,
                from.as_ptr(),
                libc::AT_FDCWD,
                to.as_ptr(),
                libc::AT_SYMLINK_FOLLOW,
            )
        };
        if rc < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
    }
}

impl PendingImage {
    /// The image, to be filled.
    pub fn image(&self) -> Arc<dyn Image> {
        Arc::clone(&self.image)
    }

    /// Flushes it and gives it its name, unless something else took that meanwhile.
    pub fn commit(self) -> Result<()> {
        let Self { image, file, target } = self;
        image.flush().writing(&target, "cannot flush the new image")?;
        drop(image);
        appear(file, &target)
    }

    /// Closes it, so that another program can open it.
    pub fn give(self) -> PendingFile {
        let Self { image, file, target } = self;
        let format = image.info().format.clone();
        PendingFile { file, target, format }
    }
}

impl PendingFile {
    /// A name by which this process can open the file now.
    pub fn path(&self) -> PathBuf {
        self.file.path()
    }

    /// The name it is to have.
    pub fn target(&self) -> &Path {
        &self.target
    }

    /// Its format.
    pub fn format(&self) -> &str {
        &self.format
    }

    /// Brings it to the disk, where `cache` lets flushes do that, and gives it its name, unless
    /// something else took that meanwhile. Nobody may have it open.
    pub fn commit(self, cache: CacheMode) -> Result<()> {
        let Self { file, target, .. } = self;
        if cache != CacheMode::Unsafe {
            file.open()
                .and_then(|file| file.sync_all())
                .writing(&target, "cannot flush the new image")?;
        }
        appear(file, &target)
    }
}

/// Gives `file` the name `target` for good.
fn appear(file: Unfinished, target: &Path) -> Result<()> {
    file.name(target).map_err(|e| {
        let taken = e.kind() == io::ErrorKind::AlreadyExists;
        let error = Error::incomplete("cannot give the new image its name").path(target).source(e);
        if taken {
            error.hint("something else was put there meanwhile; it was kept")
        } else {
            error
        }
    })?;
    // The name must survive a power cut as the bytes do.
    File::open(home_of(target))
        .and_then(|folder| folder.sync_all())
        .writing(target, "cannot make the new image's name durable")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(folder: &Path) -> usize {
        std::fs::read_dir(folder).unwrap().count()
    }

    #[test]
    fn there_is_nothing_to_see_before_the_commit() {
        let dir = tempfile::tempdir().unwrap();
        for format in ["raw", "qcow2"] {
            let path = dir.path().join(format);
            let before = names(dir.path());
            let pending = create(&path, format, 1 << 20, &OpenOptions::default()).unwrap();
            if matches!(pending.file, Unfinished::Nameless(_)) {
                assert_eq!(names(dir.path()), before);
            }
            assert_eq!(pending.image().info().path, path);
            assert!(!path.exists());
            pending.commit().unwrap();
            assert!(path.exists());
            assert_eq!(names(dir.path()), before + 1);
            let mode = path.metadata().unwrap().permissions().mode();
            assert_eq!(mode & 0o600, 0o600);
        }
    }

    #[test]
    fn what_cannot_be_created_leaves_nothing() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("disk");
        let defaults = OpenOptions::default();
        for (format, size) in [("floppy", 4096), ("raw", u64::MAX), ("qcow2", 1 << 61)] {
            let error = create(&path, format, size, &defaults).map(drop).unwrap_err();
            assert_eq!(error.kind().exit_code(), 2, "{error}");
        }
        let nowhere = dir.path().join("no/such/folder/disk");
        let error = create(&nowhere, "raw", 4096, &defaults).map(drop).unwrap_err();
        assert_eq!(error.kind().exit_code(), 2, "{error}");
        assert!(error.to_string().contains("no/such/folder: "), "{error}");
        assert_eq!(names(dir.path()), 0);
    }
}
