//! The taps under a QEMU's drives: an NBD server for each image, on a socket of its own.

use std::path::Path;
use std::sync::Arc;

use super::disk::{Access, Disk};
use crate::base::{Error, Result};
use crate::image::{self, CacheMode, Image, OpenOptions};
use crate::record::nbd::{Counts, Export, ExportOptions, Listen, Server};
use crate::record::recording::Recording;
use crate::trace::StreamInfo;

/// What is said of a disk that is a part of its image.
const PART: &str = ", of which the guest sees the part that offset= and size= say: places and size in \
                    the trace are the file's";

/// A disk with its image open, and so locked: QEMU itself does not touch it.
pub struct Opened {
    disk: Disk,
    image: Arc<dyn Image>,
}

impl Opened {
    /// Opens the image of `disk` as QEMU would: its backing files may be anywhere.
    ///
    /// # Errors
    /// It cannot be opened, or is not what the command line says.
    pub fn new(disk: &Disk) -> Result<Self> {
        if disk.alone
            && let Some(name) = image::backing_name(&disk.file)?
        {
            let what = format!("it has the backing file '{name}', and the command line says none");
            return Err(Error::usage(what)
                .path(&disk.file)
                .hint("a tap opens an image with what it names: leave the drive out of --block"));
        }
        let writable = match disk.access {
            Access::ReadWrite => true,
            Access::ReadOnly => false,
            Access::Auto => nix::unistd::access(&disk.file, nix::unistd::AccessFlags::W_OK).is_ok(),
        };
        let options = OpenOptions {
            format: disk.format.clone(),
            writable,
            cache: if disk.direct { CacheMode::None } else { CacheMode::Writeback },
            allow_backing: true,
            ..OpenOptions::default()
        };
        let image = image::open_for_guest(&disk.file, &options)?;
        Ok(Self { disk: disk.clone(), image })
    }

    /// What it is, for the trace and for people: `sys = vm.qcow2 (qcow2)`.
    pub fn describe(&self) -> String {
        let info = self.image.info();
        let read_only = if info.read_only { ", read-only" } else { "" };
        let Disk { name, file, part, .. } = &self.disk;
        let part = if *part { PART } else { "" };
        format!("{name} = {} ({}{read_only}{part})", file.display(), info.format)
    }

    /// Its image.
    pub fn file(&self) -> &Path {
        &self.disk.file
    }

    /// Whether its file is the one at `path`.
    pub fn is(&self, path: &Path) -> bool {
        let real = |path: &Path| std::fs::canonicalize(path).ok();
        real(path).is_some_and(|path| Some(path) == real(&self.disk.file))
    }
}

/// Servers, in the order of their disks.
pub struct Taps {
    servers: Vec<Server>,
}

impl Taps {
    /// Serves the images; each is a stream of the recording.
    ///
    /// # Errors
    /// Those of [`Server::start`].
    pub fn start(disks: Vec<Opened>, recording: &Recording) -> Result<Self> {
        let mut servers = Vec::new();
        for Opened { disk, image } in disks {
            let tap = recording.stream(StreamInfo {
                device: disk.name,
                queue: None,
                device_bytes: Some(image.size()),
                block_bytes: Some(512),
            });
            let options = ExportOptions { name: String::new(), read_data: true };
            servers.push(Server::start(Export::new(image, tap, &options), &Listen::Private)?);
        }
        Ok(Self { servers })
    }

    /// The Unix socket of the `n`th.
    ///
    /// # Errors
    /// It is no text, and so can stand in no option of QEMU's.
    pub fn socket(&self, n: usize) -> Result<String> {
        let socket = self.servers.get(n).and_then(Server::socket).and_then(Path::to_str);
        socket.map(str::to_owned).ok_or_else(|| {
            Error::usage("the folder for temporary files has a name that is no text")
                .hint("set TMPDIR to another")
        })
    }

    /// Ends them; the images are written then. What each met.
    ///
    /// # Errors
    /// An image cannot be flushed.
    pub fn stop(self) -> Result<Vec<Counts>> {
        // All of them, whatever becomes of one.
        let stopped: Vec<Result<Counts>> = self.servers.into_iter().map(Server::stop).collect();
        stopped.into_iter().collect()
    }
}
