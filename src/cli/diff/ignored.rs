//! What a comparison of traces leaves out: fields and kinds of events.

use crate::base::{Error, Result};
use crate::trace::Kinds;

/// A field that a format may lack.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Field {
    /// Times.
    Time,
    /// Where time counts from: times are compared from each trace's first event that is compared.
    Origin,
    /// Tags; and where completions stand among other events: each is compared with its request.
    Tag,
    /// Which of several equal requests in flight an answer belongs to.
    Twin,
    /// Streams: their numbers and what is said of them.
    Stream,
    /// PREFLUSH, FUA and hints.
    Flags,
    /// Hints alone: SYNC, META, RAHEAD.
    Hints,
    /// UNMAP alone.
    Unmap,
    /// That a write-zeroes is no write: of formats that have none.
    Zeroes,
    /// CPUs.
    Cpu,
    /// Data.
    Data,
    /// The status of completions.
    Status,
    /// The values of bus reads.
    Value,
    /// Texts of marks.
    Text,
    /// Source format, time origin, what is not recorded, what was lost.
    Header,
}

/// The words of the fields, and what each leaves out.
const FIELDS: [(&str, Field); 15] = [
    ("time", Field::Time),
    ("origin", Field::Origin),
    ("tag", Field::Tag),
    ("twin", Field::Twin),
    ("stream", Field::Stream),
    ("flags", Field::Flags),
    ("hints", Field::Hints),
    ("unmap", Field::Unmap),
    ("zeroes", Field::Zeroes),
    ("cpu", Field::Cpu),
    ("data", Field::Data),
    ("status", Field::Status),
    ("value", Field::Value),
    ("text", Field::Text),
    ("header", Field::Header),
];

/// What is left out.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Ignored {
    fields: Vec<Field>,
    /// Kinds of events; a completion goes with its request.
    pub kinds: Kinds,
    /// Times are compared in whole units of so many nanoseconds.
    pub time_unit: u64,
}

impl Default for Ignored {
    fn default() -> Self {
        Self { fields: Vec::new(), kinds: Kinds::empty(), time_unit: 1 }
    }
}

impl Ignored {
    /// From the words of `--ignore`, and the unit of times in nanoseconds.
    ///
    /// # Errors
    /// Usage: an unknown word, or no unit.
    pub fn parse(words: &[String], time_unit: u64) -> Result<Self> {
        if time_unit == 0 {
            return Err(Error::usage("--time-unit: a unit is at least 1 ns"));
        }
        let mut ignored = Self { time_unit, ..Self::default() };
        for word in words.iter().map(|word| word.trim()) {
            if let Some((_, field)) = FIELDS.into_iter().find(|(name, _)| *name == word) {
                ignored.fields.push(field);
            } else if let Some(kinds) = Kinds::parse(word) {
                ignored.kinds |= kinds;
            } else {
                let fields = FIELDS.map(|(name, _)| name).join(", ");
                let kinds = Kinds::words().join(", ");
                return Err(Error::usage(format!(
                    "--ignore: no field or kind '{}'",
                    word.escape_debug()
                ))
                .hint(format!("fields: {fields}; kinds of events: {kinds}")));
            }
        }
        Ok(ignored)
    }

    /// Whether `field` is left out.
    pub fn has(&self, field: Field) -> bool {
        self.fields.contains(&field)
    }

    /// What is left out, in words.
    pub fn words(&self) -> Vec<String> {
        let fields = FIELDS.into_iter().filter(|(_, field)| self.has(*field));
        let mut words: Vec<String> = fields.map(|(name, _)| name.to_owned()).collect();
        let single = |word: &String| Kinds::parse(word).is_some_and(|k| k.bits().count_ones() == 1);
        let held = |word: &String| Kinds::parse(word).is_some_and(|k| self.kinds.contains(k));
        words.extend(Kinds::words().into_iter().filter(single).filter(held));
        if self.time_unit > 1 {
            words.push(format!("times below {} ns", self.time_unit));
        }
        words
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_are_fields_or_kinds() {
        let words: Vec<String> = ["tag", "flush", "time", "bus"].map(str::to_owned).into();
        let ignored = Ignored::parse(&words, 1000).unwrap();
        assert!(ignored.has(Field::Tag) && !ignored.has(Field::Cpu));
        assert_eq!(ignored.kinds, Kinds::FLUSH | Kinds::BUS);
        let said = ["time", "tag", "flush", "in", "out", "mmio-read", "mmio-write"];
        assert_eq!(ignored.words()[..7], said);
        assert_eq!(ignored.words()[7], "times below 1000 ns");
        assert!(
            Ignored::parse(&["tags".into()], 1).unwrap_err().hint_text().unwrap().contains("tag,")
        );
        assert!(Ignored::parse(&[], 0).is_err());
        assert!(Ignored::default().words().is_empty());
    }
}
