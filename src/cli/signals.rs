//! Signals that would end the process without a word.

/// What is said when a mapped file lost its end while it was read.
const CUT_BEHIND_US: &[u8] = b"qtrace: a file was cut short by another program while it was read\n\
  hint: copy the trace first, and read the copy\n";

/// The exit code of an input that cannot be read.
const EXIT_INPUT: libc::c_int = 3;

/// Lets a write past the file size limit (`ulimit -f`) fail as one on a full disk does, and says
/// why before it ends when a mapped trace is truncated under us.
pub fn install() {
    // SAFETY: ignoring a signal installs no code.
    unsafe { libc::signal(libc::SIGXFSZ, libc::SIG_IGN) };
    // SAFETY: an all-zero sigaction is valid; the handler only makes async-signal-safe calls.
    unsafe {
        let mut action: libc::sigaction = std::mem::zeroed();
        action.sa_sigaction = mapped_file_was_cut as *const () as libc::sighandler_t;
        libc::sigaction(libc::SIGBUS, &action, std::ptr::null_mut());
    }
}

/// The pages beyond the new end are gone: there is nothing to go on with.
extern "C" fn mapped_file_was_cut(_signal: libc::c_int) {
    // SAFETY: write(2) and _exit(2) are async-signal-safe, and the text is static.
    unsafe {
        libc::write(libc::STDERR_FILENO, CUT_BEHIND_US.as_ptr().cast(), CUT_BEHIND_US.len());
        libc::_exit(EXIT_INPUT);
    }
}
