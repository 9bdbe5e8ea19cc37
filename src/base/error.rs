//! One error type for the whole program: a stable kind, what failed, where, why, and what helps.
//!
//! The kind decides the exit code and nothing else does. A *divergence* (the device was wrong) is
//! not an error: it is a finding in a verdict.

use std::fmt;
use std::path::{Path, PathBuf};

use super::terminal::printable;

/// Shorthand used throughout the crate.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// What sort of failure it is; closed, because exit codes are a contract with scripts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ErrorKind {
    /// A wrong option, value or combination: exit 2.
    Usage,
    /// An input (trace, image, report) that cannot be read or is not what it says: exit 3.
    Input,
    /// The input is fine and holds nothing to do: exit 4.
    Nothing,
    /// The machine is unavailable or lacks what the job needs: exit 5.
    Machine,
    /// A timing threshold was passed: exit 6.
    Timing,
    /// Work began and could not be brought to its end (full disk, write error): exit 7.
    Incomplete,
    /// The user stopped it: exit 130.
    Interrupted,
}

impl ErrorKind {
    /// The process exit code of this kind.
    pub fn exit_code(self) -> u8 {
        match self {
            Self::Usage => 2,
            Self::Input => 3,
            Self::Nothing => 4,
            Self::Machine => 5,
            Self::Timing => 6,
            Self::Incomplete => 7,
            Self::Interrupted => 130,
        }
    }
}

/// Where in an input an error stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Place {
    /// A 1-based line of a text file.
    Line(u64),
    /// A 0-based event of a trace.
    Event(u64),
    /// A byte offset in a file or on a disk.
    Offset(u64),
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Line(n) => write!(f, "line {n}"),
            Self::Event(n) => write!(f, "event {n}"),
            Self::Offset(n) => write!(f, "offset {n} ({n:#x})"),
        }
    }
}

/// An error with its context. Build it with one of the kind constructors and the `with`-style
/// methods; print it with `{}` for one line, or let `main` print it with its hint.
///
/// Boxed inside: a `Result` of it costs one pointer on the hot path.
#[derive(Debug)]
pub struct Error(Box<Inner>);

#[derive(Debug)]
struct Inner {
    kind: ErrorKind,
    what: String,
    path: Option<PathBuf>,
    places: Vec<Place>,
    hint: Option<String>,
    source: Option<Box<dyn std::error::Error + Send + Sync>>,
}

impl Error {
    /// An error of `kind`; `what` says what failed, in words a user knows.
    pub fn new(kind: ErrorKind, what: impl Into<String>) -> Self {
        let what = what.into();
        Self(Box::new(Inner {
            kind,
            what,
            path: None,
            places: Vec::new(),
            hint: None,
            source: None,
        }))
    }

    /// [`ErrorKind::Usage`].
    pub fn usage(what: impl Into<String>) -> Self {
        Self::new(ErrorKind::Usage, what)
    }

    /// [`ErrorKind::Input`].
    pub fn input(what: impl Into<String>) -> Self {
        Self::new(ErrorKind::Input, what)
    }

    /// [`ErrorKind::Machine`].
    pub fn machine(what: impl Into<String>) -> Self {
        Self::new(ErrorKind::Machine, what)
    }

    /// [`ErrorKind::Incomplete`].
    pub fn incomplete(what: impl Into<String>) -> Self {
        Self::new(ErrorKind::Incomplete, what)
    }

    /// Names the file it is about (the first caller to name one wins: the innermost knows best;
    /// an empty one, as of a disk in memory, is none).
    #[must_use]
    pub fn path(mut self, path: impl AsRef<Path>) -> Self {
        if path.as_ref().as_os_str().is_empty() {
            return self;
        }
        self.0.path.get_or_insert_with(|| path.as_ref().to_path_buf());
        self
    }

    /// Adds a place: a line, an event, an offset.
    #[must_use]
    pub fn at(mut self, place: Place) -> Self {
        self.0.places.push(place);
        self
    }

    /// Says what the user can do about it.
    #[must_use]
    pub fn hint(mut self, hint: impl Into<String>) -> Self {
        self.0.hint = Some(hint.into());
        self
    }

    /// Keeps the cause.
    #[must_use]
    pub fn source(mut self, source: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> Self {
        self.0.source = Some(source.into());
        self
    }

    /// Replaces the kind: the caller may know better what a failure means to the user.
    #[must_use]
    pub fn with_kind(mut self, kind: ErrorKind) -> Self {
        self.0.kind = kind;
        self
    }

    /// The stable kind.
    pub fn kind(&self) -> ErrorKind {
        self.0.kind
    }

    /// What helps, when something is known to.
    pub fn hint_text(&self) -> Option<&str> {
        self.0.hint.as_deref()
    }

    /// The places added so far, innermost first.
    pub fn places(&self) -> &[Place] {
        &self.0.places
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let inner = &*self.0;
        if let Some(path) = &inner.path {
            write!(f, "{}: ", printable(&path.display().to_string()))?;
        }
        for place in &inner.places {
            write!(f, "{place}: ")?;
        }
        f.write_str(&inner.what)?;
        let mut cause = std::error::Error::source(self);
        while let Some(source) = cause {
            write!(f, ": {source}")?;
            // Our own errors have printed their causes already.
            cause = if source.is::<Error>() { None } else { source.source() };
        }
        Ok(())
    }
}

impl std::error::Error for Error {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        self.0.source.as_deref().map(|s| s as &(dyn std::error::Error + 'static))
    }
}

/// Adds the program's context to the standard library's I/O errors.
pub trait IoContext<T> {
    /// An [`ErrorKind::Input`] error: reading `path` failed while doing `what`.
    fn reading(self, path: impl AsRef<Path>, what: &str) -> Result<T>;
    /// An [`ErrorKind::Incomplete`] error: writing `path` failed while doing `what`.
    fn writing(self, path: impl AsRef<Path>, what: &str) -> Result<T>;
}

impl<T> IoContext<T> for std::io::Result<T> {
    fn reading(self, path: impl AsRef<Path>, what: &str) -> Result<T> {
        self.map_err(|e| {
            let too_many = e.raw_os_error() == Some(libc::EMFILE);
            let error = Error::input(what).path(path).source(e);
            if too_many { error.hint("ulimit -n allows more open files") } else { error }
        })
    }

    fn writing(self, path: impl AsRef<Path>, what: &str) -> Result<T> {
        self.map_err(|e| {
            use std::io::ErrorKind::{FileTooLarge, NotFound, QuotaExceeded, StorageFull};
            let hint = match e.kind() {
                StorageFull | QuotaExceeded => {
                    Some("free space on that file system, or name another place")
                }
                FileTooLarge => Some("ulimit -f, or the file system, allows no larger file"),
                NotFound => Some("its folder does not exist: make it first"),
                _ => None,
            };
            let error = Error::incomplete(what).path(path).source(without_temporary_name(e));
            match hint {
                Some(hint) => error.hint(hint),
                None => error,
            }
        })
    }
}

/// The error without the name of the temporary file that the `tempfile` crate puts behind it: the
/// user knows the name that the file was to have, and that one is gone.
fn without_temporary_name(error: std::io::Error) -> std::io::Error {
    match error.to_string().split_once(" at path \"") {
        Some((why, _)) if error.get_ref().is_some() => {
            std::io::Error::new(error.kind(), why.to_owned())
        }
        _ => error,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_tells_file_place_what_and_why() {
        let cause = std::io::Error::other("disk on fire");
        let error = Error::input("bad opcode 9").at(Place::Line(4)).path("a.csv").source(cause);
        assert_eq!(error.to_string(), "a.csv: line 4: bad opcode 9: disk on fire");
        assert_eq!(error.kind().exit_code(), 3);
    }

    #[test]
    fn a_name_is_no_command_to_a_terminal() {
        assert_eq!(Error::input("x").path("a\u{1b}[31m\nb").to_string(), "a\\u{1b}[31m\\nb: x");
    }

    #[test]
    fn a_missing_folder_is_said_without_the_temporary_name() {
        let missing = tempfile::Builder::new().tempfile_in("/nowhere/at/all");
        let error = missing.writing("/nowhere/at/all/x", "cannot begin").unwrap_err();
        let want = "/nowhere/at/all/x: cannot begin: No such file or directory (os error 2)";
        assert_eq!(error.to_string(), want);
        assert!(error.hint_text().unwrap().contains("make it first"));
    }

    #[test]
    fn the_innermost_path_wins() {
        let error = Error::input("x").path("inner").path("outer");
        assert_eq!(error.to_string(), "inner: x");
    }

    #[test]
    fn an_error_inside_an_error_prints_each_cause_once() {
        let inner = Error::input("inner").source(std::io::Error::other("root"));
        assert_eq!(Error::usage("outer").source(inner).to_string(), "outer: inner: root");
    }
}
