//! The controller itself.

use super::port::*;
use crate::suite::{Outcome, TestThread};

/// "Self Test".
pub fn self_test(t: &mut TestThread<'_>) -> Outcome {
    command(t, 0xaa)?;
    expect(t, "the answer to the self test", &[0x55], false)?;
    let status = t.inb(COMMAND)? & SYS;
    t.expect("the system flag after the self test", status, SYS)
}

/// "Keyboard Interface Test", "Auxiliary Interface Test".
pub fn interface_test(t: &mut TestThread<'_>) -> Outcome {
    command(t, 0xab)?;
    expect(t, "the keyboard interface test", &[0x00], false)?;
    command(t, 0xa9)?;
    expect(t, "the auxiliary interface test", &[0x00], false)
}

/// "Controller Command Byte": bits 7 and 3 are reserved.
pub fn command_byte(t: &mut TestThread<'_>) -> Outcome {
    const BITS: u8 = 0x77;
    for value in [0x00, 0x01, 0x02, 0x10, 0x20, 0x40, 0x73, 0x45, 0x30] {
        set_ctr(t, value)?;
        let got = ctr(t)? & BITS;
        t.expect("the command byte as written", got, value)?;
    }
    for (byte, bit, set) in
        [(0xad, KBDDIS, true), (0xae, KBDDIS, false), (0xa7, AUXDIS, true), (0xa8, AUXDIS, false)]
    {
        for former in [0, bit] {
            set_ctr(t, former)?;
            command(t, byte)?;
            let got = ctr(t)? & BITS;
            let what = format!("the command byte {former:#04x} after command {byte:#04x}");
            t.expect(&what, got, if set { bit } else { 0 })?;
        }
    }
    Ok(())
}

/// "Status Register", bits 0 and 5, by the bytes that D2h and D3h put there.
pub fn output_buffer(t: &mut TestThread<'_>) -> Outcome {
    let status = t.inb(COMMAND)? & (OBF | IBF);
    t.expect("status at rest", status, 0)?;
    for (byte, mark) in [(0xd2, 0), (0xd3, AUX)] {
        for value in [0x00, 0x5a, 0xff] {
            command_with(t, byte, value)?;
            let what = format!("a byte of command {byte:#04x}");
            let got = next(t, &what)?;
            t.expect(&what, got, (value, mark != 0))?;
            let status = t.inb(COMMAND)? & OBF;
            t.expect("OBF after the byte was read", status, 0)?;
            let again = t.inb(DATA)?;
            t.expect("the data port without a byte", again, value)?;
        }
    }
    Ok(())
}

/// "Output Port": bit 0 holds the CPU's reset off, bit 1 is the A20 gate, bits 4 and 5 show the
/// output buffer.
pub fn output_port(t: &mut TestThread<'_>) -> Outcome {
    const RESET_OFF: u8 = 0x01;
    const A20: u8 = 0x02;
    let read = |t: &mut TestThread<'_>| {
        command(t, 0xd0)?;
        next(t, "the output port").map(|(byte, _)| byte)
    };
    let at_rest = read(t)?;
    t.expect("output port: the reset line is off", at_rest & RESET_OFF, RESET_OFF)?;
    t.expect("output port: no byte waits", at_rest & 0x30, 0)?;
    for gate in [0, A20, 0, A20] {
        command_with(t, 0xd1, at_rest & !A20 | gate)?;
        let got = read(t)?;
        t.expect(
            "output port: the A20 gate as written",
            got & (A20 | RESET_OFF),
            gate | RESET_OFF,
        )?;
    }
    command_with(t, 0xd1, at_rest)
}

/// "Disable Keyboard Interface", "Disable Auxiliary Device": the clock is held, so that the rest of
/// an answer stays in the device until the clock is free.
pub fn disable(t: &mut TestThread<'_>) -> Outcome {
    data(t, 0xf2)?;
    let first = next(t, "the acknowledgement, which had come")?;
    t.expect("the acknowledgement, which had come", first.0, ACK)?;
    // The next byte is in the buffer already; the one behind it is not.
    command(t, 0xad)?;
    next(t, "the byte that had come")?;
    let status = t.inb(COMMAND)? & OBF;
    t.expect("OBF while the keyboard is held", status, 0)?;
    command(t, 0xae)?;
    expect(t, "the byte of the released keyboard", &[0x83], false)?;
    to_mouse(t, 0xe9)?;
    next(t, "the mouse's acknowledgement")?;
    command(t, 0xa7)?;
    next(t, "the mouse's byte that had come")?;
    let status = t.inb(COMMAND)? & OBF;
    t.expect("OBF while the mouse is held", status, 0)?;
    command(t, 0xa8)?;
    expect(t, "the bytes of the released mouse", &[0x02, 0x64], true)
}
