//! Opening images by format.

use std::path::Path;
use std::sync::Arc;

use super::chain::{self, Layer};
use super::host::HostFile;
use super::raw::RawImage;
use super::{Image, OpenOptions, first_sector, foreign, lock, probe, qcow2, qemu_nbd};
use crate::base::{Error, Result};

/// Opens the image at `path`; without a format its content decides.
///
/// raw and qcow2 are opened here, with QEMU's locks; other formats, and features of qcow2 that
/// only QEMU has, through a `qemu-nbd`, which takes the locks itself.
pub fn open(path: &Path, options: &OpenOptions) -> Result<Arc<dyn Image>> {
    open_as(path, path, options)
}

/// As [`open`], for an image that somebody else writes to as they like, a guest: where its format
/// was not said and it was found to be raw, it cannot be made to look like anything else.
///
/// # Errors
/// Those of [`open`].
pub fn open_for_guest(path: &Path, options: &OpenOptions) -> Result<Arc<dyn Image>> {
    let image = open(path, options)?;
    let found_raw = options.format.is_none() && image.info().format == "raw";
    Ok(if found_raw && options.writable { first_sector::guard(image) } else { image })
}

/// Opens the image at `path`, which is called `name` (in the same folder) in what users read.
pub(super) fn open_as(path: &Path, name: &Path, options: &OpenOptions) -> Result<Arc<dyn Image>> {
    let mut host = HostFile::open(path, options.writable)?;
    host.path = name.to_path_buf();
    let format = match &options.format {
        Some(format) => format.clone(),
        None => probed(&host, options.writable)?.to_string(),
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

/// The format by content. What would be written to as raw must not be called anything else: it is
/// more likely to be a damaged image of that format than a raw disk.
pub(super) fn probed(host: &HostFile, writable: bool) -> Result<&'static str> {
    let format = probe::format_of_file(host)?;
    let claimed = host.path.extension().and_then(|e| e.to_str()).and_then(probe::format_of_suffix);
    match claimed {
        Some(claimed) if writable && format == "raw" => Err(Error::input(format!(
            "its name says {claimed} and its content does not: it is not written to as raw"
        ))
        .path(&host.path)
        .hint("name its format: target_fmt=raw where that is what it is")),
        _ => Ok(format),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_damaged_image_is_not_taken_for_a_raw_one() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("disk.QCOW2");
        std::fs::write(&path, [0; 4096]).unwrap();
        let options = OpenOptions { writable: true, ..Default::default() };
        let error = open(&path, &options).map(|i| i.size()).unwrap_err();
        assert!(error.to_string().contains("its name says qcow2"), "{error}");
        open(&path, &OpenOptions::default()).unwrap();
        open(&path, &OpenOptions { format: Some("raw".into()), ..options }).unwrap();
    }
}
