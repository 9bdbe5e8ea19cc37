//! The times of a log that several threads write: its lines stand in the order of what they tell,
//! and a time may be some microseconds before that of the line above. So the order of the lines is
//! kept, and a time that goes back is the one before.

use super::job::Job;
use super::summary::counted;
use crate::base::Nanos;
use crate::trace::NotRecorded;

/// Nanoseconds since the first event.
#[derive(Debug)]
pub struct LogClock {
    /// The source's times are Unix times.
    unix: bool,
    origin: Option<u64>,
    now: u64,
    timed: u64,
    untimed: u64,
    backwards: u64,
}

impl LogClock {
    /// A clock over Unix times: the first one is the trace's origin.
    pub fn unix() -> Self {
        Self { unix: true, origin: None, now: 0, timed: 0, untimed: 0, backwards: 0 }
    }

    /// A clock over times since something else: the machine's start.
    pub fn since_boot() -> Self {
        Self { unix: false, ..Self::unix() }
    }

    /// The time of an event whose line says `ns`, if it says one.
    pub fn time(&mut self, ns: Option<u64>, job: &mut Job<'_>) -> Nanos {
        let Some(ns) = ns else {
            self.untimed += 1;
            return Nanos(self.now);
        };
        self.timed += 1;
        let origin = *self.origin.get_or_insert_with(|| {
            if self.unix {
                job.header.origin_unix_ns = Some(ns);
            }
            ns
        });
        let since = ns.checked_sub(origin);
        self.backwards += u64::from(since.is_none_or(|since| since < self.now));
        self.now = self.now.max(since.unwrap_or(0));
        Nanos(self.now)
    }

    /// The time of an event whose line stands above and said `ns`: it is told late.
    pub fn past(&self, ns: Option<u64>) -> Nanos {
        let since = |ns: u64| ns.saturating_sub(self.origin.unwrap_or(ns));
        Nanos(ns.map_or(self.now, since))
    }

    /// Tells the job what the times were like; `event` is what one is called, in the singular and
    /// the plural.
    pub fn finish(&self, [event, events]: [&str; 2], job: &mut Job<'_>) {
        if self.timed == 0 {
            job.not_recorded |= NotRecorded::TIMES;
        } else if self.untimed > 0 {
            let one = format!("{event} has no time and takes");
            let count = counted(self.untimed, &one, &format!("{events} have no time and take"));
            job.summary.note(format!("{count} that of the one before"));
        }
        if self.backwards > 0 {
            let count = counted(self.backwards, "time goes", "times go");
            job.summary.note(format!("{count} back and took that of the {event} before"));
        }
    }
}
