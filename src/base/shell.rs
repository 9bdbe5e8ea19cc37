//! Words of a command line, as a POSIX shell takes and gives them (without expansions).

/// Splits at blanks; `'…'`, `"…"` and `\` quote. `None` for a quote that is not closed.
pub fn split(text: &str) -> Option<Vec<String>> {
    let mut words = Vec::new();
    let mut word: Option<String> = None;
    let mut chars = text.chars();
    while let Some(c) = chars.next() {
        match c {
            ' ' | '\t' | '\n' => words.extend(word.take()),
            '\'' => {
                let word = word.get_or_insert_default();
                loop {
                    match chars.next()? {
                        '\'' => break,
                        c => word.push(c),
                    }
                }
            }
            '"' => {
                let word = word.get_or_insert_default();
                loop {
                    match chars.next()? {
                        '"' => break,
                        '\\' => match chars.next()? {
                            c @ ('"' | '\\' | '$' | '`') => word.push(c),
                            '\n' => {}
                            c => word.extend(['\\', c]),
                        },
                        c => word.push(c),
                    }
                }
            }
            '\\' => match chars.next()? {
                '\n' => {}
                c => word.get_or_insert_default().push(c),
            },
            c => word.get_or_insert_default().push(c),
        }
    }
    words.extend(word);
    Some(words)
}

/// Joins words so that a shell takes them apart again.
pub fn join<'w>(words: impl IntoIterator<Item = &'w str>) -> String {
    let plain = |word: &str| {
        !word.is_empty()
            && word.bytes().all(|b| b.is_ascii_alphanumeric() || b"-_=+./:,@%".contains(&b))
    };
    let quoted = words.into_iter().map(|word| match plain(word) {
        true => word.to_owned(),
        false => format!("'{}'", word.replace('\'', r"'\''")),
    });
    quoted.collect::<Vec<_>>().join(" ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_survive_a_shell() {
        let words = ["qemu", "-append", "a b", "it's", "", "x,y=z", "$(true)", "\\", "\n"];
        let text = join(words);
        assert_eq!(split(&text).unwrap(), words);
        let script = format!("printf '%s|' {text}");
        let out = std::process::Command::new("sh").args(["-c", &script]).output().unwrap();
        assert_eq!(String::from_utf8(out.stdout).unwrap(), words.join("|") + "|");
    }

    #[test]
    fn quotes_are_taken_as_a_shell_takes_them() {
        for text in [
            "a  b\tc",
            r#"-device '{"driver":"x"}' -m "64 M""#,
            r#"a\ b "c\"d" 'e\f' "g\h" i\\j"#,
            r#"x"y"'z'"#,
            "''",
            "a\\\nb",
        ] {
            let script = format!("printf '%s|' {text}");
            let out = std::process::Command::new("sh").args(["-c", &script]).output().unwrap();
            let want = String::from_utf8(out.stdout).unwrap();
            assert_eq!(split(text).unwrap().join("|") + "|", want, "{text}");
        }
        for open in ["'a", "\"a", "a\\"] {
            assert_eq!(split(open), None, "{open}");
        }
        assert_eq!(split("  ").unwrap(), Vec::<String>::new());
    }
}
