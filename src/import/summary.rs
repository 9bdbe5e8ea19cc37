//! What an import says beside its events: what was lost, by reason, and what a reader should know.

use crate::base::limits::SUMMARY_REASONS_MAX;
use crate::trace::event::Loss;

/// Stands for every reason past [`SUMMARY_REASONS_MAX`].
const OTHER_REASONS: &str = "other reasons";

/// Bytes of an event's name that are kept.
const EVENT_NAME_BYTES_SHOWN: usize = 64;

/// Collects losses by reason (count and first place) and notes, both bounded.
#[derive(Clone, Debug, Default)]
pub struct Summary {
    losses: Vec<Loss>,
    notes: Vec<String>,
    cut: Option<String>,
    malformed: bool,
}

impl Summary {
    /// Counts one record that did not become an event. `place` is asked for the first one only.
    pub fn lose(&mut self, reason: &str, place: impl FnOnce() -> String) {
        self.lose_many(reason, 1, place);
    }

    /// Counts one record that is not what the format says it should be.
    pub fn malformed(&mut self, reason: &str, place: impl FnOnce() -> String) {
        self.malformed = true;
        self.lose(reason, place);
    }

    /// Whether a record was malformed or the input cut: nothing found then means unreadable.
    pub fn is_damaged(&self) -> bool {
        self.malformed || self.cut.is_some()
    }

    /// Counts `count` records lost for one reason.
    pub fn lose_many(&mut self, reason: &str, count: u64, place: impl FnOnce() -> String) {
        if count == 0 {
            return;
        }
        if let Some(loss) = self.losses.iter_mut().find(|loss| loss.reason == reason) {
            loss.count = loss.count.saturating_add(count);
        } else if self.losses.len() < SUMMARY_REASONS_MAX {
            self.losses.push(Loss { reason: reason.to_owned(), count, first: place() });
        } else {
            // The last row stands for all that do not fit.
            if let Some(last) = self.losses.last_mut() {
                OTHER_REASONS.clone_into(&mut last.reason);
                last.count = last.count.saturating_add(count);
            }
        }
    }

    /// Counts an event of a tracer that is none of those imported, by its name.
    pub fn other_event(&mut self, name: &[u8], place: impl FnOnce() -> String) {
        let name = name.get(..EVENT_NAME_BYTES_SHOWN).unwrap_or(name);
        self.lose(&format!("other event: {}", String::from_utf8_lossy(name)), place);
    }

    /// Adds a note, once.
    pub fn note(&mut self, text: impl Into<String>) {
        let text = text.into();
        if self.notes.len() < SUMMARY_REASONS_MAX && !self.notes.contains(&text) {
            self.notes.push(text);
        }
    }

    /// The input ends before its own end: what stands before that place was imported.
    pub fn cut(&mut self, what: &str, place: impl Into<String>) {
        let place = place.into();
        self.lose(what, || place.clone());
        self.cut.get_or_insert_with(|| format!("{what} ({place})"));
    }

    /// Whether nothing was said.
    pub fn is_empty(&self) -> bool {
        self.losses.is_empty() && self.notes.is_empty() && self.cut.is_none()
    }

    /// Adds what was said elsewhere meanwhile.
    pub fn append(&mut self, other: Self) {
        for Loss { reason, count, first } in other.losses {
            self.lose_many(&reason, count, || first);
        }
        other.notes.into_iter().for_each(|note| self.note(note));
        self.cut = self.cut.take().or(other.cut);
        self.malformed |= other.malformed;
    }

    /// Where and how the input was cut, if it was.
    pub fn cut_text(&self) -> Option<&str> {
        self.cut.as_deref()
    }

    /// Records lost so far for all reasons.
    pub fn lost(&self) -> u64 {
        self.losses.iter().fold(0, |sum, loss| sum.saturating_add(loss.count))
    }

    /// The losses, in order of first appearance.
    pub fn losses(&self) -> &[Loss] {
        &self.losses
    }

    /// The notes, in order.
    pub fn notes(&self) -> &[String] {
        &self.notes
    }
}

/// `count` with the noun that fits it.
pub fn counted(count: u64, one: &str, many: &str) -> String {
    format!("{count} {}", if count == 1 { one } else { many })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn losses_keep_count_and_first_place() {
        let mut summary = Summary::default();
        summary.lose("bad line", || "line 3".into());
        summary.lose("bad line", || unreachable!("only the first place is asked for"));
        summary.lose_many("gap", 7, || "cpu 0".into());
        summary.lose_many("none", 0, || unreachable!());
        assert_eq!(summary.losses().len(), 2);
        assert_eq!(summary.losses()[0].count, 2);
        assert_eq!(summary.losses()[0].first, "line 3");
        assert_eq!(summary.lost(), 9);
    }

    #[test]
    fn what_was_said_elsewhere_comes_behind() {
        let mut summary = Summary::default();
        assert!(summary.is_empty());
        summary.lose("bad line", || "line 3".into());
        let mut other = Summary::default();
        other.malformed("bad line", || "line 8".into());
        other.cut("cut", "line 9");
        other.note("late");
        assert!(!other.is_empty());
        summary.append(other.clone());
        summary.append(other);
        let losses: Vec<_> = summary
            .losses()
            .iter()
            .map(|l| (l.reason.as_str(), l.count, l.first.as_str()))
            .collect();
        assert_eq!(losses, [("bad line", 3, "line 3"), ("cut", 2, "line 9")]);
        assert_eq!(summary.cut_text(), Some("cut (line 9)"));
        assert_eq!(summary.notes(), ["late"]);
        assert!(summary.is_damaged());
    }

    #[test]
    fn hostile_reasons_are_bounded() {
        let mut summary = Summary::default();
        for n in 0..10 * SUMMARY_REASONS_MAX {
            summary.lose(&format!("reason {n}"), || "x".into());
            summary.note(format!("note {n}"));
        }
        assert_eq!(summary.losses().len(), SUMMARY_REASONS_MAX);
        assert_eq!(summary.lost(), 10 * SUMMARY_REASONS_MAX as u64);
        assert_eq!(summary.losses().last().unwrap().reason, OTHER_REASONS);
        assert_eq!(summary.notes().len(), SUMMARY_REASONS_MAX);
    }

    #[test]
    fn one_is_no_plural() {
        assert_eq!(counted(1, "entry", "entries"), "1 entry");
        assert_eq!(counted(0, "entry", "entries"), "0 entries");
    }

    #[test]
    fn the_first_cut_is_the_one_reported() {
        let mut summary = Summary::default();
        assert_eq!(summary.cut_text(), None);
        summary.cut("input ends inside a record", "offset 48");
        summary.cut("input ends inside a record", "offset 96");
        assert_eq!(summary.cut_text(), Some("input ends inside a record (offset 48)"));
        assert_eq!(summary.losses()[0].count, 2);
    }
}
