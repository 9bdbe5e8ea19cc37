//! How a case ends.

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
