//! The kinds of machine that tests run on: `--machine NAME,key=value,…`.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

use super::bus_machine::{self, Basics, BusMachine};
use super::machine_qemu::Qemu;
use super::machine_vhost_user::VhostUser;
use super::needs::Lack;
use super::one_disk::{DiskImage, DiskMachine, ImageHolder, OneDisk};
use super::settings::ClockChoice;
use super::setup::MachineSetup;
use super::spec::MachineSpec;
use crate::base::clock::ScaledClock;
use crate::base::options::{OptionSpec, Options, nearest};
use crate::base::units::parse_size;
use crate::base::{Clock, Error, HostClock, Result, VirtualClock};
use crate::image::Image;
use crate::machine::Machine;
use crate::machine::builtin::{Board, BuiltinConfig, BuiltinMachine, Chips, DiskConfig};

/// A machine with what a runner has to know of it.
pub struct TestMachine {
    /// The machine.
    pub machine: Box<dyn Machine>,
    /// The chips it has.
    pub chips: Chips,
    /// Its disks' bytes, where they are ours.
    pub images: Vec<Arc<dyn Image>>,
    /// What would build the same again, where that can be told.
    pub spec: Option<MachineSpec>,
}

/// A kind of machine.
pub trait MachineKind: Sync {
    /// The first word of `--machine`.
    fn name(&self) -> &'static str;
    /// One line.
    fn purpose(&self) -> &'static str;
    /// What may follow the name.
    fn options(&self) -> &'static [OptionSpec];
    /// The option that may stand right behind the name: `socket` where `vhost-user:PATH` is short
    /// for `vhost-user,socket=PATH`.
    fn argument(&self) -> Option<&'static str> {
        None
    }
    /// Checks the options without building anything.
    ///
    /// # Errors
    /// A usage error for a wrong value.
    fn check(&self, options: &Options) -> Result<()>;
    /// Whether such a machine can be had here at all, as far as that is told without building one.
    ///
    /// # Errors
    /// A machine error that says what is missing.
    fn available(&self, options: &Options) -> Result<()> {
        let _ = options;
        Ok(())
    }
    /// Builds a machine that has at least what `setup` asks for, as far as this kind can: chips
    /// that it lacks are missing in [`TestMachine::chips`].
    ///
    /// # Errors
    /// The machine cannot be had.
    fn build(&self, options: &Options, setup: &MachineSetup) -> Result<TestMachine>;
    /// What machines of this kind lack, and why: the words for skips.
    fn lacks(&self) -> &'static [Lack] {
        &[]
    }
    /// Whether a machine of this kind shows either the interrupt lines or what interrupt
    /// controllers make of them, as the setup says.
    fn shows_one(&self) -> bool {
        false
    }
    /// Who opens the image of a disk that [`MachineKind::build_for_replay`] is given.
    fn image_holder(&self, options: &Options) -> ImageHolder;
    /// Builds a machine with one disk, for a block trace.
    ///
    /// # Errors
    /// The machine cannot be had, or not with this disk.
    fn build_for_replay(&self, options: &Options, disk: OneDisk) -> Result<DiskMachine>;
    /// What the machine's options say of chipset, memory and CPUs.
    ///
    /// # Errors
    /// A usage error for a wrong value, or where there is no bus.
    fn basics(&self, options: &Options) -> Result<Basics> {
        let _ = options;
        Err(no_bus(self.name()))
    }
    /// Whether the driver reaches its devices by ports and registers.
    fn has_bus(&self) -> bool {
        true
    }
    /// Builds the machine that `spec` describes, for a bus trace.
    ///
    /// # Errors
    /// The machine cannot be had, or not as described.
    fn build_for_bus(&self, options: &Options, spec: &MachineSpec) -> Result<BusMachine> {
        let _ = (options, spec);
        Err(no_bus(self.name()))
    }
}

/// Every kind of machine.
pub const KINDS: &[&dyn MachineKind] = &[&Builtin, &Qemu, &VhostUser];

/// A kind and its options: what `--machine` says.
#[derive(Clone)]
pub struct MachineChoice {
    kind: &'static dyn MachineKind,
    options: Options,
    text: String,
}

impl MachineChoice {
    /// Parses `builtin`, `builtin,type=q35` or `vhost-user:SOCKET`.
    ///
    /// # Errors
    /// A machine error for a kind that is not there, a usage error for a wrong option.
    pub fn parse(text: &str) -> Result<Self> {
        let (name, rest) = text.split_at(text.find([',', ':']).unwrap_or(text.len()));
        let kind = KINDS.iter().find(|kind| kind.name() == name).ok_or_else(|| missing(name))?;
        let rest = match (rest.strip_prefix(':'), kind.argument()) {
            (Some(argument), Some(key)) => format!("{key}={argument}"),
            (Some(_), None) => {
                let what = format!("machine '{name}' takes nothing behind a colon");
                return Err(Error::usage(what).hint("options follow a comma: NAME,key=value"));
            }
            (None, _) => rest.trim_start_matches(',').to_owned(),
        };
        let options = Options::parse(&rest, kind.options())?;
        kind.check(&options)?;
        Ok(Self { kind: *kind, options, text: text.to_owned() })
    }

    /// A kind that is not on the list.
    #[cfg(test)]
    pub(crate) fn of(kind: &'static dyn MachineKind) -> Self {
        Self { kind, options: Options::default(), text: kind.name().to_owned() }
    }

    /// The kind.
    pub fn kind(&self) -> &'static dyn MachineKind {
        self.kind
    }

    /// Its options.
    pub fn options(&self) -> &Options {
        &self.options
    }

    /// As the user wrote it.
    pub fn text(&self) -> &str {
        &self.text
    }

    /// Whether such a machine can be had here.
    ///
    /// # Errors
    /// As [`MachineKind::available`].
    pub fn available(&self) -> Result<()> {
        self.kind.available(&self.options)
    }

    /// Builds a machine.
    ///
    /// # Errors
    /// As [`MachineKind::build`].
    pub fn build(&self, setup: &MachineSetup) -> Result<TestMachine> {
        self.kind.build(&self.options, setup)
    }

    /// Builds a machine with one disk.
    ///
    /// # Errors
    /// As [`MachineKind::build_for_replay`].
    pub fn build_for_replay(&self, disk: OneDisk) -> Result<DiskMachine> {
        self.kind.build_for_replay(&self.options, disk)
    }

    /// Who opens the image of a disk that a block trace is replayed on.
    pub fn image_holder(&self) -> ImageHolder {
        self.kind.image_holder(&self.options)
    }

    /// What its options say of chipset, memory and CPUs.
    ///
    /// # Errors
    /// A usage error for a wrong value.
    pub fn basics(&self) -> Result<Basics> {
        self.kind.basics(&self.options)
    }

    /// Refuses a machine whose tests leave nothing that a machine tap could record.
    ///
    /// # Errors
    /// A machine error for one that has no bus.
    pub fn can_be_tapped(&self) -> Result<()> {
        match self.kind.has_bus() {
            true => Ok(()),
            false => {
                let what =
                    format!("machine '{}' has no bus that could be recorded", self.kind.name());
                Err(Error::machine(what)
                    .hint("qtrace record vhost-user-blk records what a front-end does to its disk"))
            }
        }
    }

    /// Builds the machine that `spec` describes, for a bus trace.
    ///
    /// # Errors
    /// As [`MachineKind::build_for_bus`].
    pub fn build_for_bus(&self, spec: &MachineSpec) -> Result<BusMachine> {
        self.kind.build_for_bus(&self.options, spec)
    }

    /// The same with one more option of the machine's, which another place gave.
    ///
    /// # Errors
    /// A usage error for an option that the machine lacks, has already, or has no such value.
    pub fn with(mut self, key: &str, value: &str) -> Result<Self> {
        self.options.insert(key, value, self.kind.options())?;
        self.kind.check(&self.options)?;
        Ok(self)
    }

    /// Whether the option `key` was given.
    pub fn has(&self, key: &str) -> bool {
        self.options.get(key).is_some()
    }

    /// The value in force of the option `key`; `None` where the machine has no such option.
    pub fn setting(&self, key: &str) -> Option<&str> {
        let spec = self.kind.options().iter().find(|spec| spec.name == key)?;
        Some(self.options.get(key).unwrap_or(spec.default))
    }
}

impl fmt::Debug for MachineChoice {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("MachineChoice").field(&self.text).finish()
    }
}

fn no_bus(name: &str) -> Error {
    Error::usage(format!("machine '{name}' has no bus for a trace to be replayed on"))
}

fn missing(name: &str) -> Error {
    let names: Vec<&str> = KINDS.iter().map(|kind| kind.name()).collect();
    let error = Error::machine(format!("machine '{name}' is not available"));
    error.hint(match nearest(name, names.iter().copied()) {
        Some(near) => format!("did you mean '{near}'?"),
        None => format!("available: {}", names.join(", ")),
    })
}

/// Device models in this process.
struct Builtin;

const TYPES: &[(&str, Board)] = &[("pc", Board::Pc), ("q35", Board::Q35)];

const RAM_BYTES_DEFAULT: u64 = 128 << 20;

impl Builtin {
    fn config(options: &Options) -> Result<BuiltinConfig> {
        let ram_bytes = options.parse_with("ram", "a size such as 256M", parse_size)?;
        Ok(BuiltinConfig {
            ram_bytes: ram_bytes.unwrap_or(RAM_BYTES_DEFAULT),
            board: options.choice("type", TYPES, Board::Pc)?,
            cpus: options.number("cpus", 2)?,
            ..BuiltinConfig::default()
        })
    }
}

impl MachineKind for Builtin {
    fn name(&self) -> &'static str {
        "builtin"
    }

    fn purpose(&self) -> &'static str {
        "device models in this process"
    }

    fn options(&self) -> &'static [OptionSpec] {
        &[
            OptionSpec { name: "type", value: "pc|q35", default: "pc", help: "the chipset" },
            OptionSpec {
                name: "cpus",
                value: "N",
                default: "2",
                help: "CPUs, each with a local APIC",
            },
            OptionSpec { name: "ram", value: "SIZE", default: "128M", help: "guest RAM" },
        ]
    }

    fn check(&self, options: &Options) -> Result<()> {
        Self::config(options).map(|_| ())
    }

    fn build(&self, options: &Options, setup: &MachineSetup) -> Result<TestMachine> {
        let images = setup.disks.iter().map(|disk| disk.image()).collect::<Result<Vec<_>>>()?;
        let disks = setup.disks.iter().zip(&images).map(|(disk, image)| DiskConfig {
            queues: disk.queues,
            iothread: disk.iothread,
            concurrent_queues: disk.concurrent_queues,
            read_only: disk.read_only,
            serial: disk.serial.into(),
            block_bytes: disk.block_bytes,
            ..DiskConfig::new(Arc::clone(image))
        });
        let (disks, chips, clock) = (disks.collect(), setup.chips, clock(setup.clock)?);
        let config = BuiltinConfig { clock, disks, chips, ..Self::config(options)? };
        let spec = Some(MachineSpec::of(&config, &setup.disks));
        let machine = BuiltinMachine::new(config)?.share();
        Ok(TestMachine { machine: Box::new(machine), chips, images, spec })
    }

    fn image_holder(&self, _options: &Options) -> ImageHolder {
        ImageHolder::Qtrace
    }

    fn basics(&self, options: &Options) -> Result<Basics> {
        let BuiltinConfig { board, ram_bytes, cpus, .. } = Self::config(options)?;
        Ok(Basics { board, ram_bytes, cpus })
    }

    fn build_for_bus(&self, _options: &Options, spec: &MachineSpec) -> Result<BusMachine> {
        bus_machine::builtin(spec)
    }

    fn build_for_replay(&self, options: &Options, disk: OneDisk) -> Result<DiskMachine> {
        let DiskImage::Held(image) = disk.image else {
            return Err(Error::machine("the builtin machine opens no image by itself"));
        };
        let clock = clock(disk.clock)?;
        let disk = DiskConfig {
            queues: disk.queues,
            queue_size: disk.queue_size,
            iothread: disk.iothread.unwrap_or(false),
            aio_depth: disk.aio_depth,
            ..DiskConfig::new(image)
        };
        let config = BuiltinConfig { clock, disks: vec![disk], ..Self::config(options)? };
        let machine = Box::new(BuiltinMachine::new(config)?);
        Ok(DiskMachine { machine, details: BTreeMap::new() })
    }
}

fn clock(choice: ClockChoice) -> Result<Arc<dyn Clock>> {
    Ok(match choice {
        ClockChoice::Virtual => Arc::new(VirtualClock::new()),
        ClockChoice::Host => Arc::new(HostClock::new()),
        ClockChoice::Scaled(factor) => Arc::new(
            ScaledClock::new(factor)
                .ok_or_else(|| Error::usage(format!("a clock cannot be {factor} as fast")))?,
        ),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_machine_is_a_name_and_options() {
        let choice = MachineChoice::parse("builtin,type=q35,ram=64M").unwrap();
        assert_eq!(choice.kind().name(), "builtin");
        let setup = MachineSetup {
            chips: Chips::MINIMAL,
            disks: Vec::new(),
            clock: ClockChoice::Virtual,
            controllers: false,
        };
        let machine = choice.build(&setup).unwrap().machine;
        assert_eq!(machine.ram().unwrap().size(), 64 << 20);
    }

    #[test]
    fn what_is_not_there_is_named() {
        let error = MachineChoice::parse("bultin").unwrap_err();
        assert_eq!(error.kind().exit_code(), 5);
        assert!(error.hint_text().unwrap().contains("'builtin'"));
        for text in ["builtin,type=isapc", "builtin,ram=lots", "builtin,tpye=pc"] {
            assert_eq!(MachineChoice::parse(text).unwrap_err().kind().exit_code(), 2, "{text}");
        }
    }
}
