//! What the workload of a trace is like, in one pass and in memory that does not grow.
//!
//! - [`shape`]: sizes, alignment, sequentiality;
//! - [`flow`]: queue depth, arrivals and latencies over time;
//! - [`reuse`]: which blocks come again and after how many others, and how many there are;
//! - [`hot`]: where most requests go;
//! - [`buckets`]: the histograms of all of them.

pub mod buckets;
pub mod flow;
pub mod hot;
pub mod reuse;
pub mod shape;

use std::collections::BTreeMap;

use serde::Serialize;

use self::flow::{Flow, FlowFacts};
use self::hot::{Hot, HotFacts};
use self::reuse::{Reuse, ReuseFacts};
use self::shape::{Shape, ShapeFacts};
use crate::trace::{Event, Trace};

/// Everything that the pass found. A part is absent where the trace has nothing of it, or does not
/// record it.
#[derive(Debug, Serialize)]
pub struct Profile {
    /// Sizes, alignment, sequentiality, by operation.
    pub shape: BTreeMap<&'static str, ShapeFacts>,
    /// Share of reads among reads and writes, of requests.
    pub read_share: Option<f64>,
    /// The same, of bytes.
    pub read_share_bytes: Option<f64>,
    /// Queue depth, arrivals, latencies.
    pub flow: Option<FlowFacts>,
    /// Footprint and re-use of blocks.
    pub reuse: Option<ReuseFacts>,
    /// The places that most requests go to.
    pub hot: Option<HotFacts>,
}

/// Gathers a [`Profile`].
pub struct Profiler {
    /// For each stream, the number of its device.
    devices: Vec<u32>,
    names: Vec<String>,
    shape: Shape,
    flow: Flow,
    reuse: Reuse,
    hot: Hot,
}

impl Profiler {
    /// A profiler of `trace`, which has seen nothing of it.
    pub fn new(trace: &Trace) -> Self {
        let mut numbers: BTreeMap<&str, u32> = BTreeMap::new();
        let mut names = Vec::new();
        let mut number = |device| {
            *numbers.entry(device).or_insert_with(|| {
                names.push(str::to_owned(device));
                names.len() as u32 - 1
            })
        };
        let devices = trace.streams().iter().map(|info| number(info.device.as_str())).collect();
        Self {
            devices,
            names,
            shape: Shape::new(trace.streams().len()),
            flow: Flow::new(trace),
            reuse: Reuse::default(),
            hot: Hot::default(),
        }
    }

    /// Takes the next event.
    #[inline]
    pub fn event(&mut self, event: &Event) {
        match event {
            Event::Issue(issue) => {
                self.shape.issue(issue);
                self.flow.issue(issue);
                if issue.op.has_range() {
                    let device = self.devices.get(issue.stream.0 as usize).copied().unwrap_or(0);
                    self.reuse.request(device, issue);
                    self.hot.request(device, issue);
                }
            }
            Event::Complete(complete) => self.flow.complete(complete),
            _ => {}
        }
    }

    /// What was found.
    pub fn finish(self) -> Profile {
        let (read_share, read_share_bytes) = self.shape.read_shares();
        Profile {
            read_share,
            read_share_bytes,
            shape: self.shape.facts(),
            flow: self.flow.facts(),
            reuse: self.reuse.facts(),
            hot: self.hot.facts(&self.names),
        }
    }
}
