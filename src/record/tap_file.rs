//! A recording of one case of a test run.

use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

use super::machine::{Tap, header};
use super::recording::take_away;
use crate::base::Result;
use crate::machine::Machine;
use crate::suite::around::{Around, Occasion};
use crate::trace::{LiveOptions, TraceWriter};

/// What stands before the words of `--machine` in a recording's header.
const MACHINE: &str = "machine: ";

/// How far a recording has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Written {
    /// There is none: the test did nothing, or did not run.
    Nothing,
    /// The test did not end: what it did so far.
    Part,
    /// All of it.
    Whole,
}

/// Records the one case that runs.
#[derive(Debug)]
pub struct TapFile {
    path: PathBuf,
    machine: String,
    replace: bool,
    written: Mutex<Written>,
}

impl TapFile {
    /// A recording at `path` of a case on the machine that `machine` names, as `--machine` does.
    /// A file that is there is an error, unless it is to be replaced.
    pub fn new(path: &Path, machine: &str, replace: bool) -> Self {
        let (path, machine) = (path.to_path_buf(), machine.to_owned());
        Self { path, machine, replace, written: Mutex::new(Written::Nothing) }
    }

    /// What there is by now.
    pub fn written(&self) -> Written {
        *self.written.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn set(&self, written: Written) {
        *self.written.lock().unwrap_or_else(PoisonError::into_inner) = written;
    }
}

impl Around for TapFile {
    fn around(
        &self,
        occasion: Occasion<'_>,
        machine: &mut dyn Machine,
        run: &mut dyn FnMut(&mut dyn Machine),
    ) -> Result<()> {
        let mut header = header(occasion.name, occasion.spec);
        header.interpretation.push(format!("{MACHINE}{}", self.machine));
        let live = LiveOptions { replace: self.replace, ..LiveOptions::default() };
        let mut writer = TraceWriter::create_live(&self.path, header, live)?;
        let replaced = writer.replaced();
        self.set(Written::Part);
        let mut tap = Tap::live(machine, writer)?;
        run(&mut tap);
        if tap.finish()? {
            self.set(Written::Whole);
            return Ok(());
        }
        self.set(Written::Nothing);
        take_away(&self.path, replaced)
    }
}
