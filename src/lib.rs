//! qtrace as a library: traces, machines, drivers, images, replay, oracle, reports.
//!
//! A module imports only from those above it in this list.
#![warn(missing_docs)]

pub mod base;
pub mod cli;
pub mod driver;
pub mod edit;
pub mod export;
pub mod image;
pub mod import;
pub mod machine;
pub mod oracle;
pub mod profile;
pub mod record;
pub mod replay;
pub mod report;
pub mod suite;
pub mod trace;
