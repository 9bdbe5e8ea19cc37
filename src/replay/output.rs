//! The files a replay writes beside the target: they appear whole, at the end, and replace nothing
//! but an earlier file of the same kind.

use std::fs::{File, Metadata};
use std::io::{Read, Write};
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};

use tempfile::NamedTempFile;

use super::run_log::RUN_LOG_MAGIC;
use crate::base::error::IoContext;
use crate::base::{Error, Result};
use crate::image::home_of;
use crate::report::json;

/// An existing file is recognised by this many bytes.
const HEAD_BYTES: u64 = 4096;

/// What an output holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OutputKind {
    /// The JSON report.
    Report,
    /// The run log.
    RunLog,
}

impl OutputKind {
    fn option(self) -> &'static str {
        match self {
            Self::Report => "report=",
            Self::RunLog => "runlog=",
        }
    }

    fn name(self) -> &'static str {
        match self {
            Self::Report => "the report",
            Self::RunLog => "the run log",
        }
    }

    /// Whether a file that begins so was written by an earlier run.
    fn is_own(self, head: &[u8]) -> bool {
        match self {
            Self::Report => json::begins_report(head),
            Self::RunLog => head.starts_with(&RUN_LOG_MAGIC),
        }
    }

    fn refuse(self, path: &Path, why: &str) -> Error {
        let hint = match self {
            Self::Report => "name a new file, or use --format json for a report on stdout",
            Self::RunLog => "name a new file",
        };
        Error::usage(format!("{}{} {why}", self.option(), path.display())).path(path).hint(hint)
    }
}

/// A file that gets its name when it is complete; that it can is known from the start.
pub struct Output {
    file: NamedTempFile,
    kind: OutputKind,
    /// As the user gave it.
    path: PathBuf,
    /// Where its symbolic links lead.
    place: PathBuf,
}

impl Output {
    /// An output that ends up at `path`.
    ///
    /// # Errors
    /// A usage error when something stands there that is not of `kind`; an incomplete error when a
    /// temporary file cannot be made beside it.
    pub fn create(kind: OutputKind, path: &Path) -> Result<Self> {
        let place = place(kind, path)?;
        let file = NamedTempFile::new_in(home_of(&place))
            .writing(path, &format!("creating {}", kind.name()))?;
        Ok(Self { file, kind, path: path.to_path_buf(), place })
    }

    /// Adds `bytes`.
    ///
    /// # Errors
    /// An incomplete error when they cannot be written.
    pub fn write(&mut self, bytes: &[u8]) -> Result<()> {
        let what = format!("writing {}", self.kind.name());
        self.file.write_all(bytes).writing(&self.path, &what)
    }

    /// Gives the file its name, with the access rights a plain new file would have.
    ///
    /// # Errors
    /// An incomplete error when that fails; a usage error when something else came there meanwhile.
    pub fn finish(self) -> Result<()> {
        let what = format!("finishing {}", self.kind.name());
        // Again: a long replay leaves time to put something else there.
        place(self.kind, &self.path)?;
        let mode = std::fs::Permissions::from_mode(0o666 & !umask());
        self.file.as_file().set_permissions(mode).writing(&self.path, &what)?;
        self.file.persist(&self.place).map_err(|e| e.error).writing(&self.path, &what).map(drop)
    }
}

/// Where an output called `path` is to be put, if that is allowed.
fn place(kind: OutputKind, path: &Path) -> Result<PathBuf> {
    // The names of this process's own files lead to whatever they are redirected to.
    if ["/dev/stdout", "/dev/stderr", "/dev/fd", "/proc"].iter().any(|p| path.starts_with(p)) {
        return Err(kind.refuse(path, "is not a file that can be replaced"));
    }
    let Ok(metadata) = path.metadata() else {
        if path.is_symlink() {
            return Err(kind.refuse(path, "is a symbolic link that leads nowhere"));
        }
        // Nothing is there; a folder that is missing is told of by who creates the file.
        return Ok(path.to_path_buf());
    };
    check_existing(kind, path, &metadata)?;
    path.canonicalize().writing(path, "resolving the name")
}

fn check_existing(kind: OutputKind, path: &Path, metadata: &Metadata) -> Result<()> {
    if metadata.is_dir() {
        return Err(kind.refuse(path, "is a folder"));
    }
    if !metadata.is_file() {
        return Err(kind.refuse(path, "exists and is not a regular file"));
    }
    let unreadable = |e| kind.refuse(path, "exists and cannot be read").source(e);
    // Without waiting, should a pipe have taken its place.
    let mut options = File::options();
    let file = options.read(true).custom_flags(libc::O_NONBLOCK).open(path).map_err(unreadable)?;
    let mut head = Vec::new();
    file.take(HEAD_BYTES).read_to_end(&mut head).map_err(unreadable)?;
    if head.is_empty() || kind.is_own(&head) {
        return Ok(());
    }
    let why = match kind {
        OutputKind::Report => "exists and is no report of qtrace: it is not replaced",
        OutputKind::RunLog => "exists and is no run log of qtrace: it is not replaced",
    };
    Err(kind.refuse(path, why))
}

/// The process's file mode mask. Linux shows it in /proc without the race of setting it.
fn umask() -> u32 {
    const USUAL: u32 = 0o022;
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let mask = status.lines().find_map(|line| line.strip_prefix("Umask:"));
    mask.and_then(|text| u32::from_str_radix(text.trim(), 8).ok()).unwrap_or(USUAL)
}

#[cfg(test)]
mod tests {
    use super::*;

    const KINDS: [OutputKind; 2] = [OutputKind::Report, OutputKind::RunLog];
    const REPORT: &[u8] = b"{\n  \"schema\": \"qtrace.report/1\",\n";

    fn refused(kind: OutputKind, path: &Path, why: &str) {
        let error = Output::create(kind, path).err().expect("refused");
        assert_eq!(error.kind().exit_code(), 2);
        assert!(error.to_string().contains(why), "{error}");
        assert!(error.to_string().contains(&path.display().to_string()), "{error}");
        assert!(error.hint_text().is_some());
    }

    #[test]
    fn only_regular_files_are_replaced() {
        let folder = tempfile::tempdir().unwrap();
        let pipe = folder.path().join("pipe");
        nix::unistd::mkfifo(&pipe, nix::sys::stat::Mode::S_IRWXU).unwrap();
        let link = folder.path().join("link");
        std::os::unix::fs::symlink("pipe", &link).unwrap();
        let dangling = folder.path().join("dangling");
        std::os::unix::fs::symlink("missing", &dangling).unwrap();
        for kind in KINDS {
            refused(kind, &pipe, "not a regular file");
            refused(kind, &link, "not a regular file");
            refused(kind, &dangling, "leads nowhere");
            refused(kind, folder.path(), "is a folder");
            refused(kind, Path::new("/dev/stdout"), "not a file");
        }
        assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 3, "nothing is left");
    }

    #[test]
    fn only_an_earlier_output_of_the_same_kind_is_replaced() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("x");
        for (content, report, log) in [
            (&b""[..], true, true),
            (REPORT, true, false),
            (&RUN_LOG_MAGIC[..], false, true),
            (b"{\"schema\": \"other/1\"}", false, false),
            (b"x{\"schema\": \"qtrace.report/1\"}", false, false),
            (b"QFI\xfb", false, false),
            (&[0; 512], false, false),
        ] {
            for (kind, allowed) in KINDS.into_iter().zip([report, log]) {
                std::fs::write(&path, content).unwrap();
                if !allowed {
                    refused(kind, &path, "not replaced");
                    assert_eq!(std::fs::read(&path).unwrap(), content);
                    continue;
                }
                let mut output = Output::create(kind, &path).unwrap();
                output.write(b"new").unwrap();
                output.finish().unwrap();
                assert_eq!(std::fs::read(&path).unwrap(), b"new");
            }
        }
    }

    #[test]
    fn a_link_is_followed_and_kept() {
        let folder = tempfile::tempdir().unwrap();
        let (file, link) = (folder.path().join("file"), folder.path().join("link"));
        std::fs::write(&file, REPORT).unwrap();
        std::os::unix::fs::symlink("file", &link).unwrap();
        let mut output = Output::create(OutputKind::Report, &link).unwrap();
        output.write(b"new").unwrap();
        output.finish().unwrap();
        assert!(link.is_symlink());
        assert_eq!(std::fs::read(&file).unwrap(), b"new");
    }

    #[test]
    fn what_came_there_meanwhile_is_not_replaced() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("r.json");
        let output = Output::create(OutputKind::Report, &path).unwrap();
        std::fs::write(&path, "precious").unwrap();
        assert_eq!(output.finish().unwrap_err().kind().exit_code(), 2);
        assert_eq!(std::fs::read(&path).unwrap(), b"precious");
    }
}
