//! The words of a row, one for each column (and more for a command that holds blanks).
//!
//! bcc's rows lack a word where two columns touch, or one is empty:
//!
//! ```text
//! … BYTES  P LAT(ms)        … BYTES  LAT(ms)         COMM PID DISK T SECTOR BYTES LAT(ms)
//! … 1048576S    8.51        … 10485761006.68         ?    0         R 0      8       2.89
//! ```
//!
//! Source: bcc `tools/biosnoop.py`: BYTES is printed seven wide, and without a blank behind it.

use super::table::Column;
use crate::base::SECTOR_SIZE;
use crate::import::lines::number;

/// Words of a line that are looked at: a command has at most eight.
const WORDS_MAX: usize = 32;
/// Width of BYTES: what touches it stands behind at least so many digits.
const BYTES_WIDTH: usize = 7;
/// What touches it is at least `1000.00`.
const TOUCHING_DIGITS_MIN: usize = 4;
/// What bcc prints for a disk that it does not know; in older versions nothing.
pub(super) const NO_DISK: &[u8] = b"<unknown>";

/// The words of a line.
pub(super) struct Words<'l> {
    all: [&'l [u8]; WORDS_MAX],
    count: usize,
}

/// What stands between blanks.
pub(super) fn words(line: &[u8]) -> impl Iterator<Item = &[u8]> {
    line.split(u8::is_ascii_whitespace).filter(|word| !word.is_empty())
}

impl<'l> Words<'l> {
    /// The words of `line`, a row of a table with these columns.
    pub fn of(line: &'l [u8], columns: &[Column]) -> Self {
        let mut found = Self { all: [b""; WORDS_MAX], count: 0 };
        for (slot, word) in found.all.iter_mut().zip(words(line)) {
            *slot = word;
            found.count += 1;
        }
        found.part_bytes(columns);
        found.fill_disk(columns);
        found
    }

    pub fn as_slice(&self) -> &[&'l [u8]] {
        self.all.get(..self.count).unwrap_or_default()
    }

    /// Where the column at `at` has its word; counted from the end, as a command has any number.
    fn index(&self, columns: &[Column], at: usize) -> Option<usize> {
        self.count.checked_sub(columns.len() - at)
    }

    fn insert(&mut self, at: usize, word: &'l [u8]) {
        if self.count < WORDS_MAX && at <= self.count {
            self.all.copy_within(at..self.count, at + 1);
            self.all[at] = word;
            self.count += 1;
        }
    }

    /// Parts BYTES from the column behind it.
    fn part_bytes(&mut self, columns: &[Column]) {
        let Some(bytes) = columns.iter().position(|column| *column == Column::Bytes) else {
            return;
        };
        let Some(next) = columns.get(bytes + 1) else { return };
        let Some(index) = self.index(columns, bytes + 1) else { return };
        let word = self.all[index];
        let digits = word.iter().take_while(|byte| byte.is_ascii_digit()).count();
        let at = match next {
            // One letter, or a question mark.
            Column::Other if digits + 1 == word.len() && digits >= BYTES_WIDTH => Some(digits),
            Column::Queued(_) | Column::Latency(_) if word.get(digits) == Some(&b'.') => {
                parting(word, digits)
            }
            _ => None,
        };
        if let Some(at) = at {
            let (bytes, rest) = word.split_at(at);
            self.all[index] = rest;
            self.insert(index, bytes);
        }
    }

    /// Puts a name where the row has no disk.
    fn fill_disk(&mut self, columns: &[Column]) {
        let disk = columns.windows(2).position(|two| two == [Column::Pid, Column::Disk]);
        let Some(index) = disk.and_then(|pid| self.index(columns, pid + 1)) else { return };
        let is_number = |index: usize| self.all.get(index).is_some_and(|w| number(w).is_some());
        if is_number(index) && index.checked_sub(1).is_some_and(|before| !is_number(before)) {
            self.insert(index + 1, NO_DISK);
        }
    }
}

/// How many of the first `digits` are of BYTES: those that make whole sectors, if any do.
fn parting(word: &[u8], digits: usize) -> Option<usize> {
    let last = digits.checked_sub(TOUCHING_DIGITS_MIN)?;
    let mut places = (BYTES_WIDTH..=last).filter(|at| word.get(*at) != Some(&b'0'));
    let whole =
        |at: &usize| word.get(..*at).and_then(number).is_some_and(|bytes| bytes % SECTOR_SIZE == 0);
    places.clone().find(whole).or_else(|| places.next())
}

#[cfg(test)]
mod tests {
    use super::super::table::Table;
    use super::*;

    #[track_caller]
    fn check(heading: &str, line: &str, want: &[&str]) {
        let table = Table::of_heading(heading.as_bytes()).unwrap();
        let words = Words::of(line.as_bytes(), table.columns());
        let got: Vec<_> = words.as_slice().iter().map(|w| str::from_utf8(w).unwrap()).collect();
        assert_eq!(got, want, "{line}");
    }

    #[test]
    fn bytes_that_touch_what_is_behind_them() {
        const PATTERN: &str = "TIME(s) COMM PID DISK T SECTOR BYTES P LAT(ms)";
        let want = ["1.0", "a", "b", "1", "sda", "W", "8", "1048576", "S", "8.51"];
        check(PATTERN, "1.0 a b 1 sda W 8 1048576S    8.51", &want);
        check(PATTERN, "1.0 a b 1 sda W 8 1048576 S   8.51", &want);
        const PLAIN: &str = "TIME(s) COMM PID DISK T SECTOR BYTES LAT(ms)";
        let want = ["1.0", "a", "1", "sda", "W", "8", "1048576", "1006.68"];
        check(PLAIN, "1.0 a 1 sda W 8 10485761006.68", &want);
        let want = ["1.0", "a", "1", "sda", "R", "8", "134217728", "12345.00"];
        check(PLAIN, "1.0 a 1 sda R 8 13421772812345.00", &want);
        let want = ["1.0", "a", "1", "sda", "R", "8", "1000001", "1234.00"];
        check(PLAIN, "1.0 a 1 sda R 8 10000011234.00", &want);
        const QUEUE: &str = "TIME(s) COMM PID DISK T SECTOR BYTES QUE(ms) LAT(ms)";
        let want = ["1.0", "a", "1", "sda", "W", "8", "1048576", "1006.68", "0.10"];
        check(QUEUE, "1.0 a 1 sda W 8 10485761006.68    0.10", &want);
        // A latency alone is as long as it likes.
        let want = ["1.0", "a", "1", "sda", "W", "8", "4096", "123456789.00"];
        check(PLAIN, "1.0 a 1 sda W 8 4096 123456789.00", &want);
    }

    #[test]
    fn a_row_without_a_disk() {
        const PLAIN: &str = "TIME(s) COMM PID DISK T SECTOR BYTES LAT(ms)";
        let want = ["1.0", "a", "b", "1", "<unknown>", "W", "8", "512", "2.00"];
        check(PLAIN, "1.0 a b 1   W 8 512 2.00", &want);
        check(PLAIN, "1.0", &["1.0"]);
        check(PLAIN, "", &[]);
    }

    #[test]
    fn lines_of_many_words() {
        let line = "1 ".repeat(100);
        let table = Table::of_heading(b"TIME(s) COMM PID DISK T SECTOR BYTES LAT(ms)").unwrap();
        assert_eq!(Words::of(line.as_bytes(), table.columns()).as_slice().len(), WORDS_MAX);
    }
}
