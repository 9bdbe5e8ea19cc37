//! A raw image that gets another size while it is served: `truncate -s`, a grown volume.

use std::fs::File;
use std::io::{Seek, SeekFrom};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{JoinHandle, park_timeout};
use std::time::Duration;

use super::server::Server;
use crate::base::{Result, SECTOR_SIZE};
use crate::image::Image;

/// How often the size is looked at.
const LOOK: Duration = Duration::from_millis(500);

/// Looks at the size of an image's file until it is dropped.
pub struct Watch {
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Watch {
    /// Watches `path`, which `server` serves with `size` bytes; `open` opens it again.
    pub fn start(
        server: Arc<Server>,
        path: &Path,
        mut size: u64,
        open: impl Fn() -> Result<Arc<dyn Image>> + Send + 'static,
    ) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let (stopped, path) = (Arc::clone(&stop), path.to_path_buf());
        let look = move || {
            while !stopped.load(Ordering::Acquire) {
                park_timeout(LOOK);
                let Some(now) = bytes(&path).filter(|now| *now != size) else { continue };
                size = now;
                if let Err(error) = server.reopen(&open) {
                    tracing::error!(%error, "the image cannot be opened again");
                }
            }
        };
        // Without a thread the size stays what it was.
        let thread = std::thread::Builder::new().name("image-size".to_owned()).spawn(look).ok();
        Self { stop, thread }
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Release);
        if let Some(thread) = self.thread.take() {
            thread.thread().unpark();
            let _ = thread.join();
        }
    }
}

/// Whole sectors of a file or block device; `None` when it cannot be told now.
pub fn bytes(path: &Path) -> Option<u64> {
    let len = File::open(path).and_then(|mut file| file.seek(SeekFrom::End(0))).ok()?;
    Some(len / SECTOR_SIZE * SECTOR_SIZE)
}
