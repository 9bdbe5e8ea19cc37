//! How a case ends.

use std::fmt;

use serde::Serialize;

use crate::base::{Error, Nanos};

/// What a case returns: passed, or why it stopped.
pub type Outcome<T = ()> = Result<T, Stop>;

/// Why a case did not pass.
#[derive(Debug)]
pub enum Stop {
    /// The device was wrong.
    Failed(Box<Finding>),
    /// The case does not apply, for this reason.
    Skipped(String),
    /// The tool or the machine failed.
    Error(Error),
}

/// The case did not end in time.
pub(super) const HUNG: &str = "the case hung";
/// The case panicked.
pub(super) const PANICKED: &str = "the case panicked";
/// The machine's process ended, or spoke no sense.
pub(super) const MACHINE_DIED: &str = "the machine died";
/// The machine's process answers no more.
pub(super) const MACHINE_HUNG: &str = "the machine hung";
/// The machine panicked, or could not be dropped without.
pub(super) const MACHINE_PANICKED: &str = "the machine panicked";

/// Where and how the device was wrong.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Finding {
    /// What was looked at, in the data sheet's words: `register A, UIP`.
    pub what: String,
    /// What the specification asks for; empty where `what` says it.
    pub expected: String,
    /// What the device did.
    pub got: String,
    /// The machine's time of it.
    pub time_ns: Nanos,
}

impl fmt::Display for Finding {
    /// On one line, without the time.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { what, expected, got, .. } = self;
        match expected.as_str() {
            "" => write!(f, "{what}: {got}"),
            _ => write!(f, "{what}: expected {expected}, got {got}"),
        }
    }
}

impl Stop {
    /// A skip with its reason.
    pub fn skipped(reason: impl Into<String>) -> Self {
        Self::Skipped(reason.into())
    }
}

impl From<Error> for Stop {
    fn from(error: Error) -> Self {
        Self::Error(error)
    }
}

impl From<Finding> for Stop {
    fn from(finding: Finding) -> Self {
        Self::Failed(Box::new(finding))
    }
}
