//! The controller between the two ports and the two devices.
//!
//! It answers at once: the input buffer is never seen full. Two things follow the controllers that
//! virtual machines have, QEMU's first, rather than IBM's, as every recorded trace shows them: the
//! status register's command/data bit is always set, and its system flag stays once it was set.

use super::bits::*;
use super::keyboard::Keyboard;
use super::mouse::Mouse;

/// What the output buffer holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Output {
    byte: u8,
    aux: bool,
}

/// The controller with its two devices.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Controller {
    /// Port 1.
    pub keyboard: Keyboard,
    /// Port 2.
    pub mouse: Mouse,
    system_flag: bool,
    ctr: u8,
    outport: u8,
    /// The command that takes the next byte of port 60h.
    command: Option<u8>,
    output: Option<Output>,
    /// A byte of the controller itself that waits for the output buffer.
    reply: Option<Output>,
    /// What the data port shows when the buffer is empty.
    last: u8,
    /// The translator has seen a break prefix.
    released: bool,
}

impl Default for Controller {
    fn default() -> Self {
        Self {
            keyboard: Keyboard::default(),
            mouse: Mouse::default(),
            system_flag: false,
            ctr: CTR_KBDINT | CTR_AUXINT,
            outport: OUT_RESET | OUT_A20 | OUT_ONES,
            command: None,
            output: None,
            reply: None,
            last: 0,
            released: false,
        }
    }
}

impl Controller {
    /// The level of interrupt 1.
    pub fn irq1(&self) -> bool {
        self.ctr & CTR_KBDINT != 0 && self.output.is_some_and(|output| !output.aux)
    }

    /// The level of interrupt 12.
    pub fn irq12(&self) -> bool {
        self.ctr & CTR_AUXINT != 0 && self.output.is_some_and(|output| output.aux)
    }

    /// Whether the A20 gate is open.
    pub fn a20(&self) -> bool {
        self.outport & OUT_A20 != 0
    }

    /// Reads port 64h.
    pub fn read_status(&self) -> u8 {
        let system = if self.system_flag { STS_SYS } else { 0 };
        let buffer = match self.output {
            Some(Output { aux: true, .. }) => STS_OBF | STS_AUX_OBF,
            Some(_) => STS_OBF,
            None => 0,
        };
        STS_CD | STS_INHIBIT | system | buffer
    }

    /// Reads port 60h: takes the byte, and with it the interrupt. [`Controller::fill`] then brings
    /// the next one; between the two calls the lines are low.
    pub fn read_data(&mut self) -> u8 {
        if let Some(output) = self.output.take() {
            self.last = output.byte;
        }
        self.last
    }

    /// Puts the next byte into an empty output buffer: the controller's own before the keyboard's
    /// before the mouse's, and none of a device whose clock is held.
    pub fn fill(&mut self) {
        if self.output.is_some() {
            return;
        }
        self.output = self.reply.take();
        if self.output.is_none() && self.ctr & CTR_KBDDIS == 0 {
            self.output = self.keyboard_byte().map(|byte| Output { byte, aux: false });
        }
        if self.output.is_none() && self.ctr & CTR_AUXDIS == 0 {
            self.output = self.mouse.send().map(|byte| Output { byte, aux: true });
        }
    }

    /// The keyboard's next byte, translated to set 1 when the command byte says so: a break prefix
    /// is swallowed and marks the code behind it.
    fn keyboard_byte(&mut self) -> Option<u8> {
        loop {
            let byte = self.keyboard.send()?;
            if self.ctr & CTR_XLATE == 0 {
                return Some(byte);
            }
            if byte == KBD_BREAK {
                self.released = true;
                continue;
            }
            let code = XLATE.get(usize::from(byte)).copied().unwrap_or(byte);
            let mark = if std::mem::take(&mut self.released) { 0x80 } else { 0 };
            return Some(code | mark);
        }
    }

    fn answer(&mut self, byte: u8, aux: bool) {
        self.reply = Some(Output { byte, aux });
    }

    /// Writes port 64h; whether the reset line is pulsed.
    #[must_use]
    pub fn write_command(&mut self, command: u8) -> bool {
        self.command = None;
        match command {
            CMD_READ_CTR => self.answer(self.ctr, false),
            CMD_AUX_DISABLE => self.ctr |= CTR_AUXDIS,
            CMD_AUX_ENABLE => self.ctr &= !CTR_AUXDIS,
            CMD_KBD_DISABLE => self.ctr |= CTR_KBDDIS,
            CMD_KBD_ENABLE => self.ctr &= !CTR_KBDDIS,
            CMD_AUX_TEST | CMD_KBD_TEST => self.answer(0, false),
            CMD_SELF_TEST => {
                self.system_flag = true;
                self.answer(SELF_TEST_OK, false);
            }
            CMD_READ_INPUT => self.answer(IN_UNLOCKED, false),
            CMD_READ_OUTPUT => self.answer(self.output_port(), false),
            CMD_WRITE_CTR | CMD_WRITE_OUTPUT | CMD_KBD_LOOP | CMD_AUX_LOOP | CMD_AUX_SEND => {
                self.command = Some(command);
            }
            CMD_A20_OFF => self.outport &= !OUT_A20,
            CMD_A20_ON => self.outport |= OUT_A20,
            // Pulses of 6 µs; only the one on the reset line is noticed by anybody.
            CMD_PULSE.. => return command & OUT_RESET == 0,
            _ => {}
        }
        false
    }

    /// Writes port 60h: the argument of the command before, or a byte for the keyboard. Whether the
    /// reset line is pulsed.
    #[must_use]
    pub fn write_data(&mut self, value: u8) -> bool {
        match self.command.take() {
            Some(CMD_WRITE_CTR) => {
                self.ctr = value;
                self.system_flag |= value & CTR_SYS != 0;
            }
            Some(CMD_WRITE_OUTPUT) => {
                self.outport = value;
                return value & OUT_RESET == 0;
            }
            Some(CMD_KBD_LOOP) => self.answer(value, false),
            Some(CMD_AUX_LOOP) => self.answer(value, true),
            // A byte for a device lets its clock go (KBC, "Commands").
            Some(CMD_AUX_SEND) => {
                self.ctr &= !CTR_AUXDIS;
                self.mouse.receive(value);
            }
            _ => {
                self.ctr &= !CTR_KBDDIS;
                self.released = false;
                self.keyboard.receive(value);
            }
        }
        false
    }

    fn output_port(&self) -> u8 {
        let buffer = match self.output {
            Some(Output { aux: true, .. }) => OUT_AUX_OBF | OUT_OBF,
            Some(_) => OUT_OBF,
            None => 0,
        };
        self.outport & !(OUT_OBF | OUT_AUX_OBF) | buffer
    }
}
