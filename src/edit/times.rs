//! When events stand: several traces put on one clock, moved to 0, scaled.

use super::Edit;
use crate::base::{Error, Nanos, Result};
use crate::import::summary::{Summary, counted};

/// How the times of several traces are put together.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum Align {
    /// The time 0 of each is the same moment.
    Start,
    /// By wall clock, which every trace must have.
    Origin,
}

/// Old times to new ones.
#[derive(Debug)]
pub struct Times {
    /// Added to the times of each input.
    shifts: Vec<u64>,
    /// Unix time in nanoseconds of time 0 before it is moved.
    origin: Option<u64>,
    /// What becomes time 0.
    base: u64,
    percent: u64,
    align: Option<Align>,
    /// Events that stood before what became time 0.
    clamped: u64,
}

impl Times {
    /// For inputs whose time 0 is at these moments, where known.
    ///
    /// # Errors
    /// Usage: they are to be aligned by a wall clock that one does not have.
    pub fn new(origins: &[Option<u64>], edit: &Edit) -> Result<Self> {
        let known: Option<Vec<u64>> = origins.iter().copied().collect();
        let percent = edit.time_percent.unwrap_or(100);
        let several = origins.len() > 1;
        let align = match (&known, edit.align) {
            (None, Some(Align::Origin)) => {
                return Err(Error::usage("--align origin: not every trace says when it began")
                    .hint("--align start puts their beginnings together"));
            }
            (None, None) if several && origins.iter().any(Option::is_some) => {
                return Err(Error::usage("only some of the traces say when they began")
                    .hint("--align start puts their beginnings together"));
            }
            (Some(_), None | Some(Align::Origin)) => Align::Origin,
            (_, Some(Align::Start)) | (None, None) => Align::Start,
        };
        let first = known.iter().flatten().copied().min();
        let (shifts, origin) = match (align, &known, first) {
            (Align::Origin, Some(known), Some(first)) => {
                (known.iter().map(|origin| origin - first).collect(), Some(first))
            }
            _ => {
                let origin = if several { None } else { origins.first().copied().flatten() };
                (vec![0; origins.len()], origin)
            }
        };
        let align = several.then_some(align);
        Ok(Self { shifts, origin, base: 0, percent, align, clamped: 0 })
    }

    /// How several traces were put together.
    pub fn align(&self) -> Option<Align> {
        self.align
    }

    /// The time of an event of input `at` on the common clock, before it is moved or scaled.
    pub fn shifted(&self, at: usize, time: Nanos) -> Nanos {
        time + self.shifts.get(at).copied().unwrap_or(0)
    }

    /// Makes the time of this event the new 0.
    pub fn rebase(&mut self, at: usize, time: Nanos) {
        self.base = self.shifted(at, time).0;
    }

    /// Unix time of the new time 0.
    pub fn origin_unix_ns(&self) -> Option<u64> {
        self.origin?.checked_add(self.base)
    }

    /// The new time.
    ///
    /// # Errors
    /// Usage: it is beyond what a trace can say.
    pub fn of(&mut self, at: usize, time: Nanos) -> Result<Nanos> {
        let time = self.shifted(at, time).0;
        self.clamped += u64::from(time < self.base);
        let scaled = u128::from(time.saturating_sub(self.base)) * u128::from(self.percent) / 100;
        let scaled = u64::try_from(scaled).ok().map(Nanos);
        scaled.ok_or_else(|| {
            Error::usage("scaled, its time is beyond what a trace can say")
                .hint("--rebase counts from the first event; or scale less")
        })
    }

    /// Says what became of times that could not be kept.
    pub fn tell(&self, summary: &mut Summary) {
        if self.clamped > 0 {
            let count = counted(self.clamped, "event stands", "events stand");
            summary.note(format!("{count} before the first in time, and stand at 0 now"));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn times(origins: &[Option<u64>], edit: &Edit) -> Times {
        Times::new(origins, edit).unwrap()
    }

    #[test]
    fn wall_clocks_put_traces_side_by_side() {
        let mut both = times(&[Some(1_000), Some(400)], &Edit::default());
        assert_eq!(
            (both.of(0, Nanos(5)).unwrap(), both.of(1, Nanos(5)).unwrap()),
            (Nanos(605), Nanos(5))
        );
        assert_eq!(both.origin_unix_ns(), Some(400));
        let start = Edit { align: Some(Align::Start), ..Edit::default() };
        let mut both = times(&[Some(1_000), None], &start);
        assert_eq!((both.of(0, Nanos(5)).unwrap(), both.origin_unix_ns()), (Nanos(5), None));
        assert!(Times::new(&[Some(1), None], &Edit::default()).is_err());
        let origin = Edit { align: Some(Align::Origin), ..Edit::default() };
        assert!(Times::new(&[Some(1), None], &origin).is_err());
    }

    #[test]
    fn times_are_moved_then_scaled() {
        let edit = Edit { time_percent: Some(50), rebase: true, ..Edit::default() };
        let mut one = times(&[Some(100)], &edit);
        one.rebase(0, Nanos(1_000));
        assert_eq!(one.of(0, Nanos(3_000)).unwrap(), Nanos(1_000));
        assert_eq!(one.of(0, Nanos(10)).unwrap(), Nanos(0));
        assert_eq!(one.origin_unix_ns(), Some(1_100));
        let mut summary = Summary::default();
        one.tell(&mut summary);
        assert_eq!(summary.notes().len(), 1);
        let far = Edit { time_percent: Some(1_000_000), ..Edit::default() };
        assert!(times(&[None], &far).of(0, Nanos(u64::MAX / 2)).is_err());
    }
}
