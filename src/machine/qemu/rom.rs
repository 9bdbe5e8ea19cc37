//! A ROM whose CPU halts in its first instructions.

use std::fs::File;
use std::io::Write;
use std::os::fd::FromRawFd;

use crate::base::{Error, Result};

/// QEMU takes firmware of whole 64 KiB.
const ROM_BYTES: usize = 64 << 10;
/// Where a CPU begins, 16 bytes below the ROM's end (Intel SDM vol. 3 §10.1.4).
const RESET_VECTOR: usize = ROM_BYTES - 16;
/// `cli; hlt; jmp` back to the `hlt`, for an NMI or SMI that wakes it.
const CODE: [u8; 4] = [0xfa, 0xf4, 0xeb, 0xfd];

/// The ROM as a file in memory.
///
/// # Errors
/// A machine error when the system has no memory file.
pub fn halting() -> Result<File> {
    let mut bytes = vec![0xf4; ROM_BYTES];
    if let Some(code) = bytes.get_mut(RESET_VECTOR..RESET_VECTOR + CODE.len()) {
        code.copy_from_slice(&CODE);
    }
    let mut file = memory_file(c"qtrace-rom")?;
    file.write_all(&bytes).map_err(|e| Error::machine("the halting ROM").source(e))?;
    Ok(file)
}

/// An empty file in memory, not inherited.
///
/// # Errors
/// A machine error when the system has none.
pub fn memory_file(name: &std::ffi::CStr) -> Result<File> {
    // SAFETY: a plain system call with a NUL-terminated name; the result is checked.
    let fd = unsafe { libc::memfd_create(name.as_ptr(), libc::MFD_CLOEXEC) };
    if fd < 0 {
        let error = std::io::Error::last_os_error();
        return Err(Error::machine("no file in memory (memfd_create)").source(error));
    }
    // SAFETY: `fd` is fresh and owned by nothing else.
    Ok(unsafe { File::from_raw_fd(fd) })
}
