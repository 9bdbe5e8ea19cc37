//! Opening and creating images by format.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::host::HostFile;
use super::raw::RawImage;
use super::{Image, OpenOptions, chain, home_of, lock, probe, qcow2};
use crate::base::error::IoContext;
use crate::base::limits::DISK_BYTES_MAX;
use crate::base::{Error, Result, SECTOR_SIZE};

/// Opens the image at `path`. Without a format its content decides, except that an image that is
/// to be written is never taken for raw just because nothing else was recognised in a file that
/// holds something else's header.
pub fn open(path: &Path, options: &OpenOptions) -> Result<Arc<dyn Image>> {
    let host = HostFile::open(path, options.writable)?;
    let format = match &options.format {
        Some(format) => format.clone(),
        None => probe::format_of_file(&host)?.to_string(),
    };
    match format.as_str() {
        "raw" => {
            lock::take(&host, options.writable)?;
            Ok(Arc::new(RawImage::new(host, options)?))
        }
        "qcow2" => qcow2::open(chain::resolve(host, options)?, options),
        other => Err(Error::input(format!("images of format {other} cannot be opened"))
            .path(path)
            .hint("formats: raw, qcow2")),
    }
}

/// An image being made. Until [`PendingImage::commit`] it has a temporary name in the target's
/// folder, and dropping it removes it: no half-made image ever stands under the target's name.
pub struct PendingImage {
    image: Arc<dyn Image>,
    temporary: tempfile::TempPath,
    target: PathBuf,
}

/// Creates an image of `size` bytes (rounded up to whole sectors) that will stand at `path`.
/// An existing file there is never replaced.
pub fn create(path: &Path, format: &str, size: u64, options: &OpenOptions) -> Result<PendingImage> {
    let size = checked_size(size)?;
    refuse_existing(path)?;
    let temporary = tempfile::Builder::new()
        .prefix(".qtrace-")
        .suffix(".partial")
        .tempfile_in(home_of(path))
        .writing(path, "cannot create the image in its folder")?;
    let (file, temporary) = temporary.into_parts();
    match format {
        "raw" => file.set_len(size).writing(path, "cannot give the new image its size")?,
        "qcow2" => {
            let file = file.try_clone().writing(path, "cannot create the image")?;
            qcow2::format(file, size).writing(path, "cannot create the qcow2 image")?;
        }
        other => {
            return Err(Error::usage(format!("images of format {other} cannot be created"))
                .hint("formats: raw, qcow2"));
        }
    }
    drop(file);
    let options = OpenOptions { format: Some(format.into()), writable: true, ..options.clone() };
    let image = open(&temporary, &options)?;
    Ok(PendingImage { image, temporary, target: path.to_path_buf() })
}

fn checked_size(size: u64) -> Result<u64> {
    size.checked_next_multiple_of(SECTOR_SIZE).filter(|s| *s <= DISK_BYTES_MAX).ok_or_else(|| {
        Error::usage(format!("an image of {size} bytes is too large (at most {DISK_BYTES_MAX})"))
    })
}

fn refuse_existing(path: &Path) -> Result<()> {
    match path.symlink_metadata() {
        Ok(_) => Err(Error::usage("the image to be created exists already").path(path)),
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => Ok(()),
        Err(e) => Err(e).writing(path, "cannot create the image"),
    }
}

impl PendingImage {
    /// The image, to be filled.
    pub fn image(&self) -> Arc<dyn Image> {
        Arc::clone(&self.image)
    }

    /// Flushes it and gives it its name, unless something else took that meanwhile.
    pub fn commit(self) -> Result<()> {
        let Self { image, temporary, target } = self;
        image.flush().writing(&target, "cannot flush the new image")?;
        drop(image);
        temporary.persist_noclobber(&target).map_err(|e| {
            let error = Error::incomplete("cannot give the new image its name").path(&target);
            if e.error.kind() == std::io::ErrorKind::AlreadyExists {
                error.source(e.error).hint("something else was put there meanwhile; it was kept")
            } else {
                error.source(e.error)
            }
        })?;
        // The name must survive a power cut as the bytes do.
        std::fs::File::open(home_of(&target))
            .and_then(|folder| folder.sync_all())
            .writing(&target, "cannot make the new image's name durable")
    }
}
