//! Interrupts of a recording, and whether they come.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;

use crate::base::Result;
use crate::machine::{ApicMessage, Capabilities, IrqEvent, IrqSource, Machine};
use crate::trace::{Event, IrqChange, StreamId, Trace};

/// Sources watched, each with a descriptor: far below what a process may have.
const SOURCES_MAX: usize = 256;

/// What the name of a stream of interrupts means; see [`IrqChange`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum IrqKind {
    /// Global interrupts, watched: they fire.
    Intx,
    /// Global interrupts, looked at: they have a level.
    IntxLevel,
    /// A CPU's INTR pins.
    Intr,
    /// A CPU's NMI pins.
    Nmi,
    /// Messages to an address.
    Msi(u64),
    /// The test thread looked which messages for local APICs were sent; its line is their number.
    ApicLook,
    /// One of those, to an address.
    ApicMessage(u64),
    /// Lines of a source that tells every change.
    Lines,
}

impl IrqKind {
    /// Of a stream's name.
    pub fn new(name: &str) -> Self {
        let address = |text| u64::from_str_radix(text, 16).ok();
        match name.split_once(':').map(|(kind, text)| (kind, address(text))) {
            Some(("msi", Some(addr))) => return Self::Msi(addr),
            Some(("apic", Some(addr))) => return Self::ApicMessage(addr),
            _ => {}
        }
        match name {
            "intx" => Self::Intx,
            "intx-level" => Self::IntxLevel,
            "intr" => Self::Intr,
            "nmi" => Self::Nmi,
            "apic-look" => Self::ApicLook,
            _ => Self::Lines,
        }
    }

    /// The name of the stream.
    pub fn name(self) -> String {
        match self {
            Self::Intx => "intx".to_owned(),
            Self::IntxLevel => "intx-level".to_owned(),
            Self::Intr => "intr".to_owned(),
            Self::Nmi => "nmi".to_owned(),
            Self::Msi(addr) => format!("msi:{addr:x}"),
            Self::ApicLook => "apic-look".to_owned(),
            Self::ApicMessage(addr) => format!("apic:{addr:x}"),
            Self::Lines => "lines".to_owned(),
        }
    }

    /// Kind and line of what a test watches.
    pub fn of(source: IrqSource) -> (Self, u32) {
        match source {
            IrqSource::Intx(line) => (Self::Intx, line),
            IrqSource::Intr { cpu } => (Self::Intr, cpu.into()),
            IrqSource::Nmi { cpu } => (Self::Nmi, cpu.into()),
            IrqSource::Msi { addr, data } => (Self::Msi(addr), data),
        }
    }

    /// What to watch for a line of the kind; `None` where that is nothing.
    pub fn source(self, line: u32) -> Option<IrqSource> {
        match self {
            Self::Intx | Self::Lines => Some(IrqSource::Intx(line)),
            Self::Intr => line.try_into().ok().map(|cpu| IrqSource::Intr { cpu }),
            Self::Nmi => line.try_into().ok().map(|cpu| IrqSource::Nmi { cpu }),
            Self::Msi(addr) => Some(IrqSource::Msi { addr, data: line }),
            Self::IntxLevel | Self::ApicLook | Self::ApicMessage(_) => None,
        }
    }
}

/// A source that is watched.
#[derive(Debug)]
struct Watched {
    event: Arc<IrqEvent>,
    /// The recording looks at it by now.
    active: bool,
    /// It fired so often and the recording has not said so yet.
    fired: u64,
}

/// A check of an interrupt that failed.
#[derive(Debug, PartialEq, Eq)]
pub struct IrqMismatch {
    /// The kind, as streams are called.
    pub kind: String,
    /// Which of its kind.
    pub line: u32,
    /// What the recording has.
    pub expected: &'static str,
    /// What the machine did.
    pub got: &'static str,
}

/// The sources that a trace names.
#[derive(Debug, Default)]
pub struct Expected {
    kinds: BTreeMap<StreamId, IrqKind>,
    watched: BTreeMap<(StreamId, u32), Watched>,
    /// Lines of [`IrqKind::Lines`] that went low, to be looked at when all changes of a moment
    /// were told.
    low: BTreeSet<(StreamId, u32)>,
    /// Messages for local APICs that the last look found and the recording has not said so yet.
    messages: VecDeque<ApicMessage>,
    /// Those of an earlier look that it never said.
    surplus: Vec<ApicMessage>,
    /// Sources beyond `SOURCES_MAX`, which are not watched.
    pub unwatched: u64,
    /// Sources that the machine does not have.
    pub refused: u64,
}

impl Expected {
    /// Watches everything that the trace says of interrupts.
    ///
    /// # Errors
    /// A trace that cannot be read.
    pub fn watch(trace: &Trace, machine: &mut dyn Machine) -> Result<Self> {
        let mut expected = Self::default();
        if trace.totals().iter().all(|totals| totals.bus.irqs == [0, 0]) {
            return Ok(expected);
        }
        let mut cursor = trace.cursor(0);
        while let Some((_, event)) = cursor.next()? {
            if let Event::Irq(change) = event {
                expected.add(trace, &change, machine);
            }
        }
        Ok(expected)
    }

    fn add(&mut self, trace: &Trace, change: &IrqChange, machine: &mut dyn Machine) {
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
        match machine.interrupts().and_then(|interrupts| interrupts.watch(source)) {
            Ok(event) => {
                event.take();
                let active = change.high;
                self.watched.insert(key, Watched { event, active, fired: 0 });
            }
            Err(_) => self.refused += 1,
        }
    }

    /// Whether any check of interrupts is to be made.
    pub fn is_empty(&self) -> bool {
        self.kinds.is_empty()
    }

    /// The recording says that a source changed: what is wrong with that, if anything is. `None`
    /// inside for one that is not watched.
    ///
    /// # Errors
    /// The machine has no interrupts.
    pub fn change(
        &mut self,
        change: &IrqChange,
        machine: &mut dyn Machine,
    ) -> Result<Option<Result<(), IrqMismatch>>> {
        let kind = self.kinds.get(&change.stream).copied().unwrap_or(IrqKind::Lines);
        match kind {
            IrqKind::IntxLevel => {
                let level = machine.interrupts()?.intx_level(change.line);
                return Ok(Some(compare(kind, change.line, change.high, level)));
            }
            IrqKind::ApicLook | IrqKind::ApicMessage(_)
                if !machine.capabilities().contains(Capabilities::APIC_MESSAGES) =>
            {
                return Ok(None);
            }
            IrqKind::ApicLook => {
                self.surplus.extend(std::mem::take(&mut self.messages));
                self.messages = machine.interrupts()?.apic_messages()?.into();
                return Ok(Some(Ok(())));
            }
            IrqKind::ApicMessage(addr) => return Ok(Some(self.message(addr, change.line))),
            IrqKind::Intx | IrqKind::Intr | IrqKind::Nmi | IrqKind::Msi(_) | IrqKind::Lines => {}
        }
        let key = (change.stream, change.line);
        let Some(watched) = self.watched.get_mut(&key) else { return Ok(None) };
        watched.fired += watched.event.take();
        if !change.high {
            if kind == IrqKind::Lines {
                self.low.insert(key);
            } else {
                // The recording looks from here on.
                (watched.active, watched.fired) = (true, 0);
            }
            return Ok(Some(Ok(())));
        }
        self.low.remove(&key);
        if watched.fired > 0 {
            watched.fired -= 1;
            return Ok(Some(Ok(())));
        }
        let (expected, got) = ("it fired", "nothing");
        Ok(Some(Err(IrqMismatch { kind: kind.name(), line: change.line, expected, got })))
    }

    /// The next message that a look found is `data` to `addr`.
    fn message(&mut self, addr: u64, data: u32) -> Result<(), IrqMismatch> {
        let got = match self.messages.pop_front() {
            Some(message) if message == (ApicMessage { addr, data }) => return Ok(()),
            Some(_) => "another message",
            None => "nothing",
        };
        let kind = IrqKind::ApicMessage(addr).name();
        Err(IrqMismatch { kind, line: data, expected: "this message", got })
    }

    /// Something else happens now: what fired and was not said, and what should be low and is not.
    ///
    /// # Errors
    /// The machine has no interrupts.
    pub fn settle(&mut self, machine: &mut dyn Machine) -> Result<Vec<IrqMismatch>> {
        let mut wrong = Vec::new();
        for ((stream, line), watched) in &mut self.watched {
            let fired = watched.event.take() + std::mem::take(&mut watched.fired);
            if watched.active && fired > 0 {
                let kind = self.kinds.get(stream).map_or_else(String::new, |kind| kind.name());
                let (expected, got) = ("nothing", "it fired");
                wrong.push(IrqMismatch { kind, line: *line, expected, got });
            }
        }
        let unsaid = std::mem::take(&mut self.messages);
        for ApicMessage { addr, data } in
            std::mem::take(&mut self.surplus).into_iter().chain(unsaid)
        {
            let kind = IrqKind::ApicMessage(addr).name();
            let (expected, got) = ("nothing", "this message");
            wrong.push(IrqMismatch { kind, line: data, expected, got });
        }
        for (_, line) in std::mem::take(&mut self.low) {
            let level = machine.interrupts()?.intx_level(line);
            wrong.extend(compare(IrqKind::Lines, line, false, level).err());
        }
        Ok(wrong)
    }
}

fn compare(kind: IrqKind, line: u32, expected: bool, got: bool) -> Result<(), IrqMismatch> {
    let level = |high| if high { "high" } else { "low" };
    if expected == got {
        return Ok(());
    }
    Err(IrqMismatch { kind: kind.name(), line, expected: level(expected), got: level(got) })
}
