//! Mappings of files that another process can cut short.
//!
//! A front-end shares its guest's memory by a file, and nothing keeps it from truncating the file
//! (or a bug in it): touching what was cut off raises SIGBUS, in any thread, at any load. Here the
//! handler puts anonymous zeros in the place of the whole mapping and marks it as lost, so that
//! the access goes on and its owner finds out before it answers anything; the recording lives.

use std::fs::File;
use std::io;
use std::os::fd::AsRawFd;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

/// Mappings at once: far more than one front-end's memory slots and rings of requests in flight.
const GUARDS_MAX: usize = 1024;

/// `HUGETLBFS_MAGIC` of linux/magic.h.
const HUGETLBFS_MAGIC: i64 = 0x9584_58f6;

/// A guarded range. `start` is 0 while nobody has it and 1 while it is being set up.
struct Guard {
    start: AtomicUsize,
    end: AtomicUsize,
    lost: AtomicBool,
}

static GUARDS: [Guard; GUARDS_MAX] = [const {
    Guard { start: AtomicUsize::new(0), end: AtomicUsize::new(0), lost: AtomicBool::new(false) }
}; GUARDS_MAX];

/// Who had SIGBUS before.
static BEFORE: OnceLock<libc::sigaction> = OnceLock::new();

/// A shared mapping of a file. What lies beyond a file's new end reads as zeros from then on, and
/// so does all the rest of the mapping.
#[derive(Debug)]
pub struct GuardedMap {
    base: *mut u8,
    /// Bytes mapped, whole pages of the file's.
    len: usize,
    guard: usize,
}

// SAFETY: a mapping belongs to the process, not to a thread; nothing is reached through `self` but
// by raw pointers whose users arrange how.
unsafe impl Send for GuardedMap {}
// SAFETY: as above.
unsafe impl Sync for GuardedMap {}

impl GuardedMap {
    /// Maps the first `len` bytes of `file`, readable and writable.
    ///
    /// # Errors
    /// The file is shorter, cannot be mapped, or there are too many mappings.
    pub fn new(file: &File, len: u64) -> io::Result<Self> {
        install()?;
        let there = file.metadata()?.len();
        if len == 0 || there < len {
            let what = format!("the file has {there} bytes, {len} are to be mapped");
            return Err(io::Error::new(io::ErrorKind::InvalidInput, what));
        }
        let page = page_bytes(file)?;
        let len = len.checked_next_multiple_of(page).and_then(|len| usize::try_from(len).ok());
        let len = len.filter(|len| isize::try_from(*len).is_ok());
        let len = len.ok_or(io::ErrorKind::InvalidInput)?;
        let guard = reserve().ok_or_else(|| io::Error::other("too many mappings"))?;
        let protection = libc::PROT_READ | libc::PROT_WRITE;
        // SAFETY: a new mapping at an address of the kernel's choice; the result is checked.
        let base = unsafe {
            let fd = file.as_raw_fd();
            libc::mmap(std::ptr::null_mut(), len, protection, libc::MAP_SHARED, fd, 0)
        };
        if base == libc::MAP_FAILED {
            let error = io::Error::last_os_error();
            GUARDS[guard].start.store(0, Ordering::Release);
            return Err(error);
        }
        let slot = &GUARDS[guard];
        slot.lost.store(false, Ordering::Release);
        slot.end.store((base as usize).saturating_add(len), Ordering::Release);
        slot.start.store(base as usize, Ordering::Release);
        Ok(Self { base: base.cast(), len, guard })
    }

    /// Where it is.
    pub fn base(&self) -> *mut u8 {
        self.base
    }

    /// Its file was cut short and something touched what was cut off: its bytes are nobody's.
    #[inline]
    pub fn is_lost(&self) -> bool {
        GUARDS[self.guard].lost.load(Ordering::Acquire)
    }
}

impl Drop for GuardedMap {
    fn drop(&mut self) {
        let slot = &GUARDS[self.guard];
        slot.start.store(1, Ordering::Release);
        // SAFETY: `base` and `len` are of a mapping of our own, and nobody has pointers into it
        // any more.
        unsafe { libc::munmap(self.base.cast(), self.len) };
        slot.start.store(0, Ordering::Release);
    }
}

/// A free guard, set aside.
fn reserve() -> Option<usize> {
    let free = |guard: &Guard| {
        guard.start.compare_exchange(0, 1, Ordering::AcqRel, Ordering::Relaxed).is_ok()
    };
    GUARDS.iter().position(free)
}

/// Bytes of a page of the file: mappings of hugetlbfs are whole huge pages.
fn page_bytes(file: &File) -> io::Result<u64> {
    // SAFETY: an all-zero statfs is valid, and the call fills it.
    let (result, info) = unsafe {
        let mut info: libc::statfs = std::mem::zeroed();
        (libc::fstatfs(file.as_raw_fd(), &mut info), info)
    };
    if result != 0 {
        return Err(io::Error::last_os_error());
    }
    match info.f_type {
        HUGETLBFS_MAGIC => Ok((info.f_bsize as u64).max(4096)),
        _ => Ok(4096),
    }
}

/// Puts the handler before whoever has the signal now, once.
fn install() -> io::Result<()> {
    static INSTALLED: OnceLock<bool> = OnceLock::new();
    let installed = INSTALLED.get_or_init(|| {
        // SAFETY: all-zero sigactions are valid; the handler makes nothing but system calls that
        // are safe in one, and loads and stores of atomics.
        unsafe {
            let mut before: libc::sigaction = std::mem::zeroed();
            if libc::sigaction(libc::SIGBUS, std::ptr::null(), &mut before) != 0 {
                return false;
            }
            let _ = BEFORE.set(before);
            let mut action: libc::sigaction = std::mem::zeroed();
            action.sa_sigaction = on_bus_error as *const () as libc::sighandler_t;
            action.sa_flags = libc::SA_SIGINFO | libc::SA_ONSTACK;
            libc::sigaction(libc::SIGBUS, &action, std::ptr::null_mut()) == 0
        }
    });
    installed.then_some(()).ok_or_else(|| io::Error::other("SIGBUS cannot be handled"))
}

extern "C" fn on_bus_error(
    signal: libc::c_int,
    info: *mut libc::siginfo_t,
    context: *mut libc::c_void,
) {
    // SAFETY: the kernel gives a handler with SA_SIGINFO a valid siginfo, of this signal.
    let at = unsafe { (*info).si_addr() } as usize;
    for guard in &GUARDS {
        let (start, end) = (guard.start.load(Ordering::Acquire), guard.end.load(Ordering::Acquire));
        if start > 1 && (start..end).contains(&at) && replace(start, end - start) {
            guard.lost.store(true, Ordering::Release);
            return;
        }
    }
    pass_on(signal, info, context);
}

/// Puts zeros in the place of a mapping.
fn replace(start: usize, len: usize) -> bool {
    let flags = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_FIXED | libc::MAP_NORESERVE;
    let protection = libc::PROT_READ | libc::PROT_WRITE;
    // SAFETY: the range is that of a mapping of ours, which is replaced as a whole; whoever is in
    // the middle of reading or writing it goes on with memory that is there. errno is kept for
    // whatever was interrupted.
    unsafe {
        let errno = *libc::__errno_location();
        let new = libc::mmap(start as *mut libc::c_void, len, protection, flags, -1, 0);
        *libc::__errno_location() = errno;
        new != libc::MAP_FAILED
    }
}

/// What is not ours goes to whoever was there before.
fn pass_on(signal: libc::c_int, info: *mut libc::siginfo_t, context: *mut libc::c_void) {
    let before = BEFORE.get();
    let handler = before.map_or(libc::SIG_DFL, |before| before.sa_sigaction);
    if handler == libc::SIG_DFL || handler == libc::SIG_IGN {
        // The access is made again, and ends the process as it would have without us.
        // SAFETY: signal(2) is async-signal-safe.
        unsafe { libc::signal(signal, libc::SIG_DFL) };
        return;
    }
    let with_info = before.is_some_and(|before| before.sa_flags & libc::SA_SIGINFO != 0);
    // SAFETY: the kernel would have called this very handler with these arguments; `sa_flags` says
    // which of the two forms it has.
    unsafe {
        if with_info {
            let call: extern "C" fn(libc::c_int, *mut libc::siginfo_t, *mut libc::c_void) =
                std::mem::transmute(handler);
            call(signal, info, context);
        } else {
            let call: extern "C" fn(libc::c_int) = std::mem::transmute(handler);
            call(signal);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_cut_off_reads_as_zeros_and_is_told() {
        let file = tempfile::tempfile().unwrap();
        file.set_len(3 * 4096).unwrap();
        assert!(GuardedMap::new(&file, 3 * 4096 + 1).is_err());
        let map = GuardedMap::new(&file, 3 * 4096).unwrap();
        let other = GuardedMap::new(&file, 4096).unwrap();
        // SAFETY: inside the mapping, which nobody else has.
        unsafe {
            map.base().write_volatile(7);
            map.base().add(2 * 4096).write_volatile(9);
        }
        assert!(!map.is_lost());
        file.set_len(4096).unwrap();
        // SAFETY: inside the mapping, whose file ends before it: that is what the guard is for.
        let (cut, first) =
            unsafe { (map.base().add(2 * 4096 + 5).read_volatile(), map.base().read_volatile()) };
        assert_eq!((cut, first), (0, 0));
        assert!(map.is_lost());
        // The other mapping of the same file has all of it.
        // SAFETY: inside the mapping.
        assert_eq!(unsafe { other.base().read_volatile() }, 7);
        assert!(!other.is_lost());
    }

    #[test]
    fn guards_are_used_again() {
        let file = tempfile::tempfile().unwrap();
        file.set_len(4096).unwrap();
        for _ in 0..2 * GUARDS_MAX {
            drop(GuardedMap::new(&file, 1).unwrap());
        }
    }
}
