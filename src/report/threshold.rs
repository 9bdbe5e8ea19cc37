//! Limits on what may change between two reports: `p99>10%`, `write.iops<5%`, `max>20ms`.

use std::fmt;

use super::text::rate;
use super::{Histogram, OpReport, Report};
use crate::base::options::nearest;
use crate::base::units::{human_bytes, human_nanos, parse_nanos, parse_size};
use crate::base::{BlockOp, Error, Result};

/// A figure of a report.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Metric {
    /// A latency quantile, in parts of a thousand.
    Quantile(u16),
    /// The longest latency.
    Max,
    /// The mean latency.
    Mean,
    /// Requests a second.
    Iops,
    /// Bytes a second.
    Bandwidth,
    /// Failed requests.
    Errors,
    /// From the first issue to the last completion.
    Duration,
}

/// Every metric by name, in the order that tables list them.
pub const METRICS: [(&str, Metric); 10] = [
    ("iops", Metric::Iops),
    ("bandwidth", Metric::Bandwidth),
    ("p50", Metric::Quantile(500)),
    ("p90", Metric::Quantile(900)),
    ("p99", Metric::Quantile(990)),
    ("p99.9", Metric::Quantile(999)),
    ("max", Metric::Max),
    ("mean", Metric::Mean),
    ("errors", Metric::Errors),
    ("duration", Metric::Duration),
];

impl Metric {
    /// Its name.
    pub fn name(self) -> &'static str {
        METRICS.iter().find(|(_, metric)| *metric == self).map_or("?", |(name, _)| name)
    }

    fn of_histogram(self, histogram: &Histogram) -> Option<u64> {
        if histogram.count() == 0 {
            return None;
        }
        match self {
            Self::Quantile(parts) => Some(histogram.quantile(f64::from(parts) / 1000.0)),
            Self::Max => Some(histogram.max()),
            Self::Mean => Some(histogram.mean()),
            Self::Iops | Self::Bandwidth | Self::Errors | Self::Duration => None,
        }
    }

    fn of_op(self, op: &OpReport) -> Option<f64> {
        match self {
            Self::Iops => op.iops,
            Self::Bandwidth => op.bytes_per_second,
            Self::Errors => Some(op.errors as f64),
            Self::Duration => None,
            _ => self.of_histogram(&op.latency).map(|ns| ns as f64),
        }
    }

    /// The figure of a report, of one operation or of all; `None` when it has none.
    pub fn of(self, report: &Report, op: Option<BlockOp>) -> Option<f64> {
        if let Some(op) = op {
            return self.of_op(report.ops.iter().find(|row| row.op == op)?);
        }
        let ops = || report.ops.iter();
        match self {
            Self::Iops => ops().map(|op| op.iops).sum(),
            Self::Bandwidth => ops().map(|op| op.bytes_per_second).sum(),
            Self::Errors => Some(report.errors() as f64),
            Self::Duration => Some(report.duration_ns as f64),
            _ => self.of_histogram(&report.latency()).map(|ns| ns as f64),
        }
    }

    /// A figure with its unit.
    pub fn show(self, value: f64) -> String {
        match self {
            Self::Iops => rate(value),
            Self::Errors => format!("{value:.0}"),
            Self::Bandwidth => format!("{}/s", human_bytes(value as u64)),
            _ => human_nanos(value as u64),
        }
    }

    fn parse_value(self, text: &str) -> Option<f64> {
        let whole = match self {
            Self::Iops => return text.parse().ok().filter(|n: &f64| n.is_finite() && *n >= 0.0),
            Self::Errors => text.parse().ok(),
            Self::Bandwidth => parse_size(text.strip_suffix("/s").unwrap_or(text)),
            _ => parse_nanos(text, 1),
        };
        whole.map(|n| n as f64)
    }
}

/// What a limit compares with.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Limit {
    /// Per cent of the first report's figure.
    Percent(f64),
    /// A fixed value.
    Value(f64),
}

/// One limit.
#[derive(Clone, Debug, PartialEq)]
pub struct Threshold {
    text: String,
    op: Option<BlockOp>,
    metric: Metric,
    /// `>`; else `<`.
    above: bool,
    limit: Limit,
}

/// A limit, and how two reports stand to it.
#[derive(Clone, Debug, PartialEq)]
pub struct Outcome {
    /// The expression.
    pub text: String,
    /// What it is about.
    pub metric: Metric,
    /// The first report's figure, where the limit needs it.
    pub a: Option<f64>,
    /// The second's.
    pub b: f64,
    /// Whether the limit is passed.
    pub failed: bool,
}

impl fmt::Display for Outcome {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let word = if self.failed { "FAIL" } else { "ok" };
        write!(f, "{word:<4}  {}: ", self.text)?;
        if let Some(a) = self.a {
            write!(f, "{} -> ", self.metric.show(a))?;
        }
        f.write_str(&self.metric.show(self.b))
    }
}

impl Threshold {
    /// Parses `[OP.]METRIC>LIMIT` or `[OP.]METRIC<LIMIT`. A limit in per cent is the change from
    /// the first report to the second; one without is the second report's value itself.
    ///
    /// # Errors
    /// A usage error that says what is valid.
    pub fn parse(text: &str) -> Result<Self> {
        let bad = |what: String| {
            let names: Vec<&str> = METRICS.iter().map(|(name, _)| *name).collect();
            Error::usage(format!("--fail-if '{text}': {what}")).hint(format!(
                "write [OP.]METRIC>N%, or < for too little, or a value in place of N%; \
                 METRIC is one of {}",
                names.join(", ")
            ))
        };
        let at = text.find(['>', '<']).ok_or_else(|| bad("there is no > or < in it".into()))?;
        let (name, rest) = text.split_at(at);
        let (name, above, limit) = (name.trim(), rest.starts_with('>'), rest[1..].trim());
        let (op, metric) = parse_name(name).map_err(bad)?;
        if op.is_some() && metric == Metric::Duration {
            return Err(bad("an operation has no duration of its own".into()));
        }
        let limit = match limit.strip_suffix('%') {
            Some(number) => {
                let percent =
                    number.trim().parse().ok().filter(|p: &f64| p.is_finite() && *p >= 0.0);
                Limit::Percent(percent.ok_or_else(|| bad(format!("'{limit}' is no percentage")))?)
            }
            None => Limit::Value(
                metric.parse_value(limit).ok_or_else(|| bad(format!("'{limit}' is no {name}")))?,
            ),
        };
        Ok(Self { text: text.to_owned(), op, metric, above, limit })
    }

    /// Whether `b` passes the limit, by `a`.
    ///
    /// # Errors
    /// An input error when a report does not have the figure: that is never a pass.
    pub fn check(&self, a: &Report, b: &Report) -> Result<Outcome> {
        let value_b = self.value(b, "second")?;
        let (value_a, bound) = match self.limit {
            Limit::Value(value) => (None, value),
            Limit::Percent(percent) => {
                let value = self.value(a, "first")?;
                let part = percent / 100.0 * if self.above { 1.0 } else { -1.0 };
                (Some(value), value * (1.0 + part))
            }
        };
        let failed = if self.above { value_b > bound } else { value_b < bound };
        Ok(Outcome { text: self.text.clone(), metric: self.metric, a: value_a, b: value_b, failed })
    }

    fn value(&self, report: &Report, which: &str) -> Result<f64> {
        self.metric.of(report, self.op).ok_or_else(|| {
            let ops: Vec<&str> = report.ops.iter().map(|row| row.op.name()).collect();
            Error::input(format!(
                "--fail-if '{}': the {which} report has no such figure",
                self.text
            ))
            .hint(format!("it has figures of: {}", ops.join(", ")))
        })
    }
}

fn parse_name(name: &str) -> std::result::Result<(Option<BlockOp>, Metric), String> {
    let find = |name: &str| METRICS.iter().find(|(n, _)| *n == name).map(|(_, metric)| *metric);
    if let Some(metric) = find(name) {
        return Ok((None, metric));
    }
    // The first dot parts operation and metric: `p99.9` has one too, and was looked for above.
    if let Some((op, rest)) = name.split_once('.') {
        if let (Ok(op), Some(metric)) = (op.parse(), find(rest)) {
            return Ok((Some(op), metric));
        }
        if op.parse::<BlockOp>().is_err() && find(rest).is_some() {
            return Err(format!("no operation is called '{op}'"));
        }
    }
    let last = name.rsplit_once('.').map_or(name, |(_, last)| last);
    Err(match nearest(last, METRICS.iter().map(|(name, _)| *name)) {
        Some(near) => format!("no metric is called '{name}' (did you mean '{near}'?)"),
        None => format!("no metric is called '{name}'"),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::TimeGrade;
    use crate::report::RunStats;

    fn report(latency_ns: u64, count: u64) -> Report {
        let mut stats = RunStats::new();
        for _ in 0..count {
            stats.completed(BlockOp::Write, 1024, latency_ns, true);
        }
        let mut report = Report::new("t", TimeGrade::RealTime);
        report.duration_ns = 1_000_000_000;
        report.set_stats(&stats);
        report
    }

    fn fails(text: &str, a: &Report, b: &Report) -> bool {
        Threshold::parse(text).unwrap().check(a, b).unwrap().failed
    }

    #[test]
    fn per_cent_is_a_change_and_a_value_is_a_value() {
        let (a, b) = (report(1_000_000, 1000), report(1_200_000, 900));
        for (text, expected) in [
            ("p99>10%", true),
            ("p99>25%", false),
            ("write.p99.9>10%", true),
            ("write.p50 > 19 %", true),
            ("mean>20%", false),
            ("max>1.1ms", true),
            ("max>1.2ms", false),
            ("iops<5%", true),
            ("iops<15%", false),
            ("write.iops<901", true),
            ("bandwidth<900k", false),
            ("bandwidth<1M/s", true),
            ("errors>0", false),
            ("duration>0%", false),
            ("p99<10%", false),
        ] {
            assert_eq!(fails(text, &a, &b), expected, "{text}");
        }
        assert!(!fails("p99>10%", &b, &a), "faster is not a failure");
    }

    #[test]
    fn slow_rates_are_not_cut_to_whole_numbers() {
        let (mut a, mut b) = (report(1, 19), report(1, 11));
        for report in [&mut a, &mut b] {
            report.ops[0].iops = report.ops[0].iops.map(|n| n / 10.0);
        }
        assert!(fails("iops<10%", &a, &b), "1.9 to 1.1");
        assert_eq!(Metric::Iops.show(1.1), "1.1");
    }

    #[test]
    fn from_nothing_to_something_is_past_any_per_cent() {
        let (a, mut b) = (report(1, 1), report(1, 1));
        assert!(!fails("errors>50%", &a, &b));
        b.ops[0].errors = 1;
        assert!(fails("errors>50%", &a, &b));
    }

    #[test]
    fn bad_expressions_list_the_metrics() {
        for (text, says) in [
            ("p99", "no > or <"),
            ("p98>1%", "no metric is called 'p98' (did you mean 'p9"),
            ("p99>ten%", "no percentage"),
            ("p99>-1%", "no percentage"),
            ("p99>NaN%", "no percentage"),
            ("p99>", "'' is no p99"),
            ("iops>1ms", "no iops"),
            ("wirte.p99>1%", "no operation is called 'wirte'"),
            ("read.duration>1%", "no duration of its own"),
            (">1%", "no metric"),
        ] {
            let error = Threshold::parse(text).unwrap_err();
            assert_eq!(error.kind().exit_code(), 2);
            assert!(error.to_string().contains(says), "{error}");
            assert!(error.hint_text().unwrap().contains("p99.9, max, mean, errors"));
        }
    }

    #[test]
    fn a_missing_figure_is_an_error_and_never_a_pass() {
        let (a, b) = (report(1, 1), report(1, 0));
        for (text, a, b) in [("read.p99>10%", &a, &a), ("p99>10%", &a, &b), ("p99>10%", &b, &a)] {
            let error = Threshold::parse(text).unwrap().check(a, b).unwrap_err();
            assert_eq!(error.kind().exit_code(), 3, "{text}");
        }
    }
}
