//! A raw image that gets another size while it is served: `truncate -s`, a grown volume.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{JoinHandle, park_timeout};
use std::time::Duration;

use super::server::Server;
use crate::image::KeptRaw;

/// How often the size is looked at.
const LOOK: Duration = Duration::from_millis(500);

/// Looks at the size of an image's file until it is dropped.
pub struct Watch {
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Watch {
    /// Watches `image`, which `server` serves with `size` bytes.
    pub fn start(server: Arc<Server>, image: KeptRaw, mut size: u64) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let stopped = Arc::clone(&stop);
        let look = move || {
            while !stopped.load(Ordering::Acquire) {
                park_timeout(LOOK);
                let Some(now) = image.bytes().filter(|now| *now != size) else { continue };
                size = now;
                if let Err(error) = server.reopen(&|| image.open()) {
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
