//! The transport's registers: feature negotiation, status, queues. A pure state machine; what a
//! write means for the device comes back as an [`Action`].
//!
//! Choices where the specification leaves them:
//! - Status bits are set, never cleared, but by reset (§2.1.1 forbids the driver to clear them).
//! - DRIVER_OK without FEATURES_OK is not taken on the modern interface; it reads back clear.
//! - A write of another width than the field's is ignored (§4.1.3.1 requires the field's width);
//!   reads of any width work.

use virtio_bindings::virtio_config::*;

use super::bits::*;
use crate::machine::builtin::devices::virtio_queue::QueueConfig;

const ACKNOWLEDGE_TO_FAILED: u8 = (VIRTIO_CONFIG_S_ACKNOWLEDGE
    | VIRTIO_CONFIG_S_DRIVER
    | VIRTIO_CONFIG_S_DRIVER_OK
    | VIRTIO_CONFIG_S_FEATURES_OK
    | VIRTIO_CONFIG_S_FAILED) as u8;
const DRIVER_OK: u8 = VIRTIO_CONFIG_S_DRIVER_OK as u8;
const FEATURES_OK: u8 = VIRTIO_CONFIG_S_FEATURES_OK as u8;

/// What a register write asks of the device.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Action {
    /// Nothing.
    None,
    /// Status 0: stop everything; the chip is reset already.
    Reset,
    /// DRIVER_OK: start the queues that are enabled.
    Start,
    /// This queue was enabled while the driver is running.
    StartQueue(u16),
    /// This queue is to stop (its own reset, or a legacy address of 0).
    StopQueue(u16),
    /// A doorbell (legacy).
    Notify(u16),
    /// A vector was assigned.
    Vectors,
}

/// The registers of one queue.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct QueueRegisters {
    /// Size and areas.
    pub config: QueueConfig,
    /// In use.
    pub enabled: bool,
    /// MSI-X vector.
    pub vector: u16,
    /// Legacy page number.
    pfn: u32,
}

/// The registers of a virtio function.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct VirtioPciChip {
    /// Offered on the modern interface.
    device_features: u64,
    /// Offered on the legacy interface.
    legacy_features: u32,
    queue_size_max: u16,
    vectors: u16,
    device_feature_select: u32,
    driver_feature_select: u32,
    driver_features: u64,
    status: u8,
    generation: u8,
    queue_select: u16,
    config_vector: u16,
    queues: Vec<QueueRegisters>,
}

impl VirtioPciChip {
    /// Registers after power-on.
    pub fn new(features: u64, legacy: u32, queues: u16, queue_size_max: u16, vectors: u16) -> Self {
        let queue = QueueRegisters {
            config: QueueConfig { size: queue_size_max, ..QueueConfig::default() },
            enabled: false,
            vector: VIRTIO_MSI_NO_VECTOR,
            pfn: 0,
        };
        Self {
            device_features: features,
            legacy_features: legacy,
            queue_size_max,
            vectors,
            device_feature_select: 0,
            driver_feature_select: 0,
            driver_features: 0,
            status: 0,
            generation: 0,
            queue_select: 0,
            config_vector: VIRTIO_MSI_NO_VECTOR,
            queues: vec![queue; queues.into()],
        }
    }

    /// Back to power-on.
    pub fn reset(&mut self) {
        let queues = self.queues.len() as u16;
        *self = Self::new(
            self.device_features,
            self.legacy_features,
            queues,
            self.queue_size_max,
            self.vectors,
        );
    }

    /// The device configuration is another one (§4.1.4.3: `config_generation` changes with it).
    pub fn config_changed(&mut self) {
        self.generation = self.generation.wrapping_add(1);
    }

    /// What both sides agreed on.
    pub fn features(&self) -> u64 {
        self.driver_features
    }

    /// Whether the driver is running and the device may touch its buffers (§2.1).
    pub fn running(&self) -> bool {
        self.status & DRIVER_OK != 0
    }

    /// The status as the driver wrote it; DEVICE_NEEDS_RESET is added by whoever knows.
    pub fn status(&self) -> u8 {
        self.status
    }

    /// Vector of configuration changes.
    pub fn config_vector(&self) -> u16 {
        self.config_vector
    }

    /// The queues.
    pub fn queues(&self) -> &[QueueRegisters] {
        &self.queues
    }

    /// A queue's reset (or removal) is done.
    pub fn queue_stopped(&mut self, index: u16) {
        let size = self.queue_size_max;
        if let Some(queue) = self.queues.get_mut(usize::from(index)) {
            queue.enabled = false;
            queue.config = QueueConfig { size, ..QueueConfig::default() };
            queue.pfn = 0;
        }
    }

    fn selected(&mut self) -> Option<&mut QueueRegisters> {
        self.queues.get_mut(usize::from(self.queue_select))
    }

    fn common_field(&self, field: u64) -> u32 {
        let queue = self.queues.get(usize::from(self.queue_select));
        let of = |get: fn(&QueueRegisters) -> u64| queue.map_or(0, get);
        let half = |select: u32, bits: u64| match select {
            0 => bits as u32,
            1 => (bits >> 32) as u32,
            _ => 0,
        };
        match field {
            VIRTIO_PCI_COMMON_DFSELECT => self.device_feature_select,
            VIRTIO_PCI_COMMON_DF => half(self.device_feature_select, self.device_features),
            VIRTIO_PCI_COMMON_GFSELECT => self.driver_feature_select,
            VIRTIO_PCI_COMMON_GF => half(self.driver_feature_select, self.driver_features),
            VIRTIO_PCI_COMMON_MSIX => self.config_vector.into(),
            VIRTIO_PCI_COMMON_NUMQ => self.queues.len() as u32,
            VIRTIO_PCI_COMMON_STATUS => self.status.into(),
            VIRTIO_PCI_COMMON_CFGGENERATION => self.generation.into(),
            VIRTIO_PCI_COMMON_Q_SELECT => self.queue_select.into(),
            // A queue that is not there has size 0 (§4.1.4.3).
            VIRTIO_PCI_COMMON_Q_SIZE => of(|q| q.config.size.into()) as u32,
            VIRTIO_PCI_COMMON_Q_MSIX => {
                queue.map_or(VIRTIO_MSI_NO_VECTOR.into(), |q| q.vector.into())
            }
            VIRTIO_PCI_COMMON_Q_ENABLE => of(|q| q.enabled.into()) as u32,
            VIRTIO_PCI_COMMON_Q_NOFF => queue.map_or(0, |_| self.queue_select.into()),
            VIRTIO_PCI_COMMON_Q_DESCLO => of(|q| q.config.desc) as u32,
            VIRTIO_PCI_COMMON_Q_AVAILLO => of(|q| q.config.avail) as u32,
            VIRTIO_PCI_COMMON_Q_USEDLO => of(|q| q.config.used) as u32,
            f if f == VIRTIO_PCI_COMMON_Q_DESCLO + 4 => (of(|q| q.config.desc) >> 32) as u32,
            f if f == VIRTIO_PCI_COMMON_Q_AVAILLO + 4 => (of(|q| q.config.avail) >> 32) as u32,
            f if f == VIRTIO_PCI_COMMON_Q_USEDLO + 4 => (of(|q| q.config.used) >> 32) as u32,
            // queue_notify_data is there only with VIRTIO_F_NOTIF_CONFIG_DATA, which is not
            // offered; queue_reset reads 0 because a reset is done when its write returns.
            _ => 0,
        }
    }

    /// Reads the common configuration, any width.
    pub fn common_read(&self, offset: u64, size: u8) -> u32 {
        read_fields(&COMMON_FIELDS, offset, size, |field| self.common_field(field))
    }

    /// Writes a field of the common configuration.
    pub fn common_write(&mut self, offset: u64, size: u8, value: u32) -> Action {
        if !COMMON_FIELDS.contains(&(offset, size)) {
            return Action::None;
        }
        match offset {
            VIRTIO_PCI_COMMON_DFSELECT => self.device_feature_select = value,
            VIRTIO_PCI_COMMON_GFSELECT => self.driver_feature_select = value,
            VIRTIO_PCI_COMMON_GF => self.write_driver_features(value),
            VIRTIO_PCI_COMMON_MSIX => {
                self.config_vector = self.vector(value);
                return Action::Vectors;
            }
            VIRTIO_PCI_COMMON_STATUS => return self.write_status(value as u8, false),
            VIRTIO_PCI_COMMON_Q_SELECT => self.queue_select = value as u16,
            VIRTIO_PCI_COMMON_Q_MSIX => {
                let vector = self.vector(value);
                if let Some(queue) = self.selected() {
                    queue.vector = vector;
                }
                return Action::Vectors;
            }
            VIRTIO_PCI_COMMON_Q_ENABLE if value == 1 => return self.enable_queue(),
            VIRTIO_PCI_COMMON_Q_RESET if value == 1 => return self.reset_queue(),
            _ => self.write_queue_config(offset, value),
        }
        Action::None
    }

    /// Features stand once FEATURES_OK is set (§2.2.1, §3.1.1).
    fn write_driver_features(&mut self, value: u32) {
        if self.status & (FEATURES_OK | DRIVER_OK) != 0 {
            return;
        }
        let value = u64::from(value);
        self.driver_features = match self.driver_feature_select {
            0 => self.driver_features & !0xffff_ffff | value,
            1 => self.driver_features & 0xffff_ffff | value << 32,
            _ => self.driver_features,
        };
    }

    /// Writing a vector that does not exist leaves none assigned, which the driver reads back
    /// (§4.1.5.1.2).
    fn vector(&self, value: u32) -> u16 {
        let vector = value as u16;
        if vector < self.vectors { vector } else { VIRTIO_MSI_NO_VECTOR }
    }

    fn write_status(&mut self, value: u8, legacy: bool) -> Action {
        if value == 0 {
            self.reset();
            return Action::Reset;
        }
        let was_running = self.running();
        let mut new = self.status | value & ACKNOWLEDGE_TO_FAILED;
        if !legacy {
            if new & FEATURES_OK != 0 && self.status & FEATURES_OK == 0 && !self.acceptable() {
                new &= !FEATURES_OK;
            }
            if new & FEATURES_OK == 0 && !was_running {
                new &= !DRIVER_OK;
            }
        }
        self.status = new;
        if self.running() && !was_running { Action::Start } else { Action::None }
    }

    /// Whether the driver's features are a subset of those offered and make it a modern driver,
    /// which one on this interface must be (§6.1).
    fn acceptable(&self) -> bool {
        self.driver_features & !self.device_features == 0
            && self.driver_features & (1 << VIRTIO_F_VERSION_1) != 0
    }

    fn enable_queue(&mut self) -> Action {
        let (index, running) = (self.queue_select, self.running());
        match self.selected() {
            Some(queue) if !queue.enabled => {
                queue.enabled = true;
                if running { Action::StartQueue(index) } else { Action::None }
            }
            _ => Action::None,
        }
    }

    fn reset_queue(&mut self) -> Action {
        let index = self.queue_select;
        let negotiated = self.driver_features & (1 << VIRTIO_F_RING_RESET) != 0;
        match self.selected() {
            Some(queue) if queue.enabled && negotiated => Action::StopQueue(index),
            _ => Action::None,
        }
    }

    /// Sizes and areas, which stand while the queue is enabled (§4.1.4.3.2).
    fn write_queue_config(&mut self, offset: u64, value: u32) {
        let max = self.queue_size_max;
        let Some(queue) = self.selected().filter(|q| !q.enabled) else { return };
        let config = &mut queue.config;
        let low = |area: u64| area & !0xffff_ffff | u64::from(value);
        let high = |area: u64| area & 0xffff_ffff | u64::from(value) << 32;
        match offset {
            VIRTIO_PCI_COMMON_Q_SIZE => {
                let size = value as u16;
                if size.is_power_of_two() && size <= max {
                    config.size = size;
                }
            }
            VIRTIO_PCI_COMMON_Q_DESCLO => config.desc = low(config.desc),
            VIRTIO_PCI_COMMON_Q_AVAILLO => config.avail = low(config.avail),
            VIRTIO_PCI_COMMON_Q_USEDLO => config.used = low(config.used),
            o if o == VIRTIO_PCI_COMMON_Q_DESCLO + 4 => config.desc = high(config.desc),
            o if o == VIRTIO_PCI_COMMON_Q_AVAILLO + 4 => config.avail = high(config.avail),
            o if o == VIRTIO_PCI_COMMON_Q_USEDLO + 4 => config.used = high(config.used),
            _ => {}
        }
    }

    fn legacy_field(&self, field: u64) -> u32 {
        let queue = self.queues.get(usize::from(self.queue_select));
        match field {
            VIRTIO_PCI_HOST_FEATURES => self.legacy_features,
            VIRTIO_PCI_GUEST_FEATURES => self.driver_features as u32,
            VIRTIO_PCI_QUEUE_PFN => queue.map_or(0, |q| q.pfn),
            VIRTIO_PCI_QUEUE_NUM => queue.map_or(0, |_| self.queue_size_max.into()),
            VIRTIO_PCI_QUEUE_SEL => self.queue_select.into(),
            VIRTIO_PCI_STATUS => self.status.into(),
            VIRTIO_MSI_CONFIG_VECTOR => self.config_vector.into(),
            VIRTIO_MSI_QUEUE_VECTOR => {
                queue.map_or(VIRTIO_MSI_NO_VECTOR.into(), |q| q.vector.into())
            }
            // The doorbell is write-only; ISR status is read before it gets here.
            _ => 0,
        }
    }

    /// Reads the legacy header, any width.
    pub fn legacy_read(&self, offset: u64, size: u8) -> u32 {
        read_fields(&LEGACY_FIELDS, offset, size, |field| self.legacy_field(field))
    }

    /// Writes a field of the legacy header.
    pub fn legacy_write(&mut self, offset: u64, size: u8, value: u32) -> Action {
        if !LEGACY_FIELDS.contains(&(offset, size)) {
            return Action::None;
        }
        match offset {
            // No FEATURES_OK here: what is not offered is dropped, and they stand from DRIVER_OK.
            VIRTIO_PCI_GUEST_FEATURES if self.status & (DRIVER_OK | FEATURES_OK) == 0 => {
                self.driver_features = u64::from(value & self.legacy_features);
            }
            VIRTIO_PCI_QUEUE_PFN => return self.write_pfn(value),
            VIRTIO_PCI_QUEUE_SEL => self.queue_select = value as u16,
            VIRTIO_PCI_QUEUE_NOTIFY => return Action::Notify(value as u16),
            VIRTIO_PCI_STATUS => return self.write_status(value as u8, true),
            VIRTIO_MSI_CONFIG_VECTOR => {
                self.config_vector = self.vector(value);
                return Action::Vectors;
            }
            VIRTIO_MSI_QUEUE_VECTOR => {
                let vector = self.vector(value);
                if let Some(queue) = self.selected() {
                    queue.vector = vector;
                }
                return Action::Vectors;
            }
            _ => {}
        }
        Action::None
    }

    /// A page number starts a queue, 0 stops it (§4.1.5.1.3.1). One in use does not move.
    fn write_pfn(&mut self, pfn: u32) -> Action {
        let (index, running, size) = (self.queue_select, self.running(), self.queue_size_max);
        match self.selected() {
            Some(queue) if queue.enabled && pfn == 0 => Action::StopQueue(index),
            Some(queue) if !queue.enabled && pfn != 0 => {
                queue.pfn = pfn;
                queue.config = legacy_layout(pfn, size);
                queue.enabled = true;
                if running { Action::StartQueue(index) } else { Action::None }
            }
            _ => Action::None,
        }
    }
}

/// Assembles a read of any width from the fields it touches.
fn read_fields(fields: &[(u64, u8)], offset: u64, size: u8, get: impl Fn(u64) -> u32) -> u32 {
    if fields.contains(&(offset, size)) {
        return get(offset);
    }
    let byte = |at: u64| {
        let field = fields.iter().find(|(o, w)| at >= *o && at - *o < u64::from(*w));
        field.map_or(0, |(o, _)| get(*o) >> (8 * (at - *o)) & 0xff)
    };
    (0..u64::from(size.min(4))).fold(0, |v, i| v | byte(offset + i) << (8 * i))
}
