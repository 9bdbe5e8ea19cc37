//! Two images: every differing extent, and who wrote it last.

use std::fmt::Write as _;

use serde::Serialize;

use super::Outcome;
use crate::base::Result;
use crate::base::units::human_bytes;
use crate::image::Image;
use crate::image::compare::{CompareOptions, ImageDiff, compare as compare_images};
use crate::oracle::finding::EventRef;
use crate::oracle::writers::LastWriters;
use crate::trace::Trace;

#[derive(Serialize)]
struct Json {
    schema: &'static str,
    kind: &'static str,
    a: Side,
    b: Side,
    identical: bool,
    bytes_different: u64,
    extents_total: u64,
    extents: Vec<Extent>,
}

#[derive(Serialize)]
struct Side {
    path: String,
    format: String,
    size: u64,
}

#[derive(Serialize)]
struct Extent {
    offset: u64,
    len: u64,
    /// Who wrote its first written byte last; only with a trace.
    #[serde(skip_serializing_if = "Option::is_none")]
    last_writer: Option<EventRef>,
    /// How many more wrote parts of it last.
    #[serde(skip_serializing_if = "Option::is_none")]
    other_writers: Option<u64>,
}

/// What to compare, and how.
pub struct Job<'a> {
    /// The first image.
    pub a: &'a dyn Image,
    /// The second.
    pub b: &'a dyn Image,
    /// Names writers.
    pub trace: Option<&'a Trace>,
    /// Differing extents that are listed.
    pub extents_max: usize,
}

/// Compares them; `progress` gets what is done: bytes, then events of the trace.
pub fn compare(job: &Job<'_>, progress: &mut dyn FnMut(Step, u64)) -> Result<Outcome> {
    let options = CompareOptions { max_extents: job.extents_max, ..CompareOptions::default() };
    let diff = compare_images(job.a, job.b, &options, &mut |bytes| progress(Step::Images, bytes))?;
    let identical = diff.same_content() && diff.same_size();
    let extents = named(job, &diff, &mut |events| progress(Step::Trace, events))?;
    let text = render(job, &diff, &extents);
    let json = Json {
        schema: super::SCHEMA,
        kind: "images",
        a: side(job.a),
        b: side(job.b),
        identical,
        bytes_different: diff.bytes_different,
        extents_total: diff.extents_total,
        extents,
    };
    Outcome::new(text, &json, u8::from(!identical))
}

/// What is being done.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step {
    /// Reading the images.
    Images,
    /// Reading the trace.
    Trace,
}

fn named(job: &Job<'_>, diff: &ImageDiff, progress: &mut dyn FnMut(u64)) -> Result<Vec<Extent>> {
    let mut writers = match job.trace {
        Some(trace) if !diff.extents.is_empty() => Some(LastWriters::of(trace, progress)?),
        _ => None,
    };
    let mut extents = Vec::with_capacity(diff.extents.len());
    for extent in &diff.extents {
        let (offset, len) = (extent.offset, extent.len);
        let (last_writer, other_writers) = match &mut writers {
            Some(writers) => {
                let (writer, others) = writers.within(offset, len)?;
                (writer, Some(others))
            }
            None => (None, None),
        };
        extents.push(Extent { offset, len, last_writer, other_writers });
    }
    Ok(extents)
}

fn side(image: &dyn Image) -> Side {
    let info = image.info();
    let path = info.path.display().to_string();
    Side { path, format: info.format.clone(), size: image.size() }
}

fn render(job: &Job<'_>, diff: &ImageDiff, extents: &[Extent]) -> String {
    let mut out = String::new();
    for (name, image) in [("A", job.a), ("B", job.b)] {
        let side = side(image);
        let size = human_bytes(side.size);
        let _ =
            writeln!(out, "{name}  {} ({}, {} bytes, {size})", side.path, side.format, side.size);
    }
    for extent in extents {
        let Extent { offset, len, .. } = extent;
        let _ = write!(out, "differ: offset {offset} ({offset:#x}), {len} bytes");
        if let Some(writer) = &extent.last_writer {
            let _ = write!(out, ", last written by {writer}");
        } else if extent.other_writers.is_some() {
            out.push_str(", not written by the trace");
        }
        match extent.other_writers {
            Some(n) if n > 0 => _ = write!(out, " and {n} others"),
            _ => {}
        }
        out.push('\n');
    }
    let listed = extents.len() as u64;
    if diff.extents_total > listed {
        let _ = writeln!(out, "and {} more differing extents", diff.extents_total - listed);
    }
    if !diff.same_size() {
        let _ = writeln!(out, "the sizes differ: {} and {} bytes", diff.size_a, diff.size_b);
    }
    let _ = match (diff.same_content(), diff.same_size()) {
        (true, true) => writeln!(out, "the images are identical"),
        (true, false) => writeln!(out, "apart from zeros at the end the images are identical"),
        (false, _) => writeln!(
            out,
            "the images differ: {} bytes in {} extents",
            diff.bytes_different, diff.extents_total
        ),
    };
    out
}
