//! A PS/2 mouse at its end of the wire, with the two knocks by which drivers find a wheel and five
//! buttons (Microsoft, "Device Support Requirements: IntelliMouse").

use std::collections::VecDeque;

use super::bits::*;

/// Bytes of packets a mouse holds before it drops motion.
const BUFFER_BYTES: usize = 16;
/// Samples a second after reset.
const RATE_DEFAULT: u8 = 100;
/// Resolution after reset: 4 counts a millimetre.
const RESOLUTION_DEFAULT: u8 = 2;
/// Sample rates set one after another, and the identity they unlock.
const KNOCKS: [([u8; 3], u8, u8); 2] =
    [([200, 100, 80], ID_PS2, ID_WHEEL), ([200, 200, 80], ID_WHEEL, ID_BUTTONS)];
const ID_PS2: u8 = 0;
const ID_WHEEL: u8 = 3;
const ID_BUTTONS: u8 = 4;

/// The mouse.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mouse {
    replies: VecDeque<u8>,
    packets: VecDeque<u8>,
    command: Option<u8>,
    wrap: bool,
    remote: bool,
    enabled: bool,
    scale21: bool,
    resolution: u8,
    rate: u8,
    rates: [u8; 3],
    id: u8,
    buttons: u8,
    motion: (i32, i32, i32),
}

impl Default for Mouse {
    fn default() -> Self {
        Self {
            replies: VecDeque::new(),
            packets: VecDeque::new(),
            command: None,
            wrap: false,
            remote: false,
            enabled: false,
            scale21: false,
            resolution: RESOLUTION_DEFAULT,
            rate: RATE_DEFAULT,
            rates: [0; 3],
            id: ID_PS2,
            buttons: 0,
            motion: (0, 0, 0),
        }
    }
}

impl Mouse {
    /// Takes a byte from the controller.
    pub fn receive(&mut self, byte: u8) {
        self.replies.clear();
        if self.wrap && !matches!(byte, AUX_RESET_WRAP | AUX_RESET) {
            return self.reply(&[byte]);
        }
        match self.command.take() {
            Some(AUX_SET_RATE) => self.set_rate(byte),
            Some(_) => self.resolution = byte,
            None => return self.begin(byte),
        }
        self.reply(&[REPLY_ACK]);
    }

    fn reply(&mut self, bytes: &[u8]) {
        self.replies.extend(bytes);
    }

    fn begin(&mut self, command: u8) {
        let mut answer = vec![REPLY_ACK];
        match command {
            AUX_SCALE11 | AUX_SCALE21 => self.scale21 = command == AUX_SCALE21,
            AUX_SET_RES | AUX_SET_RATE => self.command = Some(command),
            AUX_GET_STATUS => answer.extend([self.status(), self.resolution, self.rate]),
            AUX_SET_STREAM => self.remote = false,
            AUX_SET_REMOTE => self.remote = true,
            AUX_RESET_WRAP | AUX_SET_WRAP => self.wrap = command == AUX_SET_WRAP,
            AUX_POLL => answer.extend(self.packet()),
            AUX_GET_ID => answer.push(self.id),
            AUX_ENABLE => self.enabled = true,
            AUX_DISABLE => self.enabled = false,
            AUX_DEFAULTS => {
                *self = Self { id: self.id, buttons: self.buttons, ..Self::default() };
            }
            AUX_RESET => {
                *self = Self { buttons: self.buttons, ..Self::default() };
                answer.extend([REPLY_BAT_OK, ID_PS2]);
            }
            _ => answer = vec![REPLY_RESEND],
        }
        self.reply(&answer);
    }

    fn set_rate(&mut self, rate: u8) {
        self.rate = rate;
        self.rates = [self.rates[1], self.rates[2], rate];
        for (rates, from, to) in KNOCKS {
            if self.rates == rates && self.id == from {
                self.id = to;
                return;
            }
        }
    }

    fn status(&self) -> u8 {
        // The status byte has left, middle, right from bit 2 down; packets have left in bit 0.
        let buttons = (self.buttons & 1) << 2 | (self.buttons & 2) >> 1 | (self.buttons & 4) >> 1;
        let flag = |set, bit| if set { bit } else { 0 };
        buttons
            | flag(self.remote, AUX_STS_REMOTE)
            | flag(self.enabled, AUX_STS_ENABLED)
            | flag(self.scale21, AUX_STS_SCALE21)
    }

    /// The motion since the last packet, as far as one packet can say it.
    fn packet(&mut self) -> Vec<u8> {
        let (x, y, z) = self.motion;
        let (dx, dy, dz) = (x.clamp(-255, 255), y.clamp(-255, 255), z.clamp(-8, 7));
        self.motion = (x - dx, y - dy, z - dz);
        // Bit 3 is always set; bits 4 and 5 are the signs.
        let sign = |d: i32, bit: u8| u8::from(d < 0) << bit;
        let mut packet = vec![self.buttons & 7 | 8 | sign(dx, 4) | sign(dy, 5), dx as u8, dy as u8];
        match self.id {
            ID_WHEEL => packet.push(dz as u8),
            ID_BUTTONS => packet.push(dz as u8 & 0x0f | (self.buttons & 0x18) << 1),
            _ => {}
        }
        packet
    }

    /// The hand moved: counts to the right, up, and of the wheel; buttons held (left, right, middle,
    /// fourth, fifth from bit 0). Motion adds up while it cannot be said.
    pub fn push(&mut self, dx: i16, dy: i16, dz: i8, buttons: u8) {
        let add = |sum: i32, d: i32| sum.saturating_add(d);
        let (x, y, z) = self.motion;
        self.motion = (add(x, dx.into()), add(y, dy.into()), add(z, dz.into()));
        self.buttons = buttons & 0x1f;
        if self.enabled && !self.remote && self.packets.len() + 4 <= BUFFER_BYTES {
            let packet = self.packet();
            self.packets.extend(packet);
        }
    }

    /// The next byte for the controller.
    pub fn send(&mut self) -> Option<u8> {
        self.replies.pop_front().or_else(|| self.packets.pop_front())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn drain(mouse: &mut Mouse) -> Vec<u8> {
        std::iter::from_fn(|| mouse.send()).collect()
    }

    fn talk(mouse: &mut Mouse, bytes: &[u8]) -> Vec<u8> {
        let answers = bytes.iter().flat_map(|byte| {
            mouse.receive(*byte);
            drain(mouse)
        });
        answers.collect()
    }

    #[test]
    fn every_command_has_its_answer() {
        for (bytes, answer) in [
            (&[AUX_RESET][..], &[0xfa, 0xaa, 0][..]),
            (&[AUX_GET_ID], &[0xfa, 0]),
            (&[AUX_GET_STATUS], &[0xfa, 0, 2, 100]),
            (&[AUX_SCALE21, AUX_ENABLE, AUX_GET_STATUS], &[0xfa, 0xfa, 0xfa, 0x30, 2, 100]),
            (&[AUX_SET_RES, 3, AUX_SET_RATE, 40], &[0xfa; 4]),
            (&[AUX_SET_REMOTE, AUX_POLL], &[0xfa, 0xfa, 8, 0, 0]),
            (&[AUX_SET_WRAP, AUX_GET_ID, AUX_RESET_WRAP, AUX_SCALE11], &[0xfa, 0xf2, 0xfa, 0xfa]),
            (&[AUX_DISABLE, AUX_DEFAULTS, AUX_SET_STREAM], &[0xfa; 3]),
            (&[0x01], &[0xfe]),
        ] {
            assert_eq!(talk(&mut Mouse::default(), bytes), answer, "{bytes:02x?}");
        }
    }

    #[test]
    fn sample_rates_unlock_the_wheel_and_the_buttons() {
        let mut mouse = Mouse::default();
        talk(&mut mouse, &[0xf3, 200, 0xf3, 100, 0xf3, 80]);
        assert_eq!(talk(&mut mouse, &[AUX_GET_ID]), [0xfa, 3]);
        talk(&mut mouse, &[0xf3, 200, 0xf3, 200, 0xf3, 80]);
        assert_eq!(talk(&mut mouse, &[AUX_GET_ID]), [0xfa, 4]);
        assert_eq!(talk(&mut mouse, &[AUX_POLL]), [0xfa, 8, 0, 0, 0]);
        assert_eq!(talk(&mut mouse, &[AUX_RESET, AUX_GET_ID]), [0xfa, 0xaa, 0, 0xfa, 0]);
    }

    #[test]
    fn motion_is_said_in_packets_or_kept() {
        let mut mouse = Mouse::default();
        mouse.push(300, -2, 0, 0b001);
        assert!(drain(&mut mouse).is_empty(), "reporting is off");
        assert_eq!(talk(&mut mouse, &[AUX_POLL]), [0xfa, 0x29, 255, 0xfe]);
        assert_eq!(talk(&mut mouse, &[AUX_POLL]), [0xfa, 0x09, 45, 0]);
        talk(&mut mouse, &[AUX_ENABLE]);
        mouse.push(-1, 1, 0, 0b100);
        assert_eq!(drain(&mut mouse), [0x1c, 0xff, 1]);
        (0..100).for_each(|_| mouse.push(1, 0, 0, 0));
        assert!(drain(&mut mouse).len() <= BUFFER_BYTES);
        assert_eq!(talk(&mut mouse, &[AUX_GET_STATUS]), [0xfa, 0x20, 2, 100]);
    }
}
