//! A qemu-storage-daemon that serves the disks of one machine: QEMU's block layer without a QEMU.
//!
//! It inherits its listening sockets, its monitor and the images, so that there is no name to wait
//! for and no file to leave behind: the sockets' own names are gone before it runs.

use std::ffi::OsString;
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::process::{Command, ExitStatus, Stdio};
use std::sync::Arc;
use std::time::Duration;

use serde_json::{Value, json};

use crate::base::{Error, ErrorKind, Result, shell, stop};
use crate::machine::child::qmp::Qmp;
use crate::machine::child::{self, Launch, Lost, Process, ending, in_path};
use crate::machine::obituary::End;

/// What people call it, and how it is called.
pub const PROGRAM: &str = "qemu-storage-daemon";

const HINT: &str = "install it (Debian: qemu-utils; Fedora: qemu-img), or name it: \
                    --machine vhost-user,server=qemu-storage-daemon,binary=PATH";

/// A disk that is to be served.
#[derive(Debug)]
pub struct ServedDisk {
    /// The block node, in QEMU's words, without its name.
    pub node: Value,
    /// Descriptors that it names as `/proc/self/fd/N`.
    pub fds: Vec<Arc<OwnedFd>>,
    /// Request queues.
    pub queues: u16,
    /// Logical block size in bytes.
    pub block_bytes: u32,
    /// Writes are refused.
    pub read_only: bool,
    /// Served in a thread of its own.
    pub iothread: bool,
}

/// One that runs.
#[derive(Debug)]
pub struct StorageDaemon {
    process: Process,
    qmp: Qmp,
    command: String,
}

/// The program: `named`, or that of the `PATH`.
///
/// # Errors
/// A machine error when there is none.
pub fn find(named: Option<&Path>) -> Result<PathBuf> {
    match named {
        Some(path) => Ok(path.to_path_buf()),
        None => in_path(PROGRAM)
            .ok_or_else(|| Error::machine(format!("{PROGRAM} is not in PATH")).hint(HINT)),
    }
}

/// What it says of its version.
///
/// # Errors
/// It cannot be run, or says nothing.
pub fn version(binary: &Path) -> Result<String> {
    let fail = |what: String| Error::machine(what).path(binary);
    let output = Command::new(binary).arg("--version").stdin(Stdio::null()).output();
    let output = output.map_err(|e| fail("cannot be run".to_owned()).source(e).hint(HINT))?;
    let text = String::from_utf8_lossy(&output.stdout);
    // `qemu-storage-daemon version 10.0.2 (Debian …)`
    let mut words = text.split_whitespace().skip_while(|word| *word != "version");
    match words.nth(1).filter(|_| output.status.success()) {
        Some(version) => Ok(version.to_owned()),
        None => Err(fail(format!("is no {PROGRAM}: it does not tell its version"))),
    }
}

impl StorageDaemon {
    /// Starts one that serves `disks`; a connection to each, in their order.
    ///
    /// # Errors
    /// A machine error: it cannot be started, or not with these disks, in its own words.
    pub fn start(
        binary: &Path,
        mut disks: Vec<ServedDisk>,
        more: &[String],
        patience: Duration,
    ) -> Result<(Self, Vec<UnixStream>)> {
        let mut fds: Vec<Arc<OwnedFd>> = Vec::new();
        let mut args = Vec::new();
        let mut streams = Vec::with_capacity(disks.len());
        for (index, disk) in disks.iter_mut().enumerate() {
            let (listener, stream) = socket()?;
            disk.args(index, &mut args);
            args.extend(["--export".to_owned(), disk.export(index, &listener).to_string()]);
            fds.append(&mut disk.fds);
            fds.push(Arc::new(listener.into()));
            streams.push(stream);
        }
        args.extend(more.iter().cloned());
        let quoted = std::iter::once(binary.to_string_lossy().into_owned()).chain(args.clone());
        let quoted: Vec<String> = quoted.collect();
        let command = shell::join(quoted.iter().map(String::as_str));
        let (monitor, theirs) =
            UnixStream::pair().map_err(|e| Error::machine("no socket pair").source(e))?;
        let theirs = OwnedFd::from(theirs);
        args.extend(["--chardev".into(), format!("socket,id=qmp,fd={}", theirs.as_raw_fd())]);
        args.extend(["--monitor".into(), "chardev=qmp".into()]);
        fds.push(Arc::new(theirs));
        let args = args.into_iter().map(OsString::from).collect();
        let launch = Launch { binary: binary.into(), args, fds, ..Launch::default() };
        let mut process = Process::spawn(launch)?;
        // Its greeting comes when all that the arguments ask for is done.
        match Qmp::new(monitor, patience) {
            Ok(mut qmp) => {
                qmp.heed_stop(false);
                Ok((Self { process, qmp, command }, streams))
            }
            Err(_) if stop::is_wanted() => {
                let what = "stopped while it was starting";
                Err(Error::new(ErrorKind::Interrupted, what).path(binary))
            }
            Err(error) => {
                let ended = process.wait(child::END_PATIENCE);
                Err(child::why_not_started((PROGRAM, binary), &mut process, ended, error))
            }
        }
    }

    /// Its version.
    pub fn version(&self) -> &str {
        self.qmp.version()
    }

    /// The number of its process.
    pub fn id(&self) -> u32 {
        self.process.id()
    }

    /// Its command line, quoted for a shell.
    pub fn command(&self) -> &str {
        &self.command
    }

    /// What it has written to stderr.
    pub fn stderr(&self) -> String {
        self.process.stderr()
    }

    /// Gives a disk another size.
    ///
    /// # Errors
    /// It refuses, or is gone.
    pub fn resize(&mut self, disk: usize, bytes: u64) -> Result<()> {
        let arguments = json!({ "node-name": node_name(disk), "size": bytes });
        self.qmp.execute("block_resize", arguments).map(|_| ())
    }

    /// Ends it in good order, its images written out and closed. The end that it had, and whether
    /// it was asked for one.
    pub fn quit(&mut self, patience: Duration) -> (Option<ExitStatus>, bool) {
        let told = self.qmp.tell("quit").is_ok();
        (self.process.wait(patience), told)
    }

    /// How it came to its end, or why it had to be ended: it is gone afterwards.
    pub fn bury(&mut self, lost: Option<Lost>) -> End {
        ending::of(&mut self.process, lost)
    }
}

impl ServedDisk {
    /// A disk with one queue and blocks of 512 bytes.
    pub fn new(node: Value, fds: Vec<Arc<OwnedFd>>) -> Self {
        let (queues, block_bytes) = (1, 512);
        Self { node, fds, queues, block_bytes, read_only: false, iothread: false }
    }

    fn args(&self, index: usize, args: &mut Vec<String>) {
        if self.iothread {
            args.extend(["--object".to_owned(), format!("iothread,id=thread{index}")]);
        }
        let mut node = self.node.clone();
        set(&mut node, "node-name", json!(node_name(index)));
        args.extend(["--blockdev".to_owned(), node.to_string()]);
    }

    fn export(&self, index: usize, listener: &UnixListener) -> Value {
        let mut export = json!({
            "type": "vhost-user-blk",
            "id": format!("export{index}"),
            "node-name": node_name(index),
            "addr": { "type": "fd", "str": listener.as_raw_fd().to_string() },
            "writable": !self.read_only,
            "num-queues": self.queues,
            "logical-block-size": self.block_bytes,
        });
        if self.iothread {
            set(&mut export, "iothread", json!(format!("thread{index}")));
        }
        export
    }
}

fn node_name(index: usize) -> String {
    format!("disk{index}")
}

fn set(node: &mut Value, key: &str, value: Value) {
    if let Some(fields) = node.as_object_mut() {
        fields.insert(key.to_owned(), value);
    }
}

/// A listening socket and a connection to it, which waits to be accepted. Nobody else can connect:
/// its name lay in a private folder, and both are gone.
fn socket() -> Result<(UnixListener, UnixStream)> {
    let fail = |e| Error::machine("no socket for the vhost-user server").source(e);
    let folder = tempfile::Builder::new().prefix("qtrace-vhost").tempdir().map_err(fail)?;
    let path = folder.path().join("s");
    let listener = UnixListener::bind(&path).map_err(fail)?;
    let stream = UnixStream::connect(&path).map_err(fail)?;
    folder.close().map_err(fail)?;
    Ok((listener, stream))
}
