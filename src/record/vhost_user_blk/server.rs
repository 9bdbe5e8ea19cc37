//! Who listens: one front-end after the other, as a device has one driver. Whoever else connects
//! waits until the one before has gone.

use std::fs::File;
use std::io;
use std::os::fd::{AsFd, AsRawFd, FromRawFd};
use std::os::unix::net::{UnixListener, UnixStream};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, channel};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use vhost::vhost_user::BackendReqHandler;
use vhost::vhost_user::message::VhostUserProtocolFeatures;
use vmm_sys_util::sock_ctrl_msg::ScmSocket;

use super::backend::Backend;
use super::news::News;
use crate::base::{Error, Result};
use crate::image::Image;
use crate::machine::IrqEvent;

/// Bytes of a message's header: request, flags, size of what follows.
const HEADER_BYTES: usize = 12;
/// VHOST_USER_SET_BACKEND_REQ_FD.
const SET_BACKEND_REQ_FD: u32 = 21;
/// Flags of a message.
const VERSION: u32 = 0x1;
const REPLY: u32 = 0x4;
const NEED_REPLY: u32 = 0x8;

/// How long the end of the thread is waited for.
const END_PATIENCE: Duration = Duration::from_secs(10);

/// Milliseconds from a front-end that could not be taken to the next attempt.
const ACCEPT_AGAIN_MS: u16 = 100;

struct Shared {
    backend: Arc<Mutex<Backend>>,
    news: Arc<News>,
    stop: AtomicBool,
    wake: IrqEvent,
    sessions: AtomicU64,
}

/// A device that waits for front-ends.
pub struct Server {
    shared: Arc<Shared>,
    ended: Mutex<Receiver<()>>,
}

impl Server {
    /// Begins to take front-ends that connect to `listener`.
    ///
    /// # Errors
    /// There is no thread.
    pub fn start(listener: UnixListener, backend: Backend) -> Result<Self> {
        let fail = |e: io::Error| Error::machine("cannot serve front-ends").source(e);
        let shared = Arc::new(Shared {
            news: Arc::clone(&backend.news),
            backend: Arc::new(Mutex::new(backend)),
            stop: AtomicBool::new(false),
            wake: IrqEvent::new().map_err(fail)?,
            sessions: AtomicU64::new(0),
        });
        listener.set_nonblocking(true).map_err(fail)?;
        let (end, ended) = channel();
        let for_thread = Arc::clone(&shared);
        std::thread::Builder::new()
            .name("vhost-user".to_owned())
            .spawn(move || {
                for_thread.run(&listener);
                // Whoever waits for the end has all of it alone then.
                drop(for_thread);
                drop(end);
            })
            .map_err(fail)?;
        Ok(Self { shared, ended: Mutex::new(ended) })
    }

    /// Front-ends so far.
    pub fn sessions(&self) -> u64 {
        self.shared.sessions.load(Ordering::Relaxed)
    }

    /// Opens the image again by `open`, its size having changed, and tells the front-end.
    ///
    /// # Errors
    /// Those of `open`.
    pub fn reopen(&self, open: &dyn Fn() -> Result<Arc<dyn Image>>) -> Result<()> {
        self.shared.lock().reopen(open)
    }

    /// Sends the front-end away, with every request answered that was begun. What happened.
    pub fn stop(self) -> Vec<String> {
        self.shared.stop.store(true, Ordering::Release);
        self.shared.wake.signal();
        self.shared.news.hang_up();
        let timeout = std::sync::mpsc::RecvTimeoutError::Timeout;
        let ended = self.ended.into_inner().unwrap_or_else(PoisonError::into_inner);
        if ended.recv_timeout(END_PATIENCE) == Err(timeout) {
            self.shared.news.say("the front-end does not let go".to_owned());
            return self.shared.news.take();
        }
        let refused = self.shared.lock().disk.refused.load(Ordering::Relaxed);
        let mut news = self.shared.news.take();
        if refused > 0 {
            news.push(format!("{refused} requests were refused, and are not recorded"));
        }
        news
    }
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, Backend> {
        self.backend.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn run(&self, listener: &UnixListener) {
        while !self.stop.load(Ordering::Acquire) {
            let mut fds =
                [listener.as_fd(), self.wake.fd()].map(|fd| PollFd::new(fd, PollFlags::POLLIN));
            match poll(&mut fds, PollTimeout::NONE) {
                Ok(_) | Err(nix::errno::Errno::EINTR) => {}
                Err(error) => return self.news.say(format!("cannot wait: {error}")),
            }
            match listener.accept() {
                Ok((stream, _)) => self.session(stream),
                Err(e) if e.kind() == io::ErrorKind::WouldBlock => {}
                Err(error) => {
                    // Out of descriptors, say: the next attempt, a while from now, may find some.
                    self.news.say(format!("a front-end was not taken: {error}"));
                    let mut wake = [PollFd::new(self.wake.fd(), PollFlags::POLLIN)];
                    let _ = poll(&mut wake, ACCEPT_AGAIN_MS);
                }
            }
        }
    }

    fn session(&self, stream: UnixStream) {
        self.sessions.fetch_add(1, Ordering::Relaxed);
        let served = stream.set_nonblocking(false).and_then(|()| {
            self.news.set_session(Some(stream.try_clone()?));
            // It may have been raised before there was anything to hang up.
            match self.stop.load(Ordering::Acquire) {
                true => Ok(()),
                false => self.serve(&stream),
            }
        });
        self.news.set_session(None);
        self.lock().end_session();
        if let Err(error) = served
            && !self.stop.load(Ordering::Acquire)
        {
            self.news.say(format!("a front-end was sent away: {error}"));
        }
    }

    /// Answers messages until the front-end leaves.
    fn serve(&self, stream: &UnixStream) -> io::Result<()> {
        let ours = stream.try_clone()?;
        let mut requests = BackendReqHandler::from_stream(ours, Arc::clone(&self.backend));
        while let Some(request) = peek(stream)? {
            if request == SET_BACKEND_REQ_FD {
                self.take_channel(stream)?;
                continue;
            }
            requests.handle_request().map_err(io::Error::other)?;
        }
        Ok(())
    }

    /// VHOST_USER_SET_BACKEND_REQ_FD. The crate's channel cannot say that the configuration has
    /// changed, so that the descriptor is taken before the crate sees it.
    fn take_channel(&self, stream: &UnixStream) -> io::Result<()> {
        let bad = |what: &str| io::Error::new(io::ErrorKind::InvalidData, what.to_owned());
        let mut header = [0u8; HEADER_BYTES];
        let mut iov = [libc::iovec { iov_base: header.as_mut_ptr().cast(), iov_len: HEADER_BYTES }];
        let mut fds = [-1; 4];
        // SAFETY: one buffer of the length that it says, which outlives the call.
        let received = unsafe { stream.recv_with_fds(&mut iov, &mut fds) };
        let (len, count) = received.map_err(io::Error::other)?;
        // SAFETY: the kernel has just given us these descriptors, and nobody else has them.
        let mut files: Vec<File> =
            fds.iter().take(count).map(|fd| unsafe { File::from_raw_fd(*fd) }).collect();
        let [_, flags, size] = words(&header);
        if len != HEADER_BYTES || size != 0 || files.len() != 1 || flags & 3 != VERSION {
            return Err(bad("SET_BACKEND_REQ_FD is not as it should be"));
        }
        let mut backend = self.lock();
        let chosen = VhostUserProtocolFeatures::from_bits_truncate(backend.protocol_features);
        if !chosen.contains(VhostUserProtocolFeatures::BACKEND_REQ) {
            return Err(bad("SET_BACKEND_REQ_FD was not negotiated"));
        }
        if let Some(file) = files.pop() {
            backend.set_channel(UnixStream::from(std::os::fd::OwnedFd::from(file)));
        }
        drop(backend);
        if flags & NEED_REPLY != 0 && chosen.contains(VhostUserProtocolFeatures::REPLY_ACK) {
            reply(stream, SET_BACKEND_REQ_FD, 0)?;
        }
        Ok(())
    }
}

fn words(header: &[u8; HEADER_BYTES]) -> [u32; 3] {
    let [a, b, c, d, e, f, g, h, i, j, k, l] = *header;
    [[a, b, c, d], [e, f, g, h], [i, j, k, l]].map(u32::from_ne_bytes)
}

/// The request whose message comes next; `None` when there is none to come.
fn peek(stream: &UnixStream) -> io::Result<Option<u32>> {
    let mut header = [0u8; HEADER_BYTES];
    loop {
        let flags = libc::MSG_PEEK | libc::MSG_WAITALL;
        // SAFETY: a buffer of this length; the socket is open as long as `stream`.
        let got = unsafe {
            libc::recv(stream.as_raw_fd(), header.as_mut_ptr().cast(), HEADER_BYTES, flags)
        };
        return match got {
            0 => Ok(None),
            got if got == HEADER_BYTES as isize => Ok(Some(words(&header)[0])),
            got if got > 0 => Err(io::ErrorKind::UnexpectedEof.into()),
            _ => match io::Error::last_os_error() {
                e if e.kind() == io::ErrorKind::Interrupted => continue,
                e if e.kind() == io::ErrorKind::ConnectionReset => Ok(None),
                e => Err(e),
            },
        };
    }
}

fn reply(mut stream: &UnixStream, request: u32, value: u64) -> io::Result<()> {
    let mut message = Vec::with_capacity(HEADER_BYTES + 8);
    for word in [request, VERSION | REPLY, 8] {
        message.extend_from_slice(&word.to_ne_bytes());
    }
    message.extend_from_slice(&value.to_ne_bytes());
    io::Write::write_all(&mut stream, &message)
}
