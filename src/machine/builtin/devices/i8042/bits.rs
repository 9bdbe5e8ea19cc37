//! The PS/2 controller's ports and commands, and those of its keyboard and mouse. Sources: IBM PS/2
//! Hardware Interface Technical Reference, "Keyboard and Auxiliary Device Controller" (KBC below),
//! "Keyboards (101- and 102-Key)" (KBD) and "Mouse" (AUX); Intel 8042 UPI data sheet.

/// Status, port 64h (KBC, "Status Register"): the output buffer holds a byte for port 60h.
pub const STS_OBF: u8 = 1 << 0;
/// System flag: the self test has passed.
pub const STS_SYS: u8 = 1 << 2;
/// Command/data: the last write went to port 64h. See [`super::chip`].
pub const STS_CD: u8 = 1 << 3;
/// The keyboard is not locked.
pub const STS_INHIBIT: u8 = 1 << 4;
/// The output buffer's byte comes from the auxiliary device.
pub const STS_AUX_OBF: u8 = 1 << 5;

/// Command byte (KBC, "Controller Command Byte"): interrupt 1 when a keyboard byte is there.
pub const CTR_KBDINT: u8 = 1 << 0;
/// Interrupt 12 when an auxiliary byte is there.
pub const CTR_AUXINT: u8 = 1 << 1;
/// Sets the status register's system flag.
pub const CTR_SYS: u8 = 1 << 2;
/// The keyboard's clock is held: it cannot send.
pub const CTR_KBDDIS: u8 = 1 << 4;
/// The auxiliary device's clock is held.
pub const CTR_AUXDIS: u8 = 1 << 5;
/// Scan codes of set 2 are translated to set 1.
pub const CTR_XLATE: u8 = 1 << 6;

/// Output port (KBC, "Output Port"): 0 resets the CPU.
pub const OUT_RESET: u8 = 1 << 0;
/// Gate of address line 20.
pub const OUT_A20: u8 = 1 << 1;
/// Output buffer full: the keyboard's interrupt line.
pub const OUT_OBF: u8 = 1 << 4;
/// Auxiliary output buffer full: the mouse's interrupt line.
pub const OUT_AUX_OBF: u8 = 1 << 5;
/// Bits that read as one: unused ones, and the clock and data lines at rest.
pub const OUT_ONES: u8 = 0xcc;
/// Input port: bit 7, the keyboard is not locked.
pub const IN_UNLOCKED: u8 = 1 << 7;

/// Controller command (KBC, "Commands"): read the command byte.
pub const CMD_READ_CTR: u8 = 0x20;
/// Write the command byte: the next byte of port 60h.
pub const CMD_WRITE_CTR: u8 = 0x60;
/// Disable the auxiliary device.
pub const CMD_AUX_DISABLE: u8 = 0xa7;
/// Enable the auxiliary device.
pub const CMD_AUX_ENABLE: u8 = 0xa8;
/// Test the auxiliary interface; answers 0: no error.
pub const CMD_AUX_TEST: u8 = 0xa9;
/// Self test; answers [`SELF_TEST_OK`].
pub const CMD_SELF_TEST: u8 = 0xaa;
/// Test the keyboard interface; answers 0: no error.
pub const CMD_KBD_TEST: u8 = 0xab;
/// Disable the keyboard.
pub const CMD_KBD_DISABLE: u8 = 0xad;
/// Enable the keyboard.
pub const CMD_KBD_ENABLE: u8 = 0xae;
/// Read the input port.
pub const CMD_READ_INPUT: u8 = 0xc0;
/// Read the output port.
pub const CMD_READ_OUTPUT: u8 = 0xd0;
/// Write the output port: the next byte of port 60h.
pub const CMD_WRITE_OUTPUT: u8 = 0xd1;
/// The next byte of port 60h comes back as if the keyboard had sent it.
pub const CMD_KBD_LOOP: u8 = 0xd2;
/// The next byte of port 60h comes back as if the auxiliary device had sent it.
pub const CMD_AUX_LOOP: u8 = 0xd3;
/// The next byte of port 60h is sent to the auxiliary device.
pub const CMD_AUX_SEND: u8 = 0xd4;
/// Close the A20 gate (AT clones).
pub const CMD_A20_OFF: u8 = 0xdd;
/// Open the A20 gate (AT clones).
pub const CMD_A20_ON: u8 = 0xdf;
/// F0h to FFh pulse the output port's bits 3:0 whose command bits are 0.
pub const CMD_PULSE: u8 = 0xf0;
/// What the self test answers.
pub const SELF_TEST_OK: u8 = 0x55;

/// Keyboard and mouse: acknowledged.
pub const REPLY_ACK: u8 = 0xfa;
/// Keyboard and mouse: send that again, it is no command.
pub const REPLY_RESEND: u8 = 0xfe;
/// Keyboard and mouse: the basic assurance test passed.
pub const REPLY_BAT_OK: u8 = 0xaa;

/// Keyboard command (KBD, "Commands from the System"): set the LEDs (an argument follows).
pub const KBD_SET_LEDS: u8 = 0xed;
/// Echo.
pub const KBD_ECHO: u8 = 0xee;
/// Select or ask for the scan code set (an argument follows).
pub const KBD_SCAN_SET: u8 = 0xf0;
/// Identify.
pub const KBD_GET_ID: u8 = 0xf2;
/// Typematic rate and delay (an argument follows).
pub const KBD_SET_RATE: u8 = 0xf3;
/// Enable scanning.
pub const KBD_ENABLE: u8 = 0xf4;
/// Defaults, and disable scanning.
pub const KBD_DISABLE: u8 = 0xf5;
/// Defaults.
pub const KBD_DEFAULTS: u8 = 0xf6;
/// F7h to FAh: the behaviour of all keys in scan set 3.
pub const KBD_ALL_KEYS: std::ops::RangeInclusive<u8> = 0xf7..=0xfa;
/// Send the last byte again.
pub const KBD_RESEND: u8 = 0xfe;
/// Reset and self test.
pub const KBD_RESET: u8 = 0xff;
/// The identity of an MF2 keyboard.
pub const KBD_ID: [u8; 2] = [0xab, 0x83];
/// The key buffer overran.
pub const KBD_OVERRUN: u8 = 0x00;
/// Prefix of a released key in sets 2 and 3.
pub const KBD_BREAK: u8 = 0xf0;

/// Mouse command (AUX, "Mouse Commands"): scaling 1:1.
pub const AUX_SCALE11: u8 = 0xe6;
/// Scaling 2:1.
pub const AUX_SCALE21: u8 = 0xe7;
/// Resolution (an argument follows).
pub const AUX_SET_RES: u8 = 0xe8;
/// Status: three bytes.
pub const AUX_GET_STATUS: u8 = 0xe9;
/// Stream mode.
pub const AUX_SET_STREAM: u8 = 0xea;
/// Send a packet now.
pub const AUX_POLL: u8 = 0xeb;
/// Leave wrap mode.
pub const AUX_RESET_WRAP: u8 = 0xec;
/// Wrap mode: every byte comes back.
pub const AUX_SET_WRAP: u8 = 0xee;
/// Remote mode: packets only when polled.
pub const AUX_SET_REMOTE: u8 = 0xf0;
/// Identify.
pub const AUX_GET_ID: u8 = 0xf2;
/// Samples a second (an argument follows).
pub const AUX_SET_RATE: u8 = 0xf3;
/// Enable reporting.
pub const AUX_ENABLE: u8 = 0xf4;
/// Disable reporting.
pub const AUX_DISABLE: u8 = 0xf5;
/// Defaults.
pub const AUX_DEFAULTS: u8 = 0xf6;
/// Reset and self test.
pub const AUX_RESET: u8 = 0xff;
/// Status byte: remote mode.
pub const AUX_STS_REMOTE: u8 = 1 << 6;
/// Status byte: reporting.
pub const AUX_STS_ENABLED: u8 = 1 << 5;
/// Status byte: scaling 2:1.
pub const AUX_STS_SCALE21: u8 = 1 << 4;

/// What the controller makes of scan set 2's codes (KBC, "Scan Code Translation"), indexed by code;
/// codes above the table pass unchanged.
pub const XLATE: [u8; 0x85] = [
    0xff, 0x43, 0x41, 0x3f, 0x3d, 0x3b, 0x3c, 0x58, 0x64, 0x44, 0x42, 0x40, 0x3e, 0x0f, 0x29, 0x59,
    0x65, 0x38, 0x2a, 0x70, 0x1d, 0x10, 0x02, 0x5a, 0x66, 0x71, 0x2c, 0x1f, 0x1e, 0x11, 0x03, 0x5b,
    0x67, 0x2e, 0x2d, 0x20, 0x12, 0x05, 0x04, 0x5c, 0x68, 0x39, 0x2f, 0x21, 0x14, 0x13, 0x06, 0x5d,
    0x69, 0x31, 0x30, 0x23, 0x22, 0x15, 0x07, 0x5e, 0x6a, 0x72, 0x32, 0x24, 0x16, 0x08, 0x09, 0x5f,
    0x6b, 0x33, 0x25, 0x17, 0x18, 0x0b, 0x0a, 0x60, 0x6c, 0x34, 0x35, 0x26, 0x27, 0x19, 0x0c, 0x61,
    0x6d, 0x73, 0x28, 0x74, 0x1a, 0x0d, 0x62, 0x6e, 0x3a, 0x36, 0x1c, 0x1b, 0x75, 0x2b, 0x63, 0x76,
    0x55, 0x56, 0x77, 0x78, 0x79, 0x7a, 0x0e, 0x7b, 0x7c, 0x4f, 0x7d, 0x4b, 0x47, 0x7e, 0x7f, 0x6f,
    0x52, 0x53, 0x50, 0x4c, 0x4d, 0x48, 0x01, 0x45, 0x57, 0x4e, 0x51, 0x4a, 0x37, 0x49, 0x46, 0x54,
    0x80, 0x81, 0x82, 0x41, 0x54,
];
