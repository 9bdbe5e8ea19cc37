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
/// A busy host serves interrupts late and may miss some.
const THRESHOLD_REAL_TIME: f64 = 0.05;

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
    let took = count(t, hz, interrupts)?;
    let clock = t.machine().clock();
    let expected_ms = u128::from(interrupts) * 1000 / u128::from(hz);
    // Both times the rate, so that nothing is rounded.
    let expected = u128::from(interrupts) * u128::from(SECOND.0);
    let off = (u128::from(took.0) * u128::from(hz)).abs_diff(expected);
    // An exact edge lies between two nanoseconds of the clock.
    let off = if off < u128::from(hz) { 0 } else { off };
    let ratio = off as f64 / expected as f64;
    let of_what = if clock.is_virtual() { "" } else { " (host time)" };
    t.say(format!(
        "hz: {hz}, duration_ms: {}, exp_duration: {expected_ms}, drift ratio: {ratio:.6}{of_what}",
        took.0 / 1_000_000,
    ));
    let limit = if clock.is_virtual() { 0.0 } else { THRESHOLD_REAL_TIME };
    let limit = threshold.unwrap_or(limit);
    if ratio <= limit {
        return Ok(());
    }
    let what = format!("drift of the periodic interrupt at {hz} Hz{of_what}");
    t.failed(what, format!("a ratio of at most {limit}"), format!("{ratio:.6}"))
}

/// From one interrupt to the one that is `interrupts` later.
fn count(t: &mut TestThread<'_>, hz: u32, interrupts: u64) -> Outcome<Nanos> {
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
    let mut end = start;
    for _ in 0..interrupts {
        end = wait(t)?;
    }
    ops::disable(t, B_PIE)?;
    Ok(Nanos(end - start))
}
