//! What an image is made of, judged as if this program were to use it.

use std::path::Path;

use serde_json::Value;

use super::super::chain::{self, Layer};
use super::super::host::HostFile;
use super::super::open::probed;
use super::super::{OpenOptions, foreign, lock, qcow2_check};
use super::node::{Access, Describe};
use crate::base::{Error, Result};

/// What an image is made of, judged and locked.
pub enum Stack {
    /// raw or qcow2, the top layer first.
    Layers(Vec<Layer>),
    /// A format that only QEMU reads.
    Foreign {
        host: HostFile,
        format: String,
        /// It names other files, which QEMU finds by the names in it: the user trusts it.
        names_others: bool,
    },
}

impl Stack {
    /// Judges the image at `path`, whose format is known. Dropping the result unlocks it.
    pub fn resolve(path: &Path, name: &Path, options: &OpenOptions) -> Result<Self> {
        let mut host = HostFile::open(path, options.writable)?;
        host.path = name.to_path_buf();
        match options.format.as_deref().unwrap_or("raw") {
            "raw" => {
                lock::take(&host, options.writable)?;
                Ok(Self::Layers(vec![Layer { host, header: None, data_file: None }]))
            }
            "qcow2" => {
                let layers = chain::resolve(host, options)?;
                let checked = options.writable && needs_qemu(&layers).is_none();
                if let Some(top) = layers.first().filter(|_| checked)
                    && let Some(header) = &top.header
                {
                    qcow2_check::check(&top.host, header.version, header.data_file.is_some())?;
                }
                Ok(Self::Layers(layers))
            }
            format => {
                let names_others = foreign::guard(&host, format, options)?;
                lock::take(&host, options.writable)?;
                Ok(Self::Foreign { host, format: format.to_owned(), names_others })
            }
        }
    }

    pub fn top(&self) -> Result<&HostFile> {
        match self {
            Self::Layers(layers) => layers
                .first()
                .map(|layer| &layer.host)
                .ok_or_else(|| Error::input("an image without layers")),
            Self::Foreign { host, .. } => Ok(host),
        }
    }

    pub fn node(&self, describe: &mut Describe, access: Access) -> Result<Value> {
        match self {
            Self::Layers(layers) => describe.layers(layers, access),
            Self::Foreign { host, format, names_others } => {
                describe.foreign(host, format, *names_others, access)
            }
        }
    }
}

/// A feature of qcow2 that only QEMU reads.
pub fn needs_qemu(layers: &[Layer]) -> Option<&'static str> {
    layers.iter().find_map(|layer| layer.header.as_ref().and_then(|header| header.needs_qemu))
}

/// The format of the image at `path`: what `options` say, else by its content.
pub fn format_of(path: &Path, name: &Path, options: &OpenOptions) -> Result<String> {
    if let Some(format) = &options.format {
        return Ok(format.clone());
    }
    let mut host = HostFile::open(path, false)?;
    host.path = name.to_path_buf();
    probed(&host, options.writable).map(str::to_owned)
}
