//! A target that this program holds, and hands to the device.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use super::{check_existing, create, is_missing, open_options};
use crate::base::{Error, Result};
use crate::image::fault::FaultSpec;
use crate::image::overlay::Overlay;
use crate::image::watch::{self, Watch};
use crate::image::{self, Image, PendingImage, fault};
use crate::replay::options::Config;
use crate::report::FaultReport;

/// An open target.
pub(super) struct HeldTarget {
    image: Arc<dyn Image>,
    /// What the device is given: the image, watched, and with the fault that was asked for.
    device: Arc<dyn Image>,
    watch: Arc<Watch>,
    pending: Option<PendingImage>,
    /// The fault that was asked for, and the writes that reached it.
    fault: Option<(FaultSpec, Arc<AtomicU64>)>,
}

impl HeldTarget {
    /// Opens or creates it; a new one has `size` bytes.
    pub fn open(config: &Config, size: u64, stop: &Arc<AtomicBool>) -> Result<Self> {
        let (image, pending) = match (&config.target, config.target_format.as_deref()) {
            (None, Some("null")) => (image::null(size), None),
            (None, _) => (image::mem(size), None),
            (Some(path), _) if is_missing(path) => {
                let pending = create(config, path, size)?;
                (pending.image(), Some(pending))
            }
            (Some(path), _) => {
                let image = image::open(path, &open_options(config, !config.snapshot))?;
                check_existing(config, path, image.size())?;
                (if config.snapshot { Overlay::new(image)? } else { image }, None)
            }
        };
        let (watched, watch) = watch::wrap(Arc::clone(&image), Arc::clone(stop));
        let (device, fault) = match config.fault {
            Some(spec) => {
                let (device, writes) = fault::wrap_counted(watched, spec);
                (device, Some((spec, writes)))
            }
            None => (watched, None),
        };
        Ok(Self { image, device, watch, pending, fault })
    }

    /// The disk.
    pub fn image(&self) -> &Arc<dyn Image> {
        &self.image
    }

    /// The disk as the device gets it.
    pub fn device_image(&self) -> Arc<dyn Image> {
        Arc::clone(&self.device)
    }

    /// The first failure of the image.
    pub fn failure(&self) -> Option<Error> {
        self.watch.take()
    }

    /// What became of the fault that was asked for.
    pub fn fault_report(&self) -> Option<FaultReport> {
        let (spec, writes) = self.fault.as_ref()?;
        let writes = writes.load(Ordering::Relaxed);
        Some(FaultReport { fault: spec.to_string(), fired: writes > spec.write, writes })
    }

    /// Gives a new image its name.
    pub fn commit(self) -> Result<()> {
        let Self { image, device, pending, .. } = self;
        drop((image, device));
        pending.map_or(Ok(()), PendingImage::commit)
    }
}
