//! What the requests of a trace are like, for people.

use super::text::Page;
use crate::base::units::{human_bytes, human_nanos};
use crate::profile::Profile;
use crate::profile::buckets::Row;
use crate::profile::flow::{DepthFacts, FlowFacts};
use crate::profile::hot::HotFacts;
use crate::profile::reuse::ReuseFacts;
use crate::profile::shape::ShapeFacts;

/// Width of the bars of a histogram.
const BAR_WIDTH: usize = 30;

/// Heights of a line of slices.
const LEVELS: [char; 8] = ['▁', '▂', '▃', '▄', '▅', '▆', '▇', '█'];

/// Appends the rows of `profile`.
pub(super) fn render(page: &mut Page, profile: &Profile) {
    if let (Some(requests), Some(bytes)) = (profile.read_share, profile.read_share_bytes) {
        let text =
            format!("{} of reads and writes, {} of their bytes", percent(requests), percent(bytes));
        page.row("reads", &text);
    }
    for (op, shape) in &profile.shape {
        shape_rows(page, op, shape);
    }
    if let Some(flow) = &profile.flow {
        flow_rows(page, flow);
    }
    if let Some(reuse) = &profile.reuse {
        reuse_rows(page, reuse);
    }
    if let Some(hot) = &profile.hot {
        hot_rows(page, hot);
    }
}

fn percent(share: f64) -> String {
    format!("{:.1} %", share * 100.0)
}

/// A row for each bucket, with a bar.
fn histogram(page: &mut Page, label: &str, rows: &[(String, u64)]) {
    let most = rows.iter().map(|(_, count)| *count).max().unwrap_or(1).max(1);
    for (n, (name, count)) in rows.iter().enumerate() {
        let width = (*count as u128 * BAR_WIDTH as u128).div_ceil(most.into()) as usize;
        let bar = "#".repeat(width);
        page.row(if n == 0 { label } else { "" }, &format!("{name:>12} {count:>12}  {bar}"));
    }
}

/// The least value of a row, exact powers as they are.
fn size(row: &Row) -> String {
    format!(">= {}", human_bytes(row.from))
}

fn shape_rows(page: &mut Page, op: &str, shape: &ShapeFacts) {
    let sizes: Vec<_> = shape.sizes.iter().map(|row| (size(row), row.count)).collect();
    histogram(page, &format!("{op} sizes"), &sizes);
    let mean = human_bytes(shape.size_mean.round() as u64);
    page.row("", &format!("{mean} on average, {} at most", human_bytes(shape.size_max)));
    let aligned: Vec<String> = shape
        .alignment
        .iter()
        .map(|row| {
            let most = if row.bytes == 1 << 20 { " or more" } else { "" };
            format!("{}{most} {}", human_bytes(row.bytes), row.count)
        })
        .collect();
    page.row("  aligned to", &aligned.join(", "));
    let text = format!("{} begin where the one before ended", percent(shape.sequential_share));
    page.row("  sequential", &text);
}

fn flow_rows(page: &mut Page, flow: &FlowFacts) {
    let rate = format!(
        "{:.1} requests/s, {:.1} in the busiest of {} slices of {}",
        flow.arrivals_per_s,
        flow.arrivals_per_s_peak,
        flow.slices.len(),
        human_nanos(flow.slice_ns as u64)
    );
    page.row("arrivals", &rate);
    let arrivals = flow.slices.iter().map(|slice| slice.arrivals as f64);
    page.row("  over time", &line(&arrivals.collect::<Vec<_>>()));
    let gaps = format!(
        "p50 {}, p99 {}; deviation {:.2} of the mean (0 a clock, 1 random, more bursts)",
        human_nanos(flow.gap_ns_p50),
        human_nanos(flow.gap_ns_p99),
        flow.gap_variation
    );
    page.row("  gaps", &gaps);
    if let Some(depth) = &flow.depth {
        depth_rows(page, flow, depth);
    }
    for (op, latency) in &flow.latency {
        let text = format!(
            "p50 {}, p99 {}, p99.9 {}, max {}",
            human_nanos(latency.p50_ns),
            human_nanos(latency.p99_ns),
            human_nanos(latency.p999_ns),
            human_nanos(latency.max_ns)
        );
        page.row(&format!("{op} took"), &text);
    }
}

fn depth_rows(page: &mut Page, flow: &FlowFacts, depth: &DepthFacts) {
    let mut text = format!("{:.2} under way on average, {} at most", depth.mean, depth.max);
    if depth.unanswered > 0 {
        text += &format!("; {} never answered", depth.unanswered);
    }
    page.row("queue depth", &text);
    let over_time = flow.slices.iter().map(|slice| slice.depth_mean.unwrap_or(0.0));
    page.row("  over time", &line(&over_time.collect::<Vec<_>>()));
    let name = |row: &Row| {
        if row.from == row.to { row.from.to_string() } else { format!("{}-{}", row.from, row.to) }
    };
    let rows: Vec<_> = depth.at_arrival.iter().map(|row| (name(row), row.count)).collect();
    histogram(page, "  at arrival", &rows);
}

/// A level for each value, the greatest the highest; nothing for 0.
fn line(values: &[f64]) -> String {
    let most = values.iter().copied().fold(0.0, f64::max);
    let level = |value: &f64| {
        if *value <= 0.0 || most <= 0.0 {
            return ' ';
        }
        let at = (value / most * LEVELS.len() as f64).ceil() as usize;
        LEVELS.get(at.saturating_sub(1)).copied().unwrap_or('█')
    };
    format!("|{}|", values.iter().map(level).collect::<String>())
}

fn reuse_rows(page: &mut Page, reuse: &ReuseFacts) {
    let bytes = |blocks: u64| human_bytes(blocks.saturating_mul(reuse.block_bytes));
    let how = match reuse.exact {
        true => "exact".to_owned(),
        false => format!(
            "± {} (95 %), from {} of the blocks",
            percent(reuse.blocks_error),
            percent(reuse.sampled_share)
        ),
    };
    let text = format!(
        "{} read or written in blocks of {} ({} read, {} written), {how}",
        bytes(reuse.blocks),
        human_bytes(reuse.block_bytes),
        bytes(reuse.blocks_read),
        bytes(reuse.blocks_written)
    );
    page.row("footprint", &text);
    page.row(
        "re-use",
        &format!("{} of block references are the first", percent(reuse.first_share)),
    );
    for row in &reuse.distances {
        let error = match row.within_error {
            0 => String::new(),
            error => format!(" ± {}", bytes(error)),
        };
        let (share, sum) = (percent(row.share), percent(row.cumulative));
        let within = bytes(row.within_blocks.saturating_add(1));
        page.row("", &format!("{share:>8} after < {within}{error} of others, {sum} up to there"));
    }
    if reuse.requests_too_long > 0 {
        let count = reuse.requests_too_long;
        page.row("", &format!("{count} requests of more than 16 MiB are not in these figures"));
    }
}

fn hot_rows(page: &mut Page, hot: &HotFacts) {
    let text = format!(
        "of {} extents of {} that requests begin in, the hottest tenth gets {} of them",
        hot.extents,
        human_bytes(hot.extent_bytes),
        percent(hot.top_tenth_share)
    );
    page.row("hot extents", &text);
    for extent in &hot.hottest {
        let text = format!(
            "{:>12} requests, {:>10} at {} {}",
            extent.requests,
            human_bytes(extent.bytes),
            extent.offset,
            extent.device
        );
        page.row("", text.trim_end());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_shows_the_greatest_as_the_highest() {
        assert_eq!(line(&[0.0, 1.0, 4.0, 8.0]), "| ▁▄█|");
        assert_eq!(line(&[0.0, 0.0]), "|  |");
    }
}
