//! A recording of every case of a test run, each in a file of its own.

use std::fs;
use std::path::{Path, PathBuf};

use super::machine::{Tap, header};
use crate::base::Result;
use crate::base::error::IoContext;
use crate::machine::Machine;
use crate::suite::around::{Around, Occasion};
use crate::trace::TraceWriter;

/// The folder of `--tap`.
#[derive(Debug)]
pub struct TapDir(PathBuf);

impl TapDir {
    /// Makes the folder if it is not there.
    ///
    /// # Errors
    /// An incomplete error when it cannot be made.
    pub fn create(path: &Path) -> Result<Self> {
        fs::create_dir_all(path).writing(path, "creating the folder for taps")?;
        Ok(Self(path.to_path_buf()))
    }

    /// The file of a case: `rtc/drift` is in `rtc-drift.qtrace`.
    pub fn file(&self, case: &str) -> PathBuf {
        self.0.join(format!("{}.qtrace", case.replace('/', "-")))
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
        let writer = TraceWriter::create(&self.file(occasion.name), header)?;
        let mut tap = Tap::new(machine, writer)?;
        run(&mut tap);
        tap.finish()
    }
}
