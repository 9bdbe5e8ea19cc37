//! The command that a recording is made of: `-- CMD …`, run while the tap is there.
//!
//! - [`Wrapped`]: CMD as a child of ours: its words completed, its end waited for, nothing of it
//!   left behind; `signals`: what the user and the terminal send us meanwhile.

mod signals;

use std::ffi::{OsStr, OsString};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::process::{Child, Command, ExitStatus};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};

pub use self::signals::{Received, Signals};
use crate::base::child::{pidfd_open, spawn_from_lasting_thread};
use crate::base::{Error, Result};

/// Prefix of the names in a command's environment: `{uri}` is also `$uri` and `$QTRACE_URI`.
const VARIABLE_PREFIX: &str = "QTRACE_";

/// Marks CMD and all that it starts as ours to end.
const MARK_VARIABLE: &str = "QTRACE_RECORDING";

/// Tells the marks of one process's commands apart.
static STARTED: AtomicU32 = AtomicU32::new(0);

/// What a shell adds to the number of the signal that ended a command.
const SIGNALLED: i32 = 128;

/// Where the tap is, for CMD: `("uri", "nbd+unix:///?socket=…")`.
pub type Place<'a> = (&'a str, &'a OsStr);

/// `words` with each `{name}` replaced.
pub fn complete(words: &[OsString], places: &[Place<'_>]) -> Vec<OsString> {
    words.iter().map(|word| complete_word(word.as_bytes(), places)).collect()
}

fn complete_word(mut rest: &[u8], places: &[Place<'_>]) -> OsString {
    let mut out = Vec::with_capacity(rest.len());
    while let Some((first, after)) = rest.split_first() {
        let value = places.iter().find_map(|(name, value)| {
            let after = after.strip_prefix(name.as_bytes())?.strip_prefix(b"}")?;
            (*first == b'{').then_some((value, after))
        });
        match value {
            Some((value, after)) => {
                out.extend_from_slice(value.as_bytes());
                rest = after;
            }
            None => {
                out.push(*first);
                rest = after;
            }
        }
    }
    OsString::from_vec(out)
}

/// CMD, running. It is in our process group, as if the user had started it: it may use the
/// terminal, and gets what is typed there. It dies with us, whatever kills us.
#[derive(Debug)]
pub struct Wrapped {
    child: Child,
    pidfd: Option<OwnedFd>,
    /// What its environment has, and so that of all that it starts: `NAME=value`.
    mark: String,
    status: Option<ExitStatus>,
}

impl Wrapped {
    /// Starts `words` with each `{name}` of `places` replaced, which are in its environment too.
    ///
    /// # Errors
    /// `Usage` when there is no such program.
    pub fn start(words: &[OsString], places: &[Place<'_>]) -> Result<Self> {
        let words = complete(words, places);
        let Some((program, args)) = words.split_first() else {
            return Err(Error::usage("there is no command after --"));
        };
        let mut command = Command::new(program);
        command.args(args);
        for (name, value) in places {
            command.env(name, value);
            command.env(format!("{VARIABLE_PREFIX}{}", name.to_uppercase()), value);
        }
        // What it starts and leaves becomes our child when it ends, so that we can end it.
        let _ = nix::sys::prctl::set_child_subreaper(true);
        let parent = std::process::id();
        let number = STARTED.fetch_add(1, Ordering::Relaxed);
        let mark = format!("{parent}.{number}");
        command.env(MARK_VARIABLE, &mark);
        // SAFETY: between fork and exec only system calls that are safe there are made.
        unsafe { command.pre_exec(move || prepare_child(parent)) };
        let child = spawn_from_lasting_thread(command).map_err(|e| {
            let what = format!("cannot run {}", program.to_string_lossy());
            Error::usage(what).source(e).hint("what follows -- is a program and its arguments")
        })?;
        let pidfd = pidfd_open(child.id());
        let mark = format!("{MARK_VARIABLE}={mark}");
        Ok(Self { child, pidfd, mark, status: None })
    }

    /// Its number.
    pub fn id(&self) -> u32 {
        self.child.id()
    }

    /// Whether it has ended. Waits at most `patience` for that, or for a signal to us, which is
    /// passed on where the terminal has not sent it to CMD as well.
    pub fn wait(&mut self, signals: &Signals, patience: Duration) -> bool {
        if self.look() {
            return true;
        }
        let timeout = PollTimeout::try_from(patience).unwrap_or(PollTimeout::MAX);
        let mut fds = vec![PollFd::new(signals.as_fd(), PollFlags::POLLIN)];
        fds.extend(self.pidfd.as_ref().map(|fd| PollFd::new(fd.as_fd(), PollFlags::POLLIN)));
        let _ = poll(&mut fds, timeout);
        while let Some(Received { signal, by_terminal }) = signals.take() {
            if !by_terminal {
                self.send(signal);
            }
        }
        self.look()
    }

    fn look(&mut self) -> bool {
        if self.status.is_none() {
            self.status = self.child.try_wait().unwrap_or(None);
        }
        self.status.is_some()
    }

    fn send(&self, signal: i32) {
        if let (None, Ok(pid)) = (self.status, libc::pid_t::try_from(self.child.id())) {
            // SAFETY: a plain system call; the child is not reaped yet, so the number is its own.
            unsafe { libc::kill(pid, signal) };
        }
    }

    /// Ends what is left of it, and returns the exit code that a shell would give.
    pub fn end(mut self) -> u8 {
        if !self.look() {
            self.send(libc::SIGKILL);
            self.status = self.child.wait().ok();
        }
        self.end_what_it_left();
        let code = self.status.map_or(1, |status| match (status.code(), status.signal()) {
            (Some(code), _) => code,
            (None, Some(signal)) => SIGNALLED + signal,
            (None, None) => 1,
        });
        u8::try_from(code).unwrap_or(1)
    }

    /// Ends the processes that CMD started and did not wait for: the tap that they use is going.
    fn end_what_it_left(&self) {
        /// Each round ends what the processes of the one before left in turn.
        const ROUNDS: u32 = 64;
        for _ in 0..ROUNDS {
            let left: Vec<i32> = children().filter(|pid| self.is_its_own(*pid)).collect();
            if left.is_empty() {
                return;
            }
            for pid in left {
                // SAFETY: plain system calls on the number of a child of ours that is not reaped.
                unsafe {
                    libc::kill(pid, libc::SIGKILL);
                    libc::waitpid(pid, std::ptr::null_mut(), 0);
                }
            }
        }
    }
}

impl Wrapped {
    /// Whether CMD started it: ours are not touched.
    fn is_its_own(&self, pid: i32) -> bool {
        /// A program's start takes less; what shows no environment after it is not touched.
        const LOOKS: u32 = 1000;
        let mut seen_empty = 0;
        for _ in 0..LOOKS {
            let environment = std::fs::read(format!("/proc/{pid}/environ")).unwrap_or_default();
            if !environment.is_empty() {
                let mut variables = environment.split(|byte| *byte == 0);
                return variables.any(|variable| variable == self.mark.as_bytes());
            }
            let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
            if is_becoming_a_program(&stat) {
                std::thread::sleep(Duration::from_millis(1));
            } else if seen_empty == 2 {
                // Gone, a zombie, or one that cleared it: it did not become a program between.
                return false;
            } else {
                seen_empty += 1;
            }
        }
        false
    }
}

/// Whether the process of this proc_pid_stat(5) stands within `execve`: its memory is new and its
/// environment not there yet, so that `env_start` (field 50) is 0. A zombie has no memory either.
fn is_becoming_a_program(stat: &str) -> bool {
    // The name in brackets may hold anything; the field after it is the third, the state.
    let Some((_, fields)) = stat.rsplit_once(") ") else { return false };
    let field = |number: usize| fields.split(' ').nth(number - 3);
    !matches!(field(3), Some("Z" | "X")) && field(50) == Some("0")
}

impl Drop for Wrapped {
    fn drop(&mut self) {
        if !self.look() {
            self.send(libc::SIGKILL);
            let _ = self.child.wait();
        }
    }
}

/// Our children, as the kernel lists them; none where it does not (`CONFIG_PROC_CHILDREN`).
fn children() -> impl Iterator<Item = i32> {
    let tasks = std::fs::read_dir("/proc/self/task").into_iter().flatten().flatten();
    let lists = tasks.filter_map(|task| std::fs::read_to_string(task.path().join("children")).ok());
    let numbers = |list: String| list.split_whitespace().flat_map(str::parse).collect::<Vec<_>>();
    lists.flat_map(numbers)
}

/// Runs in the child, before it becomes CMD: gives back what we changed for ourselves.
fn prepare_child(parent: u32) -> std::io::Result<()> {
    // SAFETY: plain system calls; the set is initialised before it is used.
    unsafe {
        let mut none: libc::sigset_t = std::mem::zeroed();
        libc::sigemptyset(&mut none);
        libc::sigprocmask(libc::SIG_SETMASK, &none, std::ptr::null_mut());
        libc::signal(libc::SIGXFSZ, libc::SIG_DFL);
        libc::signal(libc::SIGPIPE, libc::SIG_DFL);
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

#[cfg(test)]
mod tests {
    use super::*;

    fn words(words: &[&str]) -> Vec<OsString> {
        words.iter().map(OsString::from).collect()
    }

    #[test]
    fn names_are_replaced_wherever_they_stand_and_nothing_else_is() {
        let places = [("uri", OsStr::new("nbd://x")), ("socket", OsStr::new("/s/{uri}"))];
        let given = words(&["a{uri}b{uri}", "{socket}", "{other}", "{uri", "{{uri}}", ""]);
        let want = words(&["anbd://xbnbd://x", "/s/{uri}", "{other}", "{uri", "{nbd://x}", ""]);
        assert_eq!(complete(&given, &places), want);
    }

    fn run(script: &str, places: &[Place<'_>]) -> u8 {
        let mut wrapped = Wrapped::start(&words(&["sh", "-c", script]), places).unwrap();
        let signals = Signals::take_over().unwrap();
        while !wrapped.wait(&signals, Duration::from_secs(60)) {}
        wrapped.end()
    }

    #[test]
    fn its_status_is_what_a_shell_would_say() {
        assert_eq!(run("exit 0", &[]), 0);
        assert_eq!(run("exit 3", &[]), 3);
        assert_eq!(run("kill -TERM $$", &[]), 143);
        let places = [("uri", OsStr::new("nbd://x"))];
        assert_eq!(run("test \"$uri\" = {uri} && test $QTRACE_URI = nbd://x", &places), 0);
        let error = Wrapped::start(&words(&["/nonexistent/program"]), &[]).unwrap_err();
        assert_eq!(error.kind(), crate::base::ErrorKind::Usage);
    }

    /// A process was left running whose `execve` had not yet placed its environment.
    #[test]
    fn a_process_within_execve_is_told_from_one_without_environment() {
        let stat = |state: &str, env_start: &str| {
            let between = "1 ".repeat(50 - 4);
            format!("7 (a) b) {state} {between}{env_start} 9 0\n")
        };
        assert!(is_becoming_a_program(&stat("R", "0")));
        assert!(is_becoming_a_program(&stat("D", "0")));
        assert!(!is_becoming_a_program(&stat("Z", "0")));
        assert!(!is_becoming_a_program(&stat("S", "140720434329072")));
        assert!(!is_becoming_a_program(""));
        let own = std::fs::read_to_string("/proc/self/stat").unwrap();
        assert!(!is_becoming_a_program(&own), "{own}");
    }

    #[test]
    fn what_it_leaves_running_is_ended() {
        let dir = tempfile::tempdir().unwrap();
        let pid = dir.path().join("pid");
        let script = format!("sleep 1000 & echo $! > '{}'", pid.display());
        assert_eq!(run(&script, &[]), 0);
        let pid: i32 = std::fs::read_to_string(&pid).unwrap().trim().parse().unwrap();
        // Ended: gone, or a zombie until init looks for it (proc_pid_stat(5)).
        let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
        let state = stat.rsplit_once(") ").and_then(|(_, rest)| rest.chars().next());
        assert!(state.is_none_or(|state| "ZX".contains(state)), "{stat}");
    }
}
