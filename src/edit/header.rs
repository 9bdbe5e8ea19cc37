//! What the new trace says of itself.

use super::data::DataMode;
use super::times::{Align, Times};
use super::{Edit, Source};
use crate::base::limits::SUMMARY_REASONS_MAX;
use crate::import::summary::Summary;
use crate::trace::{Filter, Kinds, NotRecorded, Span, TraceHeader, TraceSummary};

/// Ranges listed in one line.
const RANGES_LISTED: usize = 16;

/// What is changed, a line each: where each part comes from, then what was done to it.
pub(super) fn changes(sources: &[Source<'_>], edit: &Edit, times: &Times) -> Vec<String> {
    let mut lines = Vec::new();
    for source in sources {
        let name = source.trace.path().file_name().unwrap_or_default().to_string_lossy();
        let part = part(&source.filter);
        lines.push(format!(
            "from {} ({} events{part})",
            name.escape_debug(),
            source.trace.events()
        ));
    }
    match times.align() {
        Some(Align::Origin) => lines.push("merged by wall clock".to_owned()),
        Some(Align::Start) => lines.push("merged by time, their beginnings together".to_owned()),
        None => {}
    }
    if !edit.drop.is_empty() {
        lines.push(format!("left out: {}", words(edit.drop)));
    }
    for (range, to) in edit.places.ranges.iter().take(RANGES_LISTED) {
        lines.push(format!("bytes {} moved to {to}", span(*range)));
    }
    let more = edit.places.ranges.len().saturating_sub(RANGES_LISTED);
    if more > 0 {
        lines.push(format!("{more} more ranges moved"));
    }
    if edit.places.shift != 0 {
        lines.push(format!("every offset moved by {} bytes", edit.places.shift));
    }
    if edit.rebase {
        lines.push("time 0 is that of the first event kept".to_owned());
    }
    if let Some(percent) = edit.time_percent {
        lines.push(format!("times scaled to {percent} %, and with them latencies"));
    }
    match edit.data {
        DataMode::Keep => {}
        DataMode::Drop => lines.push("data left out; marks without text".to_owned()),
        DataMode::Zero => lines.push("data replaced by zeros; marks without text".to_owned()),
        DataMode::Pseudonym(_) => lines.push(
            "data replaced sector by sector by pseudonyms (equal sectors stay equal, zeros stay \
             zeros); marks without text"
                .to_owned(),
        ),
    }
    let values = sources.iter().flat_map(|source| source.trace.totals());
    if edit.data != DataMode::Keep && values.into_iter().any(|t| t.bus.accesses() > 0) {
        lines.push("values of accesses to the bus are as they were".to_owned());
    }
    lines
}

fn words(kinds: Kinds) -> String {
    let words = Kinds::words().into_iter();
    let single = words.filter(|word| {
        Kinds::parse(word).is_some_and(|k| k.bits().count_ones() == 1 && kinds.contains(k))
    });
    single.collect::<Vec<_>>().join(", ")
}

fn span(span: Span) -> String {
    let end = if span.to == u64::MAX { String::new() } else { span.to.to_string() };
    format!("{}-{end}", span.from)
}

/// The part that a filter means, in words that follow "N events".
fn part(filter: &Filter) -> String {
    let mut text = String::new();
    if !filter.events.is_all() {
        text += &format!(", of them {}", span(filter.events));
    }
    if !filter.times.is_all() {
        text += &format!(", from {} ns", span(filter.times));
    }
    if !filter.kinds.is_empty() {
        text += &format!(", only {}", words(filter.kinds));
    }
    for range in filter.ranges.iter().take(RANGES_LISTED) {
        text += &format!(", at bytes {}", span(*range));
    }
    if let Some(streams) = &filter.streams {
        text += &format!(", {} streams", streams.len());
    }
    text
}

/// The header of the result, but for its time origin and what was changed.
pub(super) fn merged(sources: &[Source<'_>], edit: &Edit) -> TraceHeader {
    let mut formats: Vec<&str> = Vec::new();
    let mut interpretation: Vec<String> = Vec::new();
    for source in sources {
        let header = source.trace.header();
        if !formats.contains(&header.source_format.as_str()) {
            formats.push(&header.source_format);
        }
        for line in &header.interpretation {
            if !interpretation.contains(line) && interpretation.len() < SUMMARY_REASONS_MAX {
                interpretation.push(line.clone());
            }
        }
    }
    TraceHeader {
        tool: concat!("qtrace ", env!("CARGO_PKG_VERSION")).to_owned(),
        source_format: formats.join("+"),
        interpretation,
        origin_unix_ns: None,
        not_recorded: not_recorded(sources, edit),
    }
}

/// What the result holds none of: what no source has, and what was left out.
fn not_recorded(sources: &[Source<'_>], edit: &Edit) -> NotRecorded {
    use NotRecorded as N;
    let lacks = |source: &Source<'_>| source.trace.summary().not_recorded;
    let mut lacking = sources.iter().map(lacks).fold(N::all(), N::intersection);
    let gone = |kinds: Kinds| {
        edit.drop.contains(kinds)
            || sources.iter().all(|source| {
                let kept = source.filter.kinds;
                !kept.is_empty() && !kept.intersects(kinds)
            })
    };
    for (kinds, bits) in [
        (Kinds::READ, N::READS | N::READ_DATA),
        (Kinds::FLUSH, N::FLUSHES),
        (Kinds::DISCARD, N::DISCARDS),
        (Kinds::WRITE_ZEROES, N::WRITE_ZEROES),
        (Kinds::MEMORY, N::MEMORY),
        (Kinds::IRQ, N::IRQS),
    ] {
        if gone(kinds) {
            lacking |= bits;
        }
    }
    // A completion goes with its request, unless it is named.
    if edit.drop.contains(Kinds::COMPLETE) {
        lacking |= N::COMPLETIONS | N::STATUS | N::READ_DATA;
    }
    if edit.data == DataMode::Drop {
        lacking |= N::WRITE_DATA | N::READ_DATA;
    }
    if edit.places.moves() {
        lacking |= N::DEVICE_SIZE;
    }
    lacking
}

/// What the sources said at their ends.
pub(super) fn merged_summary(sources: &[Source<'_>], not_recorded: NotRecorded) -> TraceSummary {
    let mut all = Summary::default();
    for source in sources {
        let summary = source.trace.summary();
        for loss in &summary.losses {
            all.lose_many(&loss.reason, loss.count, || loss.first.clone());
        }
        summary.notes.iter().for_each(|note| all.note(note.clone()));
        if let Some(cut) = source.trace.truncation() {
            let name = source.trace.path().file_name().unwrap_or_default().to_string_lossy();
            all.note(format!("{} was cut short: {}", name.escape_debug(), cut.why));
        }
    }
    let (losses, notes) = (all.losses().to_vec(), all.notes().to_vec());
    TraceSummary { not_recorded, losses, notes, streams: Vec::new() }
}
