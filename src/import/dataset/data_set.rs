//! What a data set's format has of its own; what it shares with all others makes an importer of it.

use super::clock::{Clock, TimeUnit};
use super::{Rows, import_rows, lacks};
use crate::base::Result;
use crate::import::ImportOptions;
use crate::import::job::Job;
use crate::import::registry::{Confidence, Importer, Probe, TIME_UNIT};
use crate::import::source::Source;
use crate::trace::NotRecorded;

/// What is fixed about a format.
#[derive(Clone, Copy, Debug)]
pub(in crate::import) struct About {
    /// As [`Importer::name`].
    pub name: &'static str,
    /// As [`Importer::description`].
    pub description: &'static str,
    /// As [`Importer::options`].
    pub options: &'static [&'static str],
    /// As [`Importer::takes_several`].
    pub takes_several: bool,
    /// What its rows never tell.
    pub lacks: NotRecorded,
    /// How its columns are read, `key: value`, where that is always the same.
    pub interpretation: &'static [&'static str],
}

impl About {
    /// A format whose times may be told another unit, which takes several inputs, and whose rows
    /// may have response times.
    pub(in crate::import) fn of(name: &'static str, description: &'static str) -> Self {
        Self {
            name,
            description,
            options: &[TIME_UNIT],
            takes_several: true,
            lacks: lacks(),
            interpretation: &[],
        }
    }
}

/// A format of a data set. Every one is an [`Importer`].
pub(in crate::import) trait DataSet: Sync {
    /// The rows of an input.
    type Input: Rows;

    /// Its name, and what else is fixed.
    fn about(&self) -> About;

    /// What its times count, unless the user tells.
    fn clock(&self, told: Option<TimeUnit>) -> Clock;

    /// Whether the first bytes of an input look like it.
    fn looks_like(&self, head: &[u8]) -> Option<Confidence>;

    /// The rows of each of `sources`; says in `job` how they are read, where that differs.
    ///
    /// # Errors
    /// Input: one cannot be of the format. Usage: it must be told how to read it.
    fn inputs(
        &self,
        sources: Vec<Source>,
        options: &ImportOptions,
        job: &mut Job<'_>,
    ) -> Result<Vec<Self::Input>>;
}

impl<D: DataSet> Importer for D {
    fn name(&self) -> &'static str {
        self.about().name
    }

    fn description(&self) -> &'static str {
        self.about().description
    }

    fn takes_several(&self) -> bool {
        self.about().takes_several
    }

    fn options(&self) -> &'static [&'static str] {
        self.about().options
    }

    fn probe(&self, probe: &Probe<'_>) -> Option<Confidence> {
        self.looks_like(probe.head)
    }

    fn import(
        &self,
        sources: Vec<Source>,
        options: &ImportOptions,
        job: &mut Job<'_>,
    ) -> Result<()> {
        let about = self.about();
        job.lacks(about.lacks);
        for line in about.interpretation {
            job.interpret(*line);
        }
        let inputs = self.inputs(sources, options, job)?;
        import_rows(inputs, self.clock(options.time_unit), job)
    }
}
