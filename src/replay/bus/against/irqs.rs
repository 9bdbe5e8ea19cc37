//! Interrupts of two machines.

use std::collections::BTreeMap;
use std::sync::Arc;

use crate::base::Result;
use crate::machine::{Capabilities, IrqEvent, Machine};
use crate::replay::bus::interrupts::IrqKind;
use crate::trace::{Event, IrqChange, StreamId, Trace};

/// Sources watched, each with two descriptors.
const SOURCES_MAX: usize = 128;

/// Lines whose levels are compared: the inputs of an I/O APIC (82093AA §2.4).
const LINES: u32 = 24;

/// Lines that only devices pull which are in no list of chips: second serial ports, sound, floppy
/// and IDE drives, printers.
const LINES_OF_OTHERS: &[u32] = &[3, 5, 6, 7, 14, 15];

/// An interrupt that differs.
#[derive(Debug, PartialEq, Eq)]
pub struct IrqDifference {
    /// The kind, as streams are called.
    pub kind: String,
    /// Which of its kind.
    pub line: u32,
    /// What it is in each machine.
    pub got: [String; 2],
    /// How far their counts are apart; of levels, nothing is near.
    pub apart: u64,
}

/// A source that both machines let us watch.
#[derive(Debug)]
struct Watched {
    events: [Arc<IrqEvent>; 2],
    /// The recording looks at it by now.
    active: bool,
    /// How often it fired since then.
    counts: [u64; 2],
    /// By how much the first was ahead when that was told last.
    ahead: i64,
}

/// The sources that a trace names, and the levels of all lines.
#[derive(Debug, Default)]
pub struct Irqs {
    kinds: BTreeMap<StreamId, IrqKind>,
    watched: BTreeMap<(StreamId, u32), Watched>,
    /// Levels as they were looked at last; `None` where a machine has no lines.
    levels: Option<[[bool; LINES as usize]; 2]>,
    /// Both may have devices of any kind.
    others: bool,
    /// Sources beyond `SOURCES_MAX`.
    pub unwatched: u64,
    /// Sources that one of the machines does not have.
    pub refused: u64,
    /// Comparisons made.
    pub checks: u64,
}

impl Irqs {
    /// Watches everything that the trace says of interrupts, in both machines.
    ///
    /// # Errors
    /// A trace that cannot be read.
    pub fn watch(trace: &Trace, others: bool, machines: [&mut dyn Machine; 2]) -> Result<Self> {
        let [first, second] = machines;
        let lines = |machine: &dyn Machine| machine.capabilities().contains(Capabilities::INTX);
        let levels = (lines(first) && lines(second)).then(Default::default);
        let mut irqs = Self { levels, others, ..Self::default() };
        if trace.totals().iter().all(|totals| totals.bus.irqs == [0, 0]) {
            return Ok(irqs);
        }
        let mut cursor = trace.cursor(0);
        while let Some((_, event)) = cursor.next()? {
            if let Event::Irq(change) = event {
                irqs.add(trace, &change, [&mut *first, &mut *second]);
            }
        }
        Ok(irqs)
    }

    fn add(&mut self, trace: &Trace, change: &IrqChange, machines: [&mut dyn Machine; 2]) {
        let info = trace.streams().get(change.stream.0 as usize);
        let name = info.map(|info| info.device.as_str()).unwrap_or_default();
        let kind = *self.kinds.entry(change.stream).or_insert_with(|| IrqKind::new(name));
        let key = (change.stream, change.line);
        let Some(source) = kind.source(change.line) else { return };
        if self.watched.contains_key(&key) {
            return;
        }
        if self.watched.len() >= SOURCES_MAX {
            self.unwatched += 1;
            return;
        }
        let watch = |machine: &mut dyn Machine| {
            machine.interrupts().and_then(|interrupts| interrupts.watch(source)).ok()
        };
        let [first, second] = machines;
        match (watch(first), watch(second)) {
            (Some(first), Some(second)) => {
                let active = kind == IrqKind::Lines;
                let source = Watched { events: [first, second], active, counts: [0; 2], ahead: 0 };
                self.watched.insert(key, source);
            }
            _ => self.refused += 1,
        }
    }

    /// Whether a message is sent to somewhere in this range, which a machine may take back once it
    /// was seen.
    pub fn has_message_in(&self, addr: u64, len: u64) -> bool {
        self.kinds.values().any(|kind| match IrqKind::message(*kind) {
            Some(at) => at < addr.saturating_add(len) && addr < at.saturating_add(4),
            None => false,
        })
    }

    /// The recording says that a source changed: from there on it looks at it. `None` where the
    /// machines cannot be compared in it.
    ///
    /// # Errors
    /// A machine that died.
    pub fn change(
        &mut self,
        change: &IrqChange,
        machines: [&mut dyn Machine; 2],
    ) -> Result<Option<Option<IrqDifference>>> {
        let kind = self.kinds.get(&change.stream).copied().unwrap_or(IrqKind::Lines);
        if kind == IrqKind::IntxLevel {
            let [first, second] = machines;
            let levels = [
                first.interrupts()?.intx_level(change.line),
                second.interrupts()?.intx_level(change.line),
            ];
            self.checks += 1;
            let got = levels.map(level);
            let differ = levels[0] != levels[1];
            return Ok(Some(differ.then(|| IrqDifference {
                kind: kind.name(),
                line: change.line,
                got,
                apart: u64::MAX,
            })));
        }
        let Some(watched) = self.watched.get_mut(&(change.stream, change.line)) else {
            return Ok(None);
        };
        if !change.high && !watched.active {
            watched.active = true;
            watched.events.iter().for_each(|event| {
                event.take();
            });
        }
        Ok(Some(None))
    }

    /// Sources that fired since the last call and have not fired equally often by now, unless that
    /// was told before: a machine that interrupts a moment later catches up.
    pub fn fired(&mut self) -> Vec<IrqDifference> {
        let mut differences = Vec::new();
        for ((stream, line), watched) in &mut self.watched {
            let kind = self.kinds.get(stream).copied().unwrap_or(IrqKind::Lines);
            let news = watched.events.each_ref().map(|event| match event.take() {
                // Messages that come before anyone looks are one.
                count if matches!(kind, IrqKind::Msi(_)) => count.min(1),
                count => count,
            });
            if !watched.active || news == [0, 0] {
                continue;
            }
            self.checks += 1;
            for (count, new) in watched.counts.iter_mut().zip(news) {
                *count = count.saturating_add(new);
            }
            let [first, second] = watched.counts;
            let ahead = first.wrapping_sub(second) as i64;
            if std::mem::replace(&mut watched.ahead, ahead) != ahead && ahead != 0 {
                let got = watched.counts.map(|count| match count {
                    0 => "has not fired".to_owned(),
                    1 => "has fired once".to_owned(),
                    n => format!("has fired {n} times"),
                });
                let apart = ahead.unsigned_abs();
                differences.push(IrqDifference { kind: kind.name(), line: *line, got, apart });
            }
        }
        differences
    }

    /// Lines whose levels differ now and did not when they were looked at last.
    ///
    /// # Errors
    /// A machine that died.
    pub fn levels(&mut self, machines: [&mut dyn Machine; 2]) -> Result<Vec<IrqDifference>> {
        let Some(known) = &mut self.levels else { return Ok(Vec::new()) };
        let [first, second] = machines;
        let (first, second) = (first.interrupts()?, second.interrupts()?);
        let mut differences = Vec::new();
        let [ours, theirs] = known;
        for (line, (a, b)) in (0..LINES).zip(ours.iter_mut().zip(theirs)) {
            let now = (first.intx_level(line), second.intx_level(line));
            if now == (*a, *b) || !self.others && LINES_OF_OTHERS.contains(&line) {
                continue;
            }
            self.checks += 1;
            (*a, *b) = now;
            if now.0 != now.1 {
                let got = [level(now.0), level(now.1)];
                let kind = IrqKind::IntxLevel.name();
                differences.push(IrqDifference { kind, line, got, apart: u64::MAX });
            }
        }
        Ok(differences)
    }
}

fn level(high: bool) -> String {
    if high { "high" } else { "low" }.to_owned()
}

impl IrqKind {
    /// Where its messages are sent.
    fn message(self) -> Option<u64> {
        match self {
            Self::Msi(addr) => Some(addr),
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn watched() -> (Irqs, [Arc<IrqEvent>; 2]) {
        let events = [(); 2].map(|()| Arc::new(IrqEvent::new().unwrap()));
        let source = Watched {
            events: events.each_ref().map(Arc::clone),
            active: true,
            counts: [0; 2],
            ahead: 0,
        };
        let mut irqs = Irqs::default();
        irqs.watched.insert((StreamId(0), 8), source);
        irqs.kinds.insert(StreamId(0), IrqKind::new("intx"));
        (irqs, events)
    }

    #[test]
    fn a_machine_that_interrupts_later_catches_up() {
        let (mut irqs, [first, second]) = watched();
        assert_eq!(irqs.fired(), []);
        first.signal();
        let [late] = &irqs.fired()[..] else { panic!("one difference") };
        assert_eq!((late.kind.as_str(), late.line, late.apart), ("intx", 8, 1));
        assert_eq!(late.got, ["has fired once", "has not fired"]);
        assert_eq!(irqs.fired(), [], "it was told");
        second.signal();
        assert_eq!(irqs.fired(), [], "they are even");
        for _ in 0..2 {
            second.signal();
        }
        assert_eq!(irqs.fired()[0].apart, 2);
        assert_eq!(irqs.checks, 3);
    }
}
