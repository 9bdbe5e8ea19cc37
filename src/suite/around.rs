//! Who stands between a machine and the cases that it serves.

use std::fmt::Debug;

use super::spec::MachineSpec;
use crate::base::Result;
use crate::machine::Machine;

/// A case about to run on a machine that nobody used before.
#[derive(Clone, Copy, Debug)]
pub struct Occasion<'a> {
    /// The case: `rtc/drift`.
    pub name: &'a str,
    /// Its machine, where that can be told.
    pub spec: Option<&'a MachineSpec>,
}

/// Wraps machines: a recorder.
pub trait Around: Send + Sync + Debug {
    /// Calls `run` once, with `machine` or with something that stands before it.
    ///
    /// # Errors
    /// Whatever keeps it from doing its own work. The case may have run, or not.
    fn around(
        &self,
        occasion: Occasion<'_>,
        machine: &mut dyn Machine,
        run: &mut dyn FnMut(&mut dyn Machine),
    ) -> Result<()>;
}
