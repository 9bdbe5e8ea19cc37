//! One APIC's registers and priorities; what APICs do together; the timer.

mod bank;
mod registers;
mod timer;

use std::sync::Arc;

use super::bits::*;
use super::{LapicConfig, LapicDevice, LocalApics};
use crate::base::{Clock, Nanos, VirtualClock};
use crate::machine::builtin::device::{Device, LineProbe, LineSink, MessageSink, Wire};
use crate::machine::builtin::devices::ioapic::IoApic;
use crate::machine::builtin::devices::pic::PicPair;

/// CPUs with all that their APICs are connected to. INTR of CPU n is line n of the probe, NMI is
/// line 8 + n.
struct Rig {
    clock: VirtualClock,
    probe: Arc<LineProbe>,
    apics: Arc<LocalApics>,
    pic: Arc<PicPair>,
    ioapic: Arc<IoApic>,
}

impl Rig {
    /// With every APIC software enabled.
    fn new(cpus: u8) -> Self {
        let (clock, probe) = (VirtualClock::new(), Arc::new(LineProbe::default()));
        let wires =
            |first| (0..u32::from(cpus)).map(|n| Wire::new(probe.clone(), first + n, 0)).collect();
        let config =
            LapicConfig { cpus, clock: Arc::new(clock.clone()), intr: wires(0), nmi: wires(8) };
        let apics = LocalApics::new(config);
        let pic = PicPair::new(Wire::new(apics.clone(), LINT0, 0));
        let ioapic = IoApic::new(apics.clone());
        apics.connect_pic(&pic);
        apics.connect_ioapic(&ioapic);
        let rig = Self { clock, probe, apics, pic, ioapic };
        (0..cpus).for_each(|cpu| rig.write_of(cpu, APIC_SVR, 0x1ff));
        rig
    }

    fn now(&self) -> Nanos {
        self.clock.now()
    }

    fn read_of(&self, cpu: u8, register: u64) -> u32 {
        self.apics.read(cpu, register, 4, self.now()) as u32
    }

    fn write_of(&self, cpu: u8, register: u64, value: u32) {
        self.apics.write(cpu, register, 4, value, self.now());
    }

    fn read(&self, register: u64) -> u32 {
        self.read_of(0, register)
    }

    fn write(&self, register: u64, value: u32) {
        self.write_of(0, register, value);
    }

    fn device(&self) -> LapicDevice {
        LapicDevice::new(self.apics.clone(), 0)
    }

    /// A fixed interrupt to CPU 0.
    fn fixed(&self, vector: u8) {
        self.apics.message(0xfee0_0000, vector.into());
    }

    fn ack(&self) -> Option<u8> {
        self.apics.acknowledge(0)
    }

    fn intr(&self, cpu: u32) -> bool {
        self.probe.line(cpu).0
    }

    fn nmis(&self, cpu: u32) -> u64 {
        self.probe.line(8 + cpu).1
    }

    /// The errors since the last call.
    fn errors(&self) -> u32 {
        self.write(APIC_ESR, 0);
        self.read(APIC_ESR)
    }
}
