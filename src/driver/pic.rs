//! The i8259A pair of a PC, as firmware and operating systems program it (Intel 8259A data sheet,
//! "Programming the 8259A"; edge/level registers: PIIX4 data sheet §4.2.4).
//!
//! Interrupts are numbered 0 to 15 and sets of them are 16-bit masks, the slave in the high byte.

use crate::machine::Bus;

/// One of the two chips.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Chip {
    /// Interrupts 0 to 7.
    Master,
    /// Interrupts 8 to 15, on the master's input 2.
    Slave,
}

/// Both, the slave first: a mask is narrowed before the way through the master opens.
const BOTH: [Chip; 2] = [Chip::Slave, Chip::Master];

/// The slave's place on the master.
pub const CASCADE: u8 = 2;

/// ICW1 with ICW4 to follow, cascaded, edge triggered.
const ICW1_START: u8 = 0x11;
/// ICW4 for an 8086 system.
const ICW4_8086: u8 = 1 << 0;
const ICW4_AEOI: u8 = 1 << 1;
const ICW4_SFNM: u8 = 1 << 4;

const OCW2_EOI: u8 = 1 << 5;
const OCW2_SPECIFIC: u8 = 1 << 6;
const OCW3: u8 = 1 << 3;
const OCW3_READ_IRR: u8 = OCW3 | 2;
const OCW3_READ_ISR: u8 = OCW3 | 3;
const OCW3_POLL: u8 = OCW3 | 4;
const POLL_REQUEST: u8 = 1 << 7;

impl Chip {
    /// The chip of an interrupt.
    pub fn of(irq: u8) -> Self {
        if irq < 8 { Self::Master } else { Self::Slave }
    }

    /// The port with address line A0 low: ICW1, OCW2, OCW3, and the selected register.
    pub fn command(self) -> u16 {
        match self {
            Self::Master => 0x20,
            Self::Slave => 0xa0,
        }
    }

    /// The port with address line A0 high: ICW2 to ICW4, OCW1.
    pub fn data(self) -> u16 {
        self.command() + 1
    }

    /// The edge/level control register.
    pub fn elcr(self) -> u16 {
        match self {
            Self::Master => 0x4d0,
            Self::Slave => 0x4d1,
        }
    }

    /// The chip's half of a set of interrupts.
    fn half(self, irqs: u16) -> u8 {
        match self {
            Self::Master => irqs as u8,
            Self::Slave => (irqs >> 8) as u8,
        }
    }

    fn set(self, half: u8) -> u16 {
        match self {
            Self::Master => half.into(),
            Self::Slave => u16::from(half) << 8,
        }
    }
}

/// How the pair is initialized.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Setup {
    /// Vector of interrupt 0, a multiple of 8.
    pub master_base: u8,
    /// Vector of interrupt 8, a multiple of 8.
    pub slave_base: u8,
    /// Automatic end of interrupt, in both chips.
    pub auto_eoi: bool,
    /// Special fully nested mode, in the master.
    pub special_fully_nested: bool,
}

impl Setup {
    /// Fully nested with these vectors; the program ends its interrupts.
    pub fn new(master_base: u8, slave_base: u8) -> Self {
        Self { master_base, slave_base, auto_eoi: false, special_fully_nested: false }
    }
}

fn out(bus: &mut dyn Bus, port: u16, value: u8) {
    bus.pio_write(port, 1, value.into());
}

fn inb(bus: &mut dyn Bus, port: u16) -> u8 {
    bus.pio_read(port, 1) as u8
}

/// Initializes both chips and masks every interrupt.
pub fn initialize(bus: &mut dyn Bus, setup: Setup) {
    let aeoi = if setup.auto_eoi { ICW4_AEOI } else { 0 };
    let sfnm = if setup.special_fully_nested { ICW4_SFNM } else { 0 };
    for (chip, base, place, icw4) in [
        (Chip::Master, setup.master_base, 1 << CASCADE, ICW4_8086 | aeoi | sfnm),
        (Chip::Slave, setup.slave_base, CASCADE, ICW4_8086 | aeoi),
    ] {
        out(bus, chip.command(), ICW1_START);
        for word in [base, place, icw4] {
            out(bus, chip.data(), word);
        }
    }
    set_mask(bus, u16::MAX);
}

/// The masked interrupts.
pub fn mask(bus: &mut dyn Bus) -> u16 {
    BOTH.into_iter().fold(0, |set, chip| set | chip.set(inb(bus, chip.data())))
}

/// Masks these interrupts and no others.
pub fn set_mask(bus: &mut dyn Bus, irqs: u16) {
    for chip in BOTH {
        out(bus, chip.data(), chip.half(irqs));
    }
}

/// Lets an interrupt through: one of the slave needs the master's input 2 as well.
pub fn enable(bus: &mut dyn Bus, irq: u8) {
    let way = if Chip::of(irq) == Chip::Slave { 1 << CASCADE } else { 0 };
    let masked = mask(bus);
    set_mask(bus, masked & !(1 << (irq & 15) | way));
}

/// Masks an interrupt.
pub fn disable(bus: &mut dyn Bus, irq: u8) {
    let masked = mask(bus);
    set_mask(bus, masked | 1 << (irq & 15));
}

/// The requested interrupts (IRR), masked ones too. It stays the register that is read.
pub fn requests(bus: &mut dyn Bus) -> u16 {
    read_registers(bus, OCW3_READ_IRR)
}

/// The interrupts in service (ISR). It stays the register that is read.
pub fn in_service(bus: &mut dyn Bus) -> u16 {
    read_registers(bus, OCW3_READ_ISR)
}

fn read_registers(bus: &mut dyn Bus, select: u8) -> u16 {
    BOTH.into_iter().fold(0, |set, chip| {
        out(bus, chip.command(), select);
        set | chip.set(inb(bus, chip.command()))
    })
}

/// Ends an interrupt, by its level: one of the slave in both chips.
pub fn end_of_interrupt(bus: &mut dyn Bus, irq: u8) {
    let specific = OCW2_EOI | OCW2_SPECIFIC;
    if Chip::of(irq) == Chip::Slave {
        out(bus, Chip::Slave.command(), specific | irq & 7);
        out(bus, Chip::Master.command(), specific | CASCADE);
    } else {
        out(bus, Chip::Master.command(), specific | irq);
    }
}

/// Ends the interrupt with the highest priority of those in service in a chip.
pub fn end_highest(bus: &mut dyn Bus, chip: Chip) {
    out(bus, chip.command(), OCW2_EOI);
}

/// Takes an interrupt of a chip without the CPU: the poll command. Its number; input 2 of the
/// master stands for one of the slave, to be polled next.
pub fn poll(bus: &mut dyn Bus, chip: Chip) -> Option<u8> {
    out(bus, chip.command(), OCW3_POLL);
    let answer = inb(bus, chip.command());
    let first = if chip == Chip::Slave { 8 } else { 0 };
    (answer & POLL_REQUEST != 0).then_some(first + (answer & 7))
}

/// The level-triggered interrupts.
pub fn level_triggered(bus: &mut dyn Bus) -> u16 {
    BOTH.into_iter().fold(0, |set, chip| set | chip.set(inb(bus, chip.elcr())))
}

/// Makes these interrupts level triggered and the others edge triggered, as far as they can be:
/// 0, 1, 2, 8 and 13 are edges always.
pub fn set_level_triggered(bus: &mut dyn Bus, irqs: u16) {
    for chip in BOTH {
        out(bus, chip.elcr(), chip.half(irqs));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::{GuestAddr, Nanos};
    use crate::machine::builtin::device::{Device, LineSink, Wire};
    use crate::machine::builtin::devices::pic::{PicDevice, PicPair};

    /// The pair at its ports.
    struct Ports(PicDevice);

    impl Ports {
        fn place(port: u16) -> (usize, u64) {
            match port {
                0x20 | 0x21 => (0, u64::from(port) - 0x20),
                0xa0 | 0xa1 => (1, u64::from(port) - 0xa0),
                0x4d0 | 0x4d1 => (2, u64::from(port) - 0x4d0),
                _ => panic!("{port:#x}"),
            }
        }
    }

    impl Bus for Ports {
        fn pio_read(&mut self, port: u16, size: u8) -> u32 {
            let (window, offset) = Self::place(port);
            self.0.read(window, offset, size, Nanos(0)) as u32
        }

        fn pio_write(&mut self, port: u16, size: u8, value: u32) {
            let (window, offset) = Self::place(port);
            self.0.write(window, offset, size, value.into(), Nanos(0));
        }

        fn mmio_read(&mut self, _addr: GuestAddr, _size: u8) -> u64 {
            0
        }

        fn mmio_write(&mut self, _addr: GuestAddr, _size: u8, _value: u64) {}
    }

    #[test]
    fn an_interrupt_of_each_chip_is_served() {
        let pair = PicPair::new(Wire::open());
        let bus = &mut Ports(PicDevice(pair.clone()));
        initialize(bus, Setup::new(0x30, 0x38));
        assert_eq!(mask(bus), 0xffff);
        enable(bus, 4);
        enable(bus, 11);
        assert_eq!(mask(bus), 0xf7eb);
        pair.set_line(4, 0, true);
        pair.set_line(11, 0, true);
        assert_eq!(requests(bus), 0x0814);
        assert_eq!(pair.acknowledge(), 0x3b);
        assert_eq!(in_service(bus), 0x0804);
        end_of_interrupt(bus, 11);
        assert_eq!(pair.acknowledge(), 0x34);
        end_highest(bus, Chip::Master);
        assert_eq!(in_service(bus), 0);
        disable(bus, 4);
        assert_eq!(mask(bus), 0xf7fb);
    }

    #[test]
    fn polling_walks_through_the_cascade() {
        let pair = PicPair::new(Wire::open());
        let bus = &mut Ports(PicDevice(pair.clone()));
        initialize(bus, Setup { auto_eoi: true, ..Setup::new(0x30, 0x38) });
        enable(bus, 9);
        assert_eq!(poll(bus, Chip::Master), None);
        pair.set_line(9, 0, true);
        assert_eq!(poll(bus, Chip::Master), Some(CASCADE));
        assert_eq!(poll(bus, Chip::Slave), Some(9));
        assert_eq!(in_service(bus), 0);
    }

    #[test]
    fn levels_are_set_where_they_can_be() {
        let bus = &mut Ports(PicDevice(PicPair::new(Wire::open())));
        set_level_triggered(bus, 0xffff);
        assert_eq!(level_triggered(bus), 0xdef8);
    }
}
