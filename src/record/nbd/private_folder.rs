//! A folder for a socket that nobody was told the name of. A recorder that is killed leaves it; the
//! next one removes it.

use std::fs::{self, Permissions};
use std::io;
use std::os::unix::fs::{FileTypeExt, MetadataExt, PermissionsExt};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};

use nix::errno::Errno;
use nix::sys::signal::kill;
use nix::unistd::{Pid, geteuid};
use tempfile::TempDir;

/// A folder is called `qtrace-PID-…`.
const PREFIX: &str = "qtrace-";

/// The socket in it.
const SOCKET: &str = "disk.sock";

/// A folder that is there as long as this.
#[derive(Debug)]
pub(super) struct PrivateFolder(TempDir);

impl PrivateFolder {
    /// Makes one among the temporary files, and removes what those left there who were killed.
    pub(super) fn new() -> io::Result<Self> {
        Self::among(&std::env::temp_dir())
    }

    fn among(folder: &Path) -> io::Result<Self> {
        sweep(folder);
        tempfile::Builder::new()
            .prefix(&format!("{PREFIX}{}-", std::process::id()))
            .permissions(Permissions::from_mode(0o700))
            .tempdir_in(folder)
            .map(Self)
    }

    /// Where the socket is to be.
    pub(super) fn socket(&self) -> PathBuf {
        self.0.path().join(SOCKET)
    }
}

/// Removes the folders of processes that are gone. What cannot be removed stays: it harms nobody.
fn sweep(folder: &Path) {
    for entry in fs::read_dir(folder).into_iter().flatten().flatten() {
        let path = entry.path();
        if entry.file_name().to_str().is_some_and(is_of_the_dead) && is_ours(&path) {
            remove(&path);
        }
    }
}

fn is_of_the_dead(name: &str) -> bool {
    let rest = name.strip_prefix(PREFIX).and_then(|rest| rest.split_once('-'));
    let pid = rest.and_then(|(pid, _)| pid.parse::<i32>().ok()).filter(|pid| *pid > 0);
    pid.is_some_and(|pid| kill(Pid::from_raw(pid), None) == Err(Errno::ESRCH))
}

/// A folder into which nobody but us can put anything.
fn is_ours(path: &Path) -> bool {
    fs::symlink_metadata(path).is_ok_and(|meta| {
        meta.is_dir() && meta.uid() == geteuid().as_raw() && meta.mode() & 0o077 == 0
    })
}

/// Removes a folder that holds nothing but a socket on which nobody listens: a process that this
/// one cannot see (in another container) may have it.
fn remove(path: &Path) {
    let socket = path.join(SOCKET);
    if fs::symlink_metadata(&socket).is_ok_and(|meta| meta.file_type().is_socket()) {
        let refused = UnixStream::connect(&socket);
        if !refused.is_err_and(|e| e.kind() == io::ErrorKind::ConnectionRefused) {
            return;
        }
        let _ = fs::remove_file(&socket);
    }
    let _ = fs::remove_dir(path);
}

#[cfg(test)]
mod tests {
    use std::os::unix::net::UnixListener;
    use std::process::Command;

    use super::*;

    fn make(folder: &Path, name: String) -> PathBuf {
        let path = folder.join(name);
        fs::create_dir(&path).unwrap();
        fs::set_permissions(&path, Permissions::from_mode(0o700)).unwrap();
        path
    }

    #[test]
    fn what_the_killed_left_is_removed_and_nothing_else_is() {
        let dir = tempfile::tempdir().unwrap();
        let dir = dir.path();
        // A number that no process has: its process has just ended.
        let mut child = Command::new("true").spawn().unwrap();
        let dead = child.id();
        child.wait().unwrap();
        let left = make(dir, format!("qtrace-{dead}-a"));
        drop(UnixListener::bind(left.join(SOCKET)).unwrap());
        let empty = make(dir, format!("qtrace-{dead}-b"));
        let served = make(dir, format!("qtrace-{dead}-c"));
        let _listener = UnixListener::bind(served.join(SOCKET)).unwrap();
        let full = make(dir, format!("qtrace-{dead}-d"));
        fs::write(full.join("mine"), b"mine").unwrap();
        let alive = make(dir, format!("qtrace-{}-e", std::process::id()));
        let others = ["qtrace-notes", "qtrace-0-x", "qtrace--1-x", "qtrace-"];
        let others = others.map(|name| make(dir, name.to_owned()));

        let folder = PrivateFolder::among(dir).unwrap();
        assert!(!left.exists() && !empty.exists());
        assert!([served, full, alive].iter().chain(&others).all(|path| path.exists()));
        let ours = folder.socket();
        assert!(ours.parent().unwrap().exists());
        drop(folder);
        assert!(!ours.parent().unwrap().exists());
    }
}
