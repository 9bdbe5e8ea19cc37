//! The machine's arguments of a report: what concerns the harness is replaced, what is harmless is
//! passed on, and the rest is refused.
//!
//! Every option of QEMU's is in one of the tables of `options`. One that is in none is refused: a
//! newer QEMU's may do anything.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::drives::Drives;
use super::harmless::{self, Refusal};
use super::options::{self, Fate, Rule};
use super::opts::Settings;
use crate::base::{Error, Result};
use crate::image::given::Handover;
use crate::import::qtest::shell::Word;

/// How the arguments are looked at.
#[derive(Clone, Debug)]
pub struct Policy {
    /// They are passed on as they are, but for what concerns the harness.
    pub trust: bool,
    /// The folder that images may come from, if any.
    pub folder: Option<PathBuf>,
}

/// Arguments as QEMU gets them.
#[derive(Debug, Default)]
pub struct Arguments {
    /// The words.
    pub words: Vec<String>,
    /// The same for a person to start it by: images by the names that the report has for them.
    pub shown: Vec<String>,
    /// What was replaced or left out, in words.
    pub changes: Vec<String>,
    /// Images that QEMU gets as descriptors.
    pub images: Vec<Handover>,
    /// What those are.
    pub image_names: Vec<String>,
}

impl Arguments {
    /// Descriptors that QEMU inherits.
    pub fn files(&self) -> Vec<Arc<std::os::fd::OwnedFd>> {
        let files = self.images.iter().flat_map(|handover| &handover.image().files);
        files.map(|file| Arc::clone(&file.fd)).collect()
    }
}

/// What ends the arguments: our own, which replace the report's.
const HARNESS: &[&str] = &["-display", "none", "-accel", "qtest"];

/// Refused arguments that an error shows.
const REFUSED_SHOWN: usize = 5;

/// Looks at `words`.
///
/// # Errors
/// A machine error that names every refused argument and says why.
pub fn look_at(words: &[Word], policy: &Policy) -> Result<Arguments> {
    let mut walk = Walk::new(policy);
    let mut rest = words.iter();
    while let Some(word) = rest.next() {
        walk.word(word, &mut rest);
    }
    walk.finish()
}

struct Walk<'p> {
    policy: &'p Policy,
    out: Arguments,
    drives: Drives,
    refused: Vec<String>,
    /// `-nodefaults`, or an option that says what the network is.
    network_said: bool,
}

impl<'p> Walk<'p> {
    fn new(policy: &'p Policy) -> Self {
        Self {
            policy,
            out: Arguments::default(),
            drives: Drives::new(policy.folder.clone()),
            refused: Vec::new(),
            network_said: false,
        }
    }

    fn word<'w>(&mut self, word: &'w Word, rest: &mut impl Iterator<Item = &'w Word>) {
        if let Some(unknown) = &word.unknown {
            return self.refuse(&word.text, &unknown_word(unknown));
        }
        let text = word.text.as_str();
        let name = text.strip_prefix("--").or_else(|| text.strip_prefix('-'));
        let Some(name) = name.filter(|name| !name.is_empty()) else {
            return match self.policy.trust {
                true => self.push([text.to_owned()]),
                false => self.refuse(text, "it is the name of an image, for the first disk"),
            };
        };
        let Some(rule) = options::rule(name) else {
            return match self.policy.trust {
                true => self.push([text.to_owned()]),
                false => self.refuse(text, "it is no option that is known to be harmless"),
            };
        };
        self.network_said |= matches!(rule.name, "nodefaults" | "net" | "nic" | "netdev");
        let value = if rule.takes_value {
            let Some(value) = rest.next() else { return self.refuse(text, "its value is missing") };
            if let Some(unknown) = &value.unknown {
                return self.refuse(&format!("{text} {}", value.text), &unknown_word(unknown));
            }
            value.text.as_str()
        } else {
            ""
        };
        let shown = if rule.takes_value { format!("{text} {value}") } else { text.to_owned() };
        if let Err(why) = self.option(rule, value, &shown) {
            self.refuse(&shown, &why);
        }
    }

    fn refuse(&mut self, argument: &str, why: &str) {
        let argument: String = argument.chars().flat_map(char::escape_debug).take(200).collect();
        self.refused.push(format!("'{argument}': {why}"));
    }

    fn keep(&mut self, name: &str, value: impl Into<String>) {
        let value = value.into();
        self.push([format!("-{name}"), value]);
    }

    fn push(&mut self, words: impl IntoIterator<Item = String>) {
        for word in words {
            self.out.shown.push(word.clone());
            self.out.words.push(word);
        }
    }

    fn change(&mut self, what: String) {
        self.out.changes.push(what);
    }

    fn option(&mut self, rule: &Rule, value: &str, shown: &str) -> Result<(), Refusal> {
        let trust = self.policy.trust;
        match rule.fate {
            Fate::Drop(why) => self.change(format!("{shown} left out: {why}")),
            Fate::Replace(name, new) => {
                if value != new {
                    self.change(format!("{shown} became -{name} {new}"));
                }
                self.keep(name, new);
            }
            Fate::Port if value == "none" => self.keep(rule.name, "none"),
            Fate::Port => {
                self.change(format!("{shown} became -{} null", rule.name));
                self.keep(rule.name, "null");
            }
            Fate::Machine => self.machine(value, shown)?,
            _ if trust => {
                self.push([format!("-{}", rule.name)]);
                if rule.takes_value {
                    self.push([value.to_owned()]);
                }
            }
            Fate::Refuse(why) => return Err(why.to_owned()),
            Fate::Flag => self.push([format!("-{}", rule.name)]),
            Fate::Plain => {
                harmless::value(value)?;
                self.keep(rule.name, value);
            }
            Fate::Settings => {
                let settings = Settings::parse(value)?;
                harmless::settings(&settings)?;
                self.keep(rule.name, settings.text());
            }
            Fate::Kind(first, check) => {
                let settings = Settings::parse(value)?;
                kinds(&settings, first, check)?;
                harmless::settings(&settings)?;
                self.keep(rule.name, settings.text());
            }
            Fate::Global => self.global(rule.name, value)?,
            Fate::Set => self.set(rule.name, value)?,
            Fate::Chardev => self.chardev(value, shown)?,
            Fate::Audio => self.audio(rule.name, value, shown)?,
            Fate::Drive(with) => {
                let text = match with {
                    "" => value.to_owned(),
                    with => format!("file={},{with}", value.replace(',', ",,")),
                };
                let images = self.drives.images.len();
                let passed = self.drives.drive(&text)?;
                let as_image = self.drives.images.len() > images;
                let shown = if as_image { format!("{text},snapshot=on") } else { passed.clone() };
                self.out.words.extend(["-drive".to_owned(), passed]);
                self.out.shown.extend(["-drive".to_owned(), shown]);
            }
            Fate::Blockdev => {
                for passed in self.drives.blockdev(value)? {
                    self.out.words.extend(["-blockdev".to_owned(), passed]);
                }
                self.out.shown.extend(["-blockdev".to_owned(), value.to_owned()]);
            }
        }
        Ok(())
    }

    /// `-machine`: without the accelerator and what it is told.
    fn machine(&mut self, value: &str, shown: &str) -> Result<(), Refusal> {
        let mut settings = Settings::parse(value)?;
        let before = settings.items.len();
        settings.retain(|key| !options::ACCELERATOR_SETTINGS.contains(&key));
        if settings.items.len() != before {
            self.change(format!("{shown} lost its accelerator"));
        }
        if settings.items.is_empty() {
            return Ok(());
        }
        if !self.policy.trust {
            harmless::settings(&settings)?;
        }
        self.keep("machine", settings.text());
        Ok(())
    }

    /// `-global driver.property=value`, or its parts as settings.
    fn global(&mut self, name: &str, value: &str) -> Result<(), Refusal> {
        let settings = Settings::parse(value)?;
        let property = settings.get("property").map(str::to_owned);
        harmless::settings(&settings)?;
        if let (Some(property), Some(to)) = (property, settings.get("value")) {
            harmless::setting(&property, to)?;
        }
        self.keep(name, settings.text());
        Ok(())
    }

    /// `-set group.id.setting=value`: of devices only.
    fn set(&mut self, name: &str, value: &str) -> Result<(), Refusal> {
        let bad = || "it changes something else than a device".to_owned();
        let (path, to) = value.split_once('=').ok_or_else(bad)?;
        let mut parts = path.splitn(3, '.');
        let (Some("device"), Some(_), Some(key)) = (parts.next(), parts.next(), parts.next())
        else {
            return Err(bad());
        };
        if key == "driver" {
            harmless::model(to)?;
        }
        harmless::setting(key, to)?;
        self.keep(name, value);
        Ok(())
    }

    /// `-chardev`: standard input and output are the harness's.
    fn chardev(&mut self, value: &str, shown: &str) -> Result<(), Refusal> {
        let mut settings = Settings::parse(value)?;
        if settings.first("backend") == Some("stdio") && !settings.is_json() {
            let first = settings.items.first().is_some_and(|item| item.key.is_empty());
            let (id, mux) = (settings.get("id").map(str::to_owned), settings.get("mux"));
            let mux = mux.map(str::to_owned);
            settings = Settings::parse("null")?;
            if let (true, Some(id)) = (first, id) {
                settings.push("id", &id);
            }
            mux.iter().for_each(|mux| settings.push("mux", mux));
            self.change(format!("{shown} became null"));
        }
        kinds(&settings, "backend", harmless::chardev)?;
        harmless::settings(&settings)?;
        self.keep("chardev", settings.text());
        Ok(())
    }

    /// `-audiodev` and `-audio`: no sound of the host's.
    fn audio(&mut self, name: &str, value: &str, shown: &str) -> Result<(), Refusal> {
        let settings = Settings::parse(value)?;
        let driver = settings.first("driver").unwrap_or_default();
        let mut silent = Settings::parse("none")?;
        for key in ["id", "model"] {
            if let Some(value) = settings.get(key) {
                harmless::value(value)?;
                silent.push(key, value);
            }
        }
        if driver != "none" {
            self.change(format!("{shown} became none"));
        }
        self.keep(name, silent.text());
        Ok(())
    }

    fn finish(mut self) -> Result<Arguments> {
        if !self.refused.is_empty() {
            return Err(refusal(&self.refused));
        }
        // QEMU would connect the default card to the network that it has for users.
        if !self.network_said && !self.policy.trust {
            self.keep("net", "nic");
        }
        self.push(HARNESS.iter().map(|word| (*word).to_owned()));
        self.out.images = self.drives.images;
        self.out.image_names = self.drives.names;
        Ok(self.out)
    }
}

/// Whether every kind that the settings name passes `check`.
fn kinds(
    settings: &Settings,
    name: &str,
    check: fn(Option<&str>) -> Result<(), Refusal>,
) -> Result<(), Refusal> {
    if settings.first(name).is_none() {
        return check(None);
    }
    settings.all(name).try_for_each(|kind| check(Some(kind)))
}

fn unknown_word(unknown: &str) -> String {
    format!("only a shell could say what {unknown} is")
}

fn refusal(refused: &[String]) -> Error {
    let mut text = refused.iter().take(REFUSED_SHOWN).cloned().collect::<Vec<_>>().join("; ");
    let more = refused.len().saturating_sub(REFUSED_SHOWN);
    if more > 0 {
        text.push_str(&format!("; and {more} more"));
    }
    let noun = if refused.len() == 1 { "argument" } else { "arguments" };
    Error::machine(format!("{noun} of the report's machine refused: {text}"))
        .hint("if you trust the report, trust_args=on passes its arguments on; args=… gives others")
}

/// The folder of a report: images may come from there.
pub fn folder_of(report: &Path) -> Option<PathBuf> {
    let parent = report.parent()?;
    Some(if parent.as_os_str().is_empty() { PathBuf::from(".") } else { parent.to_path_buf() })
}

#[cfg(test)]
#[path = "args_tests.rs"]
mod tests;
