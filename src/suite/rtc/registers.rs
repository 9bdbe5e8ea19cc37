//! Registers and RAM under writes of every kind.

use super::ops::{self, SECOND};
use crate::base::Nanos;
use crate::driver::cmos::*;
use crate::suite::outcome::Outcome;
use crate::suite::thread::TestThread;

/// Where PS/2s have the century.
const CENTURY_PS2: u8 = 0x37;
/// Bytes that the index reaches.
const BYTES: u8 = 0x80;

/// Whether the byte is RAM and nothing else.
fn is_ram(index: u8) -> bool {
    index > REGISTER_D && index < BYTES && index != CENTURY && index != CENTURY_PS2
}

/// Writes at random, and what each must have done, while time passes.
pub fn walk(t: &mut TestThread<'_>) -> Outcome {
    const STEPS: usize = 5_000;
    let saved = save(t)?;
    let mut ram = saved.clone();
    for _ in 0..STEPS {
        let choice = t.prng().next_u64();
        let (index, value) = (choice as u8 % BYTES, (choice >> 8) as u8);
        // Half of the steps are on the registers, of which there are few.
        let index = if choice >> 63 == 0 { index } else { index % 14 };
        ops::put(t, index, value)?;
        let got = ops::get(t, index)?;
        let what = format!("byte {index:02x}h after {value:02x}h was written");
        match index {
            SECONDS_ALARM | MINUTES_ALARM | HOURS_ALARM => t.expect(&what, got, value)?,
            REGISTER_A => t.expect(&what, got & !A_UIP, value & !A_UIP)?,
            REGISTER_B if value & B_SET != 0 => t.expect(&what, got, value & !B_UIE)?,
            REGISTER_B => t.expect(&what, got, value)?,
            REGISTER_D => t.expect(&what, got, D_VRT)?,
            index if is_ram(index) => {
                t.expect(&what, got, value)?;
                if let Some(byte) = ram.get_mut(usize::from(index)) {
                    *byte = value;
                }
            }
            _ => {}
        }
        if choice >> 16 & 7 == 0 {
            t.step(Nanos(choice >> 32))?;
        }
    }
    holds(t, &ram)?;
    restore(t, &saved)?;
    can_be_set(t)
}

/// Register A's UIP, and registers C and D.
pub fn read_only(t: &mut TestThread<'_>) -> Outcome {
    ops::put(t, REGISTER_A, A_DIVIDER_RESET)?;
    ops::flags(t)?;
    for value in [0x00, 0x55, 0xaa, 0xff] {
        ops::put(t, REGISTER_D, value)?;
        ops::expect_byte(t, "register D", REGISTER_D, 0xff, D_VRT)?;
        ops::put(t, REGISTER_C, value)?;
        ops::expect_flags(t, "register C", 0xff, 0)?;
    }
    ops::put(t, REGISTER_A, A_DIVIDER_RESET | A_UIP)?;
    ops::expect_byte(t, "register A", REGISTER_A, 0xff, A_DIVIDER_RESET)
}

/// Each byte of RAM has a value of its own, whichever way bit 7 of the index is.
pub fn ram(t: &mut TestThread<'_>) -> Outcome {
    let saved = save(t)?;
    for invert in [0, 0xff] {
        let wanted: Vec<u8> = (0..BYTES).map(|index| (index.wrapping_mul(29)) ^ invert).collect();
        restore(t, &wanted)?;
        holds(t, &wanted)?;
        for index in (0..BYTES).filter(|index| is_ram(*index)) {
            // Bit 7 keeps NMI away and selects nothing.
            let byte = ops::get(t, index | 0x80)?;
            let want = wanted.get(usize::from(index)).copied().unwrap_or(0);
            t.expect(&format!("byte {index:02x}h with NMI masked"), byte, want)?;
        }
    }
    restore(t, &saved)?;
    // Leaves the index as a program should, with NMI let through.
    ops::get(t, REGISTER_D).map(|_| ())
}

/// Any value in any of the first sixteen bytes: nothing stops for good.
pub fn fuzz(t: &mut TestThread<'_>) -> Outcome {
    const STEPS: usize = 5_000;
    let saved = save(t)?;
    for step in 0..STEPS {
        let choice = t.prng().next_u64();
        let index = (choice % 16) as u8;
        ops::put(t, index, (choice >> 8) as u8)?;
        ops::get(t, index)?;
        if step % 16 == 0 {
            // A nanosecond to a minute, each magnitude as often: a fast periodic interrupt that is
            // enabled here costs its host by the edge.
            t.step(Nanos(choice >> (28 + (choice >> 16 & 31))))?;
        }
    }
    restore(t, &saved)?;
    can_be_set(t)
}

/// Times that are none: the clock carries on, and shows a time again after a day.
pub fn invalid_time(t: &mut TestThread<'_>) -> Outcome {
    const TIMES: [[u8; 3]; 5] =
        [[0x60, 0, 0], [0, 0x60, 0], [0, 0, 0x24], [0xff; 3], [0x3f, 0x7a, 0x6b]];
    for format in Format::ALL {
        for [second, minute, hour] in TIMES {
            ops::stop(t, format, &ops::at(1, 2, 3))?;
            for (index, byte) in [(SECONDS, second), (MINUTES, minute), (HOURS, hour)] {
                ops::put(t, index, byte)?;
                ops::expect_byte(t, "the byte that was written", index, 0xff, byte)?;
            }
            ops::put(t, REGISTER_A, A_DIVIDER_32KHZ)?;
            t.step(Nanos(86_400 * SECOND.0))?;
            let time = ops::read_time(t)?;
            let valid = time.second < 60 && time.minute < 60 && time.hour < 24;
            t.check(valid, format!("a time a day after {second:x} {minute:x} {hour:x}: {time:?}"))?;
        }
    }
    can_be_set(t)
}

/// Whether the clock runs after it is set as firmware would.
fn can_be_set(t: &mut TestThread<'_>) -> Outcome {
    let format = Format { binary: false, hours_24: true };
    ops::start(t, format, &ops::at(23, 59, 58))?;
    ops::alarm(t, [Some(12), Some(0), Some(0)])?;
    t.step(Nanos(2 * SECOND.0))?;
    let time = DateTime { day: 3, weekday: 5, ..ops::at(0, 0, 0) };
    ops::expect_time(t, "the time 2 s after it was set", format, &time)?;
    ops::expect_flags(t, "register C 2 s after it was read", 0xff, C_UF)
}

/// Every byte; those that are not RAM mean nothing.
fn save(t: &mut TestThread<'_>) -> Outcome<Vec<u8>> {
    (0..BYTES).map(|index| ops::get(t, index)).collect()
}

/// Writes the bytes that are RAM.
fn restore(t: &mut TestThread<'_>, bytes: &[u8]) -> Outcome {
    for (index, byte) in (0..BYTES).zip(bytes).filter(|(index, _)| is_ram(*index)) {
        ops::put(t, index, *byte)?;
    }
    Ok(())
}

/// Finds whether the bytes that are RAM are these.
fn holds(t: &mut TestThread<'_>, bytes: &[u8]) -> Outcome {
    for (index, byte) in (0..BYTES).zip(bytes).filter(|(index, _)| is_ram(*index)) {
        ops::expect_byte(t, &format!("byte {index:02x}h"), index, 0xff, *byte)?;
    }
    Ok(())
}
