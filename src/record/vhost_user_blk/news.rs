//! What happens besides requests: said at once, and kept for the recording's summary.

use std::net::Shutdown;
use std::os::unix::net::UnixStream;
use std::sync::{Mutex, MutexGuard, PoisonError};

/// Lines that are said and kept; a front-end can make any number.
const KEPT_MAX: usize = 100;

#[derive(Debug, Default)]
struct Inner {
    lines: Vec<String>,
    unsaid: u64,
    /// The connection there is.
    session: Option<UnixStream>,
}

/// What happened, and the connection to end when it must not go on.
#[derive(Debug, Default)]
pub struct News(Mutex<Inner>);

impl News {
    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Something that whoever reads the recording should know.
    pub fn say(&self, line: String) {
        let mut inner = self.lock();
        if inner.lines.len() < KEPT_MAX {
            tracing::warn!("vhost-user-blk: {line}");
            inner.lines.push(line);
        } else {
            if inner.unsaid == 0 {
                tracing::warn!("vhost-user-blk: more such things are only counted");
            }
            inner.unsaid += 1;
        }
    }

    /// All of it.
    pub fn take(&self) -> Vec<String> {
        let mut inner = self.lock();
        let mut lines = std::mem::take(&mut inner.lines);
        match std::mem::take(&mut inner.unsaid) {
            0 => {}
            unsaid => lines.push(format!("and {unsaid} more such things")),
        }
        lines
    }

    /// The connection that there is now.
    pub fn set_session(&self, session: Option<UnixStream>) {
        self.lock().session = session;
    }

    /// Ends the connection, if there is one.
    pub fn hang_up(&self) {
        if let Some(session) = &self.lock().session {
            // One that has ended by itself is what is wanted.
            let _ = session.shutdown(Shutdown::Both);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn any_number_of_lines_is_kept_within_bounds() {
        let news = News::default();
        for n in 0..3 * KEPT_MAX {
            news.say(format!("line {n}"));
        }
        let lines = news.take();
        assert_eq!(lines.len(), KEPT_MAX + 1);
        assert_eq!(lines.last().unwrap(), &format!("and {} more such things", 2 * KEPT_MAX));
    }
}
