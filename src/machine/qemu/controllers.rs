//! What the interrupt controllers of a QEMU do, on a machine whose CPU has no local APIC: INTR of
//! the 8259As is the CPU's own then, and the messages of the I/O APIC are taken by nobody.
//!
//! - INTR is the line that QEMU reports, instead of the inputs of the I/O APIC.
//! - Messages are writes to memory (Intel SDM volume 3, §11.11). Shared memory of ours lies where a
//!   local APIC would be, so that each is seen as the word it wrote.
//! - No CPU runs that would make an acknowledge cycle. In delivery mode ExtINT QEMU's I/O APIC
//!   makes one and sends the vector that the 8259As gave (`hw/intc/ioapic.c`, as
//!   `hw/i386/x86.c` does for a CPU). Input 23, which nothing here drives, is made to ask for it;
//!   its entry and the selector are then put back.

use std::fs::File;
use std::sync::atomic::Ordering;

use super::client::{Client, Failure};
use super::command::{Command, Name, Size};
use crate::base::{GuestAddr, Result};
use crate::machine::GuestRam;
use crate::machine::apic_messages::{ApicMessage, ApicMessages};

/// Where messages for local APICs go.
const MESSAGES: u64 = 0xfee0_0000;
/// Bytes of them: a page for each destination.
const MESSAGES_BYTES: u64 = 1 << 20;
/// From one destination to the next.
const DESTINATION_BYTES: u64 = 1 << 12;
/// Redirection hint and destination mode: the words of a page that messages go to.
const WORDS: [u64; 4] = [0, 4, 8, 12];
/// A word that no message was written to: bits 31:16 of a message are 0.
const IDLE: u32 = 0xffff_ffff;

/// The PCI function that has the memory, as a slot of bus 0, and its registers.
pub(super) const SLOT: u8 = 0x1e;
const CONFIG_ADDRESS: u16 = 0xcf8;
const CONFIG_DATA: u16 = 0xcfc;
const COMMAND: u32 = 0x04;
const COMMAND_MEMORY: u32 = 1 << 1;
const BAR2: u32 = 0x18;
const BAR3: u32 = 0x1c;

/// The I/O APIC's selector and window, and the entry that acknowledge cycles are made with.
const IOREGSEL: u64 = 0xfec0_0000;
const IOWIN: u64 = 0xfec0_0010;
const IOAPIC: &str = "ioapic";
const INPUTS: &str = "unnamed-gpio-in";
const INPUT: u32 = 23;
const ENTRY_LOW: u64 = 0x10 + 2 * INPUT as u64;
const ENTRY_HIGH: u64 = ENTRY_LOW + 1;
/// Delivery mode ExtINT, on the edge, to the CPU with ID 0.
const EXTINT: u64 = 7 << 8;
const VECTOR: u32 = 0xff;

/// The line of INTR, as the output of the first 8259A.
pub(super) const INTR: u32 = 0;

/// What is seen of the controllers.
#[derive(Debug)]
pub(super) struct Controllers {
    window: GuestRam,
    untaken: ApicMessages,
}

impl Controllers {
    /// Memory for the messages, to be handed to QEMU.
    pub fn new() -> Result<Self> {
        Ok(Self { window: GuestRam::new(MESSAGES_BYTES)?, untaken: ApicMessages::default() })
    }

    /// The memory.
    pub fn file(&self) -> &File {
        self.window.file()
    }

    /// The arguments that put the memory, under this number, onto the machine.
    pub fn args(fd: i32) -> [String; 4] {
        [
            "-object".to_owned(),
            format!(
                "memory-backend-file,id=messages,size={MESSAGES_BYTES}B,\
                 mem-path=/proc/self/fd/{fd},share=on"
            ),
            "-device".to_owned(),
            format!("ivshmem-plain,memdev=messages,addr={SLOT:#x}"),
        ]
    }

    /// Places the memory, as firmware would. Whether it is where it should be.
    pub fn place(&self, client: &mut Client) -> Result<bool, Failure> {
        const MARK: u32 = 0x5a17_c0de;
        for (register, value) in [(BAR2, MESSAGES as u32), (BAR3, 0), (COMMAND, COMMAND_MEMORY)] {
            let address = 1 << 31 | u32::from(SLOT) << 11 | register;
            client.order(&Command::Out(CONFIG_ADDRESS, Size::Long, address))?;
            client.order(&Command::Out(CONFIG_DATA, Size::Long, value))?;
        }
        self.swap(0, MARK);
        let seen = client.value(&Command::Load(MESSAGES, Size::Long))?;
        self.swap(0, IDLE);
        Ok(seen == u64::from(MARK))
    }

    /// Puts `value` into the word at `offset`: what was there.
    fn swap(&self, offset: u64, value: u32) -> u32 {
        let word = self.window.atomic_u32(GuestAddr(offset));
        word.map_or(IDLE, |word| u32::from_le(word.swap(value.to_le(), Ordering::AcqRel)))
    }

    /// Looks for messages; whether there was any. Of several that one access sent to one
    /// destination the last is seen.
    pub fn look(&mut self) -> bool {
        let mut any = false;
        if !self.untaken.are_wanted() {
            return any;
        }
        for page in (0..MESSAGES_BYTES).step_by(DESTINATION_BYTES as usize) {
            for offset in WORDS.map(|word| page + word) {
                let Some(word) = self.window.atomic_u32(GuestAddr(offset)) else { continue };
                if word.load(Ordering::Acquire) != IDLE {
                    let data = self.swap(offset, IDLE);
                    self.untaken.push(ApicMessage { addr: MESSAGES + offset, data });
                    any = true;
                }
            }
        }
        any
    }

    /// The messages since the last call; the first begins to look for them.
    ///
    /// # Errors
    /// More came than are kept.
    pub fn take(&mut self) -> Result<Vec<ApicMessage>> {
        if !self.untaken.are_wanted() {
            for page in (0..MESSAGES_BYTES).step_by(DESTINATION_BYTES as usize) {
                WORDS.iter().for_each(|word| _ = self.swap(page + word, IDLE));
            }
        }
        self.untaken.take()
    }

    /// An acknowledge cycle of the 8259As, which the caller knows to have a request. `None` when
    /// the I/O APIC did not make it.
    pub fn acknowledge(&mut self, client: &mut Client) -> Result<Option<u8>, Failure> {
        let (Some(ioapic), Some(inputs)) = (Name::new(IOAPIC), Name::new(INPUTS)) else {
            return Ok(None);
        };
        self.look();
        let selector = client.value(&Command::Load(IOREGSEL, Size::Long))?;
        let high = read(client, ENTRY_HIGH)?;
        let low = read(client, ENTRY_LOW)?;
        write(client, ENTRY_HIGH, 0)?;
        write(client, ENTRY_LOW, EXTINT)?;
        self.swap(0, IDLE);
        for level in [true, false] {
            let number = INPUT;
            client.order(&Command::SetIrqIn { device: ioapic, input: inputs, number, level })?;
        }
        let data = self.swap(0, IDLE);
        write(client, ENTRY_LOW, low)?;
        write(client, ENTRY_HIGH, high)?;
        client.order(&Command::Store(IOREGSEL, Size::Long, selector))?;
        Ok((data != IDLE).then_some((data & VECTOR) as u8))
    }
}

fn read(client: &mut Client, register: u64) -> Result<u64, Failure> {
    client.order(&Command::Store(IOREGSEL, Size::Long, register))?;
    client.value(&Command::Load(IOWIN, Size::Long))
}

fn write(client: &mut Client, register: u64, value: u64) -> Result<(), Failure> {
    client.order(&Command::Store(IOREGSEL, Size::Long, register))?;
    client.order(&Command::Store(IOWIN, Size::Long, value))
}
