//! What the cases have in common.

use crate::base::{Frequency, Nanos};
use crate::driver::pit::{self, CLOCK, Control, GATE2};
use crate::suite::outcome::Outcome;
use crate::suite::thread::TestThread;

/// The counter that can be gated and looked at.
pub const COUNTER: u8 = 2;

/// Looks at OUT2 in one clock. With fewer the length of a pulse would be a matter of luck: where a
/// clock begins is not known.
const LOOKS: u64 = 4;

/// Sets GATE of counter 2.
pub fn gate(t: &mut TestThread<'_>, high: bool) -> Outcome {
    pit::write_port_61(t.machine().bus()?, if high { GATE2 } else { 0 });
    Ok(())
}

/// Programs counter 2 in `mode`, with its GATE as it is.
pub fn start(t: &mut TestThread<'_>, mode: u8, count: u16) -> Outcome {
    Control::new(COUNTER, mode).start(t.machine().bus()?, count);
    Ok(())
}

/// Writes a count to counter 2.
pub fn new_count(t: &mut TestThread<'_>, count: u16) -> Outcome {
    Control::new(COUNTER, 0).write_count(t.machine().bus()?, count);
    Ok(())
}

/// Latches and reads counter 2.
pub fn count(t: &mut TestThread<'_>) -> Outcome<u16> {
    Ok(Control::new(COUNTER, 0).latch_count(t.machine().bus()?))
}

/// OUT2 now.
pub fn out2(t: &mut TestThread<'_>) -> Outcome<bool> {
    Ok(pit::out2(t.machine().bus()?))
}

/// A finding unless OUT2 is `high`.
pub fn expect_out2(t: &mut TestThread<'_>, what: &str, high: bool) -> Outcome {
    let got = out2(t)?;
    t.expect(what, got, high)
}

/// A finding unless counter 2 stands at `expected`.
pub fn expect_count(t: &mut TestThread<'_>, what: &str, expected: u16) -> Outcome {
    let got = count(t)?;
    t.expect(what, got, expected)
}

/// Lets `clocks` pass, rounded up to a nanosecond.
pub fn step(t: &mut TestThread<'_>, clocks: u64) -> Outcome {
    t.step(CLOCK.time_of(clocks))
}

/// A finding unless `got` lies in `range`.
pub fn expect_in(
    t: &TestThread<'_>,
    what: &str,
    got: u64,
    range: std::ops::RangeInclusive<u64>,
) -> Outcome {
    if range.contains(&got) {
        return Ok(());
    }
    t.failed(what, format!("{} to {}", range.start(), range.end()), got.to_string())
}

/// How long OUT2 kept a level.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Run {
    /// The level.
    pub high: bool,
    /// Clocks, rounded.
    pub clocks: u64,
}

/// Looks at OUT2 for `clocks`: its runs. The first and the last are cut by the looking; a first
/// run of less than half a clock is left out.
pub fn runs(t: &mut TestThread<'_>, clocks: u64) -> Outcome<Vec<Run>> {
    let looks = Frequency::new(CLOCK.hertz() * LOOKS);
    let start = t.now();
    let mut runs: Vec<Run> = Vec::new();
    for look in 0..clocks * LOOKS {
        t.run_until(Nanos(start.0.saturating_add(looks.time_of(look).0)))?;
        let high = out2(t)?;
        match runs.last_mut() {
            Some(run) if run.high == high => run.clocks += 1,
            _ => runs.push(Run { high, clocks: 1 }),
        }
    }
    for run in &mut runs {
        run.clocks = (run.clocks + LOOKS / 2) / LOOKS;
    }
    if runs.first().is_some_and(|run| run.clocks == 0) {
        runs.remove(0);
    }
    Ok(runs)
}

/// Runs for people: `_21 -9` is 21 clocks low, 9 high.
pub fn shape(runs: &[Run]) -> String {
    let word = |run: &Run| format!("{}{}", if run.high { '-' } else { '_' }, run.clocks);
    runs.iter().map(word).collect::<Vec<_>>().join(" ")
}

/// A finding unless `runs` begins low or high as `first` says, for `clocks` or one clock more (a
/// count is loaded with the next clock), and goes on with the whole runs of `then`.
pub fn expect_shape(
    t: &TestThread<'_>,
    what: &str,
    runs: &[Run],
    first: Run,
    then: &[u64],
) -> Outcome {
    let clocks = |n: usize| runs.get(n).map_or(0, |run| run.clocks);
    let begins = runs.first().is_some_and(|run| run.high == first.high)
        && (first.clocks..=first.clocks + 1).contains(&clocks(0));
    // The last run was cut short, or never ends: it is not compared.
    let follows = runs.len() > then.len() + 1
        && then.iter().enumerate().all(|(n, length)| clocks(n + 1) == *length);
    if begins && follows {
        return Ok(());
    }
    let level = |n: usize| first.high ^ (n % 2 == 1);
    let wanted =
        then.iter().enumerate().map(|(n, clocks)| Run { high: level(n + 1), clocks: *clocks });
    let wanted: Vec<Run> = std::iter::once(first).chain(wanted).collect();
    t.failed(what, format!("{} …, the first or one more", shape(&wanted)), shape(runs))
}
