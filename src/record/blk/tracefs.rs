//! The kernel's tracer, by its files (Linux `Documentation/trace/ftrace.rst`).

use std::fs::{self, File};
use std::io::{self, Write};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd};
use std::os::unix::fs::OpenOptionsExt;
use std::path::PathBuf;

use crate::base::{Error, Result};

/// Where it is mounted, where it is.
const MOUNTS: [&str; 2] = ["/sys/kernel/tracing", "/sys/kernel/debug/tracing"];

/// `TRACEFS_MAGIC` of linux/magic.h.
const TRACEFS_MAGIC: libc::c_long = 0x7472_6163;

/// fsconfig(2): make the file system. fsmount(2), fsopen(2): close on exec.
const FSCONFIG_CMD_CREATE: libc::c_uint = 6;
const FSMOUNT_CLOEXEC: libc::c_uint = 1;
const FSOPEN_CLOEXEC: libc::c_uint = 1;

/// The file system.
#[derive(Debug)]
pub struct Tracefs {
    dir: OwnedFd,
}

impl Tracefs {
    /// The one that is mounted; else one that is mounted nowhere but in a descriptor of ours, so
    /// that nothing is left of it however we end.
    ///
    /// # Errors
    /// A machine error: it cannot be had, and why.
    pub fn open() -> Result<Self> {
        for path in MOUNTS {
            if let Ok(dir) = File::open(path)
                && is_tracefs(&dir)
            {
                return Ok(Self { dir: dir.into() });
            }
        }
        let dir = mount().map_err(|e| {
            let error = Error::machine("the kernel's tracer cannot be reached");
            error.source(e).hint("run as root, on a kernel with CONFIG_BLK_DEV_IO_TRACE")
        })?;
        Ok(Self { dir })
    }

    /// For a child that is to reach it.
    ///
    /// # Errors
    /// There are no descriptors left.
    pub fn share(&self) -> io::Result<OwnedFd> {
        self.dir.try_clone()
    }

    fn path(&self, name: &str) -> PathBuf {
        PathBuf::from(format!("/proc/self/fd/{}/{name}", self.dir.as_raw_fd()))
    }

    /// What a file says, without the newline.
    ///
    /// # Errors
    /// A machine error that names the file.
    pub fn read(&self, name: &str) -> Result<String> {
        let text = fs::read_to_string(self.path(name));
        text.map(|text| text.trim_end().to_owned()).map_err(|e| failed(name, e))
    }

    /// Writes to a file.
    ///
    /// # Errors
    /// A machine error that names the file.
    pub fn write(&self, name: &str, value: &str) -> Result<()> {
        let file = File::options().write(true).truncate(true).open(self.path(name));
        let written = file.and_then(|mut file| file.write_all(value.as_bytes()));
        written.map_err(|e| failed(&format!("{name}={value}"), e))
    }

    /// The pipe that what was traced comes out of; it never blocks.
    ///
    /// # Errors
    /// A machine error.
    pub fn pipe(&self) -> Result<File> {
        let mut options = File::options();
        options.read(true).custom_flags(libc::O_NONBLOCK);
        options.open(self.path("trace_pipe")).map_err(|e| failed("trace_pipe", e))
    }

    /// Records that were overwritten or dropped because nobody took them in time.
    pub fn lost(&self) -> u64 {
        let Ok(cpus) = fs::read_dir(self.path("per_cpu")) else { return 0 };
        let stats =
            cpus.flatten().filter_map(|cpu| fs::read_to_string(cpu.path().join("stats")).ok());
        stats.map(|text| lost_of(&text)).sum()
    }
}

impl AsFd for Tracefs {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.dir.as_fd()
    }
}

fn failed(what: &str, error: io::Error) -> Error {
    Error::machine(format!("the kernel's tracer refuses {what}")).source(error)
}

/// The sum of what a CPU's `stats` say was lost.
fn lost_of(stats: &str) -> u64 {
    let names = ["overrun", "commit overrun", "dropped events"];
    let rows = stats.lines().filter_map(|line| line.split_once(": "));
    let counts = rows.filter(|(name, _)| names.contains(name)).map(|(_, count)| count.parse());
    counts.map(|count: Result<u64, _>| count.unwrap_or(0)).sum()
}

fn is_tracefs(dir: &File) -> bool {
    // SAFETY: an all-zero statfs is valid, and the call fills it.
    unsafe {
        let mut info: libc::statfs = std::mem::zeroed();
        libc::fstatfs(dir.as_raw_fd(), &mut info) == 0 && info.f_type == TRACEFS_MAGIC
    }
}

/// A mount without a place (Linux 5.2).
fn mount() -> io::Result<OwnedFd> {
    let owned = |fd: libc::c_long| match libc::c_int::try_from(fd) {
        // SAFETY: a descriptor that the call has just made.
        Ok(fd) if fd >= 0 => Ok(unsafe { OwnedFd::from_raw_fd(fd) }),
        _ => Err(io::Error::last_os_error()),
    };
    // SAFETY: system calls with a static, NUL-terminated name or none; results are checked.
    unsafe {
        let context = owned(libc::syscall(libc::SYS_fsopen, c"tracefs".as_ptr(), FSOPEN_CLOEXEC))?;
        let none = std::ptr::null::<libc::c_char>();
        let fd = context.as_raw_fd();
        let made = libc::syscall(libc::SYS_fsconfig, fd, FSCONFIG_CMD_CREATE, none, none, 0);
        if made != 0 {
            return Err(io::Error::last_os_error());
        }
        owned(libc::syscall(libc::SYS_fsmount, fd, FSMOUNT_CLOEXEC, 0))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn losses_of_a_cpu_are_added() {
        let stats = "entries: 5\noverrun: 3\ncommit overrun: 1\nbytes: 77\ndropped events: 2\n";
        assert_eq!(lost_of(stats), 6);
        assert_eq!(lost_of("overrun: many\n"), 0);
    }
}
