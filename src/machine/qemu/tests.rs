//! The machine against a real QEMU, where there is one.

use super::*;
use crate::base::{GuestAddr, Nanos};
use crate::driver::apic::{IoApic, Redirection};
use crate::driver::pic;
use crate::driver::pit::Control;
use crate::machine::{ApicMessage, Capabilities, IrqSource, Machine};

/// A QEMU with the qtest accelerator; says so and gives none where there is none.
fn qemu(config: QemuConfig) -> Option<QemuMachine> {
    if let Err(error) = probe::choose(None, Some(Mode::Qtest)) {
        println!("skipped: {error}");
        return None;
    }
    Some(QemuMachine::new(QemuConfig { mode: Some(Mode::Qtest), ..config }).unwrap())
}

fn stepped() -> Option<QemuMachine> {
    qemu(QemuConfig { time: Time::Stepped, ..QemuConfig::default() })
}

#[test]
fn ports_memory_and_ram() {
    let Some(mut machine) = stepped() else { return };
    let bus = machine.bus().unwrap();
    bus.pio_write(0xcf8, 4, 0x8000_0000);
    assert_eq!(bus.pio_read(0xcfc, 4), 0x1237_8086);
    assert_eq!(bus.mmio_read(GuestAddr(0xfec0_0000), 4), 0);
    bus.mmio_write(GuestAddr(0x2000), 8, 0x1122_3344_5566_7788);
    let mut bytes = [0; 8];
    assert!(machine.ram().unwrap().read(GuestAddr(0x2000), &mut bytes));
    assert_eq!(u64::from_le_bytes(bytes), 0x1122_3344_5566_7788);
    machine.quit().unwrap();
    assert!(machine.bus().is_err());
    assert!(machine.obituary().is_none());
}

#[test]
fn time_is_ours_and_interrupts_come_in_it() {
    let Some(mut machine) = stepped() else { return };
    let clock = machine.clock();
    assert!(clock.is_virtual() && machine.capabilities().contains(Capabilities::VIRTUAL_CLOCK));
    // RTC: periodic interrupts, 1024 a second.
    let event = machine.interrupts().unwrap().watch(IrqSource::Intx(8)).unwrap();
    let bus = machine.bus().unwrap();
    for (register, value) in [(0x0a, 0x26), (0x0b, 0x42)] {
        bus.pio_write(0x70, 1, register);
        bus.pio_write(0x71, 1, value);
    }
    let start = clock.now();
    machine.wait(&[event.fd()], Some(start + 1_000_000_000)).unwrap();
    let passed = clock.now() - start;
    assert_eq!(event.take(), 1);
    assert!(passed <= 1_000_000, "{passed}");
    machine.wait(&[], Some(Nanos(5_000_000_000))).unwrap();
    assert_eq!(clock.now(), Nanos(5_000_000_000));
}

#[test]
fn a_qemu_that_is_killed_is_told_of_as_what_it_was() {
    let Some(mut machine) = stepped() else { return };
    machine.bus().unwrap().pio_write(0x80, 1, 0x55);
    let pid = machine.process_id() as libc::pid_t;
    nix::sys::signal::kill(nix::unistd::Pid::from_raw(pid), nix::sys::signal::SIGSEGV).unwrap();
    assert_eq!(machine.bus().unwrap().pio_read(0x71, 1), 0xffff_ffff);
    let error = machine.poll().unwrap_err().to_string();
    assert!(error.contains("signal 11 (SIGSEGV)"), "{error}");
    let obituary = machine.obituary().unwrap();
    assert_eq!(obituary.last_commands.last().unwrap().0, "inb 0x71");
    assert!(!std::path::Path::new(&format!("/proc/{pid}")).exists(), "reaped");
}

#[test]
fn a_qemu_that_hangs_is_killed_and_told_of() {
    let patience = std::time::Duration::from_millis(300);
    let Some(mut machine) = qemu(QemuConfig { patience, ..QemuConfig::default() }) else { return };
    let pid = machine.process_id() as libc::pid_t;
    nix::sys::signal::kill(nix::unistd::Pid::from_raw(pid), nix::sys::signal::SIGSTOP).unwrap();
    machine.bus().unwrap().pio_read(0x71, 1);
    let obituary = machine.obituary().unwrap();
    assert!(obituary.summary().contains("hung"), "{}", obituary.summary());
    assert!(!std::path::Path::new(&format!("/proc/{pid}")).exists(), "reaped");
}

#[test]
fn arguments_that_do_not_start_say_why() {
    let args = vec!["-device".to_owned(), "no-such-device".to_owned()];
    if qemu(QemuConfig::default()).is_none() {
        return;
    }
    let error = QemuMachine::new(QemuConfig { args, ..QemuConfig::default() }).err().unwrap();
    assert_eq!(error.kind().exit_code(), 5);
    assert!(error.to_string().contains("no-such-device"), "{error}");
}

/// Acknowledges and messages of a machine without a local APIC.
#[test]
fn interrupt_controllers_are_seen_where_no_cpu_takes_their_vectors() {
    for board in [crate::machine::builtin::Board::Pc, crate::machine::builtin::Board::Q35] {
        let config = QemuConfig { board, view: View::Controllers, ..QemuConfig::default() };
        let Some(mut machine) = qemu(QemuConfig { time: Time::Stepped, ..config }) else { return };
        assert!(!machine.capabilities().contains(Capabilities::INTX));
        let wanted = Capabilities::CPU_IRQ | Capabilities::APIC_MESSAGES;
        assert!(machine.capabilities().contains(wanted));
        let interrupts = machine.interrupts().unwrap();
        assert!(interrupts.watch(IrqSource::Intx(0)).is_err());
        assert!(interrupts.watch(IrqSource::Intr { cpu: 1 }).is_err());
        let intr = interrupts.watch(IrqSource::Intr { cpu: 0 }).unwrap();
        assert_eq!((intr.take(), interrupts.acknowledge(0)), (0, None));
        assert_eq!(interrupts.apic_messages().unwrap(), []);
        let bus = machine.bus().unwrap();
        pic::initialize(bus, pic::Setup::new(0x30, 0x38));
        pic::enable(bus, 0);
        IoApic::default().redirect(bus, 2, Redirection::edge(0x42));
        // The selector of the I/O APIC is the test's own.
        bus.mmio_write(GuestAddr(0xfec0_0000), 4, 0x15);
        Control::new(0, 0).start(bus, 100);
        machine.wait(&[], Some(machine.clock().now() + 1_000_000)).unwrap();
        assert_eq!(intr.take(), 1);
        let interrupts = machine.interrupts().unwrap();
        let message = ApicMessage { addr: 0xfee0_0000, data: 0x42 };
        assert_eq!(interrupts.acknowledge(0), Some(0x30));
        assert_eq!(interrupts.acknowledge(0), None);
        assert_eq!(interrupts.apic_messages().unwrap(), [message]);
        assert_eq!(interrupts.apic_messages().unwrap(), []);
        let bus = machine.bus().unwrap();
        assert_eq!(bus.mmio_read(GuestAddr(0xfec0_0000), 4), 0x15);
        assert_eq!(pic::in_service(bus), 1);
        assert!(IoApic::default().redirection(bus, 23).masked);
        machine.quit().unwrap();
    }
    let many = QemuConfig { cpus: 2, view: View::Controllers, ..QemuConfig::default() };
    assert_eq!(QemuMachine::new(many).err().unwrap().kind().exit_code(), 2);
}

#[test]
fn arguments_that_keep_it_from_resetting_are_told_of() {
    if qemu(QemuConfig::default()).is_none() {
        return;
    }
    for args in [&["-no-reboot"][..], &["-action", "reboot=shutdown"]] {
        let args = args.iter().map(|arg| (*arg).to_owned()).collect();
        let error = QemuMachine::new(QemuConfig { args, ..QemuConfig::default() }).err().unwrap();
        assert_eq!(error.kind().exit_code(), 5, "{error}");
    }
}
