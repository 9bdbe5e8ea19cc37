//! Registers of the PC16550D (National Semiconductor, June 1995); the sections are its data sheet's.

/// Receiver buffer (read), transmitter holding register (write), low divisor latch (DLAB).
pub const RBR_THR_DLL: u64 = 0;
/// Interrupt enable, high divisor latch (DLAB).
pub const IER_DLM: u64 = 1;
/// Interrupt identification (read), FIFO control (write).
pub const IIR_FCR: u64 = 2;
/// Line control.
pub const LCR: u64 = 3;
/// Modem control.
pub const MCR: u64 = 4;
/// Line status.
pub const LSR: u64 = 5;
/// Modem status.
pub const MSR: u64 = 6;
/// Scratch.
pub const SCR: u64 = 7;

/// Interrupt enable (§8.7): received data.
pub const IER_RDI: u8 = 1 << 0;
/// Transmitter holding register empty.
pub const IER_THRI: u8 = 1 << 1;
/// Receiver line status.
pub const IER_RLSI: u8 = 1 << 2;
/// Modem status.
pub const IER_MSI: u8 = 1 << 3;
/// The bits that exist.
pub const IER_BITS: u8 = 0x0f;

/// Interrupt identification (§8.6): nothing pending.
pub const IIR_NONE: u8 = 0x01;
/// Modem status: fourth in priority.
pub const IIR_MSI: u8 = 0x00;
/// Transmitter holding register empty: third.
pub const IIR_THRI: u8 = 0x02;
/// Received data available: second.
pub const IIR_RDI: u8 = 0x04;
/// Characters wait in the FIFO and nothing happens: second.
pub const IIR_CTI: u8 = 0x0c;
/// Receiver line status: first.
pub const IIR_RLSI: u8 = 0x06;
/// The FIFOs are on.
pub const IIR_FIFO: u8 = 0xc0;

/// FIFO control (§8.5): FIFOs on. Without it the other bits are not taken.
pub const FCR_ENABLE: u8 = 1 << 0;
/// Empty the receiver FIFO.
pub const FCR_CLEAR_RCVR: u8 = 1 << 1;
/// The receiver trigger level, bits 7:6, as characters.
pub const FCR_TRIGGERS: [usize; 4] = [1, 4, 8, 14];

/// Line control (§8.1): bits 1:0, characters of 5 to 8 bits.
pub const LCR_WORD: u8 = 3;
/// Two stop bits, or one and a half with 5 bits.
pub const LCR_STOP: u8 = 1 << 2;
/// Parity.
pub const LCR_PARITY: u8 = 1 << 3;
/// Divisor latch access.
pub const LCR_DLAB: u8 = 1 << 7;

/// Modem control (§8.8): data terminal ready.
pub const MCR_DTR: u8 = 1 << 0;
/// Request to send.
pub const MCR_RTS: u8 = 1 << 1;
/// Auxiliary output 1.
pub const MCR_OUT1: u8 = 1 << 2;
/// Auxiliary output 2: on a PC it gates the interrupt line, which virtual machines leave open.
pub const MCR_OUT2: u8 = 1 << 3;
/// Loopback.
pub const MCR_LOOP: u8 = 1 << 4;
/// The bits that exist.
pub const MCR_BITS: u8 = 0x1f;

/// Line status (§8.4): a character waits.
pub const LSR_DR: u8 = 1 << 0;
/// A character was lost.
pub const LSR_OE: u8 = 1 << 1;
/// The holding register (or the transmitter FIFO) is empty.
pub const LSR_THRE: u8 = 1 << 5;
/// So is the shift register.
pub const LSR_TEMT: u8 = 1 << 6;

/// Modem status (§8.9): bits 3:0 say which of bits 7:4 changed (of RI: fell) since the last read.
pub const MSR_DELTA: u8 = 0x0f;
/// Trailing edge of ring indicator.
pub const MSR_TERI: u8 = 1 << 2;
/// Clear to send.
pub const MSR_CTS: u8 = 1 << 4;
/// Data set ready.
pub const MSR_DSR: u8 = 1 << 5;
/// Ring indicator.
pub const MSR_RI: u8 = 1 << 6;
/// Data carrier detect.
pub const MSR_DCD: u8 = 1 << 7;

/// Characters that each FIFO holds.
pub const FIFO_CHARS: usize = 16;
/// The crystal of a PC's port (§8.3): divided by 16 and by the divisor it is the bit rate.
pub const CRYSTAL_HZ: u64 = 1_843_200;
/// Crystal periods of a bit at divisor 1.
pub const CLOCKS_PER_BIT: u64 = 16;
/// The divisor at power on: 9600 baud.
pub const DIVISOR_DEFAULT: u16 = 12;
/// Character times of silence that make a character timeout (§8.11).
pub const TIMEOUT_CHARS: u64 = 4;
