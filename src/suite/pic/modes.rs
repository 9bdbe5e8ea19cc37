//! Modes of ICW4 and OCW3 (8259A data sheet, "Automatic End of Interrupt", "Special Mask Mode",
//! "Poll Command", "The Special Fully Nested Mode").

use super::super::sources::Source::{Clock, Keyboard, Mouse, Serial, Timer};
use super::super::sources::{Cpu, bus};
use super::super::{Outcome, TestThread};
use super::{BASE, SLAVE_BASE, end, expect_in_service, raise, start, unmask};
use crate::driver::pic::{self, Chip, Setup};

/// OCW2: rotate in automatic EOI mode, and no more.
const ROTATE_AEOI: u8 = 0x80;
const ROTATE_AEOI_OFF: u8 = 0x00;
/// OCW3: special mask mode, and no more.
const SPECIAL_MASK: u8 = 0x68;
const SPECIAL_MASK_OFF: u8 = 0x48;

pub fn poll(t: &mut TestThread<'_>) -> Outcome {
    let got = pic::poll(bus(t)?, Chip::Master);
    t.expect("poll with no request", got, None)?;
    raise(t, &[Serial, Keyboard])?;
    let got = pic::poll(bus(t)?, Chip::Master);
    t.expect("poll with masked requests", got, None)?;
    unmask(t, &[Serial, Keyboard])?;
    let got = pic::poll(bus(t)?, Chip::Master);
    t.expect("poll takes the highest", got, Some(1))?;
    expect_in_service(t, "polled, it is in service", &[1])?;
    let got = pic::poll(bus(t)?, Chip::Master);
    t.expect("4 is below 1, which is in service", got, None)?;
    end(t, Keyboard)?;
    let got = pic::poll(bus(t)?, Chip::Master);
    t.expect("then 4", got, Some(4))?;
    end(t, Serial)?;
    raise(t, &[Mouse])?;
    unmask(t, &[Mouse])?;
    let got = pic::poll(bus(t)?, Chip::Master);
    t.expect("the master's poll gives the slave's input", got, Some(pic::CASCADE))?;
    let got = pic::poll(bus(t)?, Chip::Slave);
    t.expect("the slave's poll gives the interrupt", got, Some(12))?;
    end(t, Mouse)?;
    let masked = t.inb(Chip::Master.data())?;
    t.expect("only one read polls", masked, !(1 << pic::CASCADE))
}

pub fn aeoi(t: &mut TestThread<'_>) -> Outcome {
    start(t, Setup { auto_eoi: true, ..Setup::new(BASE, SLAVE_BASE) })?;
    let cpu = Cpu::watch(t, 0)?;
    raise(t, &[Timer, Keyboard, Serial])?;
    unmask(t, &[Timer, Keyboard, Serial])?;
    for (vector, what) in [(0x20, "0"), (0x21, "then 1, with no EOI"), (0x24, "then 4")] {
        cpu.expect(t, what, vector)?;
        expect_in_service(t, "the acknowledge ended it", &[])?;
    }
    cpu.expect_none(t, "no edge, no interrupt")?;
    raise(t, &[Serial])?;
    cpu.expect(t, "a new edge", 0x24)
}

pub fn rotate_aeoi(t: &mut TestThread<'_>) -> Outcome {
    start(t, Setup { auto_eoi: true, ..Setup::new(BASE, SLAVE_BASE) })?;
    let cpu = Cpu::watch(t, 0)?;
    t.outb(Chip::Master.command(), ROTATE_AEOI)?;
    unmask(t, &[Timer, Keyboard])?;
    raise(t, &[Keyboard])?;
    cpu.expect(t, "1, which is the lowest from now on", 0x21)?;
    pic::set_mask(bus(t)?, 0xffff);
    raise(t, &[Timer, Keyboard])?;
    unmask(t, &[Timer, Keyboard])?;
    cpu.expect(t, "0 is above 1", 0x20)?;
    raise(t, &[Timer])?;
    cpu.expect(t, "0 is the lowest now, 1 above it", 0x21)?;
    t.outb(Chip::Master.command(), ROTATE_AEOI_OFF)?;
    cpu.expect(t, "then 0", 0x20)?;
    pic::set_mask(bus(t)?, 0xffff);
    raise(t, &[Timer, Keyboard])?;
    unmask(t, &[Timer, Keyboard])?;
    cpu.expect(t, "0 is above 1, the lowest when rotation went off", 0x20)?;
    raise(t, &[Timer])?;
    cpu.expect(t, "and stays above it", 0x20)?;
    cpu.expect(t, "then 1", 0x21)
}

pub fn special_mask(t: &mut TestThread<'_>) -> Outcome {
    let cpu = Cpu::watch(t, 0)?;
    unmask(t, &[Timer, Serial])?;
    raise(t, &[Timer])?;
    cpu.expect(t, "0", 0x20)?;
    unmask(t, &[Serial])?;
    t.outb(Chip::Master.command(), SPECIAL_MASK)?;
    cpu.expect_none(t, "nothing is requested")?;
    raise(t, &[Serial])?;
    cpu.expect(t, "special mask mode lets 4 in", 0x24)?;
    expect_in_service(t, "both", &[0, 4])?;
    end(t, Serial)?;
    t.outb(Chip::Master.command(), SPECIAL_MASK_OFF)?;
    raise(t, &[Serial])?;
    cpu.expect_none(t, "out of the mode 0 holds 4 back again")?;
    end(t, Timer)?;
    cpu.expect(t, "4", 0x24)?;
    end(t, Serial)
}

pub fn special_mask_pending(t: &mut TestThread<'_>) -> Outcome {
    let cpu = Cpu::watch(t, 0)?;
    unmask(t, &[Timer, Serial])?;
    raise(t, &[Timer])?;
    cpu.expect(t, "0", 0x20)?;
    unmask(t, &[Serial])?;
    raise(t, &[Serial])?;
    cpu.expect_none(t, "masked, 0 in service still holds 4 back")?;
    t.outb(Chip::Master.command(), SPECIAL_MASK)?;
    cpu.expect(t, "special mask mode lets a waiting 4 in", 0x24)?;
    expect_in_service(t, "both", &[0, 4])
}

pub fn special_nested(t: &mut TestThread<'_>) -> Outcome {
    start(t, Setup { special_fully_nested: true, ..Setup::new(BASE, SLAVE_BASE) })?;
    let cpu = Cpu::watch(t, 0)?;
    unmask(t, &[Clock, Mouse])?;
    raise(t, &[Mouse])?;
    cpu.expect(t, "12", 0x2c)?;
    raise(t, &[Clock])?;
    cpu.expect(t, "8 interrupts the service of 12", 0x28)?;
    expect_in_service(t, "both, and the slave in the master", &[2, 8, 12])?;
    pic::end_highest(bus(t)?, Chip::Slave);
    expect_in_service(t, "12 is left in the slave: the master is not ended", &[2, 12])?;
    pic::end_highest(bus(t)?, Chip::Slave);
    pic::end_highest(bus(t)?, Chip::Master);
    expect_in_service(t, "all are ended", &[])?;
    cpu.expect_none(t, "all are served")
}
