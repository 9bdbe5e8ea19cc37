//! An MF2 keyboard at its end of the PS/2 wire: it speaks scan codes of the set it was told to use,
//! and knows nothing of the controller's translation.

use std::collections::VecDeque;

use super::bits::*;

/// Bytes of keystrokes a keyboard holds (KBD, "Keyboard Buffer"); one more is the overrun code.
const BUFFER_BYTES: usize = 16;
/// The scan code set after reset.
const SET_DEFAULT: u8 = 2;
/// Arguments are below the commands: a byte from here on ends the command that waited for one.
const FIRST_COMMAND: u8 = KBD_SET_LEDS;

/// The keyboard.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Keyboard {
    /// Answers to commands; they go before keystrokes.
    replies: VecDeque<u8>,
    keys: VecDeque<u8>,
    /// The command whose argument is awaited.
    command: Option<u8>,
    last_sent: u8,
    scanning: bool,
    set: u8,
    leds: u8,
    typematic: u8,
}

impl Default for Keyboard {
    fn default() -> Self {
        Self {
            replies: VecDeque::new(),
            keys: VecDeque::new(),
            command: None,
            last_sent: 0,
            scanning: true,
            set: SET_DEFAULT,
            leds: 0,
            // 500 ms, 10.9 characters a second.
            typematic: 0x2b,
        }
    }
}

impl Keyboard {
    /// Takes a byte from the controller.
    pub fn receive(&mut self, byte: u8) {
        if byte == KBD_RESEND {
            self.replies.push_front(self.last_sent);
            self.replies.truncate(BUFFER_BYTES);
            return;
        }
        self.replies.clear();
        match self.command.take() {
            Some(command) if byte < FIRST_COMMAND => self.argument(command, byte),
            _ => self.begin(byte),
        }
    }

    fn reply(&mut self, bytes: &[u8]) {
        self.replies.extend(bytes);
    }

    fn begin(&mut self, command: u8) {
        match command {
            KBD_ECHO => self.reply(&[KBD_ECHO]),
            KBD_SET_LEDS | KBD_SCAN_SET | KBD_SET_RATE => {
                self.command = Some(command);
                self.reply(&[REPLY_ACK]);
            }
            KBD_GET_ID => self.reply(&[REPLY_ACK, KBD_ID[0], KBD_ID[1]]),
            KBD_ENABLE => {
                self.keys.clear();
                self.scanning = true;
                self.reply(&[REPLY_ACK]);
            }
            KBD_DISABLE | KBD_DEFAULTS => {
                *self = Self { scanning: command == KBD_DEFAULTS, ..Self::default() };
                self.reply(&[REPLY_ACK]);
            }
            KBD_RESET => {
                *self = Self::default();
                self.reply(&[REPLY_ACK, REPLY_BAT_OK]);
            }
            command if KBD_ALL_KEYS.contains(&command) => self.reply(&[REPLY_ACK]),
            _ => self.reply(&[REPLY_RESEND]),
        }
    }

    fn argument(&mut self, command: u8, value: u8) {
        match (command, value) {
            (KBD_SCAN_SET, 0) => {
                let set = self.set;
                return self.reply(&[REPLY_ACK, set]);
            }
            (KBD_SCAN_SET, 1..=3) => self.set = value,
            (KBD_SCAN_SET, _) => return self.reply(&[REPLY_RESEND]),
            (KBD_SET_LEDS, _) => self.leds = value,
            _ => self.typematic = value,
        }
        self.reply(&[REPLY_ACK]);
    }

    /// A key was pressed or released: `codes` in the set in use. Nothing while scanning is off; a
    /// keystroke that does not fit is replaced by the overrun code, as a whole.
    pub fn press(&mut self, codes: &[u8]) {
        if !self.scanning {
            return;
        }
        if self.keys.len() + codes.len() <= BUFFER_BYTES {
            self.keys.extend(codes);
        } else if self.keys.len() <= BUFFER_BYTES {
            self.keys.resize(BUFFER_BYTES, KBD_OVERRUN);
            self.keys.push_back(KBD_OVERRUN);
        }
    }

    /// The next byte for the controller.
    pub fn send(&mut self) -> Option<u8> {
        let byte = self.replies.pop_front().or_else(|| self.keys.pop_front())?;
        self.last_sent = byte;
        Some(byte)
    }

    /// The LEDs as last set: scroll, num, caps lock from bit 0.
    pub fn leds(&self) -> u8 {
        self.leds
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn talk(keyboard: &mut Keyboard, bytes: &[u8]) -> Vec<u8> {
        let mut said = Vec::new();
        for byte in bytes {
            keyboard.receive(*byte);
            said.extend(std::iter::from_fn(|| keyboard.send()));
        }
        said
    }

    #[test]
    fn every_command_has_its_answer() {
        for (bytes, answer) in [
            (&[KBD_RESET][..], &[0xfa, 0xaa][..]),
            (&[KBD_GET_ID], &[0xfa, 0xab, 0x83]),
            (&[KBD_ECHO], &[0xee]),
            (&[KBD_SET_LEDS, 7], &[0xfa, 0xfa]),
            (&[KBD_SET_RATE, 0x20], &[0xfa, 0xfa]),
            (&[KBD_SCAN_SET, 0], &[0xfa, 0xfa, 2]),
            (&[KBD_SCAN_SET, 3, KBD_SCAN_SET, 0], &[0xfa, 0xfa, 0xfa, 0xfa, 3]),
            (&[KBD_SCAN_SET, 4], &[0xfa, 0xfe]),
            (&[KBD_ENABLE, KBD_DISABLE, KBD_DEFAULTS, 0xf8], &[0xfa; 4]),
            // A command where an argument was awaited; a byte that is no command; once more.
            (&[KBD_SET_LEDS, KBD_ECHO], &[0xfa, 0xee]),
            (&[0x12], &[0xfe]),
            (&[KBD_ECHO, KBD_RESEND], &[0xee, 0xee]),
        ] {
            assert_eq!(talk(&mut Keyboard::default(), bytes), answer, "{bytes:02x?}");
        }
    }

    #[test]
    fn a_command_discards_the_answer_to_the_one_before() {
        let mut keyboard = Keyboard::default();
        keyboard.receive(KBD_GET_ID);
        assert_eq!(talk(&mut keyboard, &[KBD_ECHO]), [0xee]);
    }

    #[test]
    fn keys_wait_behind_replies_and_overrun_once() {
        let mut keyboard = Keyboard::default();
        keyboard.press(&[0x1c]);
        assert_eq!(talk(&mut keyboard, &[KBD_ECHO]), [0xee, 0x1c]);
        (0..20).for_each(|_| keyboard.press(&[KBD_BREAK, 0x1c]));
        let bytes: Vec<u8> = std::iter::from_fn(|| keyboard.send()).collect();
        assert_eq!((bytes.len(), bytes.last()), (17, Some(&KBD_OVERRUN)));
        talk(&mut keyboard, &[KBD_DISABLE]);
        keyboard.press(&[0x1c]);
        assert_eq!(keyboard.send(), None);
    }
}
