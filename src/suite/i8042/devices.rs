//! Keyboard ("Keyboards (101- and 102-Key)") and mouse ("Mouse").

use super::port::*;
use crate::suite::{Outcome, TestThread};

/// "Read ID"; the controller translates 83h as the scan code that it would be.
pub fn keyboard_identify(t: &mut TestThread<'_>) -> Outcome {
    data(t, 0xf2)?;
    expect(t, "the keyboard's identity", &[ACK, 0xab, 0x83], false)?;
    set_ctr(t, XLATE)?;
    data(t, 0xf2)?;
    expect(t, "the keyboard's identity, translated", &[ACK, 0xab, 0x41], false)
}

/// "Echo".
pub fn keyboard_echo(t: &mut TestThread<'_>) -> Outcome {
    for _ in 0..3 {
        data(t, 0xee)?;
        expect(t, "the echo", &[0xee], false)?;
    }
    Ok(())
}

/// "Reset".
pub fn keyboard_reset(t: &mut TestThread<'_>) -> Outcome {
    data(t, 0xff)?;
    expect(t, "the answer to a reset", &[ACK, 0xaa], false)
}

/// Commands with and without arguments; an unknown one asks for another ("Resend").
pub fn keyboard_commands(t: &mut TestThread<'_>) -> Outcome {
    for (bytes, what) in [
        (&[0xed, 0x07][..], "setting the LEDs"),
        (&[0xed, 0x00], "clearing the LEDs"),
        (&[0xf3, 0x20], "setting the typematic rate"),
        (&[0xf5], "disabling scanning"),
        (&[0xf4], "enabling scanning"),
        (&[0xf6], "setting defaults"),
    ] {
        for byte in bytes {
            data(t, *byte)?;
            expect(t, what, &[ACK], false)?;
        }
    }
    for set in [1, 2, 3, 2] {
        data(t, 0xf0)?;
        expect(t, "selecting a scan set", &[ACK], false)?;
        data(t, set)?;
        expect(t, "the number of a scan set", &[ACK], false)?;
        data(t, 0xf0)?;
        expect(t, "asking for the scan set", &[ACK], false)?;
        data(t, 0)?;
        expect(t, "the scan set in use", &[ACK, set], false)?;
    }
    data(t, 0xe0)?;
    expect(t, "a byte that is no command", &[0xfe], false)
}

fn ask_mouse(t: &mut TestThread<'_>, what: &str, bytes: &[u8], answer: &[u8]) -> Outcome {
    for byte in bytes {
        to_mouse(t, *byte)?;
        let last = std::ptr::eq(byte, bytes.last().unwrap_or(byte));
        expect(t, what, if last { answer } else { &[ACK] }, true)?;
    }
    Ok(())
}

/// A mouse at rest.
pub fn aux(t: &mut TestThread<'_>) -> Outcome {
    ask_mouse(t, "the mouse's identity", &[0xf2], &[ACK, 0x00])?;
    ask_mouse(t, "the mouse's reset", &[0xff], &[ACK, 0xaa, 0x00])?;
    ask_mouse(t, "status after reset", &[0xe9], &[ACK, 0x00, 0x02, 100])?;
    ask_mouse(t, "setting the resolution", &[0xe8, 0x03], &[ACK])?;
    ask_mouse(t, "setting the sample rate", &[0xf3, 40], &[ACK])?;
    ask_mouse(t, "setting scaling 2:1", &[0xe7], &[ACK])?;
    ask_mouse(t, "setting remote mode", &[0xf0], &[ACK])?;
    ask_mouse(t, "status as it was set", &[0xe9], &[ACK, 0x50, 0x03, 40])?;
    ask_mouse(t, "a packet of a mouse at rest", &[0xeb], &[ACK, 0x08, 0x00, 0x00])?;
    ask_mouse(t, "setting wrap mode", &[0xee], &[ACK])?;
    ask_mouse(t, "a byte in wrap mode", &[0x42], &[0x42])?;
    ask_mouse(t, "leaving wrap mode", &[0xec], &[ACK])?;
    ask_mouse(t, "stream mode and scaling 1:1", &[0xea, 0xe6], &[ACK])?;
    ask_mouse(t, "enabling", &[0xf4], &[ACK])?;
    ask_mouse(t, "status of an enabled mouse", &[0xe9], &[ACK, 0x20, 0x03, 40])?;
    ask_mouse(t, "disabling", &[0xf5], &[ACK])?;
    ask_mouse(t, "defaults", &[0xf6], &[ACK])?;
    ask_mouse(t, "status of the defaults", &[0xe9], &[ACK, 0x00, 0x02, 100])
}
