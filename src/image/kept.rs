//! A raw image that is opened again while a guest uses it, because it got another size.

use std::fs::File;
use std::os::fd::AsRawFd;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::host::HostFile;
use super::open::open_as;
use super::{Image, OpenOptions, first_sector};
use crate::base::Result;
use crate::base::error::IoContext;

/// The file of a raw image: the same one, whatever becomes of its name, and raw, whatever its
/// guest has made of its content.
#[derive(Debug)]
pub struct KeptRaw {
    /// Cannot be read or locked (`O_PATH`); the image is opened again through it.
    file: File,
    name: PathBuf,
    options: OpenOptions,
    guarded: bool,
}

impl KeptRaw {
    /// Keeps the file at `path`, of which [`open_for_guest`](super::open_for_guest) with `options`
    /// made a raw image.
    ///
    /// # Errors
    /// Input: it is gone.
    pub fn new(path: &Path, options: &OpenOptions) -> Result<Self> {
        let file = File::options()
            .read(true)
            .custom_flags(libc::O_PATH)
            .open(path)
            .reading(path, "cannot keep the image")?;
        let guarded = options.writable && options.format.is_none();
        let options = OpenOptions { format: Some("raw".to_owned()), ..options.clone() };
        Ok(Self { file, name: path.to_path_buf(), options, guarded })
    }

    fn path(&self) -> PathBuf {
        PathBuf::from(format!("/proc/self/fd/{}", self.file.as_raw_fd()))
    }

    /// The disk's bytes, as the file is now; `None` when that cannot be told.
    pub fn bytes(&self) -> Option<u64> {
        HostFile::open(&self.path(), false).ok().map(|host| host.len_in_whole_sectors())
    }

    /// The image as its file is now. Whoever had it open must have let go of it.
    ///
    /// # Errors
    /// Those of [`open_for_guest`](super::open_for_guest).
    pub fn open(&self) -> Result<Arc<dyn Image>> {
        let image = open_as(&self.path(), &self.name, &self.options)?;
        Ok(if self.guarded { first_sector::guard(image) } else { image })
    }
}

#[cfg(test)]
mod tests {
    use super::super::{open_for_guest, read_exact, write_all};
    use super::*;

    #[test]
    fn it_stays_the_file_and_the_format_that_it_was() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("disk");
        std::fs::write(&path, [7; 4096]).unwrap();
        let options = OpenOptions { writable: true, ..OpenOptions::default() };
        drop(open_for_guest(&path, &options).unwrap());
        let kept = KeptRaw::new(&path, &options).unwrap();
        // Somebody else made it look like another format, and it grew.
        let file = File::options().write(true).open(&path).unwrap();
        std::os::unix::fs::FileExt::write_all_at(&file, b"QFI\xfb\0\0\0\x03", 0).unwrap();
        file.set_len(8192).unwrap();
        assert_eq!(kept.bytes(), Some(8192));
        let image = kept.open().unwrap();
        assert_eq!((image.info().format.as_str(), image.size()), ("raw", 8192));
        assert_eq!(image.info().path, path);
        let again = write_all(&*image, b"QFI\xfb\0\0\0\x02", 0).unwrap_err();
        assert_eq!(again.raw_os_error(), Some(libc::EPERM));
        drop(image);
        // A FIFO, or another file, under its name is none of ours.
        std::fs::remove_file(&path).unwrap();
        nix::unistd::mkfifo(&path, nix::sys::stat::Mode::S_IRWXU).unwrap();
        assert_eq!(kept.bytes(), Some(8192));
        let mut byte = [0];
        read_exact(&*kept.open().unwrap(), &mut byte, 100).unwrap();
        assert_eq!(byte, [7]);
    }
}
