//! A child process: started with a few inherited descriptors, always reaped, never left
//! behind, and its last words kept.

use std::collections::VecDeque;
use std::ffi::OsString;
use std::io::Read;
use std::os::fd::{AsFd, AsRawFd, OwnedFd, RawFd};
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::path::PathBuf;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};

use crate::base::child::{pidfd_open, spawn_from_lasting_thread};
use crate::base::{Error, Result};

/// Of what it writes to stderr, the first bytes kept: why it did not start.
const HEAD_BYTES: usize = 8 << 10;
/// And the last: why it died.
const TAIL_BYTES: usize = 16 << 10;

/// How long its words are read on once it has ended; something it started may hold a pipe open.
const SAID_PATIENCE: Duration = Duration::from_secs(1);

/// What to start.
#[derive(Debug, Default)]
pub struct Launch {
    /// The program.
    pub binary: PathBuf,
    /// Its arguments.
    pub args: Vec<OsString>,
    /// Descriptors that it inherits, under the numbers that they have here.
    pub fds: Vec<Arc<OwnedFd>>,
    /// The folder that it runs in; ours when there is none.
    pub folder: Option<PathBuf>,
    /// Variables set for it.
    pub variables: Vec<(&'static str, &'static str)>,
}

/// A running child.
#[derive(Debug)]
pub struct Process {
    child: Child,
    pidfd: Option<OwnedFd>,
    stdout: Arc<Mutex<Kept>>,
    stderr: Arc<Mutex<Kept>>,
    /// Closed when both are read to their ends.
    said_all: Receiver<Never>,
    status: Option<ExitStatus>,
}

impl Process {
    /// Starts it. It dies with this process, however that ends, and gets no Ctrl-C of the terminal.
    ///
    /// # Errors
    /// A machine error when the program cannot be started.
    pub fn spawn(launch: Launch) -> Result<Self> {
        let Launch { binary, args, fds, folder, variables } = launch;
        let numbers: Vec<RawFd> = fds.iter().map(|fd| fd.as_raw_fd()).collect();
        let parent = std::process::id();
        let mut command = Command::new(&binary);
        command.args(args).stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        command.process_group(0).envs(variables);
        if let Some(folder) = folder {
            command.current_dir(folder);
        }
        // SAFETY: between fork and exec only system calls that are safe there are made.
        unsafe { command.pre_exec(move || prepare_child(&numbers, parent)) };
        let mut child = spawn_from_lasting_thread(command)
            .map_err(|e| Error::machine("cannot be started").path(&binary).source(e))?;
        drop(fds);
        let (end, said_all) = channel();
        let kept = || Arc::new(Mutex::new(Kept::default()));
        let (stdout, stderr) = (kept(), kept());
        let read = keep(child.stdout.take(), &stdout, end.clone())
            .and_then(|()| keep(child.stderr.take(), &stderr, end));
        if let Err(e) = read {
            let _ = child.kill().and_then(|()| child.wait());
            return Err(Error::machine("no thread for a child's messages").source(e));
        }
        let pidfd = pidfd_open(child.id());
        Ok(Self { child, pidfd, stdout, stderr, said_all, status: None })
    }

    /// Its number.
    pub fn id(&self) -> u32 {
        self.child.id()
    }

    /// How it ended, if it has.
    pub fn try_wait(&mut self) -> Option<ExitStatus> {
        if self.status.is_none() {
            if self.has_ended() {
                // Not reaped yet: the number is still its own.
                self.kill_group();
            }
            self.status = self.child.try_wait().unwrap_or(None);
            if self.status.is_some() {
                let _ = self.said_all.recv_timeout(SAID_PATIENCE);
            }
        }
        self.status
    }

    /// Waits for its end, at most `patience`.
    pub fn wait(&mut self, patience: Duration) -> Option<ExitStatus> {
        let end = Instant::now() + patience;
        loop {
            if let Some(status) = self.try_wait() {
                return Some(status);
            }
            let left = end.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return None;
            }
            let Some(pidfd) = &self.pidfd else {
                // A kernel without pidfd_open (before 5.3) has nothing to wait for with a time
                // limit but SIGCHLD, which is the whole program's.
                std::thread::sleep(left.min(Duration::from_millis(1)));
                continue;
            };
            let timeout = PollTimeout::try_from(left).unwrap_or(PollTimeout::MAX);
            let _ = poll(&mut [PollFd::new(pidfd.as_fd(), PollFlags::POLLIN)], timeout);
        }
    }

    /// Ends it at once, and says how it ended: it may have done so by itself before.
    pub fn kill(&mut self) -> Option<ExitStatus> {
        if self.try_wait().is_none() {
            self.kill_group();
            let _ = self.child.kill();
            self.status = self.child.wait().ok();
            let _ = self.said_all.recv_timeout(SAID_PATIENCE);
        }
        self.status
    }

    fn has_ended(&self) -> bool {
        let Some(pidfd) = &self.pidfd else { return false };
        let mut list = [PollFd::new(pidfd.as_fd(), PollFlags::POLLIN)];
        poll(&mut list, PollTimeout::ZERO).is_ok_and(|ready| ready > 0)
    }

    /// Ends what it started and left: a script around a program may not be the program itself.
    fn kill_group(&self) {
        if let Ok(group) = libc::pid_t::try_from(self.child.id()) {
            // SAFETY: a plain system call on a number.
            unsafe { libc::killpg(group, libc::SIGKILL) };
        }
    }

    /// What it has written to stderr: the beginning and the end, where that is long.
    pub fn stderr(&self) -> String {
        self.stderr.lock().unwrap_or_else(PoisonError::into_inner).text()
    }

    /// What it has said: on stderr, or else on stdout, where what is no QEMU may speak.
    pub fn said(&self) -> String {
        let stderr = self.stderr();
        if !stderr.trim().is_empty() {
            return stderr;
        }
        self.stdout.lock().unwrap_or_else(PoisonError::into_inner).text()
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        self.kill();
    }
}

/// Runs in the child, before it becomes the program.
fn prepare_child(inherited: &[RawFd], parent: u32) -> std::io::Result<()> {
    for fd in inherited {
        // SAFETY: a plain system call on a number.
        if unsafe { libc::fcntl(*fd, libc::F_SETFD, 0) } < 0 {
            return Err(std::io::Error::last_os_error());
        }
    }
    let none = libc::rlimit { rlim_cur: 0, rlim_max: 0 };
    // SAFETY: plain system calls; `none` lives through its call. One that aborts is told of by
    // its signal, and leaves no core behind in the user's folder.
    unsafe {
        libc::setrlimit(libc::RLIMIT_CORE, &none);
        if libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL) < 0 {
            return Err(std::io::Error::last_os_error());
        }
        // The parent may have gone before that was set.
        if libc::getppid() as u32 != parent {
            libc::_exit(1);
        }
    }
    Ok(())
}

/// The beginning and the end of a text of any length.
#[derive(Debug, Default)]
struct Kept {
    head: Vec<u8>,
    tail: VecDeque<u8>,
    left_out: u64,
}

impl Kept {
    fn push(&mut self, mut bytes: &[u8]) {
        let room = HEAD_BYTES.saturating_sub(self.head.len()).min(bytes.len());
        let (head, rest) = bytes.split_at(room);
        self.head.extend(head);
        bytes = rest;
        self.tail.extend(bytes);
        let over = self.tail.len().saturating_sub(TAIL_BYTES);
        self.tail.drain(..over);
        self.left_out += over as u64;
    }

    fn text(&self) -> String {
        let mut bytes = self.head.clone();
        if self.left_out > 0 {
            bytes.extend(format!("\n[… {} bytes left out …]\n", self.left_out).into_bytes());
        }
        bytes.extend(&self.tail);
        String::from_utf8_lossy(&bytes).into_owned()
    }
}

/// Nothing is ever sent: what is waited for is that nobody could any more.
#[derive(Debug)]
enum Never {}

/// Reads what is said to its end, in a thread of its own.
fn keep(
    from: Option<impl Read + Send + 'static>,
    kept: &Arc<Mutex<Kept>>,
    end: Sender<Never>,
) -> std::io::Result<()> {
    let (Some(from), kept) = (from, Arc::clone(kept)) else { return Ok(()) };
    let read = move || {
        read_to_end(from, &kept);
        drop(end);
    };
    std::thread::Builder::new().name("qemu-says".to_owned()).spawn(read).map(drop)
}

fn read_to_end(mut from: impl Read, kept: &Mutex<Kept>) {
    let mut buf = [0; 4096];
    loop {
        match from.read(&mut buf) {
            Ok(0) => break,
            Ok(len) => {
                let part = buf.get(..len).unwrap_or_default();
                kept.lock().unwrap_or_else(PoisonError::into_inner).push(part);
            }
            Err(e) if e.kind() == std::io::ErrorKind::Interrupted => {}
            Err(_) => break,
        }
    }
}

/// How a process ended, in words: `signal 6 (SIGABRT)`, `exit status 1`.
pub fn ended(status: ExitStatus) -> String {
    match (status.signal(), status.code()) {
        (Some(signal), _) => {
            let name = nix::sys::signal::Signal::try_from(signal).map_or("", |s| s.as_str());
            format!("signal {signal} ({name})")
        }
        (None, Some(code)) => format!("exit status {code}"),
        (None, None) => status.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shell(script: &str) -> Process {
        let args = ["-c", script].map(OsString::from).to_vec();
        Process::spawn(Launch { binary: "/bin/sh".into(), args, ..Launch::default() }).unwrap()
    }

    const LONG: Duration = Duration::from_secs(30);

    #[test]
    fn ends_are_told_apart() {
        for (script, want) in [
            ("exit 0", "exit status 0"),
            ("exit 7", "exit status 7"),
            ("kill -ABRT $$", "signal 6 (SIGABRT)"),
            ("kill -KILL $$", "signal 9 (SIGKILL)"),
        ] {
            assert_eq!(ended(shell(script).wait(LONG).unwrap()), want, "{script}");
        }
        let missing = Launch { binary: "/nonexistent/qemu".into(), ..Launch::default() };
        let error = Process::spawn(missing).unwrap_err();
        assert_eq!(error.kind().exit_code(), 5);
        assert!(error.to_string().starts_with("/nonexistent/qemu: "), "{error}");
    }

    #[test]
    fn it_runs_where_and_with_what_it_is_told() {
        let folder = tempfile::tempdir().unwrap();
        let script = "test \"$(pwd -P)\" = \"$(readlink -f \"$1\")\" && test \"$X\" = y";
        let mut args: Vec<OsString> = ["-c", script, "sh"].map(OsString::from).to_vec();
        args.push(folder.path().into());
        let launch = Launch {
            binary: "/bin/sh".into(),
            args,
            folder: Some(folder.path().into()),
            variables: vec![("X", "y")],
            ..Launch::default()
        };
        let status = Process::spawn(launch).unwrap().wait(LONG).unwrap();
        assert_eq!(ended(status), "exit status 0");
    }

    #[test]
    fn messages_are_whole_when_the_end_is_known() {
        let mut process = shell("echo one >&2; echo two >&2; exit 1");
        process.wait(LONG).unwrap();
        assert_eq!((process.stderr(), process.said()), ("one\ntwo\n".into(), "one\ntwo\n".into()));
        let mut process = shell("echo out; exit 1");
        process.wait(LONG).unwrap();
        assert_eq!((process.stderr(), process.said()), (String::new(), "out\n".into()));
    }

    #[test]
    fn of_endless_messages_beginning_and_end_are_kept() {
        let mut kept = Kept::default();
        for n in 0..100_000 {
            kept.push(format!("line {n}\n").as_bytes());
        }
        let text = kept.text();
        assert!(text.starts_with("line 0\n") && text.ends_with("line 99999\n"));
        assert!(text.contains("bytes left out") && text.len() < HEAD_BYTES + TAIL_BYTES + 100);
    }

    #[test]
    fn a_child_is_gone_when_its_owner_is() {
        let process = shell("exec sleep 1000");
        let pid = process.id();
        drop(process);
        assert!(!std::path::Path::new(&format!("/proc/{pid}")).exists());
    }

    #[test]
    fn what_a_child_left_behind_ends_with_it() {
        let mut process = shell("sleep 1000 >/dev/null 2>&1 & echo $! >&2; exit 0");
        process.wait(LONG).unwrap();
        let left: u32 = process.stderr().trim().parse().unwrap();
        let end = Instant::now() + LONG;
        let is_alive = || {
            let stat = std::fs::read_to_string(format!("/proc/{left}/stat")).unwrap_or_default();
            stat.rsplit(") ").next().is_some_and(|s| s.starts_with(['R', 'S', 'D']))
        };
        while is_alive() {
            assert!(Instant::now() < end, "{left} lives on");
            std::thread::yield_now();
        }
    }

    #[test]
    fn a_child_outlives_the_thread_that_asked_for_it() {
        let mut process = std::thread::spawn(|| shell("exec sleep 1000")).join().unwrap();
        assert!(process.wait(Duration::from_millis(50)).is_none());
        assert_eq!(ended(process.kill().unwrap()), "signal 9 (SIGKILL)");
    }

    #[test]
    fn only_the_descriptors_named_are_inherited() {
        let (given, kept) = std::os::unix::net::UnixStream::pair().unwrap();
        let (given, kept) = (OwnedFd::from(given), OwnedFd::from(kept));
        let script = format!(
            "test -e /proc/self/fd/{} && test ! -e /proc/self/fd/{}",
            given.as_raw_fd(),
            kept.as_raw_fd()
        );
        let args = vec!["-c".into(), script.into()];
        let launch = Launch {
            binary: "/bin/sh".into(),
            args,
            fds: vec![Arc::new(given)],
            ..Launch::default()
        };
        let status = Process::spawn(launch).unwrap().wait(LONG).unwrap();
        assert_eq!(ended(status), "exit status 0");
    }
}
