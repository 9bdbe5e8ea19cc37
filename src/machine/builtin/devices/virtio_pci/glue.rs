//! The transport on the bus: configuration space, BARs, and which register file an access reaches.

use std::os::fd::RawFd;
use std::sync::Arc;

use virtio_bindings::virtio_config::*;
use virtio_bindings::virtio_ids::{VIRTIO_ID_BLOCK, VIRTIO_TRANS_ID_BLOCK};

use super::bits::*;
use super::chip::{Action, VirtioPciChip};
use super::{VirtioDevice, VirtioInterrupts};
use crate::base::{Error, Result};
use crate::machine::builtin::pci::PciFunction;
use crate::machine::builtin::pci::bits::*;
use crate::machine::builtin::pci::config::{BarKind, ConfigSpace, Identity};
use crate::machine::builtin::pci::interrupts::PciInterrupts;

/// Which interfaces the function has (virtio 1.2 §4.1.2).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Personality {
    /// Modern and legacy.
    #[default]
    Transitional,
    /// Modern only.
    Modern,
}

/// What a virtio function is made of.
pub struct VirtioPciConfig {
    /// Its interfaces.
    pub personality: Personality,
    /// Interrupt line register after a reset: as firmware set it, or 0.
    pub interrupt_line: u8,
    /// Pin and vectors.
    pub pci_interrupts: Arc<PciInterrupts>,
    /// ISR and vectors.
    pub interrupts: Arc<VirtioInterrupts>,
    /// MSI-X vectors.
    pub vectors: u16,
}

/// A virtio device as a PCI function.
pub struct VirtioPci<D> {
    config: ConfigSpace,
    chip: VirtioPciChip,
    device: D,
    pci_interrupts: Arc<PciInterrupts>,
    interrupts: Arc<VirtioInterrupts>,
    queues: u16,
    msix_capability: u8,
    access_capability: u8,
    table_bytes: u64,
}

const ISR_OFFSETS: std::ops::Range<u64> = VIRTIO_PCI_ISR..VIRTIO_PCI_ISR + 1;

impl<D: VirtioDevice> VirtioPci<D> {
    /// Builds the function around `device`.
    ///
    /// # Errors
    /// A device that the layout has no room for.
    pub fn new(device: D, config: VirtioPciConfig) -> Result<Self> {
        let transitional = config.personality == Personality::Transitional;
        let queues = device.queues();
        let any_layout = 1u64 << VIRTIO_F_ANY_LAYOUT;
        let transport = 1 << VIRTIO_F_VERSION_1 | 1 << VIRTIO_F_RING_RESET;
        let modern = (device.features() & !any_layout) | transport;
        let legacy = (device.features() | any_layout) as u32;
        let chip = VirtioPciChip::new(
            modern,
            if transitional { legacy } else { 0 },
            queues,
            device.queue_size_max(),
            config.vectors,
        );
        let table_bytes = PCI_MSIX_ENTRY_SIZE * u64::from(config.vectors);
        let mut space = ConfigSpace::new(&identity(&device, transitional));
        space.set_interrupt(config.interrupt_line);
        if transitional {
            space.add_bar(BAR_LEGACY, BarKind::Io, LEGACY_BAR_SIZE);
        }
        let pending_bytes = u64::from(config.vectors).div_ceil(64) * 8;
        space.add_bar(BAR_MSIX, BarKind::Mem32, (table_bytes + pending_bytes).max(4096));
        space.add_bar(BAR_MODERN, BarKind::Mem64, MODERN_BAR_SIZE);
        let (msix_capability, access_capability) =
            add_capabilities(&mut space, config.vectors, table_bytes)
                .ok_or_else(|| Error::machine("no room for a virtio function's capabilities"))?;
        let (pci_interrupts, interrupts) = (config.pci_interrupts, config.interrupts);
        Ok(Self {
            config: space,
            chip,
            device,
            pci_interrupts,
            interrupts,
            queues,
            msix_capability,
            access_capability,
            table_bytes,
        })
    }

    /// Whether the function may reach guest memory.
    fn master(&self) -> bool {
        self.config.command() & PCI_COMMAND_MASTER != 0
    }

    /// §2.1: no buffer is touched before DRIVER_OK; PCI 3.0 §6.2.2: none without bus mastering.
    fn may_run(&self, queue: u16) -> bool {
        queue < self.queues && self.chip.running() && self.master()
    }

    fn kick(&mut self, queue: u16) {
        if self.may_run(queue) {
            self.device.kick(queue);
        }
    }

    /// Rings for every queue: what was made available while the device was not allowed to look.
    fn kick_all(&mut self) {
        for queue in 0..self.queues {
            self.kick(queue);
        }
    }

    fn start_queue(&mut self, index: u16) {
        let queue = self.chip.queues().get(usize::from(index)).copied();
        if let Some(queue) = queue.filter(|q| q.enabled) {
            self.device.start_queue(index, queue.config);
        }
    }

    fn act(&mut self, action: Action) {
        match action {
            Action::None => {}
            Action::Reset => {
                self.device.reset();
                self.interrupts.reset();
            }
            Action::Start => {
                self.device.set_features(self.chip.features());
                self.interrupts.set_running();
                for queue in 0..self.queues {
                    self.start_queue(queue);
                }
                self.kick_all();
            }
            Action::StartQueue(queue) => {
                self.start_queue(queue);
                self.kick(queue);
            }
            Action::StopQueue(queue) => {
                self.device.stop_queue(queue);
                self.chip.queue_stopped(queue);
            }
            Action::Notify(queue) => self.kick(queue),
            Action::Vectors => {
                let queues = self.chip.queues().iter().map(|q| q.vector);
                self.interrupts.set_vectors(self.chip.config_vector(), queues);
            }
        }
    }

    fn needs_reset_bit(&self) -> u32 {
        if self.interrupts.needs_reset() { VIRTIO_CONFIG_S_NEEDS_RESET } else { 0 }
    }

    /// Adds DEVICE_NEEDS_RESET to a read that covers the status byte at `status`.
    fn with_needs_reset(&self, status: u64, offset: u64, size: u8, value: u32) -> u32 {
        match status.checked_sub(offset) {
            Some(at) if at < u64::from(size) => value | self.needs_reset_bit() << (8 * at),
            _ => value,
        }
    }

    fn device_read(&mut self, offset: u64, size: u8) -> u64 {
        let mut bytes = [0; 8];
        let buf = bytes.get_mut(..usize::from(size)).unwrap_or_default();
        self.device.config_read(offset, buf);
        u64::from_le_bytes(bytes)
    }

    fn device_write(&mut self, offset: u64, size: u8, value: u64) {
        let bytes = value.to_le_bytes();
        self.device.config_write(offset, bytes.get(..usize::from(size)).unwrap_or_default());
    }

    fn legacy_read(&mut self, offset: u64, size: u8) -> u32 {
        let config = legacy_config_offset(self.pci_interrupts.msix_enabled());
        if offset >= config {
            return self.device_read(offset - config, size) as u32;
        }
        let mut value = self.chip.legacy_read(offset, size);
        value = self.with_needs_reset(VIRTIO_PCI_STATUS, offset, size, value);
        let covered = offset..offset + u64::from(size);
        if covered.contains(&ISR_OFFSETS.start) {
            let isr = u32::from(self.interrupts.read_isr());
            value |= isr << (8 * (VIRTIO_PCI_ISR - offset));
        }
        value
    }

    fn legacy_write(&mut self, offset: u64, size: u8, value: u32) {
        let config = legacy_config_offset(self.pci_interrupts.msix_enabled());
        if offset >= config {
            return self.device_write(offset - config, size, value.into());
        }
        let action = self.chip.legacy_write(offset, size, value);
        self.act(action);
    }

    fn common_read(&self, offset: u64, size: u8) -> u64 {
        if size == 8 {
            return self.common_read(offset, 4) | self.common_read(offset + 4, 4) << 32;
        }
        let value = self.chip.common_read(offset, size);
        self.with_needs_reset(VIRTIO_PCI_COMMON_STATUS, offset, size, value).into()
    }

    fn common_write(&mut self, offset: u64, size: u8, value: u64) {
        if size == 8 {
            // A 64-bit store is what two 32-bit ones are, low half first (§4.1.3.1).
            self.common_write(offset, 4, value & 0xffff_ffff);
            return self.common_write(offset + 4, 4, value >> 32);
        }
        let action = self.chip.common_write(offset, size, value as u32);
        self.act(action);
    }

    fn modern_read(&mut self, offset: u64, size: u8) -> u64 {
        let at = offset % MODERN_PAGE;
        match offset - at {
            MODERN_COMMON => self.common_read(at, size),
            MODERN_ISR if at == 0 => self.interrupts.read_isr().into(),
            MODERN_DEVICE => self.device_read(at, size),
            _ => 0,
        }
    }

    fn modern_write(&mut self, offset: u64, size: u8, value: u64) {
        if offset >= MODERN_NOTIFY {
            return self.kick(doorbell_queue(offset));
        }
        let at = offset % MODERN_PAGE;
        match offset - at {
            MODERN_COMMON => self.common_write(at, size, value),
            MODERN_DEVICE => self.device_write(at, size, value),
            _ => {}
        }
    }

    /// An aligned word of the MSI-X BAR.
    fn msix_word(&self, offset: u64) -> u32 {
        match offset.checked_sub(self.table_bytes) {
            None => self.pci_interrupts.table_read(offset),
            Some(pending) => self.pci_interrupts.pending_read(pending),
        }
    }

    fn msix_read(&self, offset: u64, size: u8) -> u64 {
        let aligned = offset & !3;
        let word = u64::from(self.msix_word(aligned));
        let next = u64::from(self.msix_word(aligned + 4)) << 32;
        let shifted = (word | next) >> (8 * (offset - aligned));
        if size == 8 { shifted } else { shifted & ((1 << (8 * size)) - 1) }
    }

    /// Only whole, aligned words are defined (PCI 3.0 §6.8.2); anything else is ignored.
    fn msix_write(&mut self, offset: u64, size: u8, value: u64) {
        if size < 4 || !offset.is_multiple_of(4) {
            return;
        }
        for (at, word) in [(offset, value as u32), (offset + 4, (value >> 32) as u32)]
            .into_iter()
            .take(usize::from(size) / 4)
        {
            if at < self.table_bytes {
                self.pci_interrupts.table_write(at, word);
            }
        }
    }

    /// The access that the PCI configuration access capability describes, when it is a valid one
    /// (§4.1.4.9): an existing BAR, 1, 2 or 4 bytes, aligned, inside.
    fn window_access(&self) -> Option<(u8, u64, u8)> {
        let at = self.access_capability;
        let bar = self.config.read(at + VIRTIO_PCI_CAP_BAR, 1) as u8;
        let offset = u64::from(self.config.read(at + VIRTIO_PCI_CAP_OFFSET, 4));
        let len = self.config.read(at + VIRTIO_PCI_CAP_LENGTH, 4);
        let size = self.config.bar(bar)?.size;
        let valid = matches!(len, 1 | 2 | 4) && offset.is_multiple_of(len.into()) && offset < size;
        valid.then_some((bar, offset, len as u8))
    }

    fn command_written(&mut self, before: u16) {
        let after = self.config.command();
        self.pci_interrupts.set_intx_disabled(after & PCI_COMMAND_INTX_DISABLE != 0);
        if after & !before & PCI_COMMAND_MASTER != 0 {
            self.kick_all();
        }
    }
}

/// The queue that a doorbell at `offset` rings for: the address alone names it, whatever is written
/// (§4.1.5.2).
fn doorbell_queue(offset: u64) -> u16 {
    (offset.saturating_sub(MODERN_NOTIFY) / u64::from(NOTIFY_OFF_MULTIPLIER)) as u16
}

fn identity(device: &impl VirtioDevice, transitional: bool) -> Identity {
    let id = device.device_id();
    // Transitional IDs are assigned one by one; those of the devices built here follow the block
    // device's (§4.1.2.1).
    let base = VIRTIO_TRANS_ID_BLOCK as u16 - VIRTIO_ID_BLOCK as u16;
    Identity {
        vendor: VIRTIO_PCI_VENDOR_ID,
        device: if transitional { base + id } else { VIRTIO_PCI_MODERN_DEVICE_ID_BASE + id },
        revision: if transitional { 0 } else { VIRTIO_PCI_MODERN_REVISION },
        class: device.pci_class(),
        subsystem_vendor: VIRTIO_PCI_VENDOR_ID,
        subsystem: id,
    }
}

/// One struct virtio_pci_cap (§4.1.4); `extra` stands behind it.
fn virtio_capability(kind: u8, bar: u8, offset: u64, length: u64, extra: Option<u32>) -> Vec<u8> {
    let len = if extra.is_some() { VIRTIO_PCI_CAP_EXT_LEN } else { VIRTIO_PCI_CAP_LEN };
    let mut body = vec![PCI_CAP_ID_VNDR, 0, len, kind, bar, 0, 0, 0];
    body.extend((offset as u32).to_le_bytes());
    body.extend((length as u32).to_le_bytes());
    body.extend(extra.iter().flat_map(|word| word.to_le_bytes()));
    body
}

/// Adds all capabilities, in the places and the order that QEMU's functions have them, whose
/// recordings then compare equal; the offsets of MSI-X and of the configuration access.
fn add_capabilities(space: &mut ConfigSpace, vectors: u16, table_bytes: u64) -> Option<(u8, u8)> {
    let places = [
        (VIRTIO_PCI_CAP_COMMON_CFG, MODERN_COMMON, None),
        (VIRTIO_PCI_CAP_ISR_CFG, MODERN_ISR, None),
        (VIRTIO_PCI_CAP_DEVICE_CFG, MODERN_DEVICE, None),
        (VIRTIO_PCI_CAP_NOTIFY_CFG, MODERN_NOTIFY, Some(NOTIFY_OFF_MULTIPLIER)),
    ];
    for (kind, offset, extra) in places {
        // §4.1.4: a length may include padding, here to the end of the page.
        let capability = virtio_capability(kind, BAR_MODERN, offset, MODERN_PAGE, extra);
        space.add_capability(&capability, &[])?;
    }
    let access = virtio_capability(VIRTIO_PCI_CAP_PCI_CFG, 0, 0, 0, Some(0));
    let mut mask = [0; VIRTIO_PCI_CAP_EXT_LEN as usize];
    mask[usize::from(VIRTIO_PCI_CAP_BAR)] = 0xff;
    mask[usize::from(VIRTIO_PCI_CAP_OFFSET)..].fill(0xff);
    let access = space.add_capability(&access, &mask)?;

    let mut msix = vec![PCI_CAP_ID_MSIX, 0];
    msix.extend((vectors - 1).to_le_bytes());
    msix.extend(u32::from(BAR_MSIX).to_le_bytes());
    msix.extend((table_bytes as u32 | u32::from(BAR_MSIX)).to_le_bytes());
    let control = PCI_MSIX_FLAGS_ENABLE | PCI_MSIX_FLAGS_MASKALL;
    let [low, high] = control.to_le_bytes();
    let msix = space.add_capability(&msix, &[0, 0, low, high])?;
    Some((msix, access))
}

impl<D: VirtioDevice> PciFunction for VirtioPci<D> {
    fn config(&self) -> &ConfigSpace {
        &self.config
    }

    fn config_read(&mut self, reg: u8, size: u8) -> u32 {
        self.config.set_interrupt_status(self.pci_interrupts.pin_wanted());
        if reg == self.access_capability + VIRTIO_PCI_CFG_DATA
            && let Some((bar, offset, len)) = self.window_access()
        {
            let value = self.bar_read(bar, offset, len) as u32;
            self.config.write(reg, 4, value);
        }
        self.config.read(reg, size)
    }

    fn config_write(&mut self, reg: u8, size: u8, value: u32) {
        let before = self.config.command();
        self.config.write(reg, size, value);
        if reg < PCI_STATUS {
            self.command_written(before);
        } else if reg & !3 == self.msix_capability {
            let flags = self.config.read(self.msix_capability + PCI_MSIX_FLAGS, 2) as u16;
            self.pci_interrupts.set_message_control(flags);
        } else if reg == self.access_capability + VIRTIO_PCI_CFG_DATA
            && let Some((bar, offset, len)) = self.window_access()
        {
            self.bar_write(bar, offset, len, value.into());
        }
    }

    fn bar_read(&mut self, bar: u8, offset: u64, size: u8) -> u64 {
        match bar {
            BAR_LEGACY => self.legacy_read(offset, size).into(),
            BAR_MSIX => self.msix_read(offset, size),
            _ => self.modern_read(offset, size),
        }
    }

    fn bar_write(&mut self, bar: u8, offset: u64, size: u8, value: u64) {
        match bar {
            BAR_MODERN => self.modern_write(offset, size, value),
            BAR_MSIX => self.msix_write(offset, size, value),
            _ => self.legacy_write(offset, size, value as u32),
        }
    }

    fn doorbell(&self, bar: u8, offset: u64) -> bool {
        let doorbell = bar == BAR_MODERN && offset >= MODERN_NOTIFY;
        if doorbell && self.may_run(doorbell_queue(offset)) {
            self.device.kick_shared(doorbell_queue(offset));
        }
        doorbell
    }

    fn reset(&mut self) {
        self.chip.reset();
        self.act(Action::Reset);
        self.config.reset();
        self.pci_interrupts.reset();
    }

    fn has_work(&self) -> bool {
        self.device.has_work()
    }

    fn poll(&mut self) -> Result<bool> {
        self.device.poll()
    }

    fn wait_fds(&mut self, fds: &mut Vec<RawFd>) {
        self.device.wait_fds(fds);
    }

    fn is_idle(&mut self) -> bool {
        self.device.is_idle()
    }

    fn resize(&mut self, bytes: u64) -> Result<()> {
        self.device.resize(bytes)?;
        self.chip.config_changed();
        self.interrupts.set_config_changed();
        Ok(())
    }

    fn fault(&mut self) -> Option<String> {
        self.device.fault()
    }
}
