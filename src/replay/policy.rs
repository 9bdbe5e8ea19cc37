//! The choices a replay is made with.

use std::cmp::Ordering;

use crate::base::Nanos;
use crate::image::AioMode;
use crate::image::given::GivenAio;
use crate::suite::one_disk::ImageHolder;

/// When requests are issued.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Pacing {
    /// As fast as the depth allows.
    NoStall,
    /// At the recording's times, scaled.
    Recorded {
        /// Percent of the recorded time: 100 as recorded, 50 twice as fast.
        percent: u64,
    },
    /// Once everything that had completed before it in the recording has completed.
    Closed,
}

impl Pacing {
    /// The name in options and reports.
    pub fn name(self) -> &'static str {
        match self {
            Self::NoStall => "no_stall",
            Self::Recorded { .. } => "recorded",
            Self::Closed => "closed",
        }
    }
}

/// Where the run's time comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ClockKind {
    /// `CLOCK_MONOTONIC`.
    Host,
    /// Time that stands still while the test thread works and steps when it waits.
    Virtual,
}

/// How the files of the target are read and written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AioChoice {
    /// What is best here: measured for an image held by this program; QEMU's own default for one
    /// that it opens.
    Auto,
    /// In the test thread, one after the other: only where this program holds the image.
    Sync,
    /// QEMU's pool of threads.
    Threads,
    /// Linux's asynchronous I/O, by QEMU.
    Native,
    /// io_uring.
    IoUring,
}

impl AioChoice {
    /// What it means for an image that this program holds.
    pub fn held(self) -> AioMode {
        match self {
            Self::Auto | Self::Threads | Self::Native => AioMode::Auto,
            Self::Sync => AioMode::Sync,
            Self::IoUring => AioMode::IoUring,
        }
    }

    /// What it means for an image that QEMU opens.
    pub fn given(self) -> GivenAio {
        match self {
            Self::Auto | Self::Sync | Self::Threads => GivenAio::Threads,
            Self::Native => GivenAio::Native,
            Self::IoUring => GivenAio::IoUring,
        }
    }

    /// Who must hold the image for this choice, where that matters.
    pub fn holder(self) -> Option<ImageHolder> {
        match self {
            Self::Auto | Self::IoUring => None,
            Self::Sync => Some(ImageHolder::Qtrace),
            Self::Threads | Self::Native => Some(ImageHolder::Machine),
        }
    }
}

/// Requests past the end of the disk.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OffsetPolicy {
    /// An error.
    Error,
    /// Offset modulo the disk's size, moved back to lie inside as a whole.
    Wrap,
    /// Shortened, or left out when nothing remains.
    Clip,
}

/// Requests that are not whole blocks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum UnalignedPolicy {
    /// Grown to whole blocks; discards shrink.
    Round,
    /// An error.
    Error,
}

/// Requests that overlap one in flight, where one of the two changes content.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OverlapPolicy {
    /// Held back until it has completed.
    Hold,
    /// Issued all the same.
    Allow,
}

/// What a timed run that was too late means.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OnLag {
    /// It is marked invalid for timing.
    Warn,
    /// And the exit code is 6.
    Fail,
}

/// The part of the trace that is replayed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Window {
    /// First event.
    pub event_first: u64,
    /// One past the last event.
    pub event_end: u64,
    /// First moment.
    pub time_first: Nanos,
    /// First moment no longer in it; `u64::MAX` for no end.
    pub time_end: Nanos,
}

impl Window {
    /// The whole trace.
    pub const ALL: Self = Self {
        event_first: 0,
        event_end: u64::MAX,
        time_first: Nanos(0),
        time_end: Nanos(u64::MAX),
    };

    /// Whether an event stands before the window, in it, or behind it.
    pub fn place(&self, event: u64, time: Nanos) -> Ordering {
        if event >= self.event_end || (time >= self.time_end && self.time_end.0 != u64::MAX) {
            Ordering::Greater
        } else if event < self.event_first || time < self.time_first {
            Ordering::Less
        } else {
            Ordering::Equal
        }
    }

    /// Whether it is bounded by times, which the trace must then have.
    pub fn is_timed(&self) -> bool {
        self.time_first.0 > 0 || self.time_end.0 != u64::MAX
    }
}
