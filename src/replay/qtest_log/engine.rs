//! Sends the commands of a report to a QEMU, and sees what becomes of it.
//!
//! Commands go out one after another, each when the one before is answered, so that what QEMU put
//! off (its bottom halves, the ends of block requests) is done between them, and the command at
//! which it died is known. `window=` lets several be under way, as when a shell pipes them all.
//!
//! A crash may follow the last answer: before it is said that QEMU survived, barriers are sent
//! (`endianness` twice, which QEMU's main loop takes in turns of their own, and a question to its
//! monitor), and its process is watched for a moment more.

use std::collections::{BTreeMap, VecDeque};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use super::report::{Commands, Sent};
use crate::base::{Error, Result};
use crate::machine::child::qmp::Qmp;
use crate::machine::child::{Lost, ending};
use crate::machine::obituary::End;
use crate::machine::qemu::client::{Client, Failure};
use crate::machine::qemu::command::{Command, Text};

use crate::machine::qemu::start::Started;
use crate::report::qtest_log::{Outcome, QtestCounts, SentCommand};

/// Commands that a finding shows before the first that was not answered.
const ANSWERED_SHOWN: usize = 10;
/// And from that one on.
const OPEN_SHOWN: usize = 6;
/// Characters of each.
const TEXT_CHARS: usize = 160;
/// How long a QEMU that has answered everything is watched: block requests that the last commands
/// began end within it.
const WATCHED: Duration = Duration::from_millis(50);
/// How long a QEMU that has closed its monitor may take to be gone.
const GOING: Duration = Duration::from_secs(1);
/// How long it may take to quit.
const QUIT_PATIENCE: Duration = Duration::from_secs(10);

/// What became of a replay.
#[derive(Debug)]
pub struct Played {
    /// How it came out.
    pub outcome: Outcome,
    /// How QEMU ended, when it did so by itself or had to be ended.
    pub end: Option<End>,
    /// The last commands, when it did.
    pub last: Vec<SentCommand>,
    /// Commands, but those of the report's that were counted before.
    pub done: QtestCounts,
    /// The monitor's events.
    pub events: BTreeMap<String, u64>,
    /// QEMU's stderr.
    pub stderr: String,
    /// What else is to be known.
    pub notes: Vec<String>,
}

/// A replay under way.
pub struct Engine {
    started: Started,
    window: u64,
    /// Commands sent before ours.
    before: u64,
    /// The last ones sent.
    recent: VecDeque<(u64, String)>,
    refused: u64,
    last_refusal: Option<String>,
    events: BTreeMap<String, u64>,
    /// The guest switched the machine off, or reset it for good.
    shutdown: bool,
}

/// Why the commands came to an end.
enum Stop {
    /// There are no more.
    Done,
    /// The user wants to stop.
    Interrupted,
    /// QEMU is lost.
    Lost(Lost),
}

impl Engine {
    /// For a QEMU that has just started.
    pub fn new(mut started: Started, window: u64, patience: Duration) -> Self {
        started.client.set_patience(patience);
        let before = started.client.sent();
        Self {
            started,
            window,
            before,
            recent: VecDeque::new(),
            refused: 0,
            last_refusal: None,
            events: BTreeMap::new(),
            shutdown: false,
        }
    }

    /// Sends `commands`, then the barriers, and quits. `progress` gets the number sent so far.
    ///
    /// # Errors
    /// Input: the report cannot be read on.
    pub fn play(
        mut self,
        commands: &mut Commands,
        stop: &AtomicBool,
        progress: &mut dyn FnMut(u64),
    ) -> Result<Played> {
        let mut sent = 0;
        let ended = loop {
            if stop.load(Ordering::Relaxed) {
                break Stop::Interrupted;
            }
            let Some(command) = commands.read()? else { break Stop::Done };
            sent += 1;
            progress(sent);
            if let Err(lost) = self.send(command)? {
                // Its connections heed the user's wish, so that this is how a hang looks then.
                let stopped = stop.load(Ordering::Relaxed);
                break if stopped { Stop::Interrupted } else { Stop::Lost(lost) };
            }
        };
        let ended = match ended {
            Stop::Done => self.barriers().err().map_or(Stop::Done, Stop::Lost),
            other => other,
        };
        let sent_all = self.started.client.sent() - self.before;
        let answered = self.started.client.answered().saturating_sub(self.before);
        let last = self.last(sent_all, answered);
        let mut played = self.end(ended);
        played.done = QtestCounts { sent, answered: answered.min(sent), ..played.done };
        if played.end.is_some() {
            played.last = last;
        }
        Ok(played)
    }

    fn send(&mut self, command: Sent) -> Result<std::result::Result<(), Lost>> {
        let text = Text::parse(&command.text).map_err(|why| {
            Error::input(format!("a command that cannot be sent: {why}"))
                .at(crate::base::error::Place::Line(command.line))
        })?;
        self.remember(command);
        let client = &mut self.started.client;
        let result = if self.window == 1 {
            let (refused, last) = (&mut self.refused, &mut self.last_refusal);
            ask(client, &Command::Text(&text), &mut |why| {
                *refused += 1;
                *last = Some(why.to_owned());
            })
        } else {
            let result = client.post(&Command::Text(&text));
            result.and_then(|()| client.settle_to(self.window))
        };
        Ok(lost(result))
    }

    fn remember(&mut self, command: Sent) {
        if self.recent.len() > ANSWERED_SHOWN + self.window as usize {
            self.recent.pop_front();
        }
        let text = command.text.chars().take(TEXT_CHARS).collect();
        self.recent.push_back((command.line, text));
    }

    /// Commands of our own that do nothing; a QEMU that answers them all has survived.
    fn barriers(&mut self) -> std::result::Result<(), Lost> {
        lost(self.started.client.settle())?;
        for _ in 0..2 {
            let text = "endianness".to_owned();
            self.remember(Sent { line: 0, text });
            lost(ask(&mut self.started.client, &Command::Endianness, &mut |_| ()))?;
        }
        let asked = Instant::now();
        if self.started.qmp.execute("query-status", serde_json::Value::Null).is_err() {
            // It has gone or is about to, or it is silent.
            return Err(match self.started.process.wait(GOING) {
                Some(_) => Lost::Closed,
                None => Lost::Silent(asked.elapsed()),
            });
        }
        match self.started.process.wait(WATCHED) {
            Some(_) => Err(Lost::Closed),
            None => Ok(()),
        }
    }

    /// The last commands: what was answered, and what comes first of the rest.
    fn last(&self, sent: u64, answered: u64) -> Vec<SentCommand> {
        let open = usize::try_from(sent.saturating_sub(answered)).unwrap_or(usize::MAX);
        let answered = self.recent.len().saturating_sub(open);
        let from = answered.saturating_sub(ANSWERED_SHOWN);
        let all = self.recent.iter().enumerate().skip(from);
        all.take(answered - from + OPEN_SHOWN)
            .map(|(at, (line, text))| SentCommand {
                line: *line,
                text: text.clone(),
                answered: at < answered,
            })
            .collect()
    }

    fn end(mut self, ended: Stop) -> Played {
        let (refused, why) = self.started.client.refused();
        self.refused += refused;
        let why = self.last_refusal.take().or(why.map(str::to_owned));
        let mut notes: Vec<String> =
            why.iter().map(|why| format!("QEMU refused a command: {why}")).collect();
        let (outcome, end) = match ended {
            Stop::Done => {
                self.quit(&mut notes);
                (Outcome::Survived, None)
            }
            Stop::Interrupted => {
                self.started.process.kill();
                (Outcome::Interrupted, None)
            }
            Stop::Lost(lost) => {
                let end = ending::of(&mut self.started.process, Some(lost));
                // Its last events may tell why it went.
                self.take_events();
                match end {
                    End::Exit { status: 0 } if self.shutdown => (Outcome::PoweredOff, None),
                    End::Hung { .. } => (Outcome::Hung, Some(end)),
                    End::Broken { .. } | End::Closed => (Outcome::Broken, Some(end)),
                    End::Signal { .. } | End::Exit { .. } => (Outcome::Died, Some(end)),
                }
            }
        };
        Played {
            outcome,
            end,
            last: Vec::new(),
            done: QtestCounts { refused: self.refused, ..QtestCounts::default() },
            events: self.events,
            stderr: self.started.process.stderr(),
            notes,
        }
    }

    /// Ends a QEMU that has survived. How it does that is no part of what was replayed.
    fn quit(&mut self, notes: &mut Vec<String>) {
        self.take_events();
        let told = self.started.qmp.tell("quit");
        let ended = self.started.process.wait(QUIT_PATIENCE);
        match (ended, told) {
            (Some(status), _) if status.success() => {}
            (Some(status), _) => notes.push(format!(
                "told to quit, QEMU {}: what it did before was right",
                End::of(status)
            )),
            (None, _) => {
                let time = QUIT_PATIENCE.as_secs();
                notes.push(format!("told to quit, QEMU did not in {time} s, and was killed"));
                self.started.process.kill();
            }
        }
    }

    fn take_events(&mut self) {
        let qmp: &mut Qmp = &mut self.started.qmp;
        // A monitor that has closed has been read to its end.
        let _ = qmp.drain();
        for event in qmp.take_events() {
            self.shutdown |= event.name == "SHUTDOWN"
                && event.data.get("guest").and_then(serde_json::Value::as_bool) == Some(true);
            *self.events.entry(event.name).or_default() += 1;
        }
    }
}

fn ask(
    client: &mut Client,
    command: &Command<'_>,
    refused: &mut dyn FnMut(&str),
) -> std::result::Result<(), Failure> {
    use crate::machine::qemu::reply::Answer;
    client.ask(command, &mut |answer| {
        if let Answer::Fail(why) = answer {
            refused(why);
        }
    })
}

/// Whether QEMU is lost; a refusal is none of that.
fn lost(result: std::result::Result<(), Failure>) -> std::result::Result<(), Lost> {
    match result {
        Err(Failure::Lost(lost)) => Err(lost),
        Ok(()) | Err(Failure::Refused(..) | Failure::NotSent(_)) => Ok(()),
    }
}
