//! `drift`: how long a number of periodic interrupts takes, against how long it should.

use super::ops::{self, SECOND};
use crate::base::options::OptionSpec;
use crate::base::{Error, Nanos};
use crate::driver::cmos::{self, B_PIE};
use crate::suite::outcome::Outcome;
use crate::suite::thread::TestThread;

/// The options of `drift`.
pub const OPTIONS: &[OptionSpec] = &[
    OptionSpec {
        name: "hz",
        value: "2|4|..|8192",
        default: "",
        help: "the rate; 2 and then 1024 when not given",
    },
    OptionSpec {
        name: "duration_ms",
        value: "N",
        default: "5000",
        help: "how long to count, in the machine's time",
    },
    OptionSpec {
        name: "threshold",
        value: "RATIO",
        default: "",
        help: "the drift ratio to fail above: 0 on a virtual clock, else 0.05",
    },
];

const DURATION_MS: u64 = 5000;
/// A busy host serves interrupts late.
const THRESHOLD_REAL_TIME: f64 = 0.05;
/// In real time the measurement is also judged by its parts: a host that was busy spoils some of
/// them, a clock that drifts all.
const PARTS: u64 = 10;
/// Periods that make a part.
const PART_PERIODS_MIN: u64 = 4;

/// The case.
pub fn drift(t: &mut TestThread<'_>) -> Outcome {
    let form = "a power of two from 2 to 8192";
    let hz = t
        .options()
        .parse_with("hz", form, |text| text.parse().ok().filter(|hz| cmos::rate(*hz).is_some()))?;
    let duration_ms = t.options().number("duration_ms", DURATION_MS)?;
    let form = "a ratio of at least 0";
    let threshold = t.options().parse_with("threshold", form, |text| {
        text.parse().ok().filter(|ratio: &f64| ratio.is_finite() && *ratio >= 0.0)
    })?;
    let rates = hz.map_or(vec![2, 1024], |hz| vec![hz]);
    for hz in rates {
        measure(t, hz, duration_ms, threshold)?;
    }
    Ok(())
}

fn measure(t: &mut TestThread<'_>, hz: u32, duration_ms: u64, threshold: Option<f64>) -> Outcome {
    let interrupts = u128::from(hz) * u128::from(duration_ms) / 1000;
    let interrupts = u64::try_from(interrupts).unwrap_or(u64::MAX);
    if interrupts == 0 {
        let what = format!("duration_ms={duration_ms} holds no period of {hz} Hz");
        return Err(Error::usage(what).into());
    }
    let clock = t.machine().clock();
    let parts = if clock.is_virtual() { 1 } else { PARTS.min(interrupts / PART_PERIODS_MIN) };
    let part = interrupts / parts.max(1);
    let moments = count(t, hz, interrupts, part)?;
    let took = moments.last().map_or(0, |(_, at)| at.0);
    let expected_ms = u128::from(interrupts) * 1000 / u128::from(hz);
    let ratio = drift_ratio(hz, interrupts, took);
    let of_what = if clock.is_virtual() { "" } else { " (host time)" };
    t.say(format!(
        "hz: {hz}, duration_ms: {}, exp_duration: {expected_ms}, drift ratio: {ratio:.6}{of_what}",
        took / 1_000_000,
    ));
    let limit = if clock.is_virtual() { 0.0 } else { THRESHOLD_REAL_TIME };
    let limit = threshold.unwrap_or(limit);
    let of_parts = moments.windows(2).map(|two| {
        let ((from, begin), (to, end)) = (two[0], two[1]);
        drift_ratio(hz, to - from, end - begin)
    });
    let least = of_parts.fold(ratio, f64::min);
    if ratio > limit && least <= limit {
        t.say(format!(
            "hz: {hz}: the least of its parts is {least:.6}: the host was busy in others"
        ));
    }
    if least <= limit {
        return Ok(());
    }
    let what = format!("drift of the periodic interrupt at {hz} Hz{of_what}");
    t.failed(what, format!("a ratio of at most {limit}"), format!("{ratio:.6}"))
}

/// How far from the periods that it should have taken `took_ns` is.
fn drift_ratio(hz: u32, interrupts: u64, took_ns: u64) -> f64 {
    // Both times the rate, so that nothing is rounded.
    let expected = u128::from(interrupts) * u128::from(SECOND.0);
    let off = (u128::from(took_ns) * u128::from(hz)).abs_diff(expected);
    // An exact edge lies between two nanoseconds of the clock.
    let off = if off < u128::from(hz) { 0 } else { off };
    off as f64 / expected as f64
}

/// Counts `interrupts` from one on: after every `part` of them, and after the last, how many came
/// and how long they took.
fn count(
    t: &mut TestThread<'_>,
    hz: u32,
    interrupts: u64,
    part: u64,
) -> Outcome<Vec<(u64, Nanos)>> {
    // On a virtual clock an interrupt is due within its period; a busy host may be late.
    let slack = if t.machine().clock().is_virtual() { 0 } else { 10 * SECOND.0 };
    let patience = Nanos(SECOND.0.div_ceil(u64::from(hz)) + 1 + slack);
    cmos::set_rate(t.machine().bus()?, hz)?;
    ops::flags(t)?;
    let irq = ops::watch(t)?;
    ops::enable(t, B_PIE)?;
    let wait = |t: &mut TestThread<'_>| -> Outcome<Nanos> {
        let at = t.expect_next_irq("periodic interrupt", &irq, patience)?;
        ops::flags(t)?;
        Ok(at)
    };
    let start = wait(t)?;
    let mut moments = vec![(0, Nanos(0))];
    for n in 1..=interrupts {
        let at = Nanos(wait(t)? - start);
        if n.is_multiple_of(part) || n == interrupts {
            moments.push((n, at));
        }
    }
    ops::disable(t, B_PIE)?;
    Ok(moments)
}
