//! The kind of machine `vhost-user`: disks that another process serves over shared memory.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use serde_json::{Value, json};

use super::machines::{MachineKind, TestMachine};
use super::needs::Lack;
use super::one_disk::{DiskImage, DiskMachine, ImageHolder, OneDisk};
use super::served_disk;
use super::settings::ClockChoice;
use super::setup::{MachineSetup, TestDisk};
use crate::base::options::{OptionSpec, Options};
use crate::base::units::parse_size;
use crate::base::{Error, Result, shell};
use crate::image::Image;
use crate::image::given::{GivenAio, GivenImage, Handover};
use crate::machine::builtin::Chips;
use crate::machine::vhost_user::{
    ServedDisk, VhostUserConfig, VhostUserMachine, find_storage_daemon, storage_daemon_version,
};
use crate::machine::{Capabilities, Machine};

/// A front-end without a virtual machine around it.
pub struct VhostUser;

/// What a vhost-user socket has not.
const LACKS: &[Lack] = &[
    Lack {
        chips: Chips::all(),
        facets: Capabilities::PIO
            .union(Capabilities::MMIO)
            .union(Capabilities::INTX)
            .union(Capabilities::MSIX)
            .union(Capabilities::CPU_IRQ)
            .union(Capabilities::APIC_MESSAGES)
            .union(Capabilities::TIMERS),
        never: true,
        why: "a vhost-user socket has vrings: no ports, no registers, no interrupt controllers",
    },
    Lack {
        chips: Chips::empty(),
        facets: Capabilities::DISK_IDS,
        never: true,
        why: "a disk has the identifier that its server gives it",
    },
    Lack {
        chips: Chips::empty(),
        facets: Capabilities::VIRTUAL_CLOCK,
        never: true,
        why: "a server lives in real time",
    },
];

const OPTIONS: &[OptionSpec] = &[
    OptionSpec::new(
        "socket",
        "PATH",
        "",
        "the Unix socket of a server that runs already; vhost-user:PATH says the same",
    ),
    OptionSpec::new(
        "server",
        "qemu-storage-daemon",
        "",
        "the server to start on the target image, and to end with the run",
    ),
    OptionSpec::new("binary", "FILE", "", "the server's program, instead of the PATH's"),
    OptionSpec::new("args", "TEXT", "", "further arguments of the server's, quoted as in a shell"),
    OptionSpec::new("blockdev", "JSON", "", "properties of its --blockdev that win over ours"),
    OptionSpec::new("ram", "SIZE", "128M", "guest RAM"),
    OptionSpec::new(
        "overwrite",
        "on|off",
        "off",
        "qtrace test: a running server's disk, of 1 MiB with one queue, may be filled and written",
    ),
];

/// Who serves the disk.
enum Served {
    /// Whoever listens there.
    By(PathBuf),
    /// A storage daemon of ours.
    Here,
}

const SERVERS: &[(&str, ())] = &[("qemu-storage-daemon", ())];

fn served(options: &Options) -> Result<Served> {
    let refuse = |what: &str, hint: &str| Err(Error::usage(what).hint(hint));
    options.choice("server", SERVERS, ())?;
    options.switch("overwrite", false)?;
    match (options.get("socket"), options.get("server")) {
        (Some(""), _) => refuse("socket= is empty", "give the path of the server's socket"),
        (Some(path), None) => match ["binary", "args", "blockdev"]
            .iter()
            .find(|key| options.get(key).is_some())
        {
            Some(key) => refuse(
                &format!("{key}= is for a server that is started, and socket= names one that runs"),
                "leave one of them out",
            ),
            None => Ok(Served::By(path.into())),
        },
        (None, Some(_)) if options.get("overwrite").is_some() => refuse(
            "overwrite= is for a server that runs already",
            "the disks of one that is started are the tests' own",
        ),
        (None, Some(_)) => Ok(Served::Here),
        (Some(_), Some(_)) => refuse(
            "socket= names a server that runs, and server= starts one",
            "leave one of them out",
        ),
        (None, None) => refuse(
            "machine 'vhost-user' needs a server",
            "vhost-user:SOCKET for one that runs; vhost-user,server=qemu-storage-daemon starts one",
        ),
    }
}

fn config(options: &Options) -> Result<VhostUserConfig> {
    let ram_bytes = options.parse_with("ram", "a size such as 256M", parse_size)?;
    let default = VhostUserConfig::default();
    Ok(VhostUserConfig { ram_bytes: ram_bytes.unwrap_or(default.ram_bytes), ..default })
}

fn extra(options: &Options) -> Result<Vec<String>> {
    let words = options.parse_with("args", "words with closed quotes", shell::split)?;
    let words = words.unwrap_or_default();
    if words.iter().any(|word| word.trim_start_matches('-') == "daemonize") {
        let what = "args=--daemonize: a server that leaves its parent would be lost";
        return Err(Error::usage(what).hint("qtrace ends the servers that it starts"));
    }
    Ok(words)
}

fn json_option(options: &Options, name: &str) -> Result<Value> {
    let parse = |text: &str| serde_json::from_str::<Value>(text).ok().filter(Value::is_object);
    let value = options.parse_with(name, "a JSON object, with ,, for a comma", parse)?;
    Ok(value.unwrap_or(Value::Null))
}

fn merge(into: &mut Value, more: &Value) {
    if let (Some(into), Some(more)) = (into.as_object_mut(), more.as_object()) {
        into.extend(more.iter().map(|(key, value)| (key.clone(), value.clone())));
    }
}

fn disk(options: &Options, image: &GivenImage) -> Result<ServedDisk> {
    let mut node = image.node.clone();
    merge(&mut node, &json_option(options, "blockdev")?);
    let fds = image.files.iter().map(|file| Arc::clone(&file.fd)).collect();
    Ok(ServedDisk::new(node, fds))
}

/// A test's disk: in memory, with its contents.
fn test_disk(options: &Options, wanted: &TestDisk) -> Result<(ServedDisk, Arc<dyn Image>)> {
    let handover = Handover::mem(wanted.bytes, GivenAio::Threads)?;
    wanted.fill(&*handover.writable()?)?;
    let mut served = disk(options, handover.image())?;
    if wanted.read_only {
        merge(&mut served.node, &json!({ "read-only": true }));
    }
    served.read_only = wanted.read_only;
    served.queues = wanted.queues;
    served.block_bytes = wanted.block_bytes;
    served.iothread = wanted.iothread;
    Ok((served, handover.reopen()?))
}

/// A machine whose disk a server has that runs already: the first that the tests want. Cases that
/// want more of them are skipped where they find that they are not there.
fn test_served(options: &Options, path: &Path, setup: &MachineSetup) -> Result<TestMachine> {
    if !options.switch("overwrite", false)? {
        let what = "tests write to their disks, and count on what these hold";
        return Err(Error::machine(what).path(path).hint(
            "overwrite=on lets them fill the server's disk; server=qemu-storage-daemon serves \
             disks of the tests' own",
        ));
    }
    let mut machine = VhostUserMachine::connect(path, &config(options)?)?;
    if let Some(wanted) = setup.disks.first() {
        served_disk::prepare(&mut machine, wanted).map_err(|error| error.path(path))?;
    }
    let (machine, images) = (Box::new(machine), Vec::new());
    Ok(TestMachine { machine, chips: Chips::empty(), images, spec: None })
}

fn serve(
    options: &Options,
    disks: Vec<ServedDisk>,
    config: &VhostUserConfig,
) -> Result<VhostUserMachine> {
    let named = options.get("binary").map(PathBuf::from);
    let binary = find_storage_daemon(named.as_deref())?;
    VhostUserMachine::serve(&binary, disks, &extra(options)?, config)
}

fn check_clock(clock: ClockChoice) -> Result<()> {
    match clock {
        ClockChoice::Host => Ok(()),
        ClockChoice::Virtual | ClockChoice::Scaled(_) => {
            Err(Error::usage("a vhost-user server lives in real time").hint("use clock=host"))
        }
    }
}

impl MachineKind for VhostUser {
    fn name(&self) -> &'static str {
        "vhost-user"
    }

    fn purpose(&self) -> &'static str {
        "virtio disks of a vhost-user server: SPDK, qemu-storage-daemon, `qtrace record`"
    }

    fn options(&self) -> &'static [OptionSpec] {
        OPTIONS
    }

    fn has_bus(&self) -> bool {
        false
    }

    fn argument(&self) -> Option<&'static str> {
        Some("socket")
    }

    fn check(&self, options: &Options) -> Result<()> {
        served(options)?;
        config(options)?;
        extra(options)?;
        json_option(options, "blockdev").map(|_| ())
    }

    fn available(&self, options: &Options) -> Result<()> {
        match served(options)? {
            // Connecting takes the connection from whoever serves one front-end at a time.
            Served::By(_) => Ok(()),
            Served::Here => {
                let named = options.get("binary").map(PathBuf::from);
                storage_daemon_version(&find_storage_daemon(named.as_deref())?).map(|_| ())
            }
        }
    }

    fn build(&self, options: &Options, setup: &MachineSetup) -> Result<TestMachine> {
        // There is no clock to move: cases that need none run in real time, others are skipped.
        if matches!(setup.clock, ClockChoice::Scaled(_)) {
            check_clock(setup.clock)?;
        }
        if let Served::By(path) = served(options)? {
            return test_served(options, &path, setup);
        }
        let mut disks = Vec::with_capacity(setup.disks.len());
        let mut images = Vec::with_capacity(setup.disks.len());
        for wanted in &setup.disks {
            let (disk, image) = test_disk(options, wanted)?;
            disks.push(disk);
            images.push(image);
        }
        let machine = Box::new(serve(options, disks, &config(options)?)?);
        Ok(TestMachine { machine, chips: Chips::empty(), images, spec: None })
    }

    fn lacks(&self) -> &'static [Lack] {
        LACKS
    }

    fn image_holder(&self, options: &Options) -> ImageHolder {
        match options.get("server") {
            Some(_) => ImageHolder::Machine,
            None => ImageHolder::Server,
        }
    }

    fn build_for_replay(&self, options: &Options, wanted: OneDisk) -> Result<DiskMachine> {
        check_clock(wanted.clock)?;
        let config = VhostUserConfig { patience: wanted.patience, ..config(options)? };
        let mut details = BTreeMap::new();
        let machine = match (served(options)?, &wanted.image) {
            (Served::By(path), DiskImage::Served) => VhostUserMachine::connect(&path, &config)?,
            (Served::Here, DiskImage::Given(image)) => {
                let served = |image: &GivenImage| -> Result<ServedDisk> {
                    let queues = wanted.queues;
                    // A thread of its own polls before it sleeps, the server's main loop does not:
                    // that is what a single request waits for.
                    let iothread = wanted.iothread.unwrap_or(true);
                    Ok(ServedDisk { queues, iothread, ..disk(options, image)? })
                };
                // The fastest, where kernel and server have it.
                let fast = wanted.aio_auto.then(|| image.clone().with_aio(GivenAio::IoUring));
                let started = match fast {
                    None => None,
                    Some(fast) => match serve(options, vec![served(&fast)?], &config) {
                        // In its own words: it was built without, or the kernel refuses.
                        Err(error) if error.to_string().contains("io_uring") => None,
                        started => Some(started?),
                    },
                };
                match started {
                    Some(machine) => {
                        details.insert("aio".to_owned(), "io_uring".to_owned());
                        machine
                    }
                    None => serve(options, vec![served(image)?], &config)?,
                }
            }
            _ => return Err(Error::machine("a vhost-user server opens its images itself")),
        };
        details.insert("server".to_owned(), machine.describe());
        Ok(DiskMachine { machine: Box::new(machine), details })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::suite::machines::MachineChoice;

    #[test]
    fn a_server_is_named_or_started() {
        let choice = MachineChoice::parse("vhost-user:/run/a,,b.sock,ram=64M").unwrap();
        assert_eq!(choice.options().get("socket"), Some("/run/a,b.sock"));
        assert_eq!(choice.image_holder(), ImageHolder::Server);
        let choice = MachineChoice::parse("vhost-user,server=qemu-storage-daemon").unwrap();
        assert_eq!(choice.image_holder(), ImageHolder::Machine);
        for bad in [
            "vhost-user",
            "vhost-user:",
            "vhost-user:a,server=qemu-storage-daemon",
            "vhost-user:a,socket=b",
            "vhost-user:a,binary=b",
            "vhost-user,server=nginx",
            "vhost-user,server=qemu-storage-daemon,blockdev=[]",
            "vhost-user,server=qemu-storage-daemon,args=--daemonize",
            "vhost-user,server=qemu-storage-daemon,args='",
            "vhost-user:a,ram=x",
            "vhost-user:a,overwrite=maybe",
            "vhost-user,server=qemu-storage-daemon,overwrite=on",
            "builtin:a",
        ] {
            assert_eq!(MachineChoice::parse(bad).unwrap_err().kind().exit_code(), 2, "{bad}");
        }
    }
}
