//! Commands that a report gives to `echo` or `printf`:
//! `printf 'outl 0xcf8 1\ninl 0xcfc\n' | qemu… -qtest stdio`.

/// What `echo` and `printf` at the start of a line write, as far as the line holds it.
#[derive(Debug, PartialEq, Eq)]
pub enum Quoted {
    /// The lines, and the rest of the shell's line: where they go.
    Whole { lines: Vec<Vec<u8>>, rest: Vec<u8> },
    /// A quote is not closed: the next line belongs to it.
    Open,
}

/// Reads `text`; `None` when it begins with neither program.
pub fn parse(text: &[u8]) -> Option<Quoted> {
    let mut lines = Vec::new();
    let mut rest = text;
    while let Some((printf, args)) = program(rest) {
        let (escapes, args) = flags(printf, args);
        let Some((body, after)) = argument(args) else { return Some(Quoted::Open) };
        rest = after;
        let body = if escapes { unescape(&body) } else { body };
        lines.extend(body.split(|byte| *byte == b'\n').map(<[u8]>::to_vec));
    }
    (!lines.is_empty()).then(|| Quoted::Whole { lines, rest: rest.to_vec() })
}

/// `echo` or `printf` as the next command of a list, and what follows its name.
fn program(text: &[u8]) -> Option<(bool, &[u8])> {
    let between = |byte: &u8| byte.is_ascii_whitespace() || b"({;&".contains(byte);
    let at = text.iter().position(|byte| !between(byte))?;
    let text = text.get(at..)?;
    let (printf, rest) = match text.strip_prefix(b"printf") {
        Some(rest) => (true, rest),
        None => (false, text.strip_prefix(b"echo")?),
    };
    rest.first().is_some_and(u8::is_ascii_whitespace).then(|| (printf, rest.trim_ascii_start()))
}

/// Whether backslashes are read, and what follows the flags. `echo` reads them with `-e`.
fn flags(printf: bool, mut text: &[u8]) -> (bool, &[u8]) {
    let mut escapes = printf;
    while let [b'-', rest @ ..] = text {
        let end = rest.iter().position(u8::is_ascii_whitespace).unwrap_or(rest.len());
        let (letters, rest) = rest.split_at(end);
        if letters.is_empty() || !letters.iter().all(|byte| b"neE".contains(byte)) {
            break;
        }
        escapes |= letters.contains(&b'e');
        text = rest.trim_ascii_start();
    }
    (escapes, text)
}

/// The argument, and what stands behind it; `None` when its quote is not closed.
fn argument(text: &[u8]) -> Option<(Vec<u8>, &[u8])> {
    let Some((quote @ (b'\'' | b'"'), rest)) = text.split_first() else {
        let end = text.iter().position(|byte| b"|;&)<>".contains(byte)).unwrap_or(text.len());
        let (body, rest) = text.split_at(end);
        return Some((body.trim_ascii_end().to_vec(), rest));
    };
    let mut body = Vec::new();
    let mut bytes = rest.iter().enumerate();
    while let Some((at, byte)) = bytes.next() {
        match byte {
            byte if byte == quote => return Some((body, rest.get(at + 1..)?)),
            b'\\' if *quote == b'"' => match bytes.next()?.1 {
                escaped @ (b'"' | b'\\' | b'$' | b'`') => body.push(*escaped),
                b'\n' => {}
                other => body.extend([b'\\', *other]),
            },
            byte => body.push(*byte),
        }
    }
    None
}

/// `\n`, `\t` and `\\`; commands need no others.
fn unescape(text: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(text.len());
    let mut bytes = text.iter();
    while let Some(byte) = bytes.next() {
        match byte {
            b'\\' => match bytes.next() {
                Some(b'n') => out.push(b'\n'),
                Some(b't') => out.push(b'\t'),
                Some(b'\\') | None => out.push(b'\\'),
                Some(other) => out.extend([b'\\', *other]),
            },
            byte => out.push(*byte),
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_echo_and_printf_write() {
        for (text, want, rest) in [
            ("echo outl 0xcf8 1", &["outl 0xcf8 1"][..], ""),
            ("echo 'inb 1' | q -x", &["inb 1"], " | q -x"),
            ("echo \"inb 1\ninb 2\" | q", &["inb 1", "inb 2"], " | q"),
            ("echo -e \"inb 1\\ninb 2\" | q", &["inb 1", "inb 2"], " | q"),
            ("echo -ne 'inb 1\\n' | q", &["inb 1", ""], " | q"),
            ("echo 'a\\nb'", &["a\\nb"], ""),
            ("printf 'inb 1\\ninb 2\\n' | q", &["inb 1", "inb 2", ""], " | q"),
            ("(echo 'inb 1'; echo inb 2; sleep 1) | q", &["inb 1", "inb 2"], "; sleep 1) | q"),
            ("echo \"a\\\"b\"", &["a\"b"], ""),
        ] {
            let lines = want.iter().map(|line| line.as_bytes().to_vec()).collect();
            let want = Quoted::Whole { lines, rest: rest.as_bytes().to_vec() };
            assert_eq!(parse(text.as_bytes()), Some(want), "{text}");
        }
        for text in ["echo 'inb 1", "printf \"inb 1\\", "echo 'a'; echo 'b"] {
            assert_eq!(parse(text.as_bytes()), Some(Quoted::Open), "{text}");
        }
        for text in ["", "echoes", "cat x", "inb 1", "((("] {
            assert_eq!(parse(text.as_bytes()), None, "{text}");
        }
    }
}
