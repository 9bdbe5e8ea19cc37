//! The front-end against back-ends that are right, and against ones that lie, fall silent or go
//! away at each message.

use std::io::{Read, Write};
use std::os::fd::{FromRawFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::time::Duration;

use vhost::vhost_user::message::{FrontendReq, VhostUserProtocolFeatures as Protocol};
use vmm_sys_util::eventfd::EventFd;
use vmm_sys_util::sock_ctrl_msg::ScmSocket;

use super::*;
use crate::base::{BlockOp, GuestAddr};
use crate::driver::virtio::{CompletionMode, VirtioBlk, VirtioBlkOptions};
use crate::driver::{BlockDriver, BlockRequest};
use crate::machine::obituary::End;
use crate::machine::{Capabilities, Machine};

const PROTOCOL_FEATURES: u64 = 1 << 30;
const VERSION_1: u64 = 1 << 32;
const MQ: u64 = 1 << 12;
const LONG: Duration = Duration::from_secs(30);
const SHORT: Duration = Duration::from_millis(30);

/// What a back-end says in place of an answer.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Lie {
    /// It goes away.
    Closes,
    /// It says nothing, and stays.
    Silent,
    /// The answer to another message.
    WrongId,
    /// A message that is no answer.
    NoReply,
    /// Another version of the protocol.
    Version,
    /// A size that nothing has.
    Huge,
    /// A byte too many.
    Long,
    /// Half an answer.
    Half,
    /// An acknowledgement that it failed; for questions an answer without end.
    Fails,
}

const LIES: [Lie; 8] = [
    Lie::Closes,
    Lie::Silent,
    Lie::WrongId,
    Lie::NoReply,
    Lie::Version,
    Lie::Huge,
    Lie::Long,
    Lie::Half,
];

/// A back-end as a test wants it.
#[derive(Clone)]
struct Backend {
    features: u64,
    protocol: Protocol,
    queues: u64,
    config: Vec<u8>,
    /// At which of the messages that are answered, and how it lies.
    lie: Option<(usize, Lie)>,
}

impl Default for Backend {
    fn default() -> Self {
        let mut config = vec![0; 60];
        config[..8].copy_from_slice(&2048u64.to_le_bytes());
        config[34] = 2;
        Self {
            features: PROTOCOL_FEATURES | VERSION_1 | MQ,
            protocol: Protocol::MQ | Protocol::REPLY_ACK | Protocol::CONFIG | Protocol::BACKEND_REQ,
            queues: 2,
            config,
            lie: None,
        }
    }
}

/// What a back-end saw.
#[derive(Debug)]
enum Seen {
    Message(FrontendReq),
    Descriptor(FrontendReq, OwnedFd),
}

struct Rig {
    machine: Option<VhostUserMachine>,
    error: Option<crate::base::Error>,
    seen: Receiver<Seen>,
}

impl Rig {
    fn new(backend: Backend, patience: Duration) -> Self {
        let (ours, theirs) = UnixStream::pair().unwrap();
        let (tell, seen) = channel();
        std::thread::spawn(move || backend.serve(theirs, &tell));
        let config = VhostUserConfig { ram_bytes: 8 << 20, patience, ..VhostUserConfig::default() };
        match VhostUserMachine::over(ours, "test.sock", &config) {
            Ok(machine) => Self { machine: Some(machine), error: None, seen },
            Err(error) => Self { machine: None, error: Some(error), seen },
        }
    }

    fn machine(&mut self) -> &mut VhostUserMachine {
        self.machine.as_mut().unwrap()
    }

    /// All that the driver does with a device that works.
    fn probe(&mut self, options: &VirtioBlkOptions) -> crate::base::Result<VirtioBlk> {
        match self.error.take() {
            Some(error) => Err(error),
            None => VirtioBlk::probe(self.machine(), options),
        }
    }

    /// The last descriptor that came with `request`.
    fn descriptor(&self, request: FrontendReq) -> OwnedFd {
        let last = self.seen.try_iter().filter_map(|seen| match seen {
            Seen::Descriptor(of, fd) if of == request => Some(fd),
            _ => None,
        });
        last.last().unwrap()
    }
}

impl Backend {
    /// Answers messages until the front-end goes. Those that are lied to are the `lie.0`-th of the
    /// answered ones.
    fn serve(self, mut stream: UnixStream, tell: &Sender<Seen>) {
        let mut answered = 0;
        let mut acknowledges = false;
        loop {
            let mut header = [0; 12];
            let mut fds = [-1; 4];
            let mut iovec =
                [libc::iovec { iov_base: header.as_mut_ptr().cast(), iov_len: header.len() }];
            // SAFETY: the vector describes `header`, which any bytes may fill.
            let got = unsafe { stream.recv_with_fds(&mut iovec, &mut fds) };
            let Ok((12, count)) = got else { return };
            let [code, flags, size] = link::words(&header);
            let mut body = vec![0; size as usize];
            if stream.read_exact(&mut body).is_err() {
                return;
            }
            let request = FrontendReq::try_from(code).unwrap();
            for fd in fds.into_iter().take(count) {
                // SAFETY: just received, and owned by nobody else.
                let fd = unsafe { OwnedFd::from_raw_fd(fd) };
                let _ = tell.send(Seen::Descriptor(request, fd));
            }
            let _ = tell.send(Seen::Message(request));
            let answer = match request {
                FrontendReq::GET_FEATURES => self.features.to_ne_bytes().to_vec(),
                FrontendReq::GET_PROTOCOL_FEATURES => self.protocol.bits().to_ne_bytes().to_vec(),
                FrontendReq::GET_QUEUE_NUM => self.queues.to_ne_bytes().to_vec(),
                FrontendReq::GET_VRING_BASE => body,
                FrontendReq::GET_CONFIG => self.configuration(body),
                _ if acknowledges => {
                    assert_ne!(flags & link::NEED_REPLY, 0, "{request:?}");
                    0u64.to_ne_bytes().to_vec()
                }
                _ => {
                    acknowledges |= request == FrontendReq::SET_PROTOCOL_FEATURES
                        && self.protocol.contains(Protocol::REPLY_ACK);
                    continue;
                }
            };
            let lie = self.lie.filter(|(at, _)| *at == answered).map(|(_, lie)| lie);
            answered += 1;
            if !say(&mut stream, code, answer, lie) {
                return;
            }
        }
    }

    fn configuration(&self, mut body: Vec<u8>) -> Vec<u8> {
        let size = u32::from_ne_bytes(body[4..8].try_into().unwrap()) as usize;
        if size > self.config.len() {
            // As QEMU's library does: the whole message, with a size of 0.
            body[4..8].fill(0);
        } else {
            body[12..12 + size].copy_from_slice(&self.config[..size]);
        }
        body
    }
}

/// Sends an answer, or what stands for it; whether the back-end goes on.
fn say(stream: &mut UnixStream, code: u32, mut answer: Vec<u8>, lie: Option<Lie>) -> bool {
    let mut header = [code, link::VERSION | link::REPLY, answer.len() as u32];
    match lie {
        None => {}
        Some(Lie::Closes) => return false,
        Some(Lie::Silent) => {
            let _ = stream.read(&mut [0]);
            return false;
        }
        Some(Lie::WrongId) => header[0] ^= 1,
        Some(Lie::NoReply) => header[1] &= !link::REPLY,
        Some(Lie::Version) => header[1] ^= 3,
        Some(Lie::Huge) => header[2] = u32::MAX,
        Some(Lie::Long) => {
            answer.push(0);
            header[2] += 1;
        }
        Some(Lie::Half) => {
            answer.pop();
        }
        Some(Lie::Fails) => answer.fill(0xff),
    }
    let bytes: Vec<u8> = header.iter().flat_map(|word| word.to_ne_bytes()).chain(answer).collect();
    if stream.write_all(&bytes).is_err() {
        return false;
    }
    if lie.is_some_and(|lie| lie != Lie::Fails) {
        // It keeps the connection, and says nothing more.
        let _ = stream.read(&mut [0]);
    }
    lie.is_none_or(|lie| lie == Lie::Fails)
}

fn options() -> VirtioBlkOptions {
    VirtioBlkOptions {
        queues: 2,
        queue_size: 16,
        transfer_bytes_max: 64 << 10,
        ..VirtioBlkOptions::default()
    }
}

#[test]
fn what_is_agreed_follows_from_what_is_offered() {
    let without = |part: Protocol| Backend {
        protocol: Backend::default().protocol - part,
        ..Backend::default()
    };
    for (backend, queues) in [
        (Backend::default(), 2),
        (without(Protocol::REPLY_ACK), 2),
        (without(Protocol::BACKEND_REQ), 2),
        (without(Protocol::MQ), 1),
        (Backend { queues: u64::MAX, ..Backend::default() }, 2),
    ] {
        let mut rig = Rig::new(backend, LONG);
        let mut driver = rig.probe(&options()).unwrap();
        let limits = driver.limits();
        assert_eq!((limits.queues, limits.capacity_sectors), (queues, 2048));
        assert_eq!(driver.features(), VERSION_1 | MQ);
        assert_eq!((driver.name().as_str(), driver.interface()), ("test.sock", "vhost-user"));
        driver.shutdown(rig.machine()).unwrap();
        rig.machine().quit().unwrap();
        assert!(rig.machine().obituary().is_none());
    }
}

#[test]
fn a_back_end_that_tells_no_configuration_is_refused() {
    let protocol = Protocol::MQ | Protocol::REPLY_ACK;
    let old = Backend { features: VERSION_1, ..Backend::default() };
    for backend in [Backend { protocol, ..Backend::default() }, old] {
        let error = Rig::new(backend, LONG).probe(&options()).unwrap_err();
        assert!(error.to_string().contains("VHOST_USER_PROTOCOL_F_CONFIG"), "{error}");
        assert_eq!(error.kind().exit_code(), 5);
    }
    for (bytes, works) in [(36, true), (35, false), (0, false)] {
        let config = Backend::default().config[..bytes].to_vec();
        let mut rig = Rig::new(Backend { config, ..Backend::default() }, LONG);
        match rig.probe(&options()) {
            Ok(_) => assert!(works, "{bytes}"),
            Err(error) => {
                assert!(!works && error.to_string().contains("configuration"), "{error}");
            }
        }
    }
}

/// How many answers a front-end needs until its device runs.
fn answers(backend: &Backend) -> usize {
    let mut rig = Rig::new(backend.clone(), LONG);
    drop(rig.probe(&options()).unwrap());
    let answered = |seen: &Seen| {
        !matches!(seen, Seen::Descriptor(..) | Seen::Message(FrontendReq::SET_PROTOCOL_FEATURES))
    };
    rig.seen.try_iter().filter(answered).count()
}

#[test]
fn every_lie_at_every_message_ends_the_connection_with_a_reason() {
    let honest = Backend::default();
    let count = answers(&honest);
    assert!(count > 15, "{count}");
    for lie in LIES {
        for at in 0..count {
            let backend = Backend { lie: Some((at, lie)), ..honest.clone() };
            let silent = matches!(lie, Lie::Silent | Lie::Half);
            let mut rig = Rig::new(backend, if silent { SHORT } else { LONG });
            let error = rig.probe(&options()).unwrap_err();
            assert_eq!(error.kind().exit_code(), 5, "{lie:?} at {at}: {error}");
            let text = error.to_string();
            let expected = match lie {
                Lie::Closes => "closed the connection",
                Lie::Silent | Lie::Half => "hung: no answer for",
                _ => "broke the protocol",
            };
            assert!(text.contains(expected), "{lie:?} at {at}: {text}");
            let Some(machine) = &mut rig.machine else { continue };
            let obituary = machine.obituary().unwrap();
            assert_eq!(obituary.program, "the vhost-user server at test.sock");
            assert!(obituary.last_commands.last().is_some_and(|(_, answered)| !answered));
            // It stays dead.
            assert!(
                machine.vrings().is_err() && machine.poll().is_err() && machine.quit().is_err()
            );
        }
    }
}

#[test]
fn what_is_refused_is_named_and_kills_nobody() {
    let honest = Backend::default();
    let mut refused = 0;
    for at in 0..answers(&honest) {
        let backend = Backend { lie: Some((at, Lie::Fails)), ..honest.clone() };
        let mut rig = Rig::new(backend, LONG);
        // A question that is answered with ones everywhere is another matter: features, numbers.
        if let Err(error) = rig.probe(&options())
            && error.to_string().contains("refused")
        {
            refused += 1;
            assert!(rig.machine.is_none_or(|machine| machine.obituary().is_none()));
        }
    }
    assert!(refused > 10, "{refused}");
}

#[test]
fn a_ring_that_is_broken_is_an_error_of_the_device() {
    for (used_idx, id, expected) in [
        (2u16, 0u32, "2 requests returned, 1 in flight"),
        (0x8000, 0, "32768 requests returned"),
        (1, 15, "id 15 which is not in flight"),
        (1, u32::MAX, "which is not in flight"),
    ] {
        let mut rig = Rig::new(Backend::default(), LONG);
        let mut driver = rig.probe(&options()).unwrap();
        let machine = rig.machine();
        let read = BlockRequest { op: BlockOp::Read, sector: 0, sectors: 1, unmap: false };
        let buffer = driver.buffer(512);
        driver.submit(0, 7, &read, buffer).unwrap();
        driver.kick(machine).unwrap();
        let used = driver.used_ring(0);
        let ram = machine.ram().unwrap();
        ram.write(used + 4, &id.to_le_bytes());
        ram.store_u16(used + 2, used_idx);
        let error = driver.reap(machine, &mut Vec::new()).unwrap_err();
        assert!(error.to_string().contains(expected), "{error}");
    }
}

#[test]
fn the_end_of_a_back_end_is_noticed_while_waiting() {
    for completion in [CompletionMode::Poll, CompletionMode::Interrupt] {
        let (ours, theirs) = UnixStream::pair().unwrap();
        let (tell, _seen) = channel();
        let second = theirs.try_clone().unwrap();
        std::thread::spawn(move || Backend::default().serve(second, &tell));
        let config = VhostUserConfig { ram_bytes: 8 << 20, ..VhostUserConfig::default() };
        let mut machine = VhostUserMachine::over(ours, "test.sock", &config).unwrap();
        let options = VirtioBlkOptions { completion, ..options() };
        let mut driver = VirtioBlk::probe(&mut machine, &options).unwrap();
        driver.submit(0, 1, &flushless(), None).unwrap_err();
        let read = BlockRequest { op: BlockOp::Read, sector: 0, sectors: 1, unmap: false };
        let buffer = driver.buffer(512);
        driver.submit(0, 1, &read, buffer).unwrap();
        driver.kick(&mut machine).unwrap();
        theirs.shutdown(std::net::Shutdown::Both).unwrap();
        let error = loop {
            match driver.wait(&mut machine, None) {
                Ok(()) => {}
                Err(error) => break error,
            }
        };
        assert!(error.to_string().contains("closed the connection"), "{error}");
        assert_eq!(machine.obituary().unwrap().what, End::Closed);
    }
}

/// A request that the device does not offer.
fn flushless() -> BlockRequest {
    BlockRequest { op: BlockOp::Flush, sector: 0, sectors: 0, unmap: false }
}

#[test]
fn a_ring_error_is_told_as_the_need_of_a_reset() {
    let mut rig = Rig::new(Backend::default(), LONG);
    let mut driver = rig.probe(&options()).unwrap();
    let error = rig.descriptor(FrontendReq::SET_VRING_ERR);
    // SAFETY: an eventfd that this process owns.
    let event = unsafe { EventFd::from_raw_fd(std::os::fd::IntoRawFd::into_raw_fd(error)) };
    event.write(1).unwrap();
    let status = rig.machine().vrings().unwrap().status(0).unwrap();
    assert_eq!(status & 64, 64, "DEVICE_NEEDS_RESET");
    driver.shutdown(rig.machine()).unwrap();
    let again = rig.probe(&options()).unwrap();
    assert_eq!(again.limits().queues, 2);
}

#[test]
fn changes_of_the_configuration_are_counted_whatever_else_comes() {
    let message = |code: u32, flags: u32, body: &[u8]| {
        let header = [code, link::VERSION | flags, body.len() as u32];
        let bytes = header.iter().flat_map(|word| word.to_ne_bytes());
        bytes.chain(body.iter().copied()).collect::<Vec<u8>>()
    };
    let mut rig = Rig::new(Backend::default(), LONG);
    let theirs = rig.descriptor(FrontendReq::SET_BACKEND_REQ_FD);
    let mut theirs = UnixStream::from(theirs);
    let generation = |rig: &mut Rig| rig.machine().vrings().unwrap().config_generation(0).unwrap();
    assert_eq!(generation(&mut rig), 0);
    // In two pieces, one that wants an answer, and one that is not known.
    let change = message(2, 0, &[]);
    theirs.write_all(&change[..5]).unwrap();
    assert_eq!(generation(&mut rig), 0);
    theirs.write_all(&change[5..]).unwrap();
    theirs.write_all(&message(2, link::NEED_REPLY, &[])).unwrap();
    theirs.write_all(&message(77, link::NEED_REPLY, &[1, 2, 3])).unwrap();
    assert_eq!(generation(&mut rig), 2);
    let mut answers = [0; 40];
    theirs.read_exact(&mut answers).unwrap();
    assert_eq!((answers[12], answers[32]), (0, 1), "done, and not known");
    // More than a message has: the channel is closed, the device goes on.
    theirs.write_all(&message(2, 0, &[])).unwrap();
    let header = [2, link::VERSION, u32::MAX].map(u32::to_ne_bytes).concat();
    theirs.write_all(&header).unwrap();
    theirs.write_all(&message(2, 0, &[])).unwrap();
    assert_eq!(generation(&mut rig), 3);
    assert!(rig.probe(&options()).is_ok());
}

#[test]
fn a_machine_of_vrings_has_no_bus() {
    let mut rig = Rig::new(Backend::default(), LONG);
    let machine = rig.machine();
    let has = machine.capabilities();
    assert!(has.contains(Capabilities::VRINGS | Capabilities::MEMORY));
    assert!(!has.intersects(Capabilities::PIO | Capabilities::MMIO | Capabilities::RESIZE));
    assert!(machine.bus().is_err() && machine.interrupts().is_err());
    assert!(machine.resize_disk(0, 512).is_err());
    let vrings = machine.vrings().unwrap();
    assert!(vrings.features(1).is_err() && vrings.call(0, 2).is_err());
    assert!(vrings.config(0, 255, &mut [0; 2]).is_err());
    assert!(vrings.config(0, u64::MAX, &mut [0; 2]).is_err());
    let vring = crate::machine::Vring {
        size: 16,
        desc: GuestAddr(0),
        avail: GuestAddr(4096),
        used: GuestAddr(8192),
    };
    assert!(vrings.set_vring(0, 2, &vring).is_err());
}
