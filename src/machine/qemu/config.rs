//! What a QEMU machine is made of, as arguments.

use std::os::fd::OwnedFd;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use serde_json::{Value, json};

use super::controllers::Controllers;
use super::probe::Mode;
use crate::base::processors;
use crate::base::units::utc_date;
use crate::machine::builtin::Board;

/// 2026-01-01 00:00:00 UTC, as in the builtin machine.
const RTC_BASE_UNIX_S: i64 = 1_767_225_600;

/// Workers that a disk's thread has for each processor, where processors are few. QEMU wakes one
/// for every request (of 64, its default): where data is in the page cache, more than these only
/// change places.
const WORKERS_EACH: usize = 2;

/// A machine to start.
#[derive(Debug)]
pub struct QemuConfig {
    /// The program; `None` takes the first known one that has the mode.
    pub binary: Option<PathBuf>,
    /// The chipset.
    pub board: Board,
    /// Another machine type than the board's name: `pc-q35-5.0`.
    pub machine_type: Option<String>,
    /// How devices run without a guest; `None` takes the best there is.
    pub mode: Option<Mode>,
    /// Guest RAM from address 0, below the PCI hole.
    pub ram_bytes: u64,
    /// CPUs, which only stand there.
    pub cpus: u8,
    /// Disks, in the order in which enumeration finds them.
    pub disks: Vec<QemuDisk>,
    /// Chips that a machine without defaults lacks: `-device` objects.
    pub devices: Vec<Value>,
    /// Further arguments of the user's.
    pub args: Vec<String>,
    /// What QEMU adds unless told not to.
    pub defaults: Option<Defaults>,
    /// What the real-time clock shows at time 0, in Unix time.
    pub rtc_base_unix_s: i64,
    /// Where time comes from.
    pub time: Time,
    /// How long QEMU may take to start.
    pub start_patience: Duration,
    /// How long it may take to answer before it counts as hung.
    pub patience: Duration,
    /// The folder for command line, qtest log and stderr.
    pub keep: Option<PathBuf>,
    /// What is seen of its interrupts.
    pub view: View,
}

/// VGA, a parallel port, an IDE CD drive, a network card, and, if wanted, a serial port.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Defaults {
    /// With the serial port.
    pub serial: bool,
}

/// Where the time of a QEMU machine comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Time {
    /// QEMU's virtual clock, which [`wait`](crate::machine::Machine::wait) steps: needs
    /// [`Mode::Qtest`].
    Stepped,
    /// The host's clock. In [`Mode::Qtest`] QEMU's virtual timers stand still unless `follow`,
    /// which lets them run along whenever the test thread waits.
    Host {
        /// QEMU's virtual clock follows the host's.
        follow: bool,
    },
}

/// What is seen of its interrupts: QEMU reports the lines of one device.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum View {
    /// The inputs of the I/O APIC: what devices do.
    #[default]
    Lines,
    /// What the interrupt controllers make of it: INTR of the 8259As and the messages of the I/O
    /// APIC. The machine has one CPU, without a local APIC.
    Controllers,
}

/// A virtio disk of a QEMU machine.
#[derive(Debug)]
pub struct QemuDisk {
    /// The `-blockdev` object, without its node name.
    pub node: Value,
    /// Descriptors that the node names as `/proc/self/fd/N`.
    pub fds: Vec<Arc<OwnedFd>>,
    /// Request queues.
    pub queues: u16,
    /// Entries of each.
    pub queue_size: u16,
    /// Logical block size.
    pub block_bytes: u32,
    /// Identifier, at most 20 bytes.
    pub serial: String,
    /// Serve it in a thread of its own.
    pub iothread: bool,
    /// How many workers that thread may have for blocking I/O; `None` is QEMU's default.
    pub workers_max: Option<usize>,
    /// Further properties of the device, which win over ours; `driver` names another device.
    pub properties: Value,
}

impl QemuDisk {
    /// A disk with one queue of 256 entries.
    pub fn new(node: Value) -> Self {
        Self {
            node,
            fds: Vec::new(),
            queues: 1,
            queue_size: 256,
            block_bytes: 512,
            serial: "qtrace".into(),
            iothread: false,
            workers_max: None,
            properties: json!({}),
        }
    }

    /// Serves it in a thread of its own, which sees a request without a wake-up while it polls.
    ///
    /// Past the page cache (`cache.direct`) workers wait for the disk and not for processors: then
    /// it has as many as QEMU gives it.
    pub fn in_thread(&mut self) {
        self.iothread = true;
        let direct = ["/cache/direct", "/file/cache/direct"]
            .iter()
            .any(|at| self.node.pointer(at).and_then(Value::as_bool) == Some(true));
        let few = processors::are_few() && !direct;
        self.workers_max = few.then(|| WORKERS_EACH * processors::count());
    }

    /// The name of the thread of the `index`-th disk.
    pub(super) fn thread_name(index: usize) -> String {
        format!("io{index}")
    }

    /// The name of the `index`-th disk's block node.
    pub fn node_name(index: usize) -> String {
        format!("disk{index}")
    }

    fn args(&self, index: usize, out: &mut Vec<String>) {
        let name = Self::node_name(index);
        let mut node = self.node.clone();
        set(&mut node, "node-name", json!(name));
        arg(out, "-blockdev", node.to_string());
        let mut device = json!({
            "driver": "virtio-blk-pci",
            "id": format!("vd{index}"),
            "drive": name,
            "num-queues": self.queues,
            "queue-size": self.queue_size,
            "logical_block_size": self.block_bytes,
            "physical_block_size": self.block_bytes,
            "serial": self.serial,
            // A request that fails is answered so, whatever the reason; else a full disk would
            // stop the machine (the default for writes).
            "werror": "report",
            "rerror": "report",
        });
        if self.iothread {
            let thread = Self::thread_name(index);
            arg(out, "-object", format!("iothread,id={thread}"));
            set(&mut device, "iothread", json!(thread));
        }
        if let Some(more) = self.properties.as_object() {
            for (key, value) in more {
                set(&mut device, key, value.clone());
            }
        }
        arg(out, "-device", device.to_string());
    }
}

fn set(object: &mut Value, key: &str, value: Value) {
    if let Some(object) = object.as_object_mut() {
        object.insert(key.to_owned(), value);
    }
}

fn arg(out: &mut Vec<String>, name: &str, value: impl Into<String>) {
    out.push(name.to_owned());
    out.push(value.into());
}

impl Default for QemuConfig {
    fn default() -> Self {
        Self {
            binary: None,
            board: Board::Pc,
            machine_type: None,
            mode: None,
            ram_bytes: 128 << 20,
            cpus: 1,
            disks: Vec::new(),
            devices: Vec::new(),
            args: Vec::new(),
            defaults: None,
            rtc_base_unix_s: RTC_BASE_UNIX_S,
            time: Time::Host { follow: false },
            start_patience: Duration::from_secs(30),
            patience: Duration::from_secs(30),
            keep: None,
            view: View::Lines,
        }
    }
}

impl QemuConfig {
    /// The machine's own arguments, without what only we need to drive it.
    pub fn machine_args(&self, mode: Mode) -> Vec<String> {
        let mut out: Vec<String> =
            ["-no-user-config", "-display", "none"].map(str::to_owned).into();
        match self.defaults {
            // What would speak to a terminal or a window speaks to nobody.
            Some(Defaults { serial }) => {
                arg(&mut out, "-serial", if serial { "null" } else { "none" });
                arg(&mut out, "-parallel", "null");
                arg(&mut out, "-monitor", "none");
            }
            None => out.push("-nodefaults".to_owned()),
        }
        let machine = self.machine_type.as_deref().unwrap_or(self.board.name());
        arg(&mut out, "-machine", format!("{machine},memory-backend=ram"));
        arg(&mut out, "-accel", mode.accelerator());
        arg(&mut out, "-m", format!("size={}B", self.ram_bytes));
        arg(&mut out, "-smp", self.cpus.to_string());
        if self.view == View::Controllers {
            // Every QEMU for PCs has this model.
            arg(&mut out, "-cpu", "qemu64,apic=off");
        }
        let clock = if self.runs_by_itself(mode) { "host" } else { "vm" };
        arg(&mut out, "-rtc", format!("base={},clock={clock}", utc_date(self.rtc_base_unix_s)));
        for device in &self.devices {
            arg(&mut out, "-device", device.to_string());
        }
        for (index, disk) in self.disks.iter().enumerate() {
            disk.args(index, &mut out);
        }
        out.extend(self.args.iter().cloned());
        out
    }

    /// Whether QEMU's timers run without being told to.
    pub fn runs_by_itself(&self, mode: Mode) -> bool {
        mode == Mode::TcgHalted
    }

    /// The arguments by which its RAM is shared, and that stand for a guest: one that switches its
    /// machine off leaves it standing.
    pub fn harness_args(&self, mode: Mode, fds: &HarnessFds) -> Vec<String> {
        let mut out = vec!["-no-shutdown".to_owned()];
        let ram = fds.ram;
        arg(
            &mut out,
            "-object",
            format!(
                "memory-backend-file,id=ram,size={}B,mem-path=/proc/self/fd/{ram},share=on",
                self.ram_bytes
            ),
        );
        if let Some(messages) = fds.messages {
            out.extend(Controllers::args(messages));
        }
        if let Some(rom) = fds.rom {
            arg(&mut out, "-bios", format!("/proc/self/fd/{rom}"));
        }
        if mode == Mode::TcgPaused {
            out.push("-S".to_owned());
        }
        out
    }
}

/// Numbers of the descriptors that we share with QEMU.
#[derive(Clone, Copy, Debug)]
pub struct HarnessFds {
    /// Guest RAM.
    pub ram: i32,
    /// A ROM that halts.
    pub rom: Option<i32>,
    /// Memory for interrupt messages.
    pub messages: Option<i32>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_disk_is_a_node_and_a_device() {
        let mut disk = QemuDisk::new(json!({ "driver": "null-co", "size": 4096 }));
        disk.iothread = true;
        disk.properties = json!({ "queue-size": 64, "disable-legacy": "on" });
        let config = QemuConfig { disks: vec![disk], ..QemuConfig::default() };
        let args = config.machine_args(Mode::Qtest);
        let behind = |name: &str| {
            let at = args.iter().position(|arg| arg == name).unwrap();
            args[at + 1].clone()
        };
        let node: Value = serde_json::from_str(&behind("-blockdev")).unwrap();
        assert_eq!(node, json!({ "driver": "null-co", "size": 4096, "node-name": "disk0" }));
        let device: Value = serde_json::from_str(&behind("-device")).unwrap();
        assert_eq!((&device["queue-size"], &device["iothread"]), (&json!(64), &json!("io0")));
        assert_eq!(behind("-object"), "iothread,id=io0");
        assert_eq!(behind("-accel"), "qtest");
        assert!(behind("-rtc").ends_with("clock=vm"));
    }

    #[test]
    fn few_workers_are_for_few_processors_and_the_page_cache() {
        let workers = |direct: bool| {
            let file = json!({ "driver": "file", "cache": { "direct": direct } });
            let mut disk = QemuDisk::new(json!({ "driver": "raw", "file": file }));
            disk.in_thread();
            assert!(disk.iothread);
            disk.workers_max
        };
        assert_eq!(workers(true), None);
        assert_eq!(workers(false).is_some(), processors::are_few());
    }

    #[test]
    fn modes_differ_in_what_stands_for_the_guest() {
        let config = QemuConfig::default();
        let fds = HarnessFds { ram: 3, rom: Some(6), messages: None };
        let args = |mode| config.harness_args(mode, &fds);
        let no_rom = HarnessFds { rom: None, ..fds };
        let of_qtest = config.harness_args(Mode::Qtest, &no_rom);
        assert!(args(Mode::TcgPaused).contains(&"-S".to_owned()));
        assert!(args(Mode::TcgHalted).contains(&"/proc/self/fd/6".to_owned()));
        assert!(!of_qtest.iter().any(|arg| arg == "-S" || arg == "-bios"));
        assert!(config.machine_args(Mode::TcgHalted).contains(&"tcg".to_owned()));
    }
}
