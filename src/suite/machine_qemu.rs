//! The kind of machine `qemu`: a real QEMU without a guest.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use serde_json::{Value, json};

use super::bus_machine::{Basics, BusMachine};
use super::bus_qemu;
use super::machines::{MachineKind, TestMachine};
use super::needs::Lack;
use super::one_disk::{DiskImage, DiskMachine, ImageHolder, OneDisk};
use super::settings::ClockChoice;
use super::setup::{MachineSetup, TestDisk};
use super::spec::{DiskSpec, MachineSpec};
use crate::base::options::{OptionSpec, Options};
use crate::base::units::parse_size;
use crate::base::{Error, Result, shell};
use crate::image::Image;
use crate::image::given::{GivenAio, GivenImage, Handover};
use crate::machine::builtin::{Board, Chips, Reference};
use crate::machine::qemu::{Defaults, Mode, QemuConfig, QemuDisk, QemuMachine, Time, View, probe};
use crate::machine::{Capabilities, Machine};

/// QEMU's device models and block layer, driven over its qtest socket.
pub struct Qemu;

/// What a PC of QEMU's has and no test thread can use.
const LACKS: &[Lack] = &[
    Lack {
        chips: Chips::LAPIC,
        facets: Capabilities::empty(),
        never: false,
        why: "a local APIC answers its own CPU only, and none runs without a guest",
    },
    Lack {
        chips: Chips::empty(),
        facets: Capabilities::CPU_IRQ,
        never: false,
        why: "what interrupt controllers deliver is seen where there is one CPU (cpus=1)",
    },
];

/// What `-nodefaults` leaves out, and is added where a test wants it.
pub(super) const ADDED: Chips = Chips::SERIAL.union(Chips::DEBUGCON);

/// Timers that send messages, as machines of tests have them. Arguments of the user's come behind,
/// and win.
pub(super) const HPET_MESSAGES: [&str; 2] = ["-global", "hpet.msi=on"];

/// The folder of `keep=on`.
const KEPT: &str = "qtrace-kept";

const RAM_BYTES_DEFAULT: u64 = 128 << 20;

const TYPES: &[(&str, Board)] = &[("pc", Board::Pc), ("q35", Board::Q35)];

const MODES: &[(&str, Option<Mode>)] = &[
    ("auto", None),
    ("qtest", Some(Mode::Qtest)),
    ("tcg-paused", Some(Mode::TcgPaused)),
    ("tcg-halted", Some(Mode::TcgHalted)),
];

pub(super) const OPTIONS: &[OptionSpec] = &[
    OptionSpec::new("type", "pc|q35|TYPE", "pc", "the chipset; or a version such as pc-q35-5.0"),
    OptionSpec::new("binary", "FILE", "", "the QEMU to run, instead of the first that will do"),
    OptionSpec::new(
        "accel",
        "auto|qtest|tcg-paused|tcg-halted",
        "auto",
        "how devices run without a guest; `qtrace doctor` tells what works here",
    ),
    OptionSpec::new(
        "cpus",
        "N",
        "1",
        "CPUs, which only stand there; interrupt controllers are tested with 1",
    ),
    OptionSpec::new("ram", "SIZE", "128M", "guest RAM, at most 2G"),
    OptionSpec::new(
        "args",
        "TEXT",
        "",
        "further QEMU arguments; quote as in a shell, ,, for a comma",
    ),
    OptionSpec::new("device", "JSON", "", "properties of the disk's -device that win over ours"),
    OptionSpec::new(
        "blockdev",
        "JSON",
        "",
        "properties of the disk's -blockdev that win over ours",
    ),
    OptionSpec::new(
        "defaults",
        "on|off",
        "off",
        "with the devices that QEMU adds unless told not to: VGA, serial, IDE CD, network",
    ),
    OptionSpec::new(
        "keep",
        "on|off|DIR",
        "off",
        "keep each QEMU's command line, qtest log and stderr; on: in ./qtrace-kept",
    ),
];

impl Qemu {
    pub(super) fn config(options: &Options) -> Result<QemuConfig> {
        let ram_bytes = options.parse_with("ram", "a size such as 256M", parse_size)?;
        let args = options.parse_with("args", "words with closed quotes", shell::split)?;
        let args = args.unwrap_or_default();
        refuse_args(&args)?;
        let (board, machine_type) = machine_type(options, &args)?;
        let cpus = options.parse_with("cpus", "1 to 255", |v| v.parse().ok().filter(|n| *n > 0))?;
        json_option(options, "device")?;
        json_option(options, "blockdev")?;
        Ok(QemuConfig {
            binary: options.get("binary").map(PathBuf::from),
            board,
            machine_type,
            mode: options.choice("accel", MODES, None)?,
            ram_bytes: ram_bytes.unwrap_or(RAM_BYTES_DEFAULT),
            cpus: cpus.unwrap_or(1),
            args,
            defaults: options.switch("defaults", false)?.then_some(Defaults { serial: true }),
            keep: match options.get("keep") {
                None | Some("off") => None,
                Some("on") => Some(KEPT.into()),
                Some(dir) => Some(dir.into()),
            },
            ..QemuConfig::default()
        })
    }

    /// Each machine that is kept has a folder of its own.
    pub(super) fn start(mut config: QemuConfig) -> Result<QemuMachine> {
        static STARTED: AtomicU32 = AtomicU32::new(0);
        if let Some(dir) = &mut config.keep {
            let number = STARTED.fetch_add(1, Ordering::Relaxed);
            dir.push(format!("qemu-{}-{number}", std::process::id()));
            std::fs::create_dir_all(&*dir)
                .map_err(|e| Error::incomplete("cannot be created").path(&*dir).source(e))?;
        }
        QemuMachine::new(config)
    }
}

/// Arguments by which no machine would stand there to be driven, with what helps.
const REFUSED_ARGS: &[(&str, &str, &str)] = &[
    ("daemonize", "a QEMU that leaves its parent would be lost", "qtrace ends what it starts"),
    ("incoming", "a machine that waits for another's state runs nothing", "leave it out"),
    ("preconfig", "a machine that is not yet made runs nothing", "leave it out"),
    ("m", "guest RAM is shared with QEMU, which needs its size", "say it by ram=, such as ram=1G"),
];

fn refuse_args(args: &[String]) -> Result<()> {
    let names = args.iter().filter_map(|arg| arg.strip_prefix('-'));
    let names = names.map(|name| name.strip_prefix('-').unwrap_or(name));
    for name in names {
        if let Some((_, why, hint)) = REFUSED_ARGS.iter().find(|(known, ..)| *known == name) {
            return Err(Error::usage(format!("args=-{name}: {why}")).hint(*hint));
        }
    }
    Ok(())
}

/// Chipset and exact machine type: by `type=`, or by a `-machine` in `args=`.
fn machine_type(options: &Options, args: &[String]) -> Result<(Board, Option<String>)> {
    let is_machine = |arg: &String| matches!(arg.trim_start_matches('-'), "machine" | "M");
    let in_args = args.windows(2).filter(|two| two[0].starts_with('-') && is_machine(&two[0]));
    let mut in_args = in_args.filter_map(|two| {
        // `-machine TYPE,…`, `-machine type=TYPE,…`; properties alone name no type.
        let mut items = two[1].split(',');
        let first = items.next().filter(|item| !item.contains('=')).map(str::to_owned);
        first.or_else(|| {
            two[1].split(',').find_map(|item| item.strip_prefix("type=")).map(str::to_owned)
        })
    });
    let (given, in_args) = (options.get("type"), in_args.next_back());
    if let (Some(given), Some(in_args)) = (given, &in_args)
        && given != in_args
    {
        return Err(Error::usage(format!("type={given}, and args=-machine {in_args}"))
            .hint("say the machine's type once: type="));
    }
    let name = given.or(in_args.as_deref()).unwrap_or("pc");
    let exact = TYPES.iter().all(|(known, _)| *known != name).then(|| name.to_owned());
    Ok((board(name)?, exact))
}

/// The chipset of a machine type: QEMU's names of versions hold it.
fn board(name: &str) -> Result<Board> {
    match name {
        "q35" => Ok(Board::Q35),
        "pc" => Ok(Board::Pc),
        _ if name.starts_with("pc-q35-") => Ok(Board::Q35),
        _ if name.starts_with("pc-i440fx-") => Ok(Board::Pc),
        _ => Err(Error::usage(format!("machine type '{name}' is no PC of QEMU's with a PCI bus"))
            .hint(
                "type=pc or q35, or one of their versions such as pc-i440fx-6.2 or pc-q35-5.0; \
             microvm, isapc and machines of other processors lack what tests and drivers use",
            )),
    }
}

/// A QEMU may be built without some formats.
fn without_format(error: Error) -> Error {
    if !error.to_string().contains("Unknown driver '") {
        return error;
    }
    error.hint(
        "this QEMU was built without that format: another may have it (binary=FILE), and \
         `qemu-img convert -O qcow2` makes an image that all have",
    )
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

/// A disk as QEMU opens it.
fn disk(options: &Options, image: &GivenImage) -> Result<QemuDisk> {
    let mut node = image.node.clone();
    merge(&mut node, &json_option(options, "blockdev")?);
    let mut disk = QemuDisk::new(node);
    disk.fds = image.files.iter().map(|file| Arc::clone(&file.fd)).collect();
    disk.properties = json_option(options, "device")?;
    Ok(disk)
}

/// A test's disk: in memory, with its contents, read-only where the test wants it.
pub(super) fn test_disk(options: &Options, disk: &TestDisk) -> Result<(QemuDisk, Arc<dyn Image>)> {
    let handover = Handover::mem(disk.bytes, GivenAio::Threads)?;
    disk.fill(&*handover.writable()?)?;
    let mut given = self::disk(options, handover.image())?;
    if disk.read_only {
        merge(&mut given.node, &json!({ "read-only": true }));
    }
    given.queues = disk.queues;
    given.block_bytes = disk.block_bytes;
    given.serial = disk.serial.to_owned();
    given.iothread = disk.iothread;
    if !disk.iothread {
        // A doorbell is answered within its access, as tests of the protocol count on.
        let mut properties = json!({ "ioeventfd": false });
        merge(&mut properties, &given.properties);
        given.properties = properties;
    }
    Ok((given, handover.reopen()?))
}

/// Puts a disk into a slot of the root bus, unless the user said where it is to be.
pub(super) fn place(disk: &mut QemuDisk, slot: usize) {
    if disk.properties.is_null() {
        disk.properties = json!({});
    }
    if let Some(properties) = disk.properties.as_object_mut() {
        properties.entry("addr").or_insert_with(|| json!(format!("{slot:#x}")));
    }
}

/// What builds a test's machine again for its recording, with the same `--machine`.
fn spec(config: &QemuConfig, setup: &MachineSetup) -> MachineSpec {
    MachineSpec {
        board: config.board,
        ram_bytes: config.ram_bytes,
        cpus: config.cpus,
        chips: setup.chips,
        rtc_base_unix_s: config.rtc_base_unix_s,
        reference: Reference::Qemu,
        disks: setup.disks.iter().map(DiskSpec::of).collect(),
        controllers: config.view == View::Controllers,
        hpet_messages: true,
        ..MachineSpec::default()
    }
}

/// Adds the chips that `-nodefaults` leaves out.
pub(super) fn add_chips(chips: Chips, config: &mut QemuConfig) {
    let mut add = |chip, device: Value, chardev: &str| {
        if chips.contains(chip) {
            config.devices.push(device);
            config.args.extend(["-chardev".to_owned(), format!("null,id={chardev}")]);
        }
    };
    add(Chips::SERIAL, json!({ "driver": "isa-serial", "chardev": "com1" }), "com1");
    add(
        Chips::DEBUGCON,
        json!({ "driver": "isa-debugcon", "iobase": 0x402, "chardev": "debug" }),
        "debug",
    );
}

/// What a PC of QEMU's has and a test thread cannot reach.
pub(super) fn unreachable() -> Chips {
    LACKS.iter().map(|lack| lack.chips).collect()
}

impl MachineKind for Qemu {
    fn name(&self) -> &'static str {
        "qemu"
    }

    fn purpose(&self) -> &'static str {
        "a real QEMU's devices and block layer, without a guest"
    }

    fn options(&self) -> &'static [OptionSpec] {
        OPTIONS
    }

    fn check(&self, options: &Options) -> Result<()> {
        Self::config(options).map(|_| ())
    }

    fn available(&self, options: &Options) -> Result<()> {
        let config = Self::config(options)?;
        probe::choose(config.binary.as_deref(), config.mode).map(|_| ())
    }

    fn build(&self, options: &Options, setup: &MachineSetup) -> Result<TestMachine> {
        let mut config = Self::config(options)?;
        let (binary, mode) = probe::choose(config.binary.as_deref(), config.mode)?;
        (config.binary, config.mode) = (Some(binary), Some(mode));
        config.time = match setup.clock {
            ClockChoice::Virtual if mode == Mode::Qtest => Time::Stepped,
            // Without a clock to move, cases that need none run in real time; others are skipped.
            ClockChoice::Virtual | ClockChoice::Host => Time::Host { follow: true },
            ClockChoice::Scaled(_) => {
                return Err(Error::machine("QEMU's time cannot be scaled")
                    .hint("clock=virtual, or clock=host"));
            }
        };
        if setup.controllers && config.cpus == 1 {
            config.view = View::Controllers;
        }
        config.args.splice(0..0, HPET_MESSAGES.map(str::to_owned));
        add_chips(setup.chips, &mut config);
        let spec = spec(&config, setup);
        let mut images = Vec::with_capacity(setup.disks.len());
        for (slot, wanted) in (usize::from(spec.disk_slot)..).zip(&setup.disks) {
            let (mut disk, image) = test_disk(options, wanted)?;
            place(&mut disk, slot);
            config.disks.push(disk);
            images.push(image);
        }
        let machine = Self::start(config)?;
        let chips = (Chips::FULL - unreachable() - ADDED) | (setup.chips & ADDED);
        Ok(TestMachine { machine: Box::new(machine), chips, images, spec: Some(spec) })
    }

    fn lacks(&self) -> &'static [Lack] {
        LACKS
    }

    fn shows_one(&self) -> bool {
        true
    }

    fn image_holder(&self, _options: &Options) -> ImageHolder {
        ImageHolder::Machine
    }

    fn basics(&self, options: &Options) -> Result<Basics> {
        let QemuConfig { board, ram_bytes, cpus, .. } = Self::config(options)?;
        Ok(Basics { board, ram_bytes, cpus })
    }

    fn build_for_bus(&self, options: &Options, spec: &MachineSpec) -> Result<BusMachine> {
        bus_qemu::build(options, spec)
    }

    fn build_for_replay(&self, options: &Options, disk: OneDisk) -> Result<DiskMachine> {
        let DiskImage::Given(image) = &disk.image else {
            return Err(Error::machine("QEMU opens its images itself"));
        };
        let mut config = Self::config(options)?;
        config.time = match disk.clock {
            ClockChoice::Virtual => Time::Stepped,
            ClockChoice::Host => Time::Host { follow: false },
            ClockChoice::Scaled(_) => return Err(Error::usage("QEMU's time cannot be scaled")),
        };
        let mut given = self::disk(options, image)?;
        config.patience = disk.patience;
        given.queues = disk.queues;
        given.queue_size = disk.queue_size;
        // Another device may have no such thread; and time that is stepped is the more exact
        // without one.
        let stepped = disk.clock == ClockChoice::Virtual;
        if disk.iothread.unwrap_or(!stepped && options.get("device").is_none()) {
            given.in_thread();
        }
        config.disks.push(given);
        let machine = Self::start(config).map_err(without_format)?;
        let details = BTreeMap::from([("qemu".to_owned(), machine.describe())]);
        Ok(DiskMachine { machine: Box::new(machine), details })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn config(text: &str) -> Result<QemuConfig> {
        Qemu::config(&Options::parse(text, OPTIONS)?)
    }

    #[test]
    fn options_make_a_machine() {
        let made = config("type=q35,accel=qtest,ram=64M,args=-device edu -name 'a b'").unwrap();
        assert_eq!(
            (made.board, made.mode, made.ram_bytes),
            (Board::Q35, Some(Mode::Qtest), 64 << 20)
        );
        assert_eq!(made.args, ["-device", "edu", "-name", "a b"]);
        let made = config("type=pc-q35-5.0").unwrap();
        assert_eq!((made.board, made.machine_type.as_deref()), (Board::Q35, Some("pc-q35-5.0")));
        let made = config("args=-machine q35 -nodefaults").unwrap();
        assert_eq!((made.board, made.machine_type), (Board::Q35, None));
        let made = config("args=-M hpet=off,,type=pc-i440fx-6.2").unwrap();
        assert_eq!(made.machine_type.as_deref(), Some("pc-i440fx-6.2"));
        assert_eq!(config("args=-machine hpet=off").unwrap().board, Board::Pc);
        for (bad, hint) in [
            ("type=microvm", "isapc"),
            ("type=zzz", "pc-q35-5.0"),
            ("type=pc,args=-M q35", "once"),
            ("args=-m 1G", "ram=1G"),
            ("args=--incoming defer", "leave it out"),
            ("args=-preconfig", "leave it out"),
        ] {
            let error = config(bad).unwrap_err();
            assert!(error.hint_text().unwrap().contains(hint), "{bad}: {error}");
        }
        for bad in [
            "cpus=0",
            "cpus=256",
            "type=microvm",
            "accel=kvm",
            "args='a",
            "device=x",
            "blockdev=[]",
            "ram=x",
        ] {
            assert_eq!(config(bad).unwrap_err().kind().exit_code(), 2, "{bad}");
        }
    }
}
