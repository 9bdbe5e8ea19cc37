//! The formats: what an exporter is, the table of all of them, and how one is chosen.

use std::path::Path;

use super::job::Job;
use super::{blkparse, dm_log_writes, fio_iolog, json_lines, msr_csv, qtest};
use crate::base::{Error, Result};

/// Writes one foreign format.
pub trait Exporter: Sync {
    /// The name for `--to`; that of the importer, where there is one.
    fn name(&self) -> &'static str;

    /// One line for people.
    fn description(&self) -> &'static str;

    /// Endings of file names that mean this format.
    fn endings(&self) -> &'static [&'static str];

    /// The options of `qtrace export` that are for this format: with another they are an error.
    fn options(&self) -> &'static [&'static str] {
        &[]
    }

    /// The arguments of `qtrace diff` under which the trace and its export, imported again, have no
    /// difference, when all of it was exported: they name what the format lacks. `None` where there
    /// is no such importer.
    fn lacks(&self) -> Option<&'static str>;

    /// Writes the trace.
    ///
    /// # Errors
    /// As [`super::export`].
    fn export(&self, job: &mut Job<'_>) -> Result<()>;
}

/// Every format, in the order in which help lists them. A further one is a file of this module and
/// a line here.
pub const EXPORTERS: &[&dyn Exporter] = &[
    &fio_iolog::FioIolog,
    &blkparse::Blkparse,
    &msr_csv::MsrCsv,
    &dm_log_writes::DmLogWrites,
    &qtest::Qtest,
    &json_lines::JsonLines,
    #[cfg(feature = "parquet")]
    &super::parquet::Parquet,
];

/// The exporter named `name`.
///
/// # Errors
/// Usage: there is none of that name.
pub fn by_name(name: &str) -> Result<&'static dyn Exporter> {
    check_built(name)?;
    EXPORTERS.iter().find(|exporter| exporter.name() == name).copied().ok_or_else(|| {
        Error::usage(format!("no export format '{}'", name.escape_debug()))
            .hint(format!("formats: {}", names()))
    })
}

/// The exporter that the ending of a file's name means.
///
/// # Errors
/// Usage: none does.
pub fn by_ending(path: &Path) -> Result<&'static dyn Exporter> {
    let name = path.file_name().unwrap_or_default().to_string_lossy().to_lowercase();
    check_built(name.rsplit('.').next().unwrap_or_default())?;
    let ends = |exporter: &&&dyn Exporter| {
        exporter.endings().iter().any(|ending| name.ends_with(&format!(".{ending}")))
    };
    EXPORTERS.iter().find(ends).copied().ok_or_else(|| {
        Error::usage("the name does not say what format to write")
            .path(path)
            .hint(format!("say it with --to: {}", names()))
    })
}

/// Refuses a format that this program was built without.
fn check_built(name: &str) -> Result<()> {
    if cfg!(feature = "parquet") || name != "parquet" {
        return Ok(());
    }
    Err(Error::usage("this qtrace was built without Parquet")
        .hint("cargo install --path . --features parquet builds it in; json-lines does without"))
}

/// Refuses an option that `exporter` has no use for.
///
/// # Errors
/// Usage, with the formats that the option is for.
pub fn check_option(exporter: &dyn Exporter, option: &str) -> Result<()> {
    if exporter.options().contains(&option) {
        return Ok(());
    }
    let users = EXPORTERS.iter().filter(|other| other.options().contains(&option));
    let users = users.map(|other| other.name()).collect::<Vec<_>>().join(", ");
    Err(Error::usage(format!("{option} means nothing for {}", exporter.name()))
        .hint(format!("it is for {users}; leave it out")))
}

/// The names of all formats, comma-separated.
pub fn names() -> String {
    EXPORTERS.iter().map(|exporter| exporter.name()).collect::<Vec<_>>().join(", ")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::import;

    #[test]
    fn names_and_endings_are_distinct() {
        let names = EXPORTERS.iter().map(|exporter| exporter.name());
        let endings = EXPORTERS.iter().flat_map(|exporter| exporter.endings().iter().copied());
        for mut words in [names.collect::<Vec<&str>>(), endings.collect()] {
            let count = words.len();
            words.sort_unstable();
            words.dedup();
            assert_eq!(words.len(), count);
        }
        for exporter in EXPORTERS {
            assert_eq!(by_name(exporter.name()).unwrap().name(), exporter.name());
            for ending in exporter.endings() {
                let path = format!("Some.File.{ending}");
                assert_eq!(by_ending(Path::new(&path)).unwrap().name(), exporter.name());
            }
        }
        assert!(by_ending(Path::new("csv")).err().unwrap().hint_text().unwrap().contains("--to"));
    }

    #[test]
    fn what_comes_back_has_an_importer_of_that_name() {
        for exporter in EXPORTERS.iter().filter(|exporter| exporter.lacks().is_some()) {
            assert!(import::registry::by_name(exporter.name()).is_ok(), "{}", exporter.name());
        }
    }
}
