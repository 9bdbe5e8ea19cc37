//! The file as a map: the only place of the container that needs `unsafe`.

use std::fs::File;
use std::path::Path;

use memmap2::{Mmap, UncheckedAdvice};

use crate::base::Result;
use crate::base::error::IoContext;

/// Mapped bytes that a pass over the file leaves behind before it gives them back.
pub(super) const RELEASE_BYTES: u64 = 8 << 20;

/// A read-only map of a trace, as long as the file was when it was opened.
#[derive(Debug)]
pub(super) struct Map(Mmap);

impl Map {
    /// Maps `file`, which is not empty.
    pub(super) fn new(file: &File, path: &Path) -> Result<Self> {
        // SAFETY: the bytes are only ever read, as plain integers that are valid whatever they
        // are. qtrace never writes to a trace that has its final name (it renames a finished
        // temporary over it). A file that something else truncates meanwhile would raise SIGBUS,
        // as for every program that maps its input; that is documented at `Trace::open`.
        let map = unsafe { Mmap::map(file) }.reading(path, "cannot map the trace")?;
        Ok(Self(map))
    }

    /// Everything.
    #[inline]
    pub(super) fn bytes(&self) -> &[u8] {
        &self.0
    }

    /// Length of the file.
    pub(super) fn len(&self) -> u64 {
        self.0.len() as u64
    }

    /// Gives the pages of `from..to` back: they stay in the page cache and no longer count as
    /// this process's memory. A later access reads them again.
    pub(super) fn release(&self, from: u64, to: u64) {
        let to = to.min(self.len());
        let page = page_bytes();
        let from = from / page * page;
        if from >= to {
            return;
        }
        // SAFETY: DontNeed on a read-only map of a file loses nothing: the next access faults the
        // same bytes in again. Borrowed slices therefore stay valid. The range is in the map.
        // A failure (a kernel without it) costs memory only.
        let _ = unsafe {
            self.0.unchecked_advise_range(
                UncheckedAdvice::DontNeed,
                from as usize,
                (to - from) as usize,
            )
        };
    }
}

fn page_bytes() -> u64 {
    static PAGE: std::sync::OnceLock<u64> = std::sync::OnceLock::new();
    *PAGE.get_or_init(|| {
        let size = nix::unistd::sysconf(nix::unistd::SysconfVar::PAGE_SIZE);
        size.ok().flatten().and_then(|n| u64::try_from(n).ok()).filter(|n| *n > 0).unwrap_or(4096)
    })
}
