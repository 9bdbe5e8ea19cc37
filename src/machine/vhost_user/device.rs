//! The front-end of one vhost-user device: what is agreed with its back-end, its rings, and the
//! device status, which has no message of its own and is kept here.

use std::os::fd::{AsRawFd, RawFd};
use std::os::unix::net::UnixStream;
use std::sync::Arc;
use std::time::Duration;

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use vhost::vhost_user::message::{
    FrontendReq, VhostUserConfig, VhostUserConfigFlags, VhostUserEmpty, VhostUserMemory,
    VhostUserMemoryRegion, VhostUserProtocolFeatures as Protocol, VhostUserU64, VhostUserVringAddr,
    VhostUserVringState,
};
use vm_memory::ByteValued;

use super::changes::Changes;
use super::link::{Failure, Link, Result};
use crate::base::GuestAddr;
use crate::machine::child::Lost;
use crate::machine::{GuestRam, IrqEvent, Vring};

/// `VHOST_USER_F_PROTOCOL_FEATURES`: there are protocol features, and rings are enabled one by one.
const PROTOCOL_FEATURES: u64 = 1 << 30;

/// Protocol features that are used where they are offered.
const WANTED: Protocol =
    Protocol::MQ.union(Protocol::REPLY_ACK).union(Protocol::BACKEND_REQ).union(Protocol::CONFIG);

/// Rings have a number of 8 bits in the messages that carry their events.
const QUEUES_MAX: u64 = 256;

/// What is read of the configuration at once: `struct virtio_blk_config` up to and with
/// write-zeroes (virtio 1.2 §5.2.4). Back-ends refuse to tell more than they have, and some take no
/// offset.
const CONFIG_BYTES: usize = 60;

/// The configuration never has more (`VHOST_USER_MAX_CONFIG_SIZE`).
const CONFIG_BYTES_MAX: usize = 256;

/// `DRIVER_OK` and `DEVICE_NEEDS_RESET` of the device status (virtio 1.2 §2.1).
const DRIVER_OK: u8 = 4;
const DEVICE_NEEDS_RESET: u8 = 64;

/// The events of a ring.
#[derive(Clone, Debug)]
struct Events {
    kick: Arc<IrqEvent>,
    call: Arc<IrqEvent>,
    error: Arc<IrqEvent>,
}

/// A ring.
#[derive(Debug)]
struct Ring {
    events: Events,
    /// The back-end has it.
    set: bool,
    /// And serves it.
    enabled: bool,
}

/// A device.
#[derive(Debug)]
pub struct Device {
    link: Link,
    changes: Option<Changes>,
    offered: u64,
    protocol: Protocol,
    queues: u16,
    features: u64,
    status: u8,
    rings: Vec<Ring>,
    has_memory: bool,
}

/// An event as a message carries it.
fn raw(event: &IrqEvent) -> RawFd {
    event.fd().as_raw_fd()
}

impl Device {
    /// Greets the back-end at the other end of `stream`; `patience`: how long it may take for an
    /// answer.
    pub fn new(stream: UnixStream, patience: Duration) -> Result<Self> {
        let mut link = Link::new(stream, patience)?;
        let (offered, protocol, queues, changes) = agree(&mut link)?;
        Ok(Self {
            link,
            changes,
            offered,
            protocol,
            queues,
            features: 0,
            status: 0,
            rings: Vec::new(),
            has_memory: false,
        })
    }

    /// The connection.
    pub fn link(&self) -> &Link {
        &self.link
    }

    /// Virtio features that it offers.
    pub fn features(&self) -> u64 {
        self.offered & !PROTOCOL_FEATURES
    }

    /// Queues that it has.
    pub fn queues(&self) -> u16 {
        self.queues
    }

    /// Takes virtio features, and shows guest RAM to the back-end when it has not seen it.
    pub fn set_features(&mut self, features: u64, ram: &GuestRam) -> Result {
        self.features = features | self.offered & PROTOCOL_FEATURES;
        let body = VhostUserU64::new(self.features);
        let what = format!("{:#x}", self.features);
        self.link.tell(FrontendReq::SET_FEATURES, &what, &body, &[])?;
        if !self.has_memory {
            self.show(ram)?;
            self.has_memory = true;
        }
        Ok(())
    }

    fn show(&mut self, ram: &GuestRam) -> Result {
        let region = VhostUserMemoryRegion::new(0, ram.size(), user_address(ram, GuestAddr(0)), 0);
        let body = Table { head: VhostUserMemory::new(1), region };
        let what = format!("of {} bytes", ram.size());
        let fds = [ram.file().as_raw_fd()];
        self.link.tell(FrontendReq::SET_MEM_TABLE, &what, &body, &fds)
    }

    /// Hands a ring over; what it is kicked by.
    pub fn set_vring(
        &mut self,
        index: u16,
        vring: &Vring,
        ram: &GuestRam,
    ) -> Result<Arc<IrqEvent>> {
        let number = u32::from(index);
        let events = self.ring(index)?.events.clone();
        for event in [&events.kick, &events.call, &events.error] {
            event.take();
        }
        let state = |num| VhostUserVringState::new(number, num);
        let addr = |addr| user_address(ram, addr);
        let places = VhostUserVringAddr {
            index: number,
            flags: 0,
            descriptor: addr(vring.desc),
            used: addr(vring.used),
            available: addr(vring.avail),
            log: 0,
        };
        let size = vring.size;
        let link = &mut self.link;
        link.tell(
            FrontendReq::SET_VRING_NUM,
            &format!("{index}: {size}"),
            &state(size.into()),
            &[],
        )?;
        link.tell(FrontendReq::SET_VRING_BASE, &format!("{index}: 0"), &state(0), &[])?;
        link.tell(FrontendReq::SET_VRING_ADDR, &index.to_string(), &places, &[])?;
        let number = VhostUserU64::new(number.into());
        for (request, event) in [
            (FrontendReq::SET_VRING_ERR, &events.error),
            (FrontendReq::SET_VRING_CALL, &events.call),
            // This one starts it.
            (FrontendReq::SET_VRING_KICK, &events.kick),
        ] {
            link.tell(request, &index.to_string(), &number, &[raw(event)])?;
        }
        let ring = self.ring(index)?;
        (ring.set, ring.enabled) = (true, false);
        Ok(events.kick)
    }

    /// What counts the calls of a ring.
    pub fn call(&mut self, index: u16) -> Result<Arc<IrqEvent>> {
        Ok(Arc::clone(&self.ring(index)?.events.call))
    }

    /// The device status.
    pub fn status(&mut self) -> Result<u8> {
        self.look()?;
        let errors = self.rings.iter().filter(|ring| ring.set && ring.events.error.take() > 0);
        if errors.count() > 0 {
            self.status |= DEVICE_NEEDS_RESET;
        }
        Ok(self.status)
    }

    /// Writes the status.
    pub fn set_status(&mut self, status: u8) -> Result {
        let before = std::mem::replace(&mut self.status, status);
        if status == 0 {
            return self.stop();
        }
        if status & DRIVER_OK != 0 && before & DRIVER_OK == 0 {
            return self.start();
        }
        Ok(())
    }

    fn start(&mut self) -> Result {
        if self.features & PROTOCOL_FEATURES != 0 {
            for (index, ring) in (0u32..).zip(&mut self.rings).filter(|(_, ring)| ring.set) {
                enable(&mut self.link, index, true)?;
                ring.enabled = true;
            }
        }
        // Its answer says that all before was done.
        let _: u64 = self.link.ask::<u64, _>(FrontendReq::GET_FEATURES, "", None)?;
        // A back-end may call when it is given the call, for a front-end that comes back.
        self.rings.iter().filter(|ring| ring.set).for_each(|ring| {
            ring.events.call.take();
        });
        Ok(())
    }

    /// Stops every ring: when it returns, the back-end is done with them.
    fn stop(&mut self) -> Result {
        for (index, ring) in (0u32..).zip(&mut self.rings).filter(|(_, ring)| ring.set) {
            if std::mem::take(&mut ring.enabled) {
                enable(&mut self.link, index, false)?;
            }
            let body = VhostUserVringState::new(index, 0);
            let what = index.to_string();
            let answer: VhostUserVringState =
                self.link.ask(FrontendReq::GET_VRING_BASE, &what, Some(&body))?;
            let of = answer.index;
            if of != index {
                let what = format!("the base of ring {of} when asked for that of {index}");
                return Err(Lost::Babble(what).into());
            }
            ring.set = false;
        }
        Ok(())
    }

    /// Fills `buf` from byte `offset` of the configuration.
    pub fn config(&mut self, offset: u64, buf: &mut [u8]) -> Result {
        let end = usize::try_from(offset).ok().and_then(|at| at.checked_add(buf.len()));
        let end = end.filter(|end| *end <= CONFIG_BYTES_MAX).ok_or_else(|| {
            Failure::Refused(format!("a configuration has no byte {offset}: at most 256"))
        })?;
        if !self.protocol.contains(Protocol::CONFIG) {
            return Err(Failure::Refused(
                "the back-end does not tell its configuration: it lacks \
                 VHOST_USER_PROTOCOL_F_CONFIG"
                    .to_owned(),
            ));
        }
        let mut bytes = [0; CONFIG_BYTES_MAX];
        for len in [end.max(CONFIG_BYTES), end] {
            let whole = bytes.get_mut(..len).unwrap_or_default();
            let body = VhostUserConfig::new(0, len as u32, VhostUserConfigFlags::empty());
            let what = format!("of {len} bytes");
            let answer: Option<VhostUserConfig> =
                self.link.ask_payload(FrontendReq::GET_CONFIG, &what, &body, whole)?;
            let told = answer.map_or(0, |answer| answer.size as usize);
            if told >= end && told <= len {
                let field = whole.get(end - buf.len()..end).unwrap_or_default();
                buf.copy_from_slice(field);
                return Ok(());
            }
            if told != 0 {
                let what = format!("a configuration of {told} bytes when asked for {len}");
                return Err(Lost::Babble(what).into());
            }
        }
        Err(Failure::Refused(format!("its configuration has less than {end} bytes")))
    }

    /// Counts the changes of its configuration that it told of.
    pub fn generation(&mut self) -> u8 {
        self.changes.as_mut().map_or(0, |changes| {
            changes.look();
            changes.count as u8
        })
    }

    /// Whether the back-end is there.
    pub fn look(&mut self) -> Result<(), Lost> {
        // A system call less than reading, which most of the time finds nothing.
        let mut list = [PollFd::new(self.link.fd(), PollFlags::POLLIN)];
        match poll(&mut list, PollTimeout::ZERO) {
            Ok(0) | Err(nix::errno::Errno::EINTR) => Ok(()),
            Ok(_) => self.link.look(),
            Err(e) => Err(Lost::Io(e.into())),
        }
    }

    fn ring(&mut self, index: u16) -> Result<&mut Ring> {
        let known = self.queues;
        let missing = || Failure::Refused(format!("there is no queue {index}: it has {known}"));
        while index < known && self.rings.len() <= usize::from(index) {
            let event = || IrqEvent::new().map(Arc::new).map_err(Lost::Io);
            let events = Events { kick: event()?, call: event()?, error: event()? };
            self.rings.push(Ring { events, set: false, enabled: false });
        }
        self.rings.get_mut(usize::from(index)).ok_or_else(missing)
    }
}

/// One region of guest RAM, as `SET_MEM_TABLE` carries it.
#[derive(Clone, Copy, Default)]
#[repr(C)]
struct Table {
    head: VhostUserMemory,
    region: VhostUserMemoryRegion,
}

// SAFETY: two plain structures of plain integers, 8 and 32 bytes, the first a multiple of the
// second's alignment: no padding, and every bit pattern is a value.
unsafe impl ByteValued for Table {}

/// Rings are told of by the addresses they have in this process, as the table of regions is.
fn user_address(ram: &GuestRam, addr: GuestAddr) -> u64 {
    let base = ram.host(GuestAddr(0), 0).map_or(0, |host| host as u64);
    base.wrapping_add(addr.0)
}

fn enable(link: &mut Link, index: u32, on: bool) -> Result {
    let body = VhostUserVringState::new(index, on.into());
    let what = format!("{index}: {}", u8::from(on));
    link.tell(FrontendReq::SET_VRING_ENABLE, &what, &body, &[])
}

type Agreed = (u64, Protocol, u16, Option<Changes>);

/// What the back-end offers, and what of the protocol is used.
fn agree(link: &mut Link) -> Result<Agreed> {
    let nothing: Option<&u64> = None;
    let offered = link.ask(FrontendReq::GET_FEATURES, "", nothing)?;
    let (mut protocol, mut queues, mut changes) = (Protocol::empty(), 1, None);
    if offered & PROTOCOL_FEATURES != 0 {
        let bits = link.ask(FrontendReq::GET_PROTOCOL_FEATURES, "", nothing)?;
        protocol = Protocol::from_bits_truncate(bits) & WANTED;
        let body = VhostUserU64::new(protocol.bits());
        let what = format!("{:#x}", protocol.bits());
        link.tell(FrontendReq::SET_PROTOCOL_FEATURES, &what, &body, &[])?;
        link.acknowledged = protocol.contains(Protocol::REPLY_ACK);
        if protocol.contains(Protocol::MQ) {
            let count: u64 = link.ask(FrontendReq::GET_QUEUE_NUM, "", nothing)?;
            queues = u16::try_from(count.min(QUEUES_MAX)).unwrap_or(1);
        }
        if protocol.contains(Protocol::BACKEND_REQ) {
            let (ours, theirs) = Changes::new().map_err(Lost::Io)?;
            let fds = [theirs.as_raw_fd()];
            link.tell(FrontendReq::SET_BACKEND_REQ_FD, "", &VhostUserEmpty, &fds)?;
            changes = Some(ours);
        }
    }
    link.tell(FrontendReq::SET_OWNER, "", &VhostUserEmpty, &[])?;
    Ok((offered, protocol, queues, changes))
}
