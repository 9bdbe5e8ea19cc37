//! Images that another program opens: QEMU, whose block layer serves them.

use std::os::fd::OwnedFd;
use std::path::PathBuf;
use std::sync::Arc;

use serde_json::Value;

/// A file that the other program inherits.
#[derive(Clone, Debug)]
pub struct InheritedFile {
    /// The descriptor. Its number here is its number there: the description says
    /// `/proc/self/fd/N`.
    pub fd: Arc<OwnedFd>,
    /// What users call the file.
    pub name: PathBuf,
}

/// An image as the other program is to open it.
#[derive(Clone, Debug)]
pub struct GivenImage {
    /// A block node in QEMU's words (`BlockdevOptions`), every format in it said, without a
    /// `node-name`.
    pub node: Value,
    /// The files that `node` names.
    pub files: Vec<InheritedFile>,
    /// Guest-visible bytes, as they were found before.
    pub size: u64,
}
