//! What starting a child process safely takes, whatever it is.

use std::os::fd::{FromRawFd, OwnedFd, RawFd};
use std::process::{Child, Command};
use std::sync::mpsc::{Sender, channel};
use std::sync::{Mutex, OnceLock, PoisonError};

type Spawned = std::io::Result<Child>;
type Job = (Command, Sender<Spawned>);

/// Starts `command` from a thread that lasts as long as the process: `PR_SET_PDEATHSIG` is about
/// the *thread* that forked (prctl(2)).
///
/// # Errors
/// Those of [`Command::spawn`].
pub fn spawn_from_lasting_thread(mut command: Command) -> Spawned {
    static SPAWNER: OnceLock<Option<Mutex<Sender<Job>>>> = OnceLock::new();
    let spawner = SPAWNER.get_or_init(|| {
        let (jobs, queue) = channel::<Job>();
        let work = move || {
            for (mut command, answer) in queue {
                let _ = answer.send(command.spawn());
            }
        };
        let thread = std::thread::Builder::new().name("spawner".to_owned()).spawn(work);
        thread.is_ok().then(|| Mutex::new(jobs))
    });
    let Some(spawner) = spawner else {
        return command.spawn();
    };
    let (answer, spawned) = channel();
    let job = (command, answer);
    let gone = || std::io::Error::other("the thread that starts processes is gone");
    spawner.lock().unwrap_or_else(PoisonError::into_inner).send(job).map_err(|_| gone())?;
    spawned.recv().map_err(|_| gone())?
}

/// A descriptor that becomes readable when process `pid` ends; `None` on kernels before 5.3.
pub fn pidfd_open(pid: u32) -> Option<OwnedFd> {
    // SAFETY: a plain system call; the result is checked.
    let fd = unsafe { libc::syscall(libc::SYS_pidfd_open, pid as libc::pid_t, 0) };
    let fd = RawFd::try_from(fd).ok().filter(|fd| *fd >= 0)?;
    // SAFETY: fresh, and owned by nothing else.
    Some(unsafe { OwnedFd::from_raw_fd(fd) })
}
