//! Text on its way to a terminal.

use std::fmt::Write as _;

/// Text on one line that no terminal takes for a command, and that reads from left to right: device
/// and file names come from outside.
pub fn printable(text: &str) -> String {
    escaped(text, |c| c.is_control())
}

/// As [`printable`], of a text that may have several lines.
pub fn printable_lines(text: &str) -> String {
    escaped(text, |c| c.is_control() && c != '\n')
}

fn escaped(text: &str, is_command: impl Fn(char) -> bool) -> String {
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        if is_command(c) || turns_text(c) {
            // Writing to a String cannot fail.
            let _ = write!(out, "{}", c.escape_default());
        } else {
            out.push(c);
        }
    }
    out
}

/// Marks of direction, and ends of lines that are no control characters (Unicode, UAX #9 and #14).
fn turns_text(c: char) -> bool {
    matches!(c, '\u{61c}' | '\u{200e}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn commands_of_terminals_and_turns_of_direction_are_shown_and_not_done() {
        assert_eq!(
            printable("a\u{1b}[31m\u{9b}\n\u{202e}b ü"),
            "a\\u{1b}[31m\\u{9b}\\n\\u{202e}b ü"
        );
        assert_eq!(printable_lines("a\nb\r"), "a\nb\\r");
    }
}
