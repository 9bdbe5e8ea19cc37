//! A disk that is soon full.

use std::path::Path;
use std::process::{Command, Stdio};

/// A small tmpfs of its own, unmounted on drop; `None` (with the reason) where that needs root.
pub struct SmallDisk(tempfile::TempDir);

impl SmallDisk {
    /// One of `size`, as mount(8) takes it.
    pub fn new(size: &str) -> Option<Self> {
        let dir = tempfile::tempdir().expect("a folder");
        let mounted = Command::new("mount")
            .args(["-t", "tmpfs", "-o", &format!("size={size}"), "none"])
            .arg(dir.path())
            .stderr(Stdio::null())
            .status();
        if mounted.is_ok_and(|status| status.success()) {
            return Some(Self(dir));
        }
        println!("skipped: mounting a small tmpfs needs root");
        None
    }

    /// Its folder.
    pub fn path(&self) -> &Path {
        self.0.path()
    }

    /// Names of the files on it.
    pub fn files(&self) -> Vec<String> {
        std::fs::read_dir(self.0.path())
            .expect("listed")
            .map(|entry| entry.expect("entry").file_name().to_string_lossy().into_owned())
            .collect()
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg(self.0.path()).status();
    }
}
