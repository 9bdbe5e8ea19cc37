//! A target that the machine opens, and this program before and after.

use std::sync::Arc;

use super::{check_existing, create, is_missing, open_options};
use crate::base::Result;
use crate::image::given::{GivenImage, Handover};
use crate::image::{CacheMode, Image, PendingFile};
use crate::replay::options::Config;

/// A target that is ready to be given away.
pub(super) struct GivenTarget {
    handover: Handover,
    pending: Option<PendingFile>,
    cache: CacheMode,
}

impl GivenTarget {
    /// Judges it, or creates it with `size` bytes.
    pub fn open(config: &Config, size: u64) -> Result<Self> {
        let (aio, options) = (config.aio.given(), open_options(config, true));
        let (handover, pending) = match (&config.target, config.target_format.as_deref()) {
            (None, Some("null")) => (Handover::null(size), None),
            (None, _) => (Handover::mem(size, aio)?, None),
            (Some(path), _) if is_missing(path) => {
                let pending = create(config, path, size)?.give();
                (Handover::created(&pending, &options, aio)?, Some(pending))
            }
            (Some(path), _) => {
                let handover = match config.snapshot {
                    true => Handover::snapshot(path, &options, aio)?,
                    false => Handover::in_place(path, &options, aio)?,
                };
                check_existing(config, path, handover.image().size)?;
                (handover, None)
            }
        };
        Ok(Self { handover, pending, cache: config.cache })
    }

    /// What the machine is given.
    pub fn image(&self) -> &GivenImage {
        self.handover.image()
    }

    /// `raw`, `qcow2`, …
    pub fn format(&self) -> &str {
        self.handover.format()
    }

    /// The disk as it is now, the machine having ended.
    pub fn reopen(&self) -> Result<Arc<dyn Image>> {
        self.handover.reopen()
    }

    /// Gives a new image its name.
    pub fn commit(self) -> Result<()> {
        drop(self.handover);
        self.pending.map_or(Ok(()), |pending| pending.commit(self.cache))
    }
}
