//! Progress on stderr for anything that takes more than a second; quiet when not a terminal.

use std::io::IsTerminal;
use std::time::Duration;

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};

/// A bar over `total` units (`None`: a spinner with a count). Draws nothing when stderr is not a
/// terminal, and nothing before the first second has passed.
pub struct Progress(ProgressBar, std::time::Instant, bool);

impl Progress {
    /// A bar named `what`, counting in bytes when `bytes`, else in items.
    pub fn new(what: &str, total: Option<u64>, bytes: bool) -> Self {
        let bar = ProgressBar::with_draw_target(total, ProgressDrawTarget::hidden());
        let form = match (total.is_some(), bytes) {
            (true, true) => "{msg} {wide_bar} {bytes}/{total_bytes} {bytes_per_sec} eta {eta}",
            (true, false) => "{msg} {wide_bar} {human_pos}/{human_len} {per_sec} eta {eta}",
            (false, true) => "{msg} {spinner} {bytes} {bytes_per_sec}",
            (false, false) => "{msg} {spinner} {human_pos} {per_sec}",
        };
        if let Ok(style) = ProgressStyle::with_template(form) {
            bar.set_style(style);
        }
        bar.set_message(what.to_owned());
        Self(bar, std::time::Instant::now(), std::io::stderr().is_terminal())
    }

    /// A line of text, for what has no end to be measured against.
    pub fn of_text() -> Self {
        let progress = Self::new("", None, false);
        if let Ok(style) = ProgressStyle::with_template("{spinner} {msg}") {
            progress.0.set_style(style);
        }
        progress
    }

    /// Shows `text`. Call it now and then.
    pub fn text(&mut self, text: String) {
        self.0.set_message(text);
        let moved = self.0.position() + 1;
        self.set(moved);
    }

    /// Moves to `position`. Call it now and then, not for every item.
    pub fn set(&mut self, position: u64) {
        if self.2 && self.1.elapsed() >= Duration::from_secs(1) {
            self.0.set_draw_target(ProgressDrawTarget::stderr_with_hz(5));
            self.2 = false;
        }
        self.0.set_position(position);
    }
}

impl Drop for Progress {
    fn drop(&mut self) {
        self.0.finish_and_clear();
    }
}
