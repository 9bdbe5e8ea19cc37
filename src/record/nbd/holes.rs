//! Where there is nothing to read: a hole is told of in a few bytes, not sent as zeros.

use std::sync::atomic::Ordering;

use super::export::Export;
use crate::image::{Extent, ExtentKind};

/// What one connection remembers of the image's extents, so that not each read asks for them.
#[derive(Debug)]
pub(super) struct Holes {
    /// Asking is cheap for this image.
    ask: bool,
    /// Known to hold data. It may have become a hole since: then zeros are sent, no harm.
    data: std::ops::Range<u64>,
    /// Known to be a hole as long as nothing changes.
    hole: std::ops::Range<u64>,
    generation: u64,
}

impl Holes {
    pub(super) fn new(export: &Export) -> Self {
        // To ask through another server costs as much as to read.
        let ask = export.image.info().via != "qemu-nbd";
        Self { ask, data: 0..0, hole: 0..0, generation: 0 }
    }

    /// Whether all of the range reads as zeros without being stored.
    pub(super) fn is_hole(&mut self, export: &Export, offset: u64, len: u64) -> bool {
        let end = offset.saturating_add(len);
        if !self.ask || len == 0 || (self.data.contains(&offset) && end <= self.data.end) {
            return false;
        }
        // Taken before the image is asked: a change that begins later makes this one stale.
        let generation = export.generation.load(Ordering::Acquire);
        let current = self.generation == generation;
        if current && self.hole.contains(&offset) && end <= self.hole.end {
            return true;
        }
        match export.image.extent(offset, export.size().saturating_sub(offset)) {
            Ok(Extent { kind: ExtentKind::Data, len: run }) => {
                self.data = offset..offset.saturating_add(run);
                false
            }
            Ok(Extent { kind: ExtentKind::Zero, len: run }) => {
                self.hole = offset..offset.saturating_add(run);
                self.generation = generation;
                end <= self.hole.end
            }
            Err(_) => {
                self.ask = false;
                false
            }
        }
    }
}
