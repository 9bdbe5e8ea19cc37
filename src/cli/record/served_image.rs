//! The image that a recorder serves: what `nbd` and `vhost-user-blk` take of it and do with it.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::base::{Error, Result};
use crate::image::{self, CacheMode, Image, OpenOptions};

/// Which image is served, and how.
#[derive(Debug, clap::Args)]
pub struct ServedImage {
    /// The image that is served: whoever uses it changes it.
    #[arg(long = "image", value_name = "D")]
    pub path: PathBuf,

    /// Its format: raw, qcow2, or another that qemu-nbd has [default: by its content;
    /// one found to be raw then refuses writes that make it look like another format].
    #[arg(long, value_name = "F")]
    pub format: Option<String>,

    /// Refuse writes.
    #[arg(long)]
    pub read_only: bool,

    /// How the image reaches the disk: writeback, none (O_DIRECT) or unsafe (no flushes).
    #[arg(long, value_name = "MODE", default_value = "writeback", value_parser = cache_mode)]
    pub cache: CacheMode,

    /// Open backing and data files outside the image's folder too.
    #[arg(long)]
    pub allow_backing: bool,
}

fn cache_mode(text: &str) -> std::result::Result<CacheMode, String> {
    match text {
        "none" => Ok(CacheMode::None),
        "writeback" => Ok(CacheMode::Writeback),
        "unsafe" => Ok(CacheMode::Unsafe),
        _ => Err("one of none, writeback, unsafe".to_owned()),
    }
}

impl ServedImage {
    /// How it is opened.
    pub fn options(&self) -> OpenOptions {
        OpenOptions {
            format: self.format.clone(),
            writable: !self.read_only,
            cache: self.cache,
            allow_backing: self.allow_backing,
            ..OpenOptions::default()
        }
    }

    /// Opens it for a recording to `output`.
    ///
    /// # Errors
    /// Usage: the trace would replace the image; those of [`image::open_for_guest`].
    pub fn open(&self, output: &Path) -> Result<Arc<dyn Image>> {
        // A trace on top of the image that it is of would be the end of both.
        let real = |path: &Path| std::fs::canonicalize(path).ok();
        if real(output).is_some_and(|output| Some(output) == real(&self.path)) {
            return Err(Error::usage("the trace would replace the image").path(&self.path));
        }
        image::open_for_guest(&self.path, &self.options())
    }

    /// What the trace calls it: its name without the folder.
    pub fn name(&self) -> String {
        self.path.file_name().map_or_else(String::new, |name| name.to_string_lossy().into_owned())
    }
}
