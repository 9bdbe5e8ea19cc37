//! Who goes first, and how an interrupt ends (8259A data sheet, "Fully Nested Mode", "End of
//! Interrupt", "Automatic Rotation", "Specific Rotation").

use super::super::sources::Cpu;
use super::super::sources::Source::{Clock, Keyboard, Mouse, Serial, Timer};
use super::super::sources::bus;
use super::super::{Outcome, TestThread};
use super::{end, expect_in_service, raise, unmask};
use crate::driver::pic::{self, Chip};

/// OCW2: rotate on non-specific EOI, rotate on specific EOI, set priority.
const ROTATE_EOI: u8 = 0xa0;
const ROTATE_SPECIFIC_EOI: u8 = 0xe0;
const SET_PRIORITY: u8 = 0xc0;

fn ocw2(t: &mut TestThread<'_>, chip: Chip, value: u8) -> Outcome {
    t.outb(chip.command(), value)
}

pub fn priority(t: &mut TestThread<'_>) -> Outcome {
    let cpu = Cpu::watch(t, 0)?;
    raise(t, &[Serial, Keyboard, Timer])?;
    cpu.expect_none(t, "everything is masked")?;
    unmask(t, &[Serial, Keyboard, Timer])?;
    cpu.expect(t, "the highest of 0, 1 and 4", 0x20)?;
    cpu.expect_none(t, "1 and 4 are below 0, which is in service")?;
    end(t, Timer)?;
    cpu.expect(t, "the next is 1", 0x21)?;
    raise(t, &[Timer])?;
    cpu.expect(t, "0 interrupts the service of 1", 0x20)?;
    expect_in_service(t, "both are in service", &[0, 1])?;
    end(t, Timer)?;
    cpu.expect_none(t, "4 is below 1, which is still in service")?;
    end(t, Keyboard)?;
    cpu.expect(t, "4 is the last", 0x24)?;
    end(t, Serial)?;
    cpu.expect_none(t, "all are served")
}

pub fn cascade(t: &mut TestThread<'_>) -> Outcome {
    let cpu = Cpu::watch(t, 0)?;
    raise(t, &[Serial, Mouse, Clock])?;
    unmask(t, &[Serial, Mouse, Clock])?;
    cpu.expect(t, "8 is the highest of the slave, which is above 4", 0x28)?;
    expect_in_service(t, "8, and the slave in the master", &[2, 8])?;
    pic::end_highest(bus(t)?, Chip::Slave);
    cpu.expect_none(t, "the master still serves its slave")?;
    pic::end_highest(bus(t)?, Chip::Master);
    cpu.expect(t, "12 is above 4", 0x2c)?;
    raise(t, &[Clock])?;
    cpu.expect_none(t, "fully nested: the slave in service is locked out, 8 waits")?;
    raise(t, &[Timer])?;
    unmask(t, &[Timer, Serial, Mouse, Clock])?;
    cpu.expect(t, "0 is above the slave", 0x20)?;
    end(t, Timer)?;
    end(t, Mouse)?;
    cpu.expect(t, "8 again", 0x28)?;
    end(t, Clock)?;
    cpu.expect(t, "4 is the last", 0x24)?;
    end(t, Serial)?;
    expect_in_service(t, "all are ended", &[])
}

pub fn eoi(t: &mut TestThread<'_>) -> Outcome {
    let cpu = Cpu::watch(t, 0)?;
    unmask(t, &[Serial, Keyboard])?;
    for (ocw, left, what) in [
        (0x20, 4, "a non-specific EOI ends the highest"),
        (0x64, 1, "a specific EOI ends what it names"),
        (0x67, 9, "a specific EOI of a level not in service ends nothing"),
        (0x40, 9, "no operation ends nothing"),
    ] {
        raise(t, &[Serial])?;
        cpu.expect(t, "4", 0x24)?;
        raise(t, &[Keyboard])?;
        cpu.expect(t, "1 above it", 0x21)?;
        ocw2(t, Chip::Master, ocw)?;
        let left: &[u8] = if left == 9 { &[1, 4] } else { &[left] };
        expect_in_service(t, what, left)?;
        end(t, Keyboard)?;
        end(t, Serial)?;
        expect_in_service(t, "both are ended", &[])?;
    }
    Ok(())
}

pub fn rotate(t: &mut TestThread<'_>) -> Outcome {
    let cpu = Cpu::watch(t, 0)?;
    ocw2(t, Chip::Master, SET_PRIORITY | 1)?;
    raise(t, &[Timer, Keyboard, Serial])?;
    unmask(t, &[Timer, Keyboard, Serial])?;
    cpu.expect(t, "with 1 the lowest, 4 is above 0", 0x24)?;
    ocw2(t, Chip::Master, ROTATE_EOI)?;
    cpu.expect(t, "with 4 the lowest, 0 is above 1", 0x20)?;
    raise(t, &[Serial])?;
    cpu.expect_none(t, "4 and 1 are below 0")?;
    ocw2(t, Chip::Master, ROTATE_SPECIFIC_EOI)?;
    expect_in_service(t, "rotation ends what it names", &[])?;
    raise(t, &[Timer])?;
    cpu.expect(t, "with 0 the lowest, 1 is the highest", 0x21)?;
    end(t, Keyboard)?;
    cpu.expect(t, "then 4", 0x24)?;
    end(t, Serial)?;
    cpu.expect(t, "then 0", 0x20)?;
    end(t, Timer)?;
    // The slave rotates by itself.
    ocw2(t, Chip::Slave, SET_PRIORITY | 3)?;
    raise(t, &[Clock, Mouse])?;
    unmask(t, &[Clock, Mouse])?;
    cpu.expect(t, "with 11 the lowest, 12 is above 8", 0x2c)?;
    end(t, Mouse)?;
    cpu.expect(t, "then 8", 0x28)?;
    end(t, Clock)
}
