//! A recording of every case of a test run, each in a file of its own.

use std::collections::HashMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

use super::machine::{Tap, header};
use crate::base::Result;
use crate::base::error::IoContext;
use crate::machine::Machine;
use crate::suite::around::{Around, Occasion};
use crate::trace::TraceWriter;

/// The folder of `--tap`.
#[derive(Debug)]
pub struct TapDir {
    path: PathBuf,
    /// How often each case has run: one that is named twice leaves two traces.
    runs: Mutex<HashMap<String, u32>>,
}

impl TapDir {
    /// Makes the folder if it is not there.
    ///
    /// # Errors
    /// An incomplete error when it cannot be made.
    pub fn create(path: &Path) -> Result<Self> {
        fs::create_dir_all(path).writing(path, "creating the folder for taps")?;
        Ok(Self { path: path.to_path_buf(), runs: Mutex::default() })
    }

    /// The file of a case: `rtc/drift` is in `rtc-drift.qtrace`.
    pub fn file(&self, case: &str) -> PathBuf {
        self.path.join(format!("{}.qtrace", case.replace('/', "-")))
    }

    /// The file of the next run of a case: `rtc-drift-2.qtrace` when there was one before.
    fn next_file(&self, case: &str) -> PathBuf {
        let mut runs = self.runs.lock().unwrap_or_else(PoisonError::into_inner);
        let run = runs.entry(case.to_owned()).or_default();
        *run += 1;
        self.file_of_run(case, *run)
    }

    /// The file of the latest run of a case.
    pub fn latest(&self, case: &str) -> PathBuf {
        let runs = self.runs.lock().unwrap_or_else(PoisonError::into_inner);
        self.file_of_run(case, runs.get(case).copied().unwrap_or(1))
    }

    fn file_of_run(&self, case: &str, run: u32) -> PathBuf {
        match run {
            1 => self.file(case),
            run => self.file(&format!("{case}-{run}")),
        }
    }
}

impl Around for TapDir {
    fn around(
        &self,
        occasion: Occasion<'_>,
        machine: &mut dyn Machine,
        run: &mut dyn FnMut(&mut dyn Machine),
    ) -> Result<()> {
        let header = header(occasion.name, occasion.spec);
        let writer = TraceWriter::create(&self.next_file(occasion.name), header)?;
        let mut tap = Tap::new(machine, writer)?;
        run(&mut tap);
        tap.finish().map(|_| ())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_case_that_runs_twice_has_two_files() {
        let dir = tempfile::tempdir().unwrap();
        let taps = TapDir::create(dir.path()).unwrap();
        let names = ["rtc/ram", "rtc/ram", "rtc/drift"].map(|case| taps.next_file(case));
        let expected = ["rtc-ram.qtrace", "rtc-ram-2.qtrace", "rtc-drift.qtrace"];
        assert_eq!(names, expected.map(|name| dir.path().join(name)));
        assert_eq!(taps.latest("rtc/ram"), names[1]);
        assert_eq!(taps.latest("rtc/drift"), names[2]);
    }
}
