//! QEMU's options, and what becomes of each in an argument list that nobody vouches for.

use super::harmless::{self, Refusal};

/// What becomes of an option.
#[derive(Clone, Copy)]
pub enum Fate {
    /// Left out: it concerns the harness, or a person at the machine. Says why.
    Drop(&'static str),
    /// Another option with a value stands for it.
    Replace(&'static str, &'static str),
    /// A port of the machine: what is behind it becomes nothing, and `none` stays none.
    Port,
    /// `-machine`.
    Machine,
    /// Passed on; it takes no value.
    Flag,
    /// Passed on with its value, when that is plain.
    Plain,
    /// Passed on when all its settings are harmless.
    Settings,
    /// The same, and the setting of that name, which may stand first without it, is one of a kind
    /// that the function lets pass.
    Kind(&'static str, fn(Option<&str>) -> Result<(), Refusal>),
    /// `-global`.
    Global,
    /// `-set`.
    Set,
    /// `-chardev`.
    Chardev,
    /// `-audiodev`, `-audio`.
    Audio,
    /// A drive, with the settings that the option itself stands for.
    Drive(&'static str),
    /// `-blockdev`.
    Blockdev,
    /// Refused: says why.
    Refuse(&'static str),
}

/// An option.
#[derive(Clone, Copy)]
pub struct Rule {
    /// Its name as it is passed on.
    pub name: &'static str,
    /// Whether a value follows.
    pub takes_value: bool,
    /// What becomes of it.
    pub fate: Fate,
}

/// Settings of `-machine` that concern the accelerator.
pub const ACCELERATOR_SETTINGS: &[&str] = &[
    "accel",
    "kernel-irqchip",
    "kernel_irqchip",
    "kvm-shadow-mem",
    "kvm_shadow_mem",
    "igd-passthru",
];

const ACCEL: Fate = Fate::Drop("the accelerator is qtest");
const SHOWN: Fate = Fate::Drop("nothing is shown");
const OURS: Fate = Fate::Drop("the harness has its own");
const TCG: Fate = Fate::Drop("it concerns another accelerator");
const HOST: Fate = Fate::Drop("it concerns QEMU's process on the host");
const FILE: Fate = Fate::Refuse("it names a file of the host");
const NETWORK: Fate = Fate::Refuse("it reaches a network");
const STOPS: Fate = Fate::Refuse("QEMU would end, or wait for more");

/// Options without a value.
const FLAGS: &[(&str, Fate)] = &[
    ("S", Fate::Flag),
    ("usb", Fate::Flag),
    ("snapshot", Fate::Flag),
    ("nodefaults", Fate::Flag),
    ("no-user-config", Fate::Flag),
    ("no-reboot", Fate::Flag),
    ("no-shutdown", Fate::Flag),
    ("no-acpi", Fate::Flag),
    ("no-hpet", Fate::Flag),
    ("no-fd-bootchk", Fate::Flag),
    ("win2k-hack", Fate::Flag),
    ("only-migratable", Fate::Flag),
    ("enable-sync-profile", Fate::Flag),
    ("semihosting", TCG),
    ("enable-kvm", ACCEL),
    ("enable-hax", ACCEL),
    ("no-kvm", ACCEL),
    ("no-kvm-irqchip", ACCEL),
    ("no-kvm-pit", ACCEL),
    ("no-kvm-pit-reinjection", ACCEL),
    ("singlestep", TCG),
    ("nographic", Fate::Replace("machine", "graphics=off")),
    ("curses", SHOWN),
    ("sdl", SHOWN),
    ("full-screen", SHOWN),
    ("no-frame", SHOWN),
    ("no-quit", SHOWN),
    ("alt-grab", SHOWN),
    ("ctrl-grab", SHOWN),
    ("portrait", SHOWN),
    ("s", OURS),
    ("daemonize", OURS),
    ("async-teardown", HOST),
    ("mem-prealloc", HOST),
    ("perfmap", HOST),
    ("jitdump", HOST),
    ("audio-help", STOPS),
    ("h", STOPS),
    ("help", STOPS),
    ("version", STOPS),
    ("preconfig", STOPS),
    ("xen-attach", Fate::Refuse("it talks to the host's hypervisor")),
    ("xen-domid-restrict", Fate::Refuse("it talks to the host's hypervisor")),
];

/// Options with a value.
const VALUES: &[(&str, Fate)] = &[
    // The machine.
    ("machine", Fate::Machine),
    ("cpu", Fate::Plain),
    ("smp", Fate::Settings),
    ("m", Fate::Settings),
    ("numa", Fate::Settings),
    ("device", Fate::Kind("driver", device)),
    ("global", Fate::Global),
    ("set", Fate::Set),
    ("object", Fate::Kind("qom-type", harmless::object)),
    ("boot", Fate::Settings),
    ("name", Fate::Plain),
    ("uuid", Fate::Plain),
    ("rtc", Fate::Settings),
    ("vga", Fate::Plain),
    ("g", Fate::Plain),
    ("usbdevice", Fate::Kind("", usb_device)),
    ("smbios", Fate::Settings),
    ("fw_cfg", Fate::Settings),
    ("soundhw", Fate::Plain),
    ("balloon", Fate::Settings),
    ("watchdog", Fate::Plain),
    ("watchdog-action", Fate::Plain),
    ("action", Fate::Settings),
    ("append", Fate::Drop("there is no kernel to tell it")),
    ("compat", Fate::Settings),
    ("seed", Fate::Plain),
    ("msg", Fate::Settings),
    ("trace", Fate::Settings),
    // Its drives.
    ("drive", Fate::Drive("")),
    ("blockdev", Fate::Blockdev),
    ("hda", Fate::Drive("index=0,media=disk")),
    ("hdb", Fate::Drive("index=1,media=disk")),
    ("hdc", Fate::Drive("index=2,media=disk")),
    ("hdd", Fate::Drive("index=3,media=disk")),
    ("cdrom", Fate::Drive("index=2,media=cdrom")),
    ("fda", Fate::Drive("if=floppy,index=0")),
    ("fdb", Fate::Drive("if=floppy,index=1")),
    ("sd", Fate::Drive("if=sd")),
    ("mtdblock", Fate::Drive("if=mtd")),
    ("pflash", Fate::Drive("if=pflash")),
    // Back ends.
    ("netdev", Fate::Kind("type", netdev)),
    ("net", Fate::Kind("type", net)),
    ("nic", Fate::Kind("type", nic)),
    ("chardev", Fate::Chardev),
    ("audiodev", Fate::Audio),
    ("audio", Fate::Audio),
    ("fsdev", Fate::Kind("fsdriver", fsdev)),
    ("virtfs", Fate::Kind("fsdriver", fsdev)),
    // The harness.
    ("accel", ACCEL),
    ("tb-size", TCG),
    ("icount", TCG),
    ("display", SHOWN),
    ("vnc", SHOWN),
    ("spice", SHOWN),
    ("rotate", SHOWN),
    ("k", SHOWN),
    ("echr", SHOWN),
    ("serial", Fate::Port),
    ("parallel", Fate::Port),
    ("debugcon", Fate::Port),
    ("monitor", Fate::Replace("monitor", "none")),
    ("qmp", OURS),
    ("qmp-pretty", OURS),
    ("mon", OURS),
    ("qtest", OURS),
    ("qtest-log", OURS),
    ("gdb", OURS),
    ("pidfile", OURS),
    ("D", OURS),
    ("d", OURS),
    ("dfilter", OURS),
    // Where the reporter's build has its firmware.
    ("L", HOST),
    ("sandbox", HOST),
    ("overcommit", HOST),
    // What reaches the host.
    ("kernel", FILE),
    ("initrd", FILE),
    ("dtb", FILE),
    ("shim", FILE),
    ("bios", FILE),
    ("option-rom", FILE),
    ("acpitable", FILE),
    ("mem-path", FILE),
    ("readconfig", FILE),
    ("writeconfig", FILE),
    ("dump-vmstate", FILE),
    ("plugin", FILE),
    ("semihosting-config", Fate::Refuse("it gives the guest the host's files")),
    ("chroot", Fate::Refuse("it changes QEMU's root folder")),
    ("runas", Fate::Refuse("it changes QEMU's user")),
    ("run-with", Fate::Refuse("it changes QEMU's root folder or user")),
    ("add-fd", Fate::Refuse("it names a descriptor")),
    ("tpmdev", Fate::Refuse("it reaches a device or a socket of the host")),
    ("iscsi", NETWORK),
    ("redir", NETWORK),
    ("tftp", NETWORK),
    ("bootp", NETWORK),
    ("smb", NETWORK),
    ("incoming", Fate::Refuse("it reads a machine's state from a file, a socket or a command")),
    ("loadvm", Fate::Refuse("it reads a machine's state from an image")),
    ("xen-domid", Fate::Refuse("it talks to the host's hypervisor")),
    ("prom-env", Fate::Plain),
];

/// Other names.
const ALIASES: &[(&str, &str)] = &[("M", "machine")];

/// What becomes of the option `name`, written without its hyphens.
pub fn rule(name: &str) -> Option<&'static Rule> {
    use std::sync::OnceLock;
    static RULES: OnceLock<Vec<Rule>> = OnceLock::new();
    let rules = RULES.get_or_init(|| {
        let rules = |table: &'static [(&str, Fate)], takes_value| {
            table.iter().map(move |(name, fate)| Rule { name, takes_value, fate: *fate })
        };
        rules(FLAGS, false).chain(rules(VALUES, true)).collect()
    });
    let alias = ALIASES.iter().find(|(alias, _)| *alias == name);
    let name = alias.map_or(name, |(_, name)| *name);
    rules.iter().find(|rule| rule.name == name)
}

fn device(model: Option<&str>) -> Result<(), Refusal> {
    harmless::model(model.ok_or("it says no model")?)
}

fn usb_device(name: Option<&str>) -> Result<(), Refusal> {
    harmless::usb_device(name.unwrap_or_default())
}

fn netdev(kind: Option<&str>) -> Result<(), Refusal> {
    only(kind, &["hubport"], "it reaches a network")
}

fn net(kind: Option<&str>) -> Result<(), Refusal> {
    only(kind, &["none", "nic"], "it reaches a network")
}

fn nic(kind: Option<&str>) -> Result<(), Refusal> {
    only(kind, &["none"], "it reaches a network")
}

fn fsdev(kind: Option<&str>) -> Result<(), Refusal> {
    only(kind, &["synth"], "it gives the guest a folder of the host")
}

fn only(kind: Option<&str>, kinds: &[&str], why: &str) -> Result<(), Refusal> {
    match kind {
        Some(kind) if kinds.contains(&kind) => Ok(()),
        _ => Err(why.to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const BINARY: &str = "/usr/libexec/xen-qemu-system-i386";

    /// What it says to `args`; none where it is not.
    fn ask(args: &[&str]) -> Option<String> {
        let out = std::process::Command::new(BINARY).args(args).output();
        let Ok(out) = out else {
            println!("skipped: no {BINARY}");
            return None;
        };
        Some(String::from_utf8_lossy(&[out.stdout, out.stderr].concat()).into_owned())
    }

    #[test]
    fn every_option_of_the_qemu_that_is_here_has_its_place() {
        let Some(help) = ask(&["-help"]) else { return };
        let mut names = Vec::new();
        for line in help.lines().filter(|line| line.starts_with('-')) {
            // `-h or -help`, `-fda/-fdb file`.
            let mut words = line.split_whitespace();
            while let Some(word) = words.next() {
                names.extend(word.split('/').map(|name| name.trim_start_matches('-')));
                if words.next() != Some("or") {
                    break;
                }
            }
        }
        assert!(names.len() > 100, "{names:?}");
        let unknown: Vec<_> = names.iter().filter(|name| rule(name).is_none()).collect();
        assert!(unknown.is_empty(), "{unknown:?}");
    }

    /// If it were not so, QEMU would take for an option what was looked at as a value.
    #[test]
    fn options_take_values_where_qemu_takes_them() {
        for (table, takes_value) in [(FLAGS, false), (VALUES, true)] {
            for (name, _) in table {
                // Options are looked up before the first is obeyed.
                let Some(said) = ask(&["-version", &format!("-{name}")]) else { return };
                let known = !said.contains("invalid option");
                let wants = said.contains("requires an argument");
                assert!(!known || wants == takes_value, "-{name}: {said}");
            }
        }
    }

    #[test]
    fn names_are_there_once() {
        let mut names: Vec<&str> = FLAGS.iter().chain(VALUES).map(|(name, _)| *name).collect();
        names.sort_unstable();
        let count = names.len();
        names.dedup();
        assert_eq!(names.len(), count);
        assert!(rule("M").unwrap().takes_value && rule("no-such").is_none());
    }
}
