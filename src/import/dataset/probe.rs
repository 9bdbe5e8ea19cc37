//! Whether the first lines of an input look like a text format.

use super::clock::Clock;
use super::fields::{Fields, Splitter};
use super::text::{LineFormat, Parsed, Skip, is_no_row};
use crate::import::registry::Confidence;
use crate::import::source::PROBE_BYTES;

/// Lines that are looked at.
const LINES_MAX: usize = 64;

/// What the first lines of an input are.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(in crate::import) struct Looked {
    /// Rows that fit.
    pub fit: usize,
    /// Lines that do not.
    pub misfit: usize,
}

impl Looked {
    /// Whether they are of the format; damage may have left one line in four.
    pub(in crate::import) fn fits(self) -> bool {
        self.fit > 0 && self.misfit <= self.fit * 3
    }
}

/// How sure the lines of `head` are of a format that little else looks like.
pub(in crate::import) fn likely<F: LineFormat>(
    head: &[u8],
    format: F,
    clock: Clock,
) -> Option<Confidence> {
    look(head, format, clock, |_, _| true).fits().then_some(Confidence::Likely)
}

/// Parses the whole lines of `head`; a row must also be as `also` wants it.
pub(in crate::import) fn look<F: LineFormat>(
    head: &[u8],
    mut format: F,
    mut clock: Clock,
    mut also: impl FnMut(Fields<'_>, &Parsed<'_>) -> bool,
) -> Looked {
    let mut looked = Looked::default();
    let mut splitter = Splitter::new(F::SEPARATOR);
    for line in whole_lines(head).take(LINES_MAX) {
        let fields = splitter.split(line);
        match format.parse(fields, &mut clock) {
            Ok(parsed) if also(fields, &parsed) => looked.fit += 1,
            // A row that is understood and cannot be imported is one nevertheless.
            Err(Skip::Lost(_)) => looked.fit += 1,
            Err(Skip::Quiet) => {}
            Err(Skip::Malformed(_)) if is_no_row(&format, line, fields) => {}
            _ => looked.misfit += 1,
        }
    }
    looked
}

/// The lines of the first bytes of an input; one that the probe cuts is left out.
pub(in crate::import) fn whole_lines(head: &[u8]) -> impl Iterator<Item = &[u8]> {
    let end = match head.iter().rposition(|byte| *byte == b'\n') {
        Some(last) if head.len() >= PROBE_BYTES => last,
        _ => head.len(),
    };
    let lines = head.get(..end).unwrap_or_default().split(|byte| *byte == b'\n');
    lines.map(|line| line.strip_suffix(b"\r").unwrap_or(line))
}
