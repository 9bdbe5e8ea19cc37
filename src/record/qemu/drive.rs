//! `-drive`, and the options that stand for one: `-hda`, `-cdrom`, an image by itself.

use super::disk::{self, Access, Disk, FILE_DRIVERS, Why};
use super::node::Node;

/// What the shorthands stand for, beside their file.
pub const SHORTHANDS: &[(&str, &[(&str, &str)])] = &[
    ("hda", &[("index", "0"), ("media", "disk")]),
    ("hdb", &[("index", "1"), ("media", "disk")]),
    ("hdc", &[("index", "2"), ("media", "disk")]),
    ("hdd", &[("index", "3"), ("media", "disk")]),
    ("cdrom", &[("index", "2"), ("media", "cdrom")]),
    ("fda", &[("if", "floppy"), ("index", "0")]),
    ("fdb", &[("if", "floppy"), ("index", "1")]),
    ("sd", &[("if", "sd")]),
    ("mtdblock", &[("if", "mtd")]),
    ("pflash", &[("if", "pflash")]),
];

/// A drive as it was found.
#[derive(Debug)]
pub struct Drive {
    /// Names by which it can be asked for; the first is shown.
    pub names: Vec<String>,
    /// What is to be tapped.
    pub disk: Result<Disk, Why>,
    node: Node,
}

/// Looks at the value of a `-drive`.
///
/// # Errors
/// It is no list of settings.
pub fn parse(text: &str) -> Result<Drive, &'static str> {
    Ok(Drive::new(Node::drive(text)?, None))
}

/// Looks at an option that stands for a drive; its value is a file's name as it is.
pub fn shorthand(option: &str, file: &str) -> Option<Drive> {
    let (name, settings) = SHORTHANDS.iter().find(|(name, _)| *name == option)?;
    let mut node = Node::empty();
    for (key, value) in *settings {
        node.set(key, value);
    }
    node.set("file", file);
    Some(Drive::new(node, Some(name)))
}

impl Drive {
    fn new(node: Node, option: Option<&str>) -> Self {
        let file =
            node.get("file").or_else(|| node.get("file.filename")).or_else(|| node.get("filename"));
        let known =
            [node.get("id"), node.get("node-name"), option.map(str::to_owned), file.clone()];
        let names: Vec<String> =
            known.into_iter().flatten().filter(|name| !name.is_empty()).collect();
        let name = names.first().map_or("drive", String::as_str);
        let disk = disk_of(&node, name, file);
        Self { names, disk, node }
    }

    /// The value of the `-drive` whose file is the NBD server at `socket`, and what it does not say any
    /// more.
    ///
    /// # Errors
    /// A setting that a tap cannot stand for.
    pub fn tapped(&self, socket: &str) -> Result<(String, Vec<String>), Why> {
        let mut node = self.node.clone();
        let dropped = disk::make_raw(&mut node, "", &mut false)?;
        // What is set for the file's node beside its name stays.
        for name in ["file", "filename", "driver"] {
            node.remove_value(name);
        }
        node.set("format", "raw");
        disk::make_nbd(&mut node, "file.", socket);
        Ok((node.text(), dropped))
    }
}

fn disk_of(node: &Node, name: &str, file: Option<String>) -> Result<Disk, Why> {
    let passed = |why: &str| Err(Why::Passed(why.to_owned()));
    let refused = |why: &str| Err(Why::Refused(why.to_owned()));
    if let Some(kind @ ("pflash" | "mtd")) = node.get("if").as_deref() {
        return passed(&format!("if={kind} is firmware"));
    }
    let driver = node.get("format").or_else(|| node.get("driver"));
    let direct = driver.as_deref().is_some_and(|driver| FILE_DRIVERS.contains(&driver));
    match (node.get("file.driver").as_deref(), driver.as_deref()) {
        (Some(driver), _) if !FILE_DRIVERS.contains(&driver) => {
            return Err(disk::not_a_file(node, driver));
        }
        _ if file.is_none() && driver.is_none() => return passed("it has no image"),
        (None, Some(driver)) if file.is_none() => {
            return Err(disk::not_a_file(node, driver));
        }
        _ => {}
    }
    let named = node.get("file").is_some();
    let file = file.unwrap_or_default();
    let file = if named { disk::plain_file(&file)? } else { file.into() };
    if node.is_on("snapshot") {
        return refused(
            "snapshot=on: what the guest writes goes to a temporary file of QEMU's and not through the tap",
        );
    }
    let format = match driver.filter(|_| !direct) {
        Some(driver) => Some(disk::format(&driver)?),
        None => None,
    };
    if node.is_on("copy-on-read") {
        return refused(
            "copy-on-read=on: the tap opens the backing file in QEMU's place and copies nothing",
        );
    }
    let mut alone = false;
    disk::make_raw(&mut node.clone(), "", &mut alone)?;
    let read_only = node.is_on("readonly") || node.is_on("read-only");
    let access = match node.get("media").as_deref() {
        Some("cdrom") => Access::ReadOnly,
        _ if read_only => Access::ReadOnly,
        _ if node.is_on("auto-read-only") => Access::Auto,
        _ => Access::ReadWrite,
    };
    // `driver=file` is the file's bytes, whatever they are.
    let format = if direct { Some("raw".to_owned()) } else { format };
    let direct = matches!(node.get("cache").as_deref(), Some("none" | "off" | "directsync"))
        || node.is_on("cache.direct");
    let part = disk::is_part(node);
    Ok(Disk { name: name.to_owned(), file, format, access, alone, direct, part })
}
