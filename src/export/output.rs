//! Where an export goes: a file that appears whole or not at all, or standard output.

use std::fs::{File, Permissions};
use std::io::{self, BufWriter, Write};
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};

use tempfile::NamedTempFile;

use crate::base::error::IoContext;
use crate::base::{Error, Result};

/// What the umask is applied to, as for any file that a program creates.
const CREATE_MODE: u32 = 0o666;

const BUFFER_BYTES: usize = 256 << 10;

/// Whether two paths lead to one file, by whatever links.
///
/// # Errors
/// `Input`: the first cannot be examined.
pub fn is_same_file(a: &Path, b: &Path) -> Result<bool> {
    let identity = |path: &Path| std::fs::metadata(path).map(|meta| (meta.dev(), meta.ino()));
    let a = identity(a).reading(a, "cannot examine the file")?;
    Ok(identity(b).is_ok_and(|b| a == b))
}

/// Whether two outputs would be one file, by whatever path and whether or not it exists.
pub fn is_same_place(a: &Path, b: &Path) -> bool {
    let whole = |path: &Path| {
        let there = std::fs::canonicalize(path);
        there.or_else(|_| {
            let folder = std::fs::canonicalize(crate::image::home_of(path))?;
            Ok::<_, io::Error>(folder.join(path.file_name().unwrap_or_default()))
        })
    };
    matches!((whole(a), whole(b)), (Ok(a), Ok(b)) if a == b)
}

/// Refuses to write over what must stay: one of `inputs` by whatever link, what is no regular file,
/// and without `force` any file.
///
/// # Errors
/// Usage, with what helps.
pub fn check(output: &Path, inputs: &[&Path], force: bool) -> Result<()> {
    for input in inputs {
        if is_same_file(input, output)? {
            return Err(Error::usage("the output is the input, or a link to it")
                .path(output)
                .hint("name a new file; nothing is changed in place"));
        }
    }
    match std::fs::metadata(output) {
        Err(_) => Ok(()),
        Ok(meta) if !meta.is_file() => {
            Err(Error::usage("the output exists and is no regular file").path(output))
        }
        Ok(_) if !force => {
            Err(Error::usage("the output exists").path(output).hint("--force replaces it"))
        }
        Ok(_) => Ok(()),
    }
}

enum To {
    File(BufWriter<NamedTempFile>),
    Stdout(BufWriter<io::Stdout>),
}

/// A file to be, or standard output.
pub struct Output {
    to: To,
    /// As the user gave it.
    path: PathBuf,
    /// Nobody reads standard output any more.
    gone: bool,
}

impl Output {
    /// The output at `path`, which has been checked; `-` is standard output.
    ///
    /// # Errors
    /// `Incomplete`: a temporary file cannot be made beside it.
    pub fn create(path: &Path) -> Result<Self> {
        let to = if path.as_os_str() == "-" {
            To::Stdout(BufWriter::with_capacity(BUFFER_BYTES, io::stdout()))
        } else {
            let name = path.file_name().unwrap_or_default().to_string_lossy();
            let file = tempfile::Builder::new()
                .prefix(&format!(".{name}."))
                .suffix(".part")
                .permissions(Permissions::from_mode(CREATE_MODE))
                .tempfile_in(crate::image::home_of(&place(path)))
                .writing(path, "cannot create a temporary file beside it")?;
            To::File(BufWriter::with_capacity(BUFFER_BYTES, file))
        };
        Ok(Self { to, path: path.to_path_buf(), gone: false })
    }

    /// Whether it is standard output and nobody reads it any more.
    pub fn is_gone(&self) -> bool {
        self.gone
    }

    /// Whether it is standard output.
    pub fn is_stdout(&self) -> bool {
        matches!(self.to, To::Stdout(_))
    }

    /// Makes the file durable and gives it its name.
    ///
    /// # Errors
    /// `Incomplete`: that fails; nothing is left behind then.
    pub fn commit(self) -> Result<()> {
        let path = self.path;
        match self.to {
            To::Stdout(mut out) => match out.flush() {
                Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(()),
                flushed => flushed.writing("stdout", "cannot write the export"),
            },
            To::File(file) => {
                let file = file.into_inner().map_err(io::IntoInnerError::into_error);
                let file = file.writing(&path, "cannot write the export")?;
                file.as_file().sync_all().writing(&path, "cannot sync the export")?;
                let place = place(&path);
                let named = file.persist(&place).map_err(|error| error.error);
                named.writing(&path, "cannot give the export its name")?;
                let folder = crate::image::home_of(&place);
                File::open(folder)
                    .and_then(|folder| folder.sync_all())
                    .writing(folder, "cannot sync")
            }
        }
    }
}

/// Where a symbolic link leads, so that the file behind it is replaced and not the link.
fn place(path: &Path) -> PathBuf {
    std::fs::canonicalize(path).unwrap_or_else(|_| path.to_path_buf())
}

impl Write for Output {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        match &mut self.to {
            To::File(file) => file.write(bytes),
            To::Stdout(out) => {
                let written = out.write(bytes);
                let gone = |error: &io::Error| error.kind() == io::ErrorKind::BrokenPipe;
                self.gone |= written.as_ref().is_err_and(gone);
                written
            }
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        match &mut self.to {
            To::File(file) => file.flush(),
            To::Stdout(out) => out.flush(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_input_is_safe_by_whatever_link() {
        let dir = tempfile::tempdir().unwrap();
        let input = dir.path().join("input");
        std::fs::write(&input, "precious").unwrap();
        let (hard, soft) = (dir.path().join("hard"), dir.path().join("soft"));
        std::fs::hard_link(&input, &hard).unwrap();
        std::os::unix::fs::symlink("input", &soft).unwrap();
        for output in [&input, &hard, &soft] {
            let error = check(output, &[&input], true).unwrap_err();
            assert!(error.to_string().contains("is the input"), "{error}");
        }
        assert!(check(dir.path(), &[&input], true).is_err());
        assert!(check(&dir.path().join("new"), &[&input], false).is_ok());
    }

    #[test]
    fn one_place_by_whatever_path() {
        let dir = tempfile::tempdir().unwrap();
        let path = |name: &str| dir.path().join(name);
        std::fs::create_dir(path("sub")).unwrap();
        std::os::unix::fs::symlink("new", path("link")).unwrap();
        assert!(is_same_place(&path("new"), &path("sub/../new")));
        assert!(!is_same_place(&path("new"), &path("sub/new")));
        std::fs::write(path("new"), "").unwrap();
        assert!(is_same_place(&path("new"), &path("link")));
        assert!(!is_same_place(&path("nowhere/new"), &path("nowhere/new2")));
    }

    #[test]
    fn a_file_appears_whole_or_not_at_all() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("out");
        let mut output = Output::create(&path).unwrap();
        output.write_all(b"half").unwrap();
        drop(output);
        assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 0);
        let mut output = Output::create(&path).unwrap();
        output.write_all(b"whole").unwrap();
        output.commit().unwrap();
        assert_eq!(std::fs::read(&path).unwrap(), b"whole");
        assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 1);
    }
}
