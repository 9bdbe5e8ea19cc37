use std::sync::Arc;

use super::I8042;
use super::bits::*;
use crate::base::{Nanos, Prng};
use crate::machine::builtin::device::{Device, LineProbe, Wire};
use crate::machine::builtin::devices::recorded;
use crate::machine::builtin::walk::{SeededSteps, walk};

const T: Nanos = Nanos(0);
const IRQ1: u32 = 0;
const IRQ12: u32 = 1;
const RESET: u32 = 2;
const A20: u32 = 3;

struct Rig {
    device: I8042,
    probe: Arc<LineProbe>,
}

fn rig() -> Rig {
    let probe = Arc::new(LineProbe::default());
    let wire = |line| Wire::new(probe.clone(), line, 0);
    Rig { device: I8042::new(wire(IRQ1), wire(IRQ12), wire(RESET), wire(A20)), probe }
}

impl Rig {
    fn command(&mut self, byte: u8) {
        self.device.write(1, 0, 1, byte.into(), T);
    }

    fn data(&mut self, byte: u8) {
        self.device.write(0, 0, 1, byte.into(), T);
    }

    fn status(&mut self) -> u8 {
        self.device.read(1, 0, 1, T) as u8
    }

    fn get(&mut self) -> u8 {
        self.device.read(0, 0, 1, T) as u8
    }

    fn drain(&mut self) -> Vec<u8> {
        let mut bytes = Vec::new();
        while self.status() & STS_OBF != 0 {
            bytes.push(self.get());
        }
        bytes
    }

    fn ctr(&mut self, value: u8) {
        self.command(CMD_WRITE_CTR);
        self.data(value);
    }
}

#[test]
fn the_controller_answers_its_tests() {
    let mut rig = rig();
    assert_eq!(rig.status(), 0x18);
    for (command, answer) in [(CMD_SELF_TEST, 0x55), (CMD_KBD_TEST, 0), (CMD_AUX_TEST, 0)] {
        rig.command(command);
        assert_eq!((rig.status(), rig.drain()), (0x1d, vec![answer]));
    }
    // An empty buffer shows the last byte again.
    rig.command(CMD_READ_INPUT);
    assert_eq!((rig.get(), rig.get(), rig.status()), (0x80, 0x80, 0x1c));
}

#[test]
fn the_keyboard_is_translated_or_not() {
    let mut rig = rig();
    rig.ctr(CTR_XLATE);
    rig.data(KBD_GET_ID);
    assert_eq!(rig.drain(), [0xfa, 0xab, 0x41]);
    rig.device.press(&[0x1c]);
    rig.device.press(&[KBD_BREAK, 0x1c]);
    rig.device.press(&[0xe0, KBD_BREAK, 0x75]);
    assert_eq!(rig.drain(), [0x1e, 0x9e, 0xe0, 0xc8]);
    rig.ctr(0);
    rig.device.press(&[KBD_BREAK, 0x1c]);
    rig.data(KBD_GET_ID);
    // The first byte of the key was already in the buffer.
    assert_eq!(rig.drain(), [0xf0, 0xfa, 0xab, 0x83, 0x1c]);
}

#[test]
fn every_byte_is_an_edge_of_its_own_line() {
    let mut rig = rig();
    rig.ctr(CTR_KBDINT | CTR_AUXINT);
    rig.data(KBD_GET_ID);
    assert_eq!(rig.drain().len(), 3);
    assert_eq!((rig.probe.line(IRQ1), rig.probe.line(IRQ12)), ((false, 3), (false, 0)));
    rig.command(CMD_AUX_SEND);
    rig.data(AUX_GET_ID);
    assert_eq!((rig.status() & 0x21, rig.drain()), (0x21, vec![0xfa, 0]));
    assert_eq!((rig.probe.line(IRQ1), rig.probe.line(IRQ12)), ((false, 3), (false, 2)));
    // Without the enable bits there are bytes and no interrupts; setting one finds the waiting byte.
    rig.ctr(0);
    rig.command(CMD_AUX_LOOP);
    rig.data(0x77);
    assert_eq!(rig.probe.line(IRQ12), (false, 2));
    rig.ctr(CTR_AUXINT);
    assert_eq!(rig.probe.line(IRQ12), (true, 3));
    assert_eq!(rig.drain(), [0x77]);
}

#[test]
fn a_held_clock_holds_the_device_back() {
    let mut rig = rig();
    rig.ctr(CTR_KBDDIS | CTR_AUXDIS);
    rig.device.press(&[0x1c]);
    assert!(rig.drain().is_empty());
    // Replies of the controller itself still come.
    rig.command(CMD_READ_CTR);
    assert_eq!(rig.drain(), [0x30]);
    rig.command(CMD_KBD_ENABLE);
    assert_eq!(rig.drain(), [0x1c]);
    rig.command(CMD_AUX_SEND);
    rig.data(AUX_ENABLE);
    rig.drain();
    rig.command(CMD_AUX_DISABLE);
    rig.device.push(1, 0, 0, 0);
    rig.command(CMD_READ_CTR);
    assert_eq!(rig.drain(), [0x20]);
    rig.command(CMD_AUX_ENABLE);
    assert_eq!(rig.drain(), [8, 1, 0]);
}

#[test]
fn the_output_port_drives_a20_and_reset() {
    let mut rig = rig();
    assert_eq!(rig.probe.line(A20), (true, 1));
    rig.command(CMD_WRITE_OUTPUT);
    rig.data(0xcd);
    rig.command(CMD_READ_OUTPUT);
    assert_eq!((rig.probe.line(A20).0, rig.drain()), (false, vec![0xcd]));
    rig.command(CMD_A20_ON);
    assert!(rig.probe.line(A20).0);
    rig.command(CMD_A20_OFF);
    assert!(!rig.probe.line(A20).0);
    rig.command(0xff);
    rig.command(0xf1);
    assert_eq!(rig.probe.line(RESET), (false, 0));
    rig.command(0xfe);
    assert_eq!(rig.probe.line(RESET), (false, 1));
    rig.command(CMD_WRITE_OUTPUT);
    rig.data(0x02);
    assert_eq!(rig.probe.line(RESET), (false, 2));
    rig.device.reset(T);
    rig.command(CMD_READ_OUTPUT);
    assert_eq!((rig.probe.line(A20).0, rig.drain()), (true, vec![0xcf]));
}

#[test]
fn walks_repeat() {
    let run = || walk(&mut rig().device, &[1, 1], &mut SeededSteps(Prng::new(3), 1_000_000));
    assert_eq!(run(), run());
}

#[test]
fn seabios_and_linux_read_what_they_read_on_qemu() {
    for log in
        ["seabios/boot-tcg.log.xz", "seabios/boot-tcg-ts.log.xz", "guest/virtio-raw-mmio.trace.xz"]
    {
        let Some(accesses) = recorded::accesses(log, &["i8042-cmd", "i8042-data"]) else { return };
        recorded::replay(&mut rig().device, &[(0x60, 1), (0x64, 1)], &accesses);
    }
}
