//! QEMU-style options: `key=value,key=value`, with `,,` for a comma inside a value.

use std::str::FromStr;

use super::error::{Error, Result};

/// One option that a test module or machine understands, for `--help`, listing and checking.
#[derive(Clone, Copy, Debug)]
pub struct OptionSpec {
    /// The key.
    pub name: &'static str,
    /// The value's form, as help prints it: `FILE`, `N`, `on|off`.
    pub value: &'static str,
    /// What it is when not given; empty for "required" or "none".
    pub default: &'static str,
    /// One line.
    pub help: &'static str,
}

impl OptionSpec {
    /// An option: its key, the value's form, the default and one line of help.
    pub const fn new(
        name: &'static str,
        value: &'static str,
        default: &'static str,
        help: &'static str,
    ) -> Self {
        Self { name, value, default, help }
    }
}

/// Options as given: an ordered list of key and value, checked against a list of [`OptionSpec`].
#[derive(Clone, Debug, Default)]
pub struct Options(Vec<(String, String)>);

impl Options {
    /// Parses `text`. A key without `=` is taken as `key=on`, as QEMU does.
    ///
    /// # Errors
    /// [`ErrorKind::Usage`](super::ErrorKind::Usage) for an unknown key (naming the nearest and
    /// listing the valid ones), an empty key, or a key given twice.
    pub fn parse(text: &str, specs: &[OptionSpec]) -> Result<Self> {
        let mut options = Self::default();
        for item in split_commas(text) {
            let (key, value) = match item.split_once('=') {
                Some((key, value)) => (key.trim(), value),
                None => (item.trim(), "on"),
            };
            if key.is_empty() {
                return Err(Error::usage(format!("an option without a name in '{text}'"))
                    .hint("options are key=value,key=value; write ,, for a comma in a value"));
            }
            options.insert(key, value, specs)?;
        }
        Ok(options)
    }

    /// Adds one option, checked as in [`Options::parse`].
    ///
    /// # Errors
    /// As [`Options::parse`].
    pub fn insert(&mut self, key: &str, value: &str, specs: &[OptionSpec]) -> Result<()> {
        if !specs.iter().any(|spec| spec.name == key) {
            return Err(unknown(key, specs));
        }
        if self.get(key).is_some() {
            return Err(Error::usage(format!("option '{key}' is given twice")));
        }
        self.0.push((key.to_owned(), value.to_owned()));
        Ok(())
    }

    /// The value of `key`, if given.
    pub fn get(&self, key: &str) -> Option<&str> {
        self.0.iter().find(|(k, _)| k == key).map(|(_, v)| v.as_str())
    }

    /// Keys and values in the order given.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &str)> {
        self.0.iter().map(|(key, value)| (key.as_str(), value.as_str()))
    }

    /// The value of `key` through `parse`, or `None` when not given.
    ///
    /// # Errors
    /// A usage error that names the key, the value and the expected `form`.
    pub fn parse_with<T>(
        &self,
        key: &str,
        form: &str,
        parse: impl FnOnce(&str) -> Option<T>,
    ) -> Result<Option<T>> {
        self.get(key)
            .map(|value| parse(value).ok_or_else(|| bad_value(key, value, form)))
            .transpose()
    }

    /// A number, or `default` when not given.
    ///
    /// # Errors
    /// As [`Options::parse_with`].
    pub fn number<T: FromStr>(&self, key: &str, default: T) -> Result<T> {
        Ok(self.parse_with(key, "a whole number in range", |v| v.parse().ok())?.unwrap_or(default))
    }

    /// `on`/`off` (also `yes`, `true`, `1` and their opposites), or `default` when not given.
    ///
    /// # Errors
    /// As [`Options::parse_with`].
    pub fn switch(&self, key: &str, default: bool) -> Result<bool> {
        let parse = |v: &str| match v {
            "on" | "yes" | "true" | "1" => Some(true),
            "off" | "no" | "false" | "0" => Some(false),
            _ => None,
        };
        Ok(self.parse_with(key, "on or off", parse)?.unwrap_or(default))
    }

    /// One of `choices`, or `default` when not given. A miss names the nearest choice.
    ///
    /// # Errors
    /// A usage error that lists the choices.
    pub fn choice<T: Copy>(&self, key: &str, choices: &[(&str, T)], default: T) -> Result<T> {
        let Some(value) = self.get(key) else {
            return Ok(default);
        };
        if let Some((_, choice)) = choices.iter().find(|(name, _)| *name == value) {
            return Ok(*choice);
        }
        let names: Vec<&str> = choices.iter().map(|(name, _)| *name).collect();
        let mut error = bad_value(key, value, &format!("one of {}", names.join(", ")));
        if let Some(near) = nearest(value, names.iter().copied()) {
            error = error.hint(format!("did you mean {key}={near}?"));
        }
        Err(error)
    }
}

/// The candidate that `text` was probably meant to be, when one is close enough.
pub fn nearest<'a>(text: &str, candidates: impl Iterator<Item = &'a str>) -> Option<&'a str> {
    candidates
        .map(|candidate| (strsim::damerau_levenshtein(text, candidate), candidate))
        .filter(|(distance, candidate)| *distance <= 1 + candidate.len() / 4)
        .min()
        .map(|(_, candidate)| candidate)
}

fn unknown(key: &str, specs: &[OptionSpec]) -> Error {
    let names: Vec<&str> = specs.iter().map(|spec| spec.name).collect();
    let valid = format!("valid options: {}", names.join(", "));
    let hint = match nearest(key, names.iter().copied()) {
        Some(near) => format!("did you mean '{near}'? {valid}"),
        None => valid,
    };
    Error::usage(format!("unknown option '{key}'")).hint(hint)
}

fn bad_value(key: &str, value: &str, form: &str) -> Error {
    Error::usage(format!("option {key}={value}: expected {form}"))
}

/// Splits at single commas; `,,` is a comma in the item. Empty items (a trailing comma) vanish.
fn split_commas(text: &str) -> Vec<String> {
    let mut items = vec![String::new()];
    let mut chars = text.chars().peekable();
    while let Some(c) = chars.next() {
        if c != ',' {
            if let Some(item) = items.last_mut() {
                item.push(c);
            }
        } else if chars.next_if_eq(&',').is_some() {
            if let Some(item) = items.last_mut() {
                item.push(',');
            }
        } else {
            items.push(String::new());
        }
    }
    items.retain(|item| !item.is_empty());
    items
}

#[cfg(test)]
mod tests {
    use super::*;

    const SPECS: &[OptionSpec] = &[
        OptionSpec { name: "tracefile", value: "FILE", default: "", help: "" },
        OptionSpec { name: "iodepth", value: "N", default: "32", help: "" },
        OptionSpec { name: "snapshot", value: "on|off", default: "off", help: "" },
    ];

    #[test]
    fn commas_double_to_stand_for_themselves() {
        let options = Options::parse("tracefile=a,,b.qtrace,iodepth=8,", SPECS).unwrap();
        assert_eq!(options.get("tracefile"), Some("a,b.qtrace"));
        assert_eq!(options.number("iodepth", 32usize).unwrap(), 8);
    }

    #[test]
    fn a_bare_key_is_on() {
        let options = Options::parse("snapshot", SPECS).unwrap();
        assert!(options.switch("snapshot", false).unwrap());
    }

    #[test]
    fn an_unknown_key_names_the_nearest_and_lists_all() {
        let error = Options::parse("trcefile=x", SPECS).unwrap_err();
        assert_eq!(error.kind().exit_code(), 2);
        let hint = error.hint_text().unwrap();
        assert!(hint.contains("did you mean 'tracefile'"), "{hint}");
        assert!(hint.contains("iodepth"), "{hint}");
    }

    #[test]
    fn a_bad_value_says_what_was_expected() {
        let options = Options::parse("iodepth=many", SPECS).unwrap();
        let error = options.number("iodepth", 1usize).unwrap_err();
        assert!(error.to_string().contains("iodepth=many"), "{error}");
        let twice = Options::parse("iodepth=1,iodepth=2", SPECS).unwrap_err();
        assert!(twice.to_string().contains("twice"));
    }

    #[test]
    fn a_choice_suggests() {
        let options = Options::parse("snapshot=of", SPECS).unwrap();
        let error = options.choice("snapshot", &[("on", 1), ("off", 0)], 0).unwrap_err();
        assert!(error.hint_text().unwrap().contains("snapshot=off"));
    }
}
