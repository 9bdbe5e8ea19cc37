//! Opening and creating images by format.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::chain::{self, Layer};
use super::host::HostFile;
use super::raw::RawImage;
use super::{Image, OpenOptions, foreign, home_of, lock, probe, qcow2, qemu_nbd};
use crate::base::error::IoContext;
use crate::base::limits::DISK_BYTES_MAX;
use crate::base::{Error, Result, SECTOR_SIZE};

/// Opens the image at `path`; without a format its content decides.
///
/// raw and qcow2 are opened here, with QEMU's locks; other formats, and features of qcow2 that
/// only QEMU has, through a `qemu-nbd`, which takes the locks itself.
pub fn open(path: &Path, options: &OpenOptions) -> Result<Arc<dyn Image>> {
    open_as(path, path, options)
}

/// Opens the image at `path`, which is called `name` (in the same folder) in what users read.
fn open_as(path: &Path, name: &Path, options: &OpenOptions) -> Result<Arc<dyn Image>> {
    let mut host = HostFile::open(path, options.writable)?;
    host.path = name.to_path_buf();
    let format = match &options.format {
        Some(format) => format.clone(),
        None => probe::format_of_file(&host)?.to_string(),
    };
    match format.as_str() {
        "raw" => {
            lock::take(&host, options.writable)?;
            Ok(Arc::new(RawImage::new(host, options)?))
        }
        "qcow2" => open_qcow2(path, name, chain::resolve(host, options)?, options),
        other => {
            foreign::guard(&host, other, options)?;
            // qemu-nbd takes its own locks, and ours would be in its way.
            drop(host);
            qemu_nbd::open(path, name, other, options)
        }
    }
}

fn open_qcow2(
    path: &Path,
    name: &Path,
    layers: Vec<Layer>,
    options: &OpenOptions,
) -> Result<Arc<dyn Image>> {
    let needs_qemu = layers.iter().find_map(|l| l.header.as_ref().and_then(|h| h.needs_qemu));
    if let Some(feature) = needs_qemu {
        tracing::info!(path = %name.display(), "{feature}: opened through qemu-nbd");
        drop(layers);
        return qemu_nbd::open(path, name, "qcow2", options);
    }
    qcow2::open(layers, options)
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
        other if foreign::FORMATS.contains(&other) => {
            qemu_nbd::create(&temporary, path, other, size)?;
        }
        other => {
            return Err(Error::usage(format!("images of format {other} cannot be created"))
                .hint(format!("formats: raw, qcow2, {}", foreign::FORMATS.join(", "))));
        }
    }
    drop(file);
    let options = OpenOptions { format: Some(format.into()), writable: true, ..options.clone() };
    let image = open_as(&temporary, path, &options)?;
    if image.size() != size {
        return Err(Error::usage(format!(
            "a {format} image cannot have {size} bytes; the nearest is {}",
            image.size()
        ))
        .path(path));
    }
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
