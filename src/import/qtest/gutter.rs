//! What mail, web pages and terminals put before the lines of a report: quoting, indentation,
//! prompts, the stars of a comment.

/// What stands before the text of a line, and the text.
pub fn split(line: &[u8]) -> (&[u8], &[u8]) {
    // Nearly every line of a log or script has nothing before it.
    if line.first().is_some_and(|byte| byte.is_ascii_lowercase() || *byte == b'[') {
        return (b"", line);
    }
    let mut rest = line;
    loop {
        rest = rest.trim_ascii_start();
        rest = match rest {
            // A no-break space, as web pages have it.
            [0xc2, 0xa0, after @ ..] => after,
            [b'>', after @ ..] | [b'/', b'/' | b'*', after @ ..] => after,
            [b'*', b'/', after @ ..] => after,
            [b'*' | b'$' | b'%', b' ' | b'\t', ..] | [b'*'] => rest.get(1..).unwrap_or_default(),
            _ => break,
        };
    }
    line.split_at(line.len() - rest.len())
}

/// A line that goes on from one that had `before` before it: what it says, with its own blanks
/// kept, which may be all that separates two words.
pub fn continued<'l>(before: &[u8], line: &'l [u8]) -> &'l [u8] {
    match line.strip_prefix(before) {
        // Mail that wraps quotes its own line less deeply than those that follow.
        Some(rest) if before.contains(&b'>') && rest.trim_ascii_start().starts_with(b">") => {
            split(rest).1
        }
        Some(rest) => rest,
        None => {
            let (quotes, _) = split(line);
            let at = quotes.iter().rposition(|byte| matches!(byte, b'>' | b'*' | b'/'));
            line.get(at.map_or(0, |at| at + 1)..).unwrap_or_default()
        }
    }
}

/// A Markdown code fence.
pub fn is_fence(text: &[u8]) -> bool {
    text.starts_with(b"```") || text.starts_with(b"~~~")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_stands_before_a_line() {
        for (line, want) in [
            ("outl 0xcf8 1", "outl 0xcf8 1"),
            ("    outl 0xcf8 1", "outl 0xcf8 1"),
            ("\toutl 0xcf8 1", "outl 0xcf8 1"),
            ("> outl 0xcf8 1", "outl 0xcf8 1"),
            (">> > outl 0xcf8 1", "outl 0xcf8 1"),
            (" * outl 0xcf8 1", "outl 0xcf8 1"),
            ("/* args: -M q35 */", "args: -M q35 */"),
            ("// outl 0xcf8 1", "outl 0xcf8 1"),
            (" *", ""),
            (" */", ""),
            ("$ cat << EOF | x", "cat << EOF | x"),
            ("\u{a0}\u{a0} inb 0x71", "inb 0x71"),
            ("# args: x", "# args: x"),
            ("*x", "*x"),
            ("$QEMU -M x", "$QEMU -M x"),
            ("[R +0.1] inb 0x71", "[R +0.1] inb 0x71"),
            ("-device x", "-device x"),
            ("", ""),
        ] {
            let (before, text) = split(line.as_bytes());
            assert_eq!(text, want.as_bytes(), "{line}");
            assert_eq!([before, text].concat(), line.as_bytes());
        }
    }

    #[test]
    fn blanks_of_a_continued_line_separate_words() {
        for (before, line, want) in [
            ("", "  -device x", "  -device x"),
            ("    ", "    0304", "0304"),
            ("    ", "      -device x", "  -device x"),
            ("> ", "> -device x", "-device x"),
            ("> ", ">-device x", "-device x"),
            ("$ ", "> -device x", " -device x"),
            (" * ", " *   -device x", "  -device x"),
            ("", "-device x", "-device x"),
        ] {
            assert_eq!(continued(before.as_bytes(), line.as_bytes()), want.as_bytes(), "{line}");
        }
    }
}
