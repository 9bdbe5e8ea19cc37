//! What of a report's machine reaches beyond QEMU's own process: names of settings, of device
//! models and of back ends.
//!
//! A report is untrusted text. The kinds of objects that it may make are listed here one by one.
//! Device models are too many, and new ones come with every QEMU: of those, the ones that reach the
//! host are listed, and of their properties the names by which QEMU's devices are told of a file, a
//! socket or a device of the host. Whatever the name, a value with a `/` is refused; and QEMU runs
//! in an empty folder of its own, so that a name without one finds nothing and leaves nothing.

use super::opts::Settings;

/// Why something is refused.
pub type Refusal = String;

/// Names of settings that are files, sockets or devices of the host, in whole…
const HOST_NAMES: &[&str] = &[
    "cdat",       // cxl-type3: a table from a file
    "chroot",     // -run-with
    "certs",      // ccid-card-emulated
    "config",     // blkdebug
    "connect",    // a socket
    "db",         // ccid-card-emulated
    "dtb",        // -machine
    "dumpdtb",    // -machine: writes a file
    "evdev",      // virtio-input-host
    "events",     // -trace
    "exec",       // a command
    "fd",         // a descriptor
    "fds",        //
    "firmware",   // -machine
    "helper",     // a command
    "hidraw",     // u2f-passthru
    "host",       // vfio-pci
    "hostaddr",   // xen-pci-passthrough, usb-host
    "hostbus",    // usb-host
    "hostdevice", // usb-host
    "hostport",   // usb-host
    "initrd",     // -machine
    "kernel",     // -machine
    "listen",     // a socket
    "pcap",       // usb devices: writes a file
    "plugin",     //
    "pr-manager", // a socket
    "script",     // a command
    "downscript", // a command
    "shm",        // ivshmem of old
    "splash",     // -boot
    "sysfsdev",   // vfio-pci
    "vhostdev",   // vhost-vdpa
    "vhostfd",    //
    "vhostfds",   //
    "wwpn",       // vhost-scsi
];

/// …and by a part of them: `romfile`, `sdrfile`, `logfile`, `rrfile`, `wayland-socket-path`.
const HOST_PARTS: &[&str] = &["file", "path", "rootdir"];

/// Device models that reach the host whatever they are told, by the beginning of their names.
const HOST_MODELS: &[(&str, &str)] = &[
    ("vfio", "it takes a device of the host"),
    ("vhost", "it takes a part of the host's kernel, or a socket"),
    ("vdpa", "it takes a device of the host"),
    ("usb-host", "it takes a device of the host"),
    ("usb-mtp", "it serves a folder of the host"),
    ("u2f-", "it takes a device or a folder of the host"),
    ("virtio-input-host", "it takes a device of the host"),
    ("ccid-card-emulated", "it takes the host's smart cards"),
    ("igd-passthrough", "it reads the host's graphics device"),
    ("xen", "it talks to the host's hypervisor"),
    ("loader", "it loads files of the host"),
    ("guest-loader", "it loads files of the host"),
    ("x-pci-proxy", "it talks to another process"),
    ("virtio-gpu-gl", "it takes the host's graphics device"),
    ("virtio-vga-gl", "it takes the host's graphics device"),
    ("virtio-gpu-rutabaga", "it takes the host's graphics device"),
    ("virtio-vga-rutabaga", "it takes the host's graphics device"),
];

/// Objects that live in QEMU alone.
const OBJECTS: &[&str] = &[
    "can-bus",
    "cryptodev-backend",
    "cryptodev-backend-builtin",
    "iothread",
    "main-loop",
    "memory-backend-memfd",
    "memory-backend-ram",
    "rng-builtin",
    "thread-context",
    "throttle-group",
];

/// Character devices that lead nowhere.
const CHARDEVS: &[&str] = &["null", "ringbuf", "memory", "vc", "testdev", "msmouse", "wctablet"];

/// Models of `-usbdevice` that have nothing of the host's.
const USB_DEVICES: &[&str] = &["mouse", "tablet", "wacom-tablet", "keyboard", "ccid"];

/// Settings that take much of the host's memory at once.
const MEMORY_NAMES: &[&str] = &["prealloc", "hugetlb", "mem-lock"];

/// Longest value; a serial number or a list of CPU features is shorter.
const VALUE_CHARS_MAX: usize = 4096;

/// Whether a value may be passed on.
///
/// # Errors
/// Why not.
pub fn value(value: &str) -> Result<(), Refusal> {
    if value.chars().any(char::is_control) || value.len() > VALUE_CHARS_MAX {
        return Err("its value is no plain text".to_owned());
    }
    if value.contains('/') {
        return Err(format!("'{value}' may name a file of the host"));
    }
    Ok(())
}

/// Whether a setting of a device, machine or back end may be passed on.
///
/// # Errors
/// Why not.
pub fn setting(key: &str, text: &str) -> Result<(), Refusal> {
    let lower = key.to_ascii_lowercase();
    // The last part of a path to it: `file.filename`.
    let name = lower.rsplit('.').next().unwrap_or_default();
    if HOST_NAMES.contains(&name) || HOST_PARTS.iter().any(|part| name.contains(part)) {
        return Err(format!("{key}= names something of the host's"));
    }
    if MEMORY_NAMES.contains(&name) {
        return Err(format!("{key}= takes the host's memory"));
    }
    // Places in QEMU's own tree of objects look like paths.
    let in_tree = text.starts_with("/machine/") || text.starts_with("/objects/");
    if matches!(name, "bus" | "memdev" | "hostmem") && in_tree && !text.contains("..") {
        return Ok(());
    }
    value(text).map_err(|why| format!("{key}=: {why}"))
}

/// Whether all of an argument's settings may be.
///
/// # Errors
/// Why not.
pub fn settings(settings: &Settings) -> Result<(), Refusal> {
    settings.items.iter().try_for_each(|item| match item.key.as_str() {
        "" => value(item.value()),
        key => setting(key, item.value()),
    })
}

/// Whether a model of a device may be made.
///
/// # Errors
/// Why not.
pub fn model(name: &str) -> Result<(), Refusal> {
    let name = name.to_ascii_lowercase();
    let known = HOST_MODELS.iter().find(|(model, _)| name.starts_with(model));
    known.map_or(Ok(()), |(_, why)| Err(format!("{name}: {why}")))
}

fn one_of(list: &[&str], kind: Option<&str>, what: &str) -> Result<(), Refusal> {
    match kind {
        None | Some("") => Err(format!("it says no kind of {what}")),
        Some(kind) if list.contains(&kind) => Ok(()),
        Some(kind) => Err(format!(
            "{what} '{kind}' is none that is known to stay within QEMU; those are {}",
            list.join(", ")
        )),
    }
}

/// Whether an object of `-object` may be made.
///
/// # Errors
/// Why not.
pub fn object(kind: Option<&str>) -> Result<(), Refusal> {
    one_of(OBJECTS, kind, "object")
}

/// Whether a character device of `-chardev` may be made.
///
/// # Errors
/// Why not.
pub fn chardev(kind: Option<&str>) -> Result<(), Refusal> {
    one_of(CHARDEVS, kind, "character device")
}

/// Whether a model of `-usbdevice` may be made.
///
/// # Errors
/// Why not.
pub fn usb_device(name: &str) -> Result<(), Refusal> {
    one_of(USB_DEVICES, Some(name), "USB device")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn settings_that_reach_the_host() {
        for (key, text) in [
            ("romfile", "x.rom"),
            ("ROMFILE", "x.rom"),
            ("frudatafile", "x"),
            ("file", "x"),
            ("file.filename", "x"),
            ("logfile", "x"),
            ("mem-path", "x"),
            ("wayland-socket-path", "x"),
            ("rootdir", "x"),
            ("pcap", "x"),
            ("cdat", "x"),
            ("host", "0000:00:02.0"),
            ("sysfsdev", "x"),
            ("evdev", "x"),
            ("hidraw", "x"),
            ("vhostfd", "3"),
            ("fd", "3"),
            ("serial", "/etc/passwd"),
            ("whatever", "../x"),
            ("bus", "/etc/x"),
            ("bus", "/machine/../x"),
            ("drive", "a\nb"),
            ("prealloc", "on"),
        ] {
            assert!(setting(key, text).is_err(), "{key}={text}");
        }
        for (key, text) in [
            ("drive", "disk0"),
            ("chardev", "cd0"),
            ("bus", "pci.0"),
            ("bus", "/machine/q35/pcihost"),
            ("memdev", "/objects/mem0"),
            ("addr", "0x5.1"),
            ("mac", "52:54:00:12:34:56"),
            ("host_mtu", "1500"),
            ("x-disable-pcie", "on"),
            ("hv-stimer-direct", "on"),
            ("host-phys-bits", "on"),
            ("rombar", "0"),
            ("serial", "deadbeef"),
            ("nqn", "nqn.2014-08.org:x"),
        ] {
            assert_eq!(setting(key, text), Ok(()), "{key}={text}");
        }
    }

    #[test]
    fn models_and_back_ends() {
        for name in [
            "vfio-pci",
            "VFIO-PCI",
            "vhost-user-blk-pci",
            "usb-host",
            "usb-mtp",
            "xen-disk",
            "loader",
            "u2f-emulated",
        ] {
            assert!(model(name).is_err(), "{name}");
        }
        for name in [
            "virtio-blk-pci",
            "e1000e",
            "usb-storage",
            "ufs",
            "igb",
            "scsi-hd",
            "nvme",
            "virtio-gpu-pci",
        ] {
            assert_eq!(model(name), Ok(()), "{name}");
        }
        for kind in
            [None, Some(""), Some("memory-backend-file"), Some("qtest"), Some("secret"), Some("x")]
        {
            assert!(object(kind).is_err(), "{kind:?}");
        }
        for kind in ["socket", "file", "pipe", "pty", "serial", "udp", "spicevmc", "dbus", "stdio"]
        {
            assert!(chardev(Some(kind)).is_err(), "{kind}");
        }
        assert!(object(Some("iothread")).is_ok() && chardev(Some("null")).is_ok());
        assert!(usb_device("tablet").is_ok() && usb_device("host:1.2").is_err());
        assert!(usb_device("disk:x").is_err());
    }
}
