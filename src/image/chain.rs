//! The files behind an image: itself, its external data file, its backing files, all opened here.
//!
//! An image names other files, and an image may come from anybody. So every name is resolved by
//! us, and what it leads to (links followed, asked of the open descriptor) must lie in the folder
//! of the image that was asked for, unless the user allowed more. What has been judged is what is
//! used: the descriptors opened here are handed on, names are not.

use std::fs::File;
use std::os::fd::AsRawFd;
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use super::host::HostFile;
use super::qcow2_header::{self, Qcow2Header};
use super::{OpenOptions, home_of, lock, probe};
use crate::base::error::IoContext;
use crate::base::{Error, Result};

/// Most layers of one image: each costs descriptors and memory, and nobody stacks more.
const LAYERS_MAX: usize = 64;

/// One image of a chain, locked.
#[derive(Debug)]
pub struct Layer {
    /// The image file.
    pub host: HostFile,
    /// Its header when it is qcow2; raw otherwise.
    pub header: Option<Qcow2Header>,
    /// Its external data file.
    pub data_file: Option<HostFile>,
}

/// Opens everything `top`, a qcow2 image, refers to, and takes the locks. The top layer is first.
pub fn resolve(top: HostFile, options: &OpenOptions) -> Result<Vec<Layer>> {
    let gate = Gate::new(&top, options)?;
    let mut layers: Vec<Layer> = Vec::new();
    let mut seen = vec![identity(&top)?];
    let mut next = Some((top, "qcow2".to_string()));
    while let Some((host, format)) = next.take() {
        if layers.len() == LAYERS_MAX {
            return Err(Error::input(format!("more than {LAYERS_MAX} backing files"))
                .path(&layers[0].host.path));
        }
        let is_top = layers.is_empty();
        let layer = gate.layer(host, &format, options.writable && is_top)?;
        if let Some((name, format)) = backing_of(&layer)? {
            let host = gate.open(&layer.host.path, &name, "backing", false)?;
            let id = identity(&host)?;
            if seen.contains(&id) {
                return Err(Error::input("its backing files form a loop").path(&layer.host.path));
            }
            seen.push(id);
            let format = backing_format(&layer, &host, format)?;
            next = Some((host, format));
        }
        layers.push(layer);
    }
    Ok(layers)
}

/// Decides which files may be opened.
struct Gate {
    /// The canonical folder of the image; `None` when everything is allowed.
    home: Option<PathBuf>,
}

impl Gate {
    fn new(top: &HostFile, options: &OpenOptions) -> Result<Self> {
        let home = home_of(&top.path);
        let home = home.canonicalize().reading(home, "cannot resolve the image's folder")?;
        Ok(Self { home: (!options.allow_backing).then_some(home) })
    }

    /// Reads the header of a file that passed, opens its data file, and locks both.
    fn layer(&self, host: HostFile, format: &str, writable: bool) -> Result<Layer> {
        lock::take(&host, writable)?;
        if format != "qcow2" {
            return Ok(Layer { host, header: None, data_file: None });
        }
        let header = qcow2_header::read(&host)?;
        let data_file = match &header.data_file {
            None => None,
            Some(None) => {
                return Err(Error::input("its data is in another file that it does not name")
                    .path(&host.path));
            }
            Some(Some(name)) => {
                let file = self.open(&host.path, name, "data", writable)?;
                lock::take(&file, writable)?;
                Some(file)
            }
        };
        Ok(Layer { host, header: Some(header), data_file })
    }

    /// Opens the file that the image at `from` calls `name`.
    fn open(&self, from: &Path, name: &str, role: &str, writable: bool) -> Result<HostFile> {
        if has_protocol(name) {
            return Err(Error::input(format!(
                "its {role} file \"{name}\" is not a plain file name, and is not opened"
            ))
            .path(from)
            .hint("convert the image to one without it: qemu-img convert -O qcow2 IMAGE COPY"));
        }
        let path = home_of(from).join(name);
        // A descriptor that can do nothing yet: what it refers to is judged before it is opened.
        let place = File::options()
            .read(true)
            .custom_flags(libc::O_PATH)
            .open(&path)
            .reading(from, &format!("cannot open its {role} file \"{name}\""))?;
        let by_descriptor = PathBuf::from(format!("/proc/self/fd/{}", place.as_raw_fd()));
        let real = std::fs::read_link(&by_descriptor)
            .reading(from, &format!("cannot resolve its {role} file \"{name}\""))?;
        if self.home.as_ref().is_some_and(|home| !real.starts_with(home)) {
            return Err(Error::input(format!(
                "its {role} file \"{name}\" ({}) is outside the image's own folder",
                real.display()
            ))
            .path(from)
            .hint("if you trust the image, allow it: allow_backing=on"));
        }
        let mut host = HostFile::open(&by_descriptor, writable).map_err(|e| e.path(&path))?;
        host.path = path;
        Ok(host)
    }
}

/// As QEMU tells names from `protocol:address` forms: a colon before any slash.
fn has_protocol(name: &str) -> bool {
    let head = name.split('/').next().unwrap_or(name);
    head.contains(':')
}

fn identity(host: &HostFile) -> Result<(u64, u64)> {
    let meta = host.file.metadata().reading(&host.path, "cannot examine the file")?;
    Ok((meta.dev(), meta.ino()))
}

fn backing_of(layer: &Layer) -> Result<Option<(String, Option<String>)>> {
    Ok(layer.header.as_ref().and_then(|header| {
        header.backing.clone().map(|name| (name, header.backing_format.clone()))
    }))
}

fn backing_format(layer: &Layer, host: &HostFile, stated: Option<String>) -> Result<String> {
    let format = match stated {
        Some(format) => format,
        None => probe::format_of_file(host)?.to_string(),
    };
    match format.as_str() {
        "raw" | "file" => Ok("raw".into()),
        "qcow2" => Ok(format),
        other => Err(Error::input(format!(
            "its backing file {} has format {other}; only raw and qcow2 are followed",
            host.path.display()
        ))
        .path(&layer.host.path)
        .hint("convert the image to one without it: qemu-img convert -O qcow2 IMAGE COPY")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn protocols_are_told_from_names() {
        for bad in ["nbd://host/x", "json:{\"driver\":\"raw\"}", "nbd:unix:/s", "file:x", "host:x"]
        {
            assert!(has_protocol(bad), "{bad}");
        }
        for good in ["base.qcow2", "/a/b:c", "./x:y", "dir/a:b"] {
            assert!(!has_protocol(good), "{good}");
        }
    }
}
