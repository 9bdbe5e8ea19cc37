//! The `-blockdev`s of a command line: a graph, in which the file below each disk is looked for.

use super::disk::{self, Access, Disk, FILE_DRIVERS, Why};
use super::node::Node;

/// All `-blockdev`s, in their order.
#[derive(Debug, Default)]
pub struct Graph {
    nodes: Vec<Node>,
}

/// A disk in the graph.
#[derive(Debug)]
pub struct Found {
    /// Names by which it can be asked for; the first is shown.
    pub names: Vec<String>,
    /// What is to be tapped.
    pub disk: Result<Disk, Why>,
    /// The node that holds the file, and where in it.
    file: (usize, String),
    /// The node whose format it has, if that is not raw, and where in it.
    format: Option<(usize, String)>,
}

impl Graph {
    /// Adds one; its number is their count before.
    ///
    /// # Errors
    /// It is no description of a node.
    pub fn add(&mut self, text: &str) -> Result<(), &'static str> {
        self.nodes.push(Node::blockdev(text)?);
        Ok(())
    }

    /// The value of the `number`th, as it is by now.
    pub fn text(&self, number: usize) -> Option<String> {
        self.nodes.get(number).map(Node::text)
    }

    /// The disks, one for each file at the bottom. `firmware` tells whether a node is that.
    pub fn disks(&self, firmware: impl Fn(&str) -> bool) -> Vec<Found> {
        let bottoms = self.nodes.iter().enumerate().map(|(number, node)| (number, bottom(node)));
        bottoms.filter_map(|(number, prefix)| self.disk(number, prefix, &firmware)).collect()
    }

    fn disk(
        &self,
        number: usize,
        prefix: String,
        firmware: &impl Fn(&str) -> bool,
    ) -> Option<Found> {
        let node = self.nodes.get(number)?;
        // A node above another of the command line is met with that one.
        if node.get(&format!("{prefix}file")).is_some() {
            return None;
        }
        let driver = node.get(&format!("{prefix}driver")).unwrap_or_default();
        let above = self.above(number, &prefix);
        let mut names = Vec::new();
        let mut add = |name: Option<String>| {
            names.extend(name.filter(|name| !names.contains(name)));
        };
        let mut part = disk::is_part(node);
        if let Ok(Some((top, _))) = &above {
            part |= self.nodes.get(*top).is_some_and(disk::is_part);
            add(self.nodes.get(*top).and_then(|node| node.get("node-name")));
        }
        add(node.get("node-name"));
        add(node.get(&format!("{prefix}node-name")));
        let filename = node.get(&format!("{prefix}filename"));
        add(filename.clone());
        let shown = names.first().cloned().unwrap_or_else(|| "blockdev".to_owned());
        let format = above.clone().ok().flatten().filter(|(at, prefix)| {
            let driver = self.nodes.get(*at).and_then(|node| node.get(&format!("{prefix}driver")));
            driver.is_some_and(|driver| driver != "raw" && !is_filter(&driver))
        });
        let disk = match (FILE_DRIVERS.contains(&driver.as_str()), filename) {
            (false, _) => Err(disk::not_a_file(node, &driver)),
            (true, None) => Err(Why::Refused("it is a file without a name".to_owned())),
            (true, Some(_)) if names.iter().any(|name| firmware(name)) => {
                Err(Why::Passed("it is firmware".to_owned()))
            }
            (true, Some(file)) => {
                let at = (number, prefix.as_str());
                let described =
                    above.and_then(|_| self.describe(shown, &file, at, format.as_ref()));
                described.map(|disk| Disk { part, ..disk })
            }
        };
        Some(Found { names, disk, file: (number, prefix), format })
    }

    fn describe(
        &self,
        name: String,
        file: &str,
        at: (usize, &str),
        format: Option<&(usize, String)>,
    ) -> Result<Disk, Why> {
        if file.starts_with("/dev/fdset/") {
            return Err(Why::Refused("its file is a descriptor (-add-fd)".to_owned()));
        }
        let (mut alone, mut driver) = (false, "raw".to_owned());
        if let Some((number, prefix)) = format
            && let Some(node) = self.nodes.get(*number)
        {
            driver = disk::format(&node.get(&format!("{prefix}driver")).unwrap_or_default())?;
            disk::make_raw(&mut node.clone(), prefix, &mut alone)?;
        }
        // The disk is as writable as the least writable of its nodes.
        let mut places = vec![at];
        places.extend(format.map(|(number, prefix)| (*number, prefix.as_str())));
        if !at.1.is_empty() {
            places.push((at.0, ""));
        }
        let on = |what: &str| {
            places.iter().any(|(number, prefix)| {
                self.nodes.get(*number).is_some_and(|node| node.is_on(&format!("{prefix}{what}")))
            })
        };
        let access = match (on("read-only"), on("auto-read-only")) {
            (true, _) => Access::ReadOnly,
            (false, true) => Access::Auto,
            (false, false) => Access::ReadWrite,
        };
        let direct = on("cache.direct");
        let format = Some(driver);
        Ok(Disk { name, file: file.into(), format, access, alone, direct, part: false })
    }

    /// The node right above the one at `prefix` of the `number`th: where its format is.
    fn above(&self, number: usize, prefix: &str) -> Result<Option<(usize, String)>, Why> {
        if let Some(parent) = prefix.strip_suffix("file.") {
            return Ok(Some((number, parent.to_owned())));
        }
        let Some(name) = self.nodes.get(number).and_then(|node| node.get("node-name")) else {
            return Ok(None);
        };
        let mut above = Vec::new();
        for (at, node) in self.nodes.iter().enumerate() {
            let bottom = bottom(node);
            if node.get(&format!("{bottom}file")).as_deref() == Some(&name) {
                above.push((at, bottom));
            } else if node.get("backing").as_deref() == Some(&name) {
                return Err(Why::Refused("it is the backing file of another node".to_owned()));
            }
        }
        if above.len() > 1 {
            return Err(Why::Refused(format!("{} nodes stand above it", above.len())));
        }
        Ok(above.pop())
    }

    /// Puts the NBD server at `socket` below a disk; what is not said any more.
    ///
    /// # Errors
    /// A setting that a tap cannot stand for.
    pub fn tap(&mut self, found: &Found, socket: &str) -> Result<Vec<String>, Why> {
        let mut dropped = Vec::new();
        if let Some((number, prefix)) = &found.format
            && let Some(node) = self.nodes.get_mut(*number)
        {
            dropped = disk::make_raw(node, prefix, &mut false)?;
            node.set(&format!("{prefix}driver"), "raw");
        }
        let (number, prefix) = &found.file;
        if let Some(node) = self.nodes.get_mut(*number) {
            disk::make_nbd(node, prefix, socket);
        }
        Ok(dropped)
    }
}

/// Drivers that stand above a format, or below one, and change nothing of what is on the disk.
fn is_filter(driver: &str) -> bool {
    matches!(driver, "throttle" | "blkdebug" | "blkverify" | "blklogwrites" | "preallocate")
}

/// Where the lowest node in `node` is: empty, or a path that ends with a dot.
fn bottom(node: &Node) -> String {
    let mut prefix = String::new();
    // No graph is this deep; QEMU's own limit of a path would be met before.
    for _ in 0..64 {
        let below = format!("{prefix}file.");
        if node.names_below(&below).is_empty() {
            break;
        }
        prefix = below;
    }
    prefix
}
