//! Registers of events and control.

use super::ops::*;
use crate::driver::acpi::{self, GBL, PWRBTN, RTC, SCI_EN, SLP_TYP, TMR};
use crate::suite::outcome::Outcome;
use crate::suite::thread::TestThread;

pub fn registers(t: &mut TestThread<'_>) -> Outcome {
    let pm = open(t)?;
    let events = [0, TMR, GBL, PWRBTN, RTC, TMR | GBL | PWRBTN | RTC];
    for bits in events {
        pm.set_enables(t.machine().bus()?, bits);
        let read = pm.enables(t.machine().bus()?);
        t.expect("PM1 enable", read, bits)?;
    }
    pm.set_enables(t.machine().bus()?, 0);
    for bits in [SCI_EN, SLP_TYP, 5 << 10 | SCI_EN, 2 << 10, 0] {
        pm.set_control(t.machine().bus()?, bits);
        let read = pm.control(t.machine().bus()?);
        t.expect("SCI_EN and SLP_TYP of PM1 control", read & (SCI_EN | SLP_TYP), bits)?;
    }
    Ok(())
}

pub fn acpi_mode(t: &mut TestThread<'_>) -> Outcome {
    let pm = open(t)?;
    let (enable, disable) = pm.chipset.acpi_commands();
    for (command, mode) in [(enable, SCI_EN), (disable, 0), (enable, SCI_EN)] {
        acpi::apm_command(t.machine().bus()?, command);
        let control = pm.control(t.machine().bus()?);
        t.expect(&format!("SCI_EN after command {command:#x}"), control & SCI_EN, mode)?;
    }
    // Other commands leave it.
    acpi::apm_command(t.machine().bus()?, 0);
    let control = pm.control(t.machine().bus()?);
    t.expect("SCI_EN after another command", control & SCI_EN, SCI_EN)
}

pub fn gpe0(t: &mut TestThread<'_>) -> Outcome {
    let pm = open(t)?;
    let half = pm.gpe0_half();
    for byte in 0..half {
        for value in [0xff, 0x5a, 0] {
            pm.set_gpe0(t.machine().bus()?, half + byte, value);
            let read = pm.gpe0(t.machine().bus()?, half + byte);
            t.expect(&format!("enables of GPE0, byte {byte}"), read, value)?;
        }
        pm.set_gpe0(t.machine().bus()?, byte, 0xff);
        let read = pm.gpe0(t.machine().bus()?, byte);
        t.expect(&format!("status of GPE0, byte {byte}"), read, 0)?;
    }
    Ok(())
}
