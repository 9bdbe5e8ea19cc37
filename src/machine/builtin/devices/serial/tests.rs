use std::sync::Arc;

use super::Serial;
use super::bits::*;
use crate::base::{Nanos, Prng};
use crate::machine::builtin::device::{Device, LineProbe, Wire};
use crate::machine::builtin::devices::recorded;
use crate::machine::builtin::walk::{SeededSteps, walk};

struct Rig {
    device: Serial,
    probe: Arc<LineProbe>,
    now: Nanos,
}

fn rig() -> Rig {
    let probe = Arc::new(LineProbe::default());
    Rig { device: Serial::new(Wire::new(probe.clone(), 4, 0)), probe, now: Nanos(0) }
}

impl Rig {
    fn get(&mut self, register: u64) -> u8 {
        self.device.read(0, register, 1, self.now) as u8
    }

    fn put(&mut self, register: u64, value: u8) {
        self.device.write(0, register, 1, value.into(), self.now);
    }

    /// Lets time pass to `now`; the device runs at each of its deadlines.
    fn until(&mut self, now: u64) {
        while let Some(at) = self.device.deadline().filter(|at| at.0 <= now) {
            self.now = at.max(self.now);
            self.device.run(self.now);
        }
        self.now = Nanos(now);
    }

    fn line(&self) -> (bool, u64) {
        self.probe.line(4)
    }
}

#[test]
fn registers_at_power_on() {
    let mut rig = rig();
    let values: Vec<u8> = (0..8).map(|register| rig.get(register)).collect();
    assert_eq!(values, [0, 0, 0x01, 0, 0x08, 0x60, 0xb0, 0]);
    rig.put(LCR, LCR_DLAB);
    assert_eq!((rig.get(RBR_THR_DLL), rig.get(IER_DLM)), (12, 0));
}

#[test]
fn sent_characters_are_captured_and_each_is_an_interrupt() {
    let mut rig = rig();
    rig.put(IER_DLM, IER_THRI);
    assert_eq!(rig.line(), (true, 1));
    assert_eq!((rig.get(IIR_FCR), rig.get(IIR_FCR)), (IIR_THRI, IIR_NONE));
    assert_eq!(rig.line(), (false, 1));
    b"ok".iter().for_each(|byte| rig.put(RBR_THR_DLL, *byte));
    assert_eq!((rig.line(), rig.get(LSR)), ((true, 3), 0x60));
    assert_eq!(rig.device.line().output().take(), b"ok");
    // The divisor latch is behind the same port.
    rig.put(LCR, LCR_DLAB);
    rig.put(RBR_THR_DLL, 1);
    assert_eq!(rig.device.line().output().take(), b"");
}

#[test]
fn received_characters_trigger_by_level_or_time_out() {
    let mut rig = rig();
    rig.put(IER_DLM, IER_RDI);
    rig.put(IIR_FCR, 0x81);
    rig.put(LCR, 3);
    rig.device.line().send(b"1234567");
    rig.until(0);
    assert_eq!((rig.get(IIR_FCR), rig.line()), (0xc1, (false, 0)));
    // 4 characters of 10 bits at 9600 baud: 4,166,666.67 ns.
    rig.until(4_166_666);
    assert_eq!(rig.line(), (false, 0));
    rig.until(4_166_667);
    assert_eq!((rig.get(IIR_FCR), rig.line()), (0xcc, (true, 1)));
    assert_eq!((rig.get(RBR_THR_DLL), rig.get(IIR_FCR)), (b'1', 0xc1));
    rig.device.line().send(b"89");
    rig.until(4_200_000);
    assert_eq!((rig.get(IIR_FCR), rig.line()), (0xc4, (true, 2)));
    let rest: Vec<u8> =
        std::iter::from_fn(|| (rig.get(LSR) & LSR_DR != 0).then(|| rig.get(RBR_THR_DLL))).collect();
    assert_eq!((&rest[..], rig.get(RBR_THR_DLL)), (&b"23456789"[..], 0));
    assert_eq!((rig.line().0, rig.device.deadline()), (false, None));
}

#[test]
fn the_line_waits_for_room_and_loses_nothing() {
    let mut rig = rig();
    rig.put(LCR, 3);
    let line = rig.device.line();
    let text: Vec<u8> = (0..100).collect();
    assert_eq!(line.send(&text), 100);
    let taken: Vec<u8> = (0..100).map(|_| rig.get(RBR_THR_DLL)).collect();
    assert_eq!((taken, rig.get(LSR)), (text, 0x60));
    assert_eq!(line.send(&vec![0; super::INPUT_BYTES_MAX + 1]), super::INPUT_BYTES_MAX);
}

#[test]
fn loopback_has_modem_lines_edges_and_overruns() {
    let mut rig = rig();
    rig.put(MCR, MCR_LOOP);
    assert_eq!((rig.get(MSR), rig.get(LSR)), (0, 0x60));
    rig.put(IER_DLM, IER_MSI | IER_RLSI);
    rig.put(MCR, MCR_LOOP | MCR_OUT1 | MCR_RTS);
    assert_eq!((rig.get(IIR_FCR), rig.get(MSR)), (IIR_MSI, MSR_RI | MSR_CTS | 1));
    rig.put(MCR, MCR_LOOP | MCR_RTS);
    assert_eq!((rig.get(MSR), rig.get(IIR_FCR)), (MSR_CTS | MSR_TERI, IIR_NONE));
    rig.put(LCR, 3);
    rig.put(RBR_THR_DLL, b'a');
    rig.put(RBR_THR_DLL, b'b');
    assert_eq!((rig.get(IIR_FCR), rig.get(LSR), rig.get(LSR)), (IIR_RLSI, 0x63, 0x61));
    assert_eq!((rig.get(RBR_THR_DLL), rig.get(LSR)), (b'b', 0x60));
    // With FIFOs the seventeenth is lost, and the words are cut.
    rig.put(IIR_FCR, 1);
    rig.put(LCR, 0);
    (0..17).for_each(|i| rig.put(RBR_THR_DLL, 0xf0 | i));
    assert_eq!(rig.get(LSR), 0x63);
    let words: Vec<u8> = (0..16).map(|_| rig.get(RBR_THR_DLL)).collect();
    assert_eq!((words, rig.get(LSR)), ((0x10..0x20).collect(), 0x60));
    assert_eq!(rig.device.line().output().take(), b"", "nothing leaves");
    rig.device.line().send(b"x");
    rig.until(1);
    assert_eq!(rig.get(LSR), 0x60, "nothing comes");
    rig.put(MCR, 0);
    assert_eq!((rig.get(MSR), rig.get(LSR)), (0xb0, 0x61));
}

/// Where `vm-superio` and this chip mean the same, they answer the same.
#[test]
fn what_the_library_knows_it_knows_alike() {
    struct NoTrigger;
    impl vm_superio::Trigger for NoTrigger {
        type E = ();
        fn trigger(&self) -> Result<(), ()> {
            Ok(())
        }
    }
    let mut library = vm_superio::Serial::new(NoTrigger, Vec::new());
    let mut rig = rig();
    // The library's FIFO is always on, and it powers on with 8 data bits.
    rig.put(IIR_FCR, 1);
    rig.put(LCR, 3);
    let mut prng = Prng::new(5);
    for step in 0..20_000 {
        let register = [RBR_THR_DLL, IER_DLM, LCR, MCR, MSR, SCR][prng.below(6) as usize];
        let value = prng.next_u64() as u8;
        if prng.below(2) == 0 {
            let value = match register {
                LCR => value | LCR_WORD,
                MCR => value & MCR_BITS,
                _ => value,
            };
            rig.put(register, value);
            library.write(register as u8, value).unwrap();
        } else {
            let (ours, theirs) = (rig.get(register), library.read(register as u8));
            let mask = if register == MSR { !MSR_DELTA } else { 0xff };
            assert_eq!(ours & mask, theirs & mask, "step {step}, register {register}");
        }
        // The library holds more; drained before a 16550 overruns.
        while rig.get(LSR) & LSR_DR != 0 {
            let lcr = rig.get(LCR);
            rig.put(LCR, lcr & !LCR_DLAB);
            library.write(LCR as u8, lcr & !LCR_DLAB).unwrap();
            assert_eq!(rig.get(RBR_THR_DLL), library.read(0), "step {step}");
            rig.put(LCR, lcr);
            library.write(LCR as u8, lcr).unwrap();
        }
    }
    assert_eq!(&rig.device.line().output().take(), library.writer());
    assert!(!library.writer().is_empty());
}

#[test]
fn walks_repeat() {
    let run = || walk(&mut rig().device, &[8], &mut SeededSteps(Prng::new(6), 1_000_000));
    assert_eq!(run(), run());
}

#[test]
fn linux_reads_what_it_read_on_qemu() {
    let log = "guest/virtio-raw-mmio.trace.xz";
    let Some(accesses) = recorded::accesses(log, &["serial"]) else { return };
    let mut rig = rig();
    recorded::replay(&mut rig.device, &[(0x3f8, 8)], &accesses);
    let text = String::from_utf8(rig.device.line().output().take()).unwrap();
    assert!(text.contains("QT: done"), "{text}");
}
