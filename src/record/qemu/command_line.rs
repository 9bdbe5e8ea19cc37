//! QEMU's command line, word by word.

use super::blockdev::{Found, Graph};
use super::disk::{Disk, Why};
use super::drive::{self, Drive};
use crate::base::{Error, Result};
use crate::replay::qtest_log::options;
use crate::replay::qtest_log::opts::Settings;

/// Which drives get a tap.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Wanted {
    /// All that have an image file, firmware excepted.
    All,
    /// Those with these names: of the drive, the node or the file.
    Named(Vec<String>),
}

/// A command line with taps.
#[derive(Debug, Default)]
pub struct Rewritten {
    /// Its words, the program first.
    pub words: Vec<String>,
    /// What each tap opens, in the order of their sockets.
    pub disks: Vec<Disk>,
    /// Drives that have none, and why.
    pub passed: Vec<(String, String)>,
    /// Settings that are not said any more, with the disk they were of.
    pub dropped: Vec<(String, String)>,
}

/// Rewrites `words` so that each drive that is wanted has the NBD server at `socket(n)` below it,
/// where `n` is its place in [`Rewritten::disks`].
///
/// # Errors
/// Usage: what cannot be tapped or understood, and why; or a name that no drive has.
pub fn rewrite(
    words: &[String],
    wanted: &Wanted,
    socket: impl Fn(usize) -> String,
) -> Result<Rewritten> {
    let mut walk = Walk::new(wanted);
    walk.read(words)?;
    walk.choose()?;
    walk.write(socket)
}

/// Whether `words` keep QEMU in the foreground.
///
/// # Errors
/// Usage, when it would go its own way.
pub fn stays(words: &[String]) -> Result<()> {
    match words.iter().skip(start(words)).any(|word| option(word) == Some("daemonize")) {
        true => Err(Error::usage("-daemonize: QEMU would go on without its recorder")
            .hint("leave it out, and put qtrace into the background")),
        false => Ok(()),
    }
}

/// Whether `words` let QEMU run its guest on kvm.
pub fn may_use_kvm(words: &[String]) -> bool {
    let program = words.get(start(words) - 1).map(String::as_str).unwrap_or_default();
    program.ends_with("kvm") || accelerators(words).contains(&"kvm")
}

/// The accelerators that `words` name, in the order in which QEMU tries them; none when they leave
/// it to QEMU.
pub fn accelerators(words: &[String]) -> Vec<&str> {
    let mut options = words.iter().skip(start(words)).map(String::as_str).peekable();
    let mut found = Vec::new();
    while let Some(word) = options.next() {
        let value = options.peek().copied().unwrap_or_default();
        match option(word) {
            Some("enable-kvm") => found.push("kvm"),
            Some("accel") => {
                let name = value.split(',').next().unwrap_or_default();
                found.push(name.strip_prefix("accel=").unwrap_or(name));
            }
            Some("machine" | "M") => {
                let named = value.split(',').filter_map(|part| part.strip_prefix("accel="));
                found.extend(named.flat_map(|names| names.split(':')));
            }
            _ => {}
        }
    }
    found
}

/// The name of an option, without its hyphens.
pub fn option(word: &str) -> Option<&str> {
    let name = word.strip_prefix("--").or_else(|| word.strip_prefix('-'))?;
    (!name.is_empty()).then_some(name)
}

/// Whether `word` is an option that the next word is the value of, as far as that is known.
pub fn takes_value(word: &str) -> bool {
    option(word).and_then(options::rule).is_some_and(|rule| rule.takes_value)
}

/// Where QEMU's arguments begin: behind the word that is its program, which others may run.
pub fn start(words: &[String]) -> usize {
    let is_qemu = |word: &String| {
        let name = word.rsplit('/').next().unwrap_or_default();
        name.starts_with("qemu-system-")
            || matches!(name, "qemu-kvm" | "kvm" | "xen-qemu-system-i386")
    };
    words.iter().position(is_qemu).unwrap_or(0) + 1
}

/// A word, or an option with its value, and what it is to us.
#[derive(Debug)]
enum Part {
    /// Passed on.
    Words(Vec<String>),
    /// A drive, as it was written.
    Drive(Box<Drive>, Vec<String>),
    /// The `-blockdev` of that number.
    Blockdev(usize),
}

/// A drive or disk that gets a tap.
#[derive(Debug)]
enum Chosen {
    Drive(usize),
    Disk(Box<Found>),
}

#[derive(Debug)]
struct Walk<'w> {
    wanted: &'w Wanted,
    parts: Vec<Part>,
    graph: Graph,
    blockdevs: usize,
    /// Nodes that `-machine` takes for firmware.
    firmware: Vec<String>,
    /// Options that reach drives by ways that are not followed, with the reason.
    elsewhere: Vec<(String, &'static str)>,
    chosen: Vec<Chosen>,
    out: Rewritten,
}

impl<'w> Walk<'w> {
    fn new(wanted: &'w Wanted) -> Self {
        Self {
            wanted,
            parts: Vec::new(),
            graph: Graph::default(),
            blockdevs: 0,
            firmware: Vec::new(),
            elsewhere: Vec::new(),
            chosen: Vec::new(),
            out: Rewritten::default(),
        }
    }

    fn read(&mut self, words: &[String]) -> Result<()> {
        let (program, arguments) = words.split_at(start(words).min(words.len()));
        self.parts.push(Part::Words(program.to_vec()));
        let mut rest = arguments.iter();
        while let Some(word) = rest.next() {
            let Some(name) = option(word) else {
                // An image by itself is the first disk.
                self.drive(drive::shorthand("hda", word), vec![word.clone()]);
                continue;
            };
            let takes_value = match options::rule(name) {
                Some(rule) => rule.takes_value,
                None if rest.as_slice().first().is_none_or(|next| next.starts_with('-')) => false,
                None => {
                    return Err(Error::usage(format!(
                        "{word}: not an option of QEMU's that qtrace knows, and whether what follows it \
                         is its value cannot be told"
                    ))
                    .hint("put it last, or before another option"));
                }
            };
            let value = if takes_value { rest.next() } else { None };
            match value {
                None => self.flag(name, word),
                Some(value) => self.option(name, word, value)?,
            }
        }
        Ok(())
    }

    fn flag(&mut self, name: &str, word: &str) {
        if name == "snapshot" {
            let why =
                "what the guest writes goes to temporary files of QEMU's and not through a tap";
            self.elsewhere.push((word.to_owned(), why));
        }
        self.parts.push(Part::Words(vec![word.to_owned()]));
    }

    fn option(&mut self, name: &str, word: &str, value: &str) -> Result<()> {
        let shown = || format!("{word} {}", shortened(value));
        let unreadable = |why: &str| Error::usage(format!("{}: {why}", shown()));
        let words = vec![word.to_owned(), value.to_owned()];
        match name {
            "drive" => {
                let drive = drive::parse(value).map_err(unreadable)?;
                self.drive(Some(drive), words);
                return Ok(());
            }
            "blockdev" => {
                self.graph.add(value).map_err(unreadable)?;
                self.parts.push(Part::Blockdev(self.blockdevs));
                self.blockdevs += 1;
                return Ok(());
            }
            _ if drive::SHORTHANDS.iter().any(|(option, _)| *option == name) => {
                self.drive(drive::shorthand(name, value), words);
                return Ok(());
            }
            "machine" | "M" => {
                if let Ok(settings) = Settings::parse(value) {
                    let named =
                        ["pflash0", "pflash1"].into_iter().filter_map(|key| settings.get(key));
                    self.firmware.extend(named.map(str::to_owned));
                }
            }
            "loadvm" => {
                let why = "the machine's state is in an image that the tap opens in QEMU's place";
                self.elsewhere.push((shown(), why));
            }
            // Those that were asked for by name have been found, or not.
            "readconfig" if *self.wanted == Wanted::All => {
                self.elsewhere.push((shown(), "drives in it are not seen"))
            }
            "set" if value.starts_with("drive.") => {
                self.elsewhere.push((shown(), "it changes a drive that stands elsewhere"));
            }
            _ => {}
        }
        self.parts.push(Part::Words(words));
        Ok(())
    }

    fn drive(&mut self, drive: Option<Drive>, words: Vec<String>) {
        self.parts.push(match drive {
            Some(drive) => Part::Drive(Box::new(drive), words),
            None => Part::Words(words),
        });
    }

    fn choose(&mut self) -> Result<()> {
        let mut asked: Vec<(String, bool)> = match self.wanted {
            Wanted::All => Vec::new(),
            Wanted::Named(names) => names.iter().map(|name| (name.clone(), false)).collect(),
        };
        let mut wants = |names: &[String]| {
            let mut any = asked.is_empty();
            for (name, met) in &mut asked {
                let this = names.contains(name);
                *met |= this;
                any |= this;
            }
            any
        };
        let mut names_seen = Vec::new();
        for (at, part) in self.parts.iter().enumerate() {
            let Part::Drive(drive, words) = part else { continue };
            names_seen.extend(drive.names.first().cloned());
            let wanted = wants(&drive.names);
            let shown = shortened(&words.join(" "));
            if verdict(self.wanted, wanted, &drive.names, &shown, &drive.disk, &mut self.out)? {
                self.chosen.push(Chosen::Drive(at));
            }
        }
        let firmware = std::mem::take(&mut self.firmware);
        for found in self.graph.disks(|name| firmware.iter().any(|node| node == name)) {
            names_seen.extend(found.names.first().cloned());
            let wanted = wants(&found.names);
            let shown = format!("-blockdev {}", found.names.first().map_or("", String::as_str));
            if verdict(self.wanted, wanted, &found.names, &shown, &found.disk, &mut self.out)? {
                self.chosen.push(Chosen::Disk(Box::new(found)));
            }
        }
        if let Some((name, _)) = asked.iter().find(|(_, met)| !met) {
            return Err(Error::usage(format!("--block={name}: no drive has that name"))
                .hint(format!("drives of this command line: {}", names_seen.join(", "))));
        }
        if self.chosen.is_empty() {
            return Err(Error::usage("no drive of this command line has an image file to tap")
                .hint("leave --block out, or name a drive with --block=ID"));
        }
        match self.elsewhere.first() {
            Some((shown, why)) => Err(Error::usage(format!("{shown}: {why}"))
                .hint("leave it out, or record without --block")),
            None => Ok(()),
        }
    }

    fn write(mut self, socket: impl Fn(usize) -> String) -> Result<Rewritten> {
        let refused = |name: &str, why: Why| match why {
            Why::Passed(why) | Why::Refused(why) => Error::usage(format!("{name}: {why}")),
        };
        let mut values = Vec::new();
        for chosen in std::mem::take(&mut self.chosen) {
            let socket = socket(self.out.disks.len());
            let (disk, dropped) = match &chosen {
                Chosen::Drive(at) => {
                    let Some(Part::Drive(drive, _)) = self.parts.get(*at) else { continue };
                    let Ok(disk) = drive.disk.clone() else { continue };
                    let (value, dropped) =
                        drive.tapped(&socket).map_err(|why| refused(&disk.name, why))?;
                    values.push((*at, value));
                    (disk, dropped)
                }
                Chosen::Disk(found) => {
                    let Ok(disk) = found.disk.clone() else { continue };
                    let dropped =
                        self.graph.tap(found, &socket).map_err(|why| refused(&disk.name, why))?;
                    (disk, dropped)
                }
            };
            let dropped = dropped.into_iter().map(|what| (disk.name.clone(), what));
            self.out.dropped.extend(dropped);
            self.out.disks.push(disk);
        }
        for (at, part) in self.parts.into_iter().enumerate() {
            let value =
                values.iter().find(|(place, _)| *place == at).map(|(_, value)| value.clone());
            match (part, value) {
                (_, Some(value)) => self.out.words.extend(["-drive".to_owned(), value]),
                (Part::Words(words) | Part::Drive(_, words), None) => self.out.words.extend(words),
                (Part::Blockdev(number), None) => {
                    let text = self.graph.text(number).unwrap_or_default();
                    self.out.words.extend(["-blockdev".to_owned(), text]);
                }
            }
        }
        Ok(self.out)
    }
}

/// Whether a drive gets a tap; notes why one does not.
fn verdict(
    all: &Wanted,
    wanted: bool,
    names: &[String],
    shown: &str,
    disk: &Result<Disk, Why>,
    out: &mut Rewritten,
) -> Result<bool> {
    let name = names.first().cloned().unwrap_or_else(|| shown.to_owned());
    match disk {
        _ if !wanted => {
            out.passed.push((name, "not asked for".to_owned()));
            Ok(false)
        }
        Ok(_) => Ok(true),
        Err(Why::Passed(why)) if *all == Wanted::All => {
            out.passed.push((name, why.clone()));
            Ok(false)
        }
        Err(Why::Passed(why) | Why::Refused(why)) => {
            Err(Error::usage(format!("{shown}: no tap can be put there: {why}"))
                .hint("name the drives to tap with --block=ID, or leave --block out"))
        }
    }
}

/// Characters of an argument that an error shows.
const ARGUMENT_CHARS_SHOWN: usize = 120;

fn shortened(text: &str) -> String {
    match text.char_indices().nth(ARGUMENT_CHARS_SHOWN) {
        Some((at, _)) => format!("{}…", text.get(..at).unwrap_or_default()),
        None => text.to_owned(),
    }
}

#[cfg(test)]
#[path = "command_line_tests.rs"]
mod tests;
