//! Formats that only QEMU reads, through a `qemu-nbd` of our own.
//!
//! We make the listening socket, connect to it, and hand it to qemu-nbd as systemd would
//! (`LISTEN_FDS`): no waiting for it to appear, and nobody else can be first. Without `-t` the
//! server ends with its only connection, so it cannot outlive us, whatever kills us; a parent-death
//! signal would be tied to the thread that happened to open the image.

use std::ffi::OsString;
use std::fs::{File, Permissions};
use std::io::{Read, Seek, SeekFrom};
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd, RawFd};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::{UnixListener, UnixStream};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::time::Duration;

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use serde_json::Value;

use super::given::InheritedFile;
use super::nbd::NbdImage;
use super::nbd_wire::Connection;
use super::{CacheMode, Image, ImageInfo, OpenOptions};
use crate::base::error::IoContext;
use crate::base::{Error, Result};

/// The first descriptor that a socket-activated program finds (`SD_LISTEN_FDS_START`).
const SD_LISTEN_FDS_START: RawFd = 3;

/// How long qemu-nbd may take to start: it reads the image's metadata before it answers.
const START_DEADLINE: Duration = Duration::from_secs(60);

/// How long it may take to end: it writes its metadata and flushes.
const END_DEADLINE_MS: u16 = 60_000;

/// A running qemu-nbd; ended, and waited for, when dropped.
pub struct Server {
    child: Child,
}

/// What qemu-nbd is to serve.
struct Served<'a> {
    /// Arguments that name it and say how it is opened.
    args: Vec<OsString>,
    /// Descriptors that it inherits under their numbers.
    fds: Vec<RawFd>,
    /// Its name in what users read, and its format.
    name: &'a Path,
    format: &'a str,
    writable: bool,
}

/// Opens the image at `path`, called `name` in what users read, through qemu-nbd. The guards on
/// what it refers to have passed.
pub fn open(
    path: &Path,
    name: &Path,
    format: &str,
    options: &OpenOptions,
) -> Result<Arc<dyn Image>> {
    let cache = match options.cache {
        CacheMode::None => "none",
        CacheMode::Writeback => "writeback",
        CacheMode::Unsafe => "unsafe",
    };
    let mut args: Vec<OsString> =
        ["--discard=unmap", &format!("--cache={cache}"), "-f", format].map(Into::into).into();
    // Absolute, so that no name of a file is taken for a protocol.
    let image = std::path::absolute(path).reading(path, "cannot resolve the image's name")?;
    args.extend(["--".into(), image.into()]);
    serve(&Served { args, fds: Vec::new(), name, format, writable: options.writable })
}

/// Opens what `node` describes, for reading, as the image called `name`; `files` are those that it
/// names.
pub fn open_node(node: &Value, files: &[InheritedFile], name: &Path) -> Result<Arc<dyn Image>> {
    let args = vec!["--".into(), format!("json:{node}").into()];
    let fds = files.iter().map(InheritedFile::number).collect();
    serve(&Served { args, fds, name, format: "qcow2", writable: false })
}

fn serve(served: &Served<'_>) -> Result<Arc<dyn Image>> {
    let Served { name, format, .. } = *served;
    let program = find_program("qemu-nbd", name)?;
    let mut log = tempfile::tempfile().writing(name, "cannot make a file for qemu-nbd's words")?;
    let (stream, mut server) = start(&program, served, &log)?;
    let shaken = stream
        .set_read_timeout(Some(START_DEADLINE))
        .and_then(|()| Ok((stream.try_clone()?, Connection::new(stream)?)));
    let (stream, connection) = match shaken {
        Ok(both) => both,
        Err(e) => {
            server.end(0);
            return Err(refused(name, format, &mut log, e));
        }
    };
    // From here on a slow answer is a slow disk.
    stream.set_read_timeout(None).reading(name, "cannot prepare the connection to qemu-nbd")?;
    let info = ImageInfo {
        path: name.to_path_buf(),
        format: format.into(),
        via: "qemu-nbd".into(),
        read_only: !served.writable,
        discard_zeroes: false,
    };
    Ok(Arc::new(NbdImage::new(connection, info, Some(server))))
}

fn start(program: &Path, served: &Served<'_>, log: &File) -> Result<(UnixStream, Server)> {
    const WHAT: &str = "cannot start qemu-nbd";
    let path = served.name;
    let folder = tempfile::Builder::new()
        .prefix("qtrace-")
        .permissions(Permissions::from_mode(0o700))
        .tempdir()
        .writing(path, WHAT)?;
    let socket = folder.path().join("nbd");
    let listener = UnixListener::bind(&socket).writing(&socket, WHAT)?;
    let stream = UnixStream::connect(&socket).writing(&socket, WHAT)?;
    // LISTEN_PID is known only in the new process; the shell becomes qemu-nbd.
    let mut command = Command::new("/bin/sh");
    command
        .args(["-c", "LISTEN_PID=$$; export LISTEN_PID; exec \"$@\"", "sh"])
        .arg(program)
        .args(if served.writable { None } else { Some("-r") })
        .args(&served.args)
        .env("LISTEN_FDS", "1")
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(log.try_clone().writing(path, WHAT)?)
        // Ctrl-C is for us: the server ends when we have finished with it.
        .process_group(0);
    let (fd, inherited) = (listener.as_raw_fd(), served.fds.clone());
    // SAFETY: only async-signal-safe calls between fork and exec.
    unsafe {
        command.pre_exec(move || {
            inherited.iter().try_for_each(|fd| pass_as(*fd, *fd))?;
            pass_as(fd, SD_LISTEN_FDS_START)
        });
    }
    let child = command.spawn().map_err(|e| Error::machine(WHAT).source(e))?;
    Ok((stream, Server { child }))
}

/// Makes `fd` the descriptor `wanted` of the program about to be run.
fn pass_as(fd: RawFd, wanted: RawFd) -> std::io::Result<()> {
    // SAFETY: plain integers; in the child, between fork and exec.
    let rc = unsafe {
        if fd == wanted { libc::fcntl(fd, libc::F_SETFD, 0) } else { libc::dup2(fd, wanted) }
    };
    if rc < 0 { Err(std::io::Error::last_os_error()) } else { Ok(()) }
}

/// Why the server did not serve, in its own words.
fn refused(path: &Path, format: &str, log: &mut File, error: std::io::Error) -> Error {
    let mut words = String::new();
    // Without its words there is still the error.
    let _ = log.seek(SeekFrom::Start(0)).and_then(|_| log.take(4096).read_to_string(&mut words));
    let words = words.trim().replace('\n', "; ");
    let error = if words.is_empty() {
        Error::input(format!("qemu-nbd cannot open the {format} image")).source(error)
    } else {
        Error::input(format!("qemu-nbd cannot open the {format} image: {words}"))
    };
    let error = error.path(path);
    if words.contains("lock") {
        error.hint("stop the VM, qemu-nbd or qtrace that has it open, or work on a copy of it")
    } else {
        error
    }
}

impl Server {
    /// Waits up to `patience_ms` for its end, then enforces it.
    fn end(&mut self, patience_ms: u16) {
        if patience_ms > 0 && !self.wait_for(patience_ms) {
            tracing::warn!("qemu-nbd does not end by itself");
        }
        // It may have ended meanwhile: then there is nothing to kill, only to reap.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }

    /// Whether the child ends within `ms`.
    fn wait_for(&self, ms: u16) -> bool {
        // SAFETY: plain integers; the child is not reaped, so its number is its own.
        let fd = unsafe { libc::syscall(libc::SYS_pidfd_open, self.child.id(), 0) };
        if fd < 0 {
            return false;
        }
        // SAFETY: just opened, and owned by nobody else.
        let fd = unsafe { OwnedFd::from_raw_fd(fd as RawFd) };
        let mut fds = [PollFd::new(std::os::fd::AsFd::as_fd(&fd), PollFlags::POLLIN)];
        matches!(poll(&mut fds, PollTimeout::from(ms)), Ok(1))
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.end(END_DEADLINE_MS);
    }
}

/// The program of that name in `PATH`.
fn find_program(name: &str, image: &Path) -> Result<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&path)
        .map(|folder| folder.join(name))
        .find(|program| program.is_file())
        .ok_or_else(|| {
            Error::machine(format!("this image needs {name}, which is not installed"))
                .path(image)
                .hint("install qemu-utils (Debian, Ubuntu) or qemu-img (Fedora)")
        })
}

/// Makes an empty image of `format` in the file `path`, called `name` in what users read.
pub fn create(path: &Path, name: &Path, format: &str, size: u64) -> Result<()> {
    let program = find_program("qemu-img", name)?;
    let mut command = Command::new(program);
    command.args(["create", "-q", "-f", format]);
    if format == "vpc" {
        // Otherwise the size is rounded to what a cylinder count can say.
        command.args(["-o", "force_size=on"]);
    }
    let output = command
        .arg("--")
        .arg(std::path::absolute(path).writing(path, "cannot run qemu-img")?)
        .arg(size.to_string())
        .stdin(Stdio::null())
        .output()
        .map_err(|e| Error::machine("cannot run qemu-img").source(e))?;
    if output.status.success() {
        return Ok(());
    }
    let words = String::from_utf8_lossy(&output.stderr);
    Err(Error::incomplete(format!("qemu-img cannot create the {format} image: {}", words.trim()))
        .path(name))
}
