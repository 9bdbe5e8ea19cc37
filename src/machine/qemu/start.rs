//! Starting a QEMU whose qtest server and monitor are ours: over socket pairs that it inherits, so
//! that there is no file to name, to wait for or to leave behind.

use std::ffi::OsString;
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::client::Client;
use super::command::Command;
use crate::base::{Error, ErrorKind, Result, stop};
use crate::machine::child::qmp::Qmp;
use crate::machine::child::{self, Launch, Process};

/// What to start.
#[derive(Debug)]
pub struct Start<'a> {
    binary: &'a Path,
    args: Vec<String>,
    fds: Vec<Arc<OwnedFd>>,
    folder: Option<PathBuf>,
    variables: Vec<(&'static str, &'static str)>,
    patience: Duration,
}

/// A QEMU that answers.
#[derive(Debug)]
pub struct Started {
    /// The child.
    pub process: Process,
    /// Its qtest server.
    pub client: Client,
    /// Its monitor.
    pub qmp: Qmp,
    /// The arguments it was given.
    pub args: Vec<String>,
}

/// Why there is none.
#[derive(Debug)]
pub struct NotStarted {
    /// In words.
    pub error: Error,
    /// It neither answered nor ended: with other arguments it would hardly do better.
    pub is_silent: bool,
}

impl From<Error> for NotStarted {
    fn from(error: Error) -> Self {
        Self { error, is_silent: false }
    }
}

impl From<NotStarted> for Error {
    fn from(not: NotStarted) -> Self {
        not.error
    }
}

impl<'a> Start<'a> {
    /// `binary` with `args`, to which those for the two connections are added.
    pub fn new(binary: &'a Path, args: Vec<String>, patience: Duration) -> Self {
        Self { binary, args, fds: vec![], folder: None, variables: vec![], patience }
    }

    /// Descriptors that the arguments name as `/proc/self/fd/N`.
    #[must_use]
    pub fn fds(mut self, fds: Vec<Arc<OwnedFd>>) -> Self {
        self.fds.extend(fds);
        self
    }

    /// The folder that it runs in.
    #[must_use]
    pub fn folder(mut self, folder: &Path) -> Self {
        self.folder = Some(folder.to_path_buf());
        self
    }

    /// Sets a variable for it.
    #[must_use]
    pub fn variable(mut self, name: &'static str, value: &'static str) -> Self {
        self.variables.push((name, value));
        self
    }
}

fn pair() -> Result<(UnixStream, OwnedFd)> {
    let (ours, theirs) =
        UnixStream::pair().map_err(|e| Error::machine("no socket pair").source(e))?;
    Ok((ours, theirs.into()))
}

/// Starts it, and waits until both its ends answer; these go on to heed the user's wish to stop.
///
/// # Errors
/// A machine error: it cannot be started, ended at once (with what it said), or is silent.
/// Interrupted, when the user wants to stop.
pub fn start(start: Start<'_>) -> Result<Started, NotStarted> {
    let Start { binary, mut args, mut fds, folder, variables, patience } = start;
    let (qtest, qtest_end) = pair()?;
    let (qmp, qmp_end) = pair()?;
    args.extend([
        "-chardev".to_owned(),
        format!("socket,id=qtest-link,fd={}", qtest_end.as_raw_fd()),
        "-object".to_owned(),
        "qtest,id=qtest0,chardev=qtest-link,log=none".to_owned(),
        "-chardev".to_owned(),
        format!("socket,id=qmp-link,fd={}", qmp_end.as_raw_fd()),
        "-mon".to_owned(),
        "chardev=qmp-link,mode=control".to_owned(),
    ]);
    fds.extend([qtest_end, qmp_end].map(Arc::new));
    let launch = Launch {
        binary: PathBuf::from(binary),
        args: args.iter().map(OsString::from).collect(),
        fds,
        folder,
        variables,
    };
    let begun = Instant::now();
    let mut process = Process::spawn(launch)?;
    let left = || patience.saturating_sub(begun.elapsed()).max(Duration::from_millis(1));
    let connected = Qmp::new(qmp, patience).and_then(|qmp| {
        let mut client = Client::new(qtest, left())?;
        client.order(&Command::Endianness)?;
        Ok((client, qmp))
    });
    match connected {
        Ok((client, qmp)) => Ok(Started { process, client, qmp, args }),
        Err(_) if stop::is_wanted() => Err(stopped().path(binary).into()),
        Err(error) => {
            // Once a connection is closed the process is about to end; one that is silent is not.
            let ended = process.wait(left().min(child::END_PATIENCE));
            let error = child::why_not_started(("QEMU", binary), &mut process, ended, error);
            Err(NotStarted { error, is_silent: ended.is_none() })
        }
    }
}

/// The user did not want to wait for it any longer.
pub(super) fn stopped() -> Error {
    Error::new(ErrorKind::Interrupted, "stopped while QEMU was starting")
}
