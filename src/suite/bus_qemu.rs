//! A QEMU for a bus trace.

use super::bus_machine::BusMachine;
use super::machine_qemu::{ADDED, HPET_MESSAGES, Qemu, add_chips, place, test_disk, unreachable};
use super::setup::TestDisk;
use super::spec::{DiskSpec, MachineSpec};
use crate::base::limits::DISK_BYTES_MAX;
use crate::base::options::Options;
use crate::base::{Error, Result};
use crate::machine::Machine;
use crate::machine::builtin::Chips;
use crate::machine::qemu::{Mode, QemuConfig, QemuDisk, Time, View};

/// Builds the machine that `spec` describes, with what `options` add.
///
/// # Errors
/// It cannot be described so, or does not start.
pub(super) fn build(options: &Options, spec: &MachineSpec) -> Result<BusMachine> {
    let mut config = config(options, spec)?;
    for (at, disk) in spec.disks.iter().enumerate() {
        let slot = usize::from(spec.disk_slot) + at;
        config.disks.push(self::disk(options, disk, slot)?);
    }
    let machine = Qemu::start(config)?;
    Ok(BusMachine {
        text: machine.describe(),
        machine: Box::new(machine),
        chips: (Chips::FULL - unreachable() - ADDED) | (spec.chips & ADDED),
        others: true,
    })
}

/// All but the disks.
fn config(options: &Options, spec: &MachineSpec) -> Result<QemuConfig> {
    let mut config = Qemu::config(options)?;
    config.board = spec.board;
    config.ram_bytes = spec.ram_bytes;
    config.cpus = spec.cpus;
    config.rtc_base_unix_s = spec.rtc_base_unix_s;
    config.time = match config.mode {
        None | Some(Mode::Qtest) => Time::Stepped,
        Some(Mode::TcgPaused | Mode::TcgHalted) => Time::Host { follow: false },
    };
    if spec.controllers && config.cpus == 1 {
        config.view = View::Controllers;
    }
    if spec.hpet_messages {
        config.args.splice(0..0, HPET_MESSAGES.map(str::to_owned));
    }
    let mut add = spec.chips;
    if let Some(defaults) = &mut config.defaults {
        // A machine with its defaults has its serial port among them.
        defaults.serial = spec.chips.contains(Chips::SERIAL);
        add -= Chips::SERIAL;
    }
    add_chips(add, &mut config);
    Ok(config)
}

/// A disk of zeros, or with the pattern of test disks, in a slot of the root bus.
fn disk(options: &Options, spec: &DiskSpec, slot: usize) -> Result<QemuDisk> {
    if spec.bytes > DISK_BYTES_MAX {
        return Err(Error::usage(format!("a disk of {} bytes", spec.bytes)));
    }
    let wanted = TestDisk {
        queues: spec.queues,
        block_bytes: spec.block_bytes,
        read_only: spec.read_only,
        filled: spec.filled,
        ..TestDisk::new("", spec.bytes)
    };
    let (mut disk, _image) = test_disk(options, &wanted)?;
    disk.serial.clone_from(&spec.serial);
    place(&mut disk, slot);
    Ok(disk)
}

#[cfg(test)]
mod tests {
    use super::super::machine_qemu::OPTIONS;
    use super::*;
    use crate::machine::builtin::Board;

    #[test]
    fn the_description_of_a_machine_is_that_of_both_kinds() {
        let options = Options::parse("defaults=on", OPTIONS).unwrap();
        let spec = MachineSpec {
            board: Board::Q35,
            ram_bytes: 64 << 20,
            cpus: 3,
            rtc_base_unix_s: 951_782_400,
            disks: vec![DiskSpec { serial: "s-1".into(), ..DiskSpec::new(1 << 20) }],
            ..MachineSpec::default()
        };
        let mut config = config(&options, &spec).unwrap();
        config.disks.push(disk(&options, &spec.disks[0], 5).unwrap());
        let args = config.machine_args(Mode::Qtest).join(" ");
        for part in [
            "-machine q35",
            "-m size=67108864B",
            "-smp 3",
            "base=2000-02-29T00:00:00",
            "isa-debugcon",
            r#""addr":"0x5""#,
            r#""serial":"s-1""#,
            "-serial null",
        ] {
            assert!(args.contains(part), "{part}: {args}");
        }
        assert!(!args.contains("isa-serial") && !args.contains("-nodefaults"), "{args}");
        let without = Options::parse("", OPTIONS).unwrap();
        let args = super::config(&without, &spec).unwrap().machine_args(Mode::Qtest).join(" ");
        assert!(args.contains("isa-serial") && args.contains("-nodefaults"), "{args}");
    }
}
