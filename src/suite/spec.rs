//! A builtin machine in the words of options, so that a recording can say which one it is of.

use std::fmt::Write as _;
use std::sync::Arc;

use super::setup::TestDisk;
use crate::base::limits::DISK_BYTES_MAX;
use crate::base::options::{OptionSpec, Options};
use crate::base::units::parse_size;
use crate::base::{Clock, Error, Result};
use crate::machine::builtin::{Board, BuiltinConfig, BuiltinMachine, Chips, DiskConfig, Reference};

/// Guest RAM unless asked otherwise: what QEMU gives a PC.
const RAM_BYTES_DEFAULT: u64 = 128 << 20;

/// Disks of one machine: PCI slots run out first.
const DISKS_MAX: usize = 31;

/// A disk that is filled takes memory for all of it.
const FILLED_BYTES_MAX: u64 = 1 << 30;

const REFERENCES: &[(&str, Reference)] =
    &[("datasheets", Reference::DataSheets), ("qemu", Reference::Qemu)];

const BOARDS: &[(&str, Board)] = &[("pc", Board::Pc), ("q35", Board::Q35)];

/// A virtio disk of a machine, its bytes in memory.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DiskSpec {
    /// Bytes.
    pub bytes: u64,
    /// Request queues.
    pub queues: u16,
    /// Logical block size.
    pub block_bytes: u32,
    /// Whether writes are refused.
    pub read_only: bool,
    /// Whether it holds the pattern of test disks; else zeros.
    pub filled: bool,
    /// Its identifier: letters, digits, `-`, `_`, `.`.
    pub serial: String,
}

impl DiskSpec {
    /// A disk of zeros as a replay has it unless told otherwise.
    pub fn new(bytes: u64) -> Self {
        let serial = "qtrace".to_owned();
        Self { bytes, queues: 1, block_bytes: 512, read_only: false, filled: false, serial }
    }

    /// What `disk` is.
    pub(super) fn of(disk: &TestDisk) -> Self {
        let TestDisk { bytes, queues, block_bytes, read_only, filled, serial, .. } = *disk;
        Self { bytes, queues, block_bytes, read_only, filled, serial: serial.to_owned() }
    }

    /// `SIZE[/queues=N][/block=N][/serial=TEXT][/ro][/filled]`.
    fn parse(text: &str) -> Option<Self> {
        let mut parts = text.split('/');
        let mut disk = Self::new(parts.next().and_then(parse_size)?);
        for part in parts {
            match part.split_once('=') {
                Some(("queues", value)) => disk.queues = value.parse().ok()?,
                Some(("block", value)) => disk.block_bytes = value.parse().ok()?,
                Some(("serial", value)) => {
                    is_plain(value).then_some(())?;
                    value.clone_into(&mut disk.serial);
                }
                None if part == "ro" => disk.read_only = true,
                None if part == "filled" => disk.filled = true,
                _ => return None,
            }
        }
        Some(disk)
    }

    fn text(&self) -> String {
        let Self { bytes, queues, block_bytes, serial, .. } = self;
        let mut text = format!("{bytes}/queues={queues}/block={block_bytes}/serial={serial}");
        text.push_str(if self.read_only { "/ro" } else { "" });
        text.push_str(if self.filled { "/filled" } else { "" });
        text
    }
}

fn is_plain(text: &str) -> bool {
    text.chars().all(|c| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.'))
}

/// A builtin machine in the words of the options `board=`, `ram=`, …. A recording of one holds
/// them, so that its replay builds the same.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MachineSpec {
    /// The chipset.
    pub board: Board,
    /// Guest RAM.
    pub ram_bytes: u64,
    /// CPUs.
    pub cpus: u8,
    /// What it carries.
    pub chips: Chips,
    /// What the real-time clock shows at time 0, in Unix time.
    pub rtc_base_unix_s: i64,
    /// Whose behaviour chips have where QEMU's differ from their data sheets.
    pub reference: Reference,
    /// Slot of the first disk.
    pub disk_slot: u8,
    /// Its disks.
    pub disks: Vec<DiskSpec>,
    /// What interrupt controllers deliver is looked at and not the interrupt lines: for machines
    /// that show one of the two. Others show both.
    pub controllers: bool,
    /// Its HPET sends messages, where the machine has a choice.
    pub hpet_messages: bool,
}

impl Default for MachineSpec {
    fn default() -> Self {
        let builtin = BuiltinConfig::default();
        Self {
            board: Board::Pc,
            ram_bytes: RAM_BYTES_DEFAULT,
            cpus: 1,
            chips: Chips::FULL,
            rtc_base_unix_s: builtin.rtc_base_unix_s,
            reference: builtin.reference,
            disk_slot: builtin.first_disk_slot,
            disks: Vec::new(),
            controllers: false,
            hpet_messages: false,
        }
    }
}

/// The options that describe a machine.
pub const MACHINE_OPTIONS: &[OptionSpec] = &[
    OptionSpec { name: "board", value: "pc|q35", default: "pc", help: "the machine's chipset" },
    OptionSpec { name: "ram", value: "SIZE", default: "128M", help: "guest memory" },
    OptionSpec { name: "cpus", value: "N", default: "1", help: "CPUs, each a local APIC" },
    OptionSpec {
        name: "chips",
        value: "LIST",
        default: "full",
        help: "full, minimal or names joined by +; -NAME takes one away: full-debugcon",
    },
    OptionSpec {
        name: "rtc_base",
        value: "SECONDS",
        default: "",
        help: "Unix time of the real-time clock at time 0; when the recording began, if it says",
    },
    OptionSpec {
        name: "reference",
        value: "datasheets|qemu",
        default: "",
        help: "where QEMU's chips differ from data sheets; qemu for recordings of QEMU",
    },
    OptionSpec {
        name: "disks",
        value: "LIST",
        default: "",
        help: "virtio disks in memory, joined by +: SIZE[/queues=N/block=N/serial=S/ro/filled]",
    },
    OptionSpec { name: "disk_slot", value: "N", default: "4", help: "PCI slot of the first disk" },
    OptionSpec {
        name: "interrupts",
        value: "lines|controllers",
        default: "lines",
        help: "what is seen of them on qemu: the lines, or what controllers deliver; builtin: both",
    },
    OptionSpec {
        name: "hpet_messages",
        value: "on|off",
        default: "off",
        help: "on qemu the HPET can send messages; builtin's always can",
    },
];

const INTERRUPTS: &[(&str, bool)] = &[("lines", false), ("controllers", true)];

impl MachineSpec {
    /// What builds `config` again, whose disks are `disks`.
    pub fn of(config: &BuiltinConfig, disks: &[TestDisk]) -> Self {
        Self {
            board: config.board,
            ram_bytes: config.ram_bytes,
            cpus: config.cpus,
            chips: config.chips,
            rtc_base_unix_s: config.rtc_base_unix_s,
            reference: config.reference,
            disk_slot: config.first_disk_slot,
            disks: disks.iter().map(DiskSpec::of).collect(),
            controllers: false,
            hpet_messages: false,
        }
    }

    /// This machine with what `options` say.
    ///
    /// # Errors
    /// Usage errors that name the option.
    pub fn with(mut self, options: &Options) -> Result<Self> {
        self.board = options.choice("board", BOARDS, self.board)?;
        if let Some(bytes) = options.parse_with("ram", "a size such as 128M", parse_size)? {
            self.ram_bytes = bytes;
        }
        self.cpus = options.number("cpus", self.cpus)?;
        let form = "full, minimal or names of chips joined by +, -NAME for one less";
        if let Some(chips) = options.parse_with("chips", form, parse_chips)? {
            self.chips = chips;
        }
        self.rtc_base_unix_s = options.number("rtc_base", self.rtc_base_unix_s)?;
        self.reference = options.choice("reference", REFERENCES, self.reference)?;
        self.disk_slot = options.number("disk_slot", self.disk_slot)?;
        if let Some(disks) = options.parse_with("disks", "disks such as 16M+1M/ro", parse_disks)? {
            self.disks = disks;
        }
        self.controllers = options.choice("interrupts", INTERRUPTS, self.controllers)?;
        self.hpet_messages = options.switch("hpet_messages", self.hpet_messages)?;
        Ok(self)
    }

    /// The options that make it: `board=pc,ram=…`.
    pub fn text(&self) -> String {
        let mut text = format!(
            "board={},ram={},cpus={},chips={},rtc_base={},reference={},disk_slot={}",
            self.board.name(),
            self.ram_bytes,
            self.cpus,
            chips_text(self.chips),
            self.rtc_base_unix_s,
            reference_name(self.reference),
            self.disk_slot
        );
        let disks: Vec<String> = self.disks.iter().map(DiskSpec::text).collect();
        if !disks.is_empty() {
            // Writing to a String cannot fail.
            let _ = write!(text, ",disks={}", disks.join("+"));
        }
        text.push_str(if self.controllers { ",interrupts=controllers" } else { "" });
        text.push_str(if self.hpet_messages { ",hpet_messages=on" } else { "" });
        text
    }

    /// Builds it.
    ///
    /// # Errors
    /// A machine that cannot be.
    pub fn build(&self, clock: Arc<dyn Clock>) -> Result<BuiltinMachine> {
        let disk = |spec: &DiskSpec| -> Result<DiskConfig> {
            let most = if spec.filled { FILLED_BYTES_MAX } else { DISK_BYTES_MAX };
            if spec.bytes > most {
                let what = format!("disks={}: at most {most} bytes", spec.text());
                return Err(Error::usage(what));
            }
            let filled = spec.filled;
            let image = TestDisk { filled, ..TestDisk::new("", spec.bytes) }.image()?;
            Ok(DiskConfig {
                queues: spec.queues,
                block_bytes: spec.block_bytes,
                read_only: spec.read_only,
                serial: spec.serial.clone(),
                ..DiskConfig::new(image)
            })
        };
        BuiltinMachine::new(BuiltinConfig {
            ram_bytes: self.ram_bytes,
            clock,
            board: self.board,
            chips: self.chips,
            cpus: self.cpus,
            rtc_base_unix_s: self.rtc_base_unix_s,
            reference: self.reference,
            first_disk_slot: self.disk_slot,
            disks: self.disks.iter().map(disk).collect::<Result<_>>()?,
        })
    }
}

fn parse_disks(text: &str) -> Option<Vec<DiskSpec>> {
    if text.is_empty() {
        return Some(Vec::new());
    }
    let disks = text.split('+').map(DiskSpec::parse).collect::<Option<Vec<_>>>()?;
    (disks.len() <= DISKS_MAX).then_some(disks)
}

fn reference_name(reference: Reference) -> &'static str {
    match reference {
        Reference::DataSheets => "datasheets",
        Reference::Qemu => "qemu",
    }
}

/// Chips as their flags are called: `fw_cfg`.
fn chip(name: &str) -> Option<Chips> {
    let same = |(known, _): &(&str, Chips)| known.eq_ignore_ascii_case(name);
    match name {
        "full" => Some(Chips::FULL),
        "minimal" => Some(Chips::MINIMAL),
        _ => Chips::FULL.iter_names().find(same).map(|(_, chip)| chip),
    }
}

fn parse_chips(text: &str) -> Option<Chips> {
    let mut chips = Chips::empty();
    for part in text.split('+') {
        let mut names = part.split('-');
        chips |= chip(names.next()?)?;
        for less in names {
            chips -= chip(less)?;
        }
    }
    Some(chips)
}

fn chips_text(chips: Chips) -> String {
    match chips {
        Chips::FULL => "full".to_owned(),
        Chips::MINIMAL => "minimal".to_owned(),
        _ => {
            let names: Vec<String> =
                chips.iter_names().map(|(name, _)| name.to_ascii_lowercase()).collect();
            names.join("+")
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &str) -> Result<MachineSpec> {
        MachineSpec::default().with(&Options::parse(text, MACHINE_OPTIONS)?)
    }

    #[test]
    fn the_text_of_a_machine_makes_the_same() {
        let disk = DiskSpec {
            queues: 2,
            block_bytes: 4096,
            read_only: true,
            filled: true,
            serial: "a-1".into(),
            ..DiskSpec::new(8 << 20)
        };
        let spec = MachineSpec {
            board: Board::Q35,
            ram_bytes: 64 << 20,
            cpus: 3,
            chips: Chips::RTC | Chips::FW_CFG,
            rtc_base_unix_s: -5,
            reference: Reference::Qemu,
            disk_slot: 2,
            disks: vec![disk, DiskSpec::new(512)],
            controllers: true,
            hpet_messages: true,
        };
        assert_eq!(parse(&spec.text()).unwrap(), spec);
        let default = MachineSpec::default();
        assert_eq!(parse(&default.text()).unwrap(), default);
        assert_eq!(parse("").unwrap(), default);
    }

    #[test]
    fn chips_are_added_and_taken_away() {
        assert_eq!(parse("chips=rtc+pit").unwrap().chips, Chips::RTC | Chips::PIT);
        let less = Chips::FULL - Chips::DEBUGCON - Chips::HPET;
        assert_eq!(parse("chips=full-debugcon-hpet").unwrap().chips, less);
        for bad in ["chips=", "chips=rtx", "chips=full-", "disks=1M/x", "disks=q", "cpus=300"] {
            assert_eq!(parse(bad).unwrap_err().kind().exit_code(), 2, "{bad}");
        }
        let serial = "disks=1M/serial=a b";
        assert_eq!(parse(serial).unwrap_err().kind().exit_code(), 2);
    }
}
