//! Lines of a report that were not sent, and why.

use std::collections::BTreeMap;

use crate::base::limits::QTEST_SHOWN_LINES_MAX;
use crate::report::qtest_log::{RejectedLine, RejectedLines};

/// Characters of a line that are shown.
const EXCERPT_CHARS: usize = 72;

/// Why a line was not sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Why {
    /// It begins as a command and is none; QEMU would abort at it.
    Malformed(&'static str),
    /// It does not begin as a command.
    NoCommand,
    /// A command outside of the here-document that was replayed.
    Outside,
    /// It stands after the end of a here-document.
    After,
    /// A command of another reproducer of the report.
    Another,
    /// A command without marks beside a log that has them.
    Echo,
    /// What QEMU said.
    Answer,
    /// A comment.
    Comment,
    /// It says which machine is meant, or sets a variable.
    Header,
    /// The shell's part.
    Shell,
}

impl Why {
    /// In words.
    pub fn text(self) -> &'static str {
        match self {
            Self::Malformed(why) => why,
            Self::NoCommand => "no qtest command",
            Self::Outside => "command outside of the here-document",
            Self::After => "after the end of the here-document",
            Self::Another => "command of another reproducer",
            Self::Echo => "command without the marks of the log beside it",
            Self::Answer => "what QEMU said",
            Self::Comment => "comment",
            Self::Header => "header",
            Self::Shell => "line of the shell",
        }
    }

    /// Whether it was to be expected, so that a count is enough.
    pub fn is_expected(self) -> bool {
        matches!(self, Self::Answer | Self::Comment | Self::Header | Self::Shell)
    }
}

/// Lines by reason.
#[derive(Clone, Debug, Default)]
pub struct Rejected(BTreeMap<Why, RejectedLines>);

impl Rejected {
    /// Counts a line.
    pub fn add(&mut self, why: Why, line: u64, text: &[u8]) {
        let lines = self.0.entry(why).or_default();
        lines.count += 1;
        if lines.first.len() < QTEST_SHOWN_LINES_MAX {
            // Every character takes four bytes at most.
            let head = text.get(..EXCERPT_CHARS * 4).unwrap_or(text);
            let head = String::from_utf8_lossy(head);
            let text = head.chars().flat_map(char::escape_debug).take(EXCERPT_CHARS).collect();
            lines.first.push(RejectedLine { line, text });
        }
    }

    /// Counts those of `others`.
    pub fn add_all(&mut self, others: Self) {
        for (why, lines) in others.0 {
            take(self.0.entry(why).or_default(), lines);
        }
    }

    /// Counts those of `others`, all for one reason.
    pub fn add_as(&mut self, why: Why, others: Self) {
        for lines in others.0.into_values() {
            take(self.0.entry(why).or_default(), lines);
        }
    }

    /// All reasons, those that were not to be expected first.
    pub fn into_lines(self) -> Vec<RejectedLines> {
        let named = |(why, lines): (Why, RejectedLines)| RejectedLines {
            reason: why.text().to_owned(),
            expected: why.is_expected(),
            ..lines
        };
        self.0.into_iter().map(named).collect()
    }

    /// Lines rejected for one reason.
    pub fn count(&self, why: Why) -> u64 {
        self.0.get(&why).map_or(0, |lines| lines.count)
    }

    /// Lines that begin as a command and are none.
    pub fn malformed(&self) -> u64 {
        let malformed = self.0.iter().filter(|(why, _)| matches!(why, Why::Malformed(_)));
        malformed.map(|(_, lines)| lines.count).sum()
    }

    /// The first line that begins as a command and is none, with what is wrong.
    pub fn first_malformed(&self) -> Option<String> {
        let malformed = |(why, lines): (&Why, &RejectedLines)| match why {
            Why::Malformed(text) => {
                let first = lines.first.first()?;
                Some((first.line, format!("line {}: {text}: {}", first.line, first.text)))
            }
            _ => None,
        };
        self.0.iter().filter_map(malformed).min().map(|(_, text)| text)
    }
}

fn take(into: &mut RejectedLines, other: RejectedLines) {
    into.count += other.count;
    into.first.extend(other.first);
    into.first.sort_by_key(|line| line.line);
    into.first.truncate(QTEST_SHOWN_LINES_MAX);
}
