//! Block nodes in QEMU's words: `BlockdevOptions` of `qapi/block-core.json`.

use serde_json::{Value, json};

use super::super::CacheMode;
use super::super::chain::Layer;
use super::super::host::HostFile;
use super::{GivenAio, InheritedFile, inherit};
use crate::base::{Error, Result};

/// What is done with a node.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Access {
    /// It is only read.
    Read,
    /// It is written too.
    Write,
}

/// Foreign formats that can have a backing file (`BlockdevOptionsGenericCOWFormat`).
const COW_FORMATS: &[&str] = &["vmdk", "qed", "qcow"];

/// A description in the making.
pub struct Describe {
    cache: CacheMode,
    aio: GivenAio,
    /// The files named so far.
    pub files: Vec<InheritedFile>,
}

impl Describe {
    /// Files are used with `cache` and `aio`.
    pub fn new(cache: CacheMode, aio: GivenAio) -> Self {
        Self { cache, aio, files: Vec::new() }
    }

    /// What is described from here on is used through the page cache, and need not reach the disk.
    pub fn as_temporary(&mut self) -> &mut Self {
        (self.cache, self.aio) = (CacheMode::Unsafe, GivenAio::Threads);
        self
    }

    /// raw or qcow2 layers, the top one first; those below are only read.
    pub fn layers(&mut self, layers: &[Layer], access: Access) -> Result<Value> {
        let mut below = Value::Null;
        for (depth, layer) in layers.iter().enumerate().rev() {
            let access = if depth == 0 { access } else { Access::Read };
            let file = inherit(&layer.host)?;
            if layer.header.is_none() {
                below = self.raw(file, access);
                continue;
            }
            below = self.qcow2(file, below, access);
            if let Some(host) = &layer.data_file {
                let data = self.handed(inherit(host)?, access);
                set(&mut below, "data-file", data);
            }
        }
        Ok(below)
    }

    /// An image of a format that only QEMU reads.
    ///
    /// # Errors
    /// One that names other files and has a name that is no text.
    pub fn foreign(
        &mut self,
        host: &HostFile,
        format: &str,
        names_others: bool,
        access: Access,
    ) -> Result<Value> {
        let file = inherit(host)?;
        if names_others {
            // Other files are looked for beside this one, so it is given by its name.
            let path = std::path::absolute(&host.path).ok();
            let path = path.as_deref().and_then(|path| path.to_str()).ok_or_else(|| {
                Error::input("its name is not UTF-8, and QEMU is to find other files by it")
                    .path(&host.path)
            })?;
            let file = self.file(&file, path, access);
            return Ok(self.format(format, file, access));
        }
        let file = self.handed(file, access);
        let mut node = self.format(format, file, access);
        if COW_FORMATS.contains(&format) {
            set(&mut node, "backing", Value::Null);
        }
        Ok(node)
    }

    /// A raw image.
    pub fn raw(&mut self, file: InheritedFile, access: Access) -> Value {
        let file = self.handed(file, access);
        self.format("raw", file, access)
    }

    /// A qcow2 image over `below`, which is null for none.
    pub fn qcow2(&mut self, file: InheritedFile, below: Value, access: Access) -> Value {
        let file = self.handed(file, access);
        let mut node = self.format("qcow2", file, access);
        set(&mut node, "backing", below);
        node
    }

    fn format(&self, driver: &str, file: Value, access: Access) -> Value {
        let mut node = self.node(driver, access);
        set(&mut node, "file", file);
        node
    }

    /// A file that is handed over.
    fn handed(&mut self, file: InheritedFile, access: Access) -> Value {
        let node = self.file(&file, &format!("/proc/self/fd/{}", file.number()), access);
        self.files.push(file);
        node
    }

    fn file(&self, file: &InheritedFile, name: &str, access: Access) -> Value {
        let mut node = self.node(file.driver(), access);
        set(&mut node, "filename", name.into());
        set(&mut node, "locking", if file.lockable { "on" } else { "auto" }.into());
        set(&mut node, AIO, word(self.aio).into());
        node
    }

    /// What every node has.
    fn node(&self, driver: &str, access: Access) -> Value {
        json!({
            "driver": driver,
            "read-only": access == Access::Read,
            "discard": "unmap",
            "detect-zeroes": "off",
            "cache": {
                "direct": self.cache == CacheMode::None,
                "no-flush": self.cache == CacheMode::Unsafe,
            },
        })
    }
}

/// A disk of `size` bytes that keeps nothing.
pub fn null(size: u64) -> Value {
    json!({ "driver": "null-co", "size": size, "read-zeroes": true })
}

const AIO: &str = "aio";

fn word(aio: GivenAio) -> &'static str {
    match aio {
        GivenAio::Threads => "threads",
        GivenAio::Native => "native",
        GivenAio::IoUring => "io_uring",
    }
}

/// Gives every file below `node` another way of I/O.
pub fn set_aio(node: &mut Value, aio: GivenAio) {
    for (key, value) in node.as_object_mut().into_iter().flatten() {
        match key.as_str() {
            AIO => *value = word(aio).into(),
            _ => set_aio(value, aio),
        }
    }
}

fn set(node: &mut Value, key: &str, value: Value) {
    if let Some(fields) = node.as_object_mut() {
        fields.insert(key.to_owned(), value);
    }
}
