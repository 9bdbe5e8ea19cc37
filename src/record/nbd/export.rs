//! What is served: an image, by a name, and what its server counts.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use super::backend::Work;
use super::request::{Request, errno_of};
use crate::image::Image;
use crate::image::nbd_proto::{
    NBD_FLAG_CAN_MULTI_CONN, NBD_FLAG_HAS_FLAGS, NBD_FLAG_READ_ONLY, NBD_FLAG_SEND_CACHE,
    NBD_FLAG_SEND_DF, NBD_FLAG_SEND_FAST_ZERO, NBD_FLAG_SEND_FLUSH, NBD_FLAG_SEND_FUA,
    NBD_FLAG_SEND_TRIM, NBD_FLAG_SEND_WRITE_ZEROES,
};
use crate::record::recording::Tap;
use crate::trace::{NotRecorded, TraceHeader};

/// Most data of one request: what clients may assume of any server ("Block size constraints").
pub(super) const REQUEST_DATA_BYTES_MAX: u32 = 32 << 20;

/// Least length and alignment of requests: a sector, as a disk has it.
pub(super) const BLOCK_BYTES: u32 = 512;

/// Best length and alignment of requests.
pub(super) const BLOCK_BYTES_BEST: u32 = 4096;

/// How an image is served.
#[derive(Clone, Debug, Default)]
pub struct ExportOptions {
    /// The name that clients ask for; empty for the default export.
    pub name: String,
    /// Record what reads return.
    pub read_data: bool,
}

/// Failures of the image that are said one by one.
const FAILURES_SAID: u64 = 10;

/// Whether it is an answer that the protocol foresees: that zeroes cannot be had fast.
fn is_ordinary(work: Work, error: &io::Error) -> bool {
    matches!(work, Work::Zeroes { fast: true, .. }) && matches!(errno_of(error), libc::EOPNOTSUPP)
}

/// An image that is served.
pub struct Export {
    pub(super) name: String,
    pub(super) image: Arc<dyn Image>,
    pub(super) tap: Tap,
    pub(super) read_data: bool,
    pub(super) read_only: bool,
    /// Grows with every change of the image's content, before it begins and after it ends: what
    /// was a hole then need not be one now.
    pub(super) generation: AtomicU64,
    /// Requests that were refused, and so are not in the trace.
    pub(super) refused: AtomicU64,
    /// Connections that were closed because of what came on them.
    pub(super) broken: AtomicU64,
    /// Block status and cache requests: a trace has no word for them.
    pub(super) unsaid: AtomicU64,
    /// Requests that the image could not do.
    pub(super) failed: AtomicU64,
    /// Connections that were closed at once, since there were too many.
    pub(super) turned_away: AtomicU64,
}

impl Export {
    /// Serves `image`, and says to `tap` what is done with it.
    pub fn new(image: Arc<dyn Image>, tap: Tap, options: &ExportOptions) -> Self {
        let read_only = image.info().read_only;
        Self {
            name: options.name.clone(),
            image,
            tap,
            read_data: options.read_data,
            read_only,
            generation: AtomicU64::new(0),
            refused: AtomicU64::new(0),
            broken: AtomicU64::new(0),
            unsaid: AtomicU64::new(0),
            failed: AtomicU64::new(0),
            turned_away: AtomicU64::new(0),
        }
    }

    pub(super) fn size(&self) -> u64 {
        self.image.size()
    }

    /// Its transmission flags.
    pub(super) fn flags(&self, structured: bool) -> u16 {
        let writable = NBD_FLAG_SEND_TRIM | NBD_FLAG_SEND_WRITE_ZEROES | NBD_FLAG_SEND_FAST_ZERO;
        NBD_FLAG_HAS_FLAGS
            | NBD_FLAG_SEND_FLUSH
            | NBD_FLAG_SEND_FUA
            | NBD_FLAG_SEND_CACHE
            // All connections share one open image, and a flush is of all of it.
            | NBD_FLAG_CAN_MULTI_CONN
            | if self.read_only { NBD_FLAG_READ_ONLY } else { writable }
            | if structured { NBD_FLAG_SEND_DF } else { 0 }
    }

    /// The image could not do `request`. Clients can cause any number of that: the first ones are
    /// said, and all are counted.
    pub(super) fn failed(&self, request: &Request, work: Work, error: &io::Error) {
        if is_ordinary(work, error) {
            return;
        }
        let (offset, len) = (request.offset, request.len);
        match self.failed.fetch_add(1, Ordering::Relaxed) {
            n if n < FAILURES_SAID => tracing::warn!(offset, len, "the image failed: {error}"),
            FAILURES_SAID => {
                tracing::warn!("the image failed more often: from now on only counted")
            }
            _ => {}
        }
    }

    pub(super) fn changes(&self) {
        self.generation.fetch_add(1, Ordering::AcqRel);
    }
}

/// The header of this tap's recordings of the image `name`, which is in `format`.
pub fn header(name: &str, format: &str, read_data: bool) -> TraceHeader {
    let mut not_recorded =
        NotRecorded::CPUS | NotRecorded::QUEUES | NotRecorded::PREFLUSH | NotRecorded::HINTS;
    not_recorded.set(NotRecorded::READ_DATA, !read_data);
    let interpretation = vec![
        format!("recorded: {name} ({format})"),
        "issue: the request, with its data, had come; complete: its reply was about to be sent"
            .to_owned(),
        "not in NBD: which connection and CPU, hints, pre-flush; NBD_CMD_FLAG_NO_HOLE is the absence of unmap"
            .to_owned(),
        "left out: block status and cache requests, and whatever was refused as no valid request"
            .to_owned(),
    ];
    TraceHeader {
        tool: concat!("qtrace ", env!("CARGO_PKG_VERSION")).to_owned(),
        source_format: "nbd".to_owned(),
        interpretation,
        origin_unix_ns: None,
        not_recorded,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn that_zeroes_are_not_fast_is_no_failure() {
        let unsupported = io::Error::from_raw_os_error(libc::EOPNOTSUPP);
        let zeroes = |fast| Work::Zeroes { fua: false, unmap: false, fast };
        assert!(is_ordinary(zeroes(true), &unsupported));
        assert!(!is_ordinary(zeroes(false), &unsupported));
        assert!(!is_ordinary(zeroes(true), &io::Error::from_raw_os_error(libc::EIO)));
    }
}
