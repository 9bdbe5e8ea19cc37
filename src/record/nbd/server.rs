//! The server: its connections, and their end.

use std::io;
use std::net::SocketAddr;
use std::os::fd::{AsFd, BorrowedFd};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::eventfd::{EfdFlags, EventFd};

use super::buffers::{Budget, Pool};
use super::connection::Connection;
use super::export::Export;
use super::handshake::{Shaken, shake};
use super::listen::{Listen, Listener};
use super::stream::{Stream, Timed};
use super::workers::Workers;
use crate::base::error::IoContext;
use crate::base::{Error, Result};

/// Connections at once: each has a thread and some descriptors. QEMU opens one, nbdcopy four.
const CONNECTIONS_MAX: usize = 256;

/// Data that all connections together hold.
const HELD_BYTES_MAX: usize = 256 << 20;

/// How long a handshake may take.
const HANDSHAKE_PATIENCE: Duration = Duration::from_secs(30);

/// A client that keeps memory from others and does not go on for so long is let go.
const STUCK: Duration = Duration::from_secs(5);

/// How long to wait when there are no more descriptors.
const PAUSE_MS: u16 = 100;

/// Stack of a connection's thread: it calls the image, whose formats recurse little.
const STACK_BYTES: usize = 512 << 10;

/// What a server has seen.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// Connections that were accepted.
    pub connections: u64,
    /// Connections that were closed because of what came on them, or did not.
    pub broken: u64,
    /// Requests that were refused, and so are not in the trace.
    pub refused: u64,
    /// Block status and cache requests, which are not in the trace either.
    pub unsaid: u64,
    /// Requests that the image could not do; they are in the trace.
    pub failed: u64,
    /// Of the broken connections, those that were one too many.
    pub turned_away: u64,
}

/// A connection, for those outside its thread.
#[derive(Debug)]
pub(super) struct Peer {
    pub(super) number: u64,
    stream: Stream,
    shakes: AtomicBool,
    /// Since when it has waited for its client in vain, and what it holds meanwhile.
    stuck: Mutex<(Option<Instant>, usize)>,
}

impl Peer {
    /// The connection waits for its client, which last did something at `since`.
    pub(super) fn wait_on_client(&self, since: Option<Instant>, held: usize) {
        *self.stuck.lock().unwrap_or_else(PoisonError::into_inner) = (since, held);
    }

    fn is_stuck(&self) -> bool {
        let (since, held) = *self.stuck.lock().unwrap_or_else(PoisonError::into_inner);
        held > 0 && since.is_some_and(|since| since.elapsed() > STUCK)
    }
}

/// What all connections share.
pub(super) struct Shared {
    pub(super) export: Arc<Export>,
    pub(super) workers: Arc<Workers>,
    pub(super) pool: Arc<Pool>,
    pub(super) budget: Budget,
    /// Since when it is to end.
    stopping: OnceLock<Instant>,
    stop: EventFd,
    peers: Mutex<Vec<Arc<Peer>>>,
    connections: AtomicU64,
}

impl Shared {
    pub(super) fn is_stopping(&self) -> bool {
        self.stopped_at().is_some()
    }

    /// Since when the server is to end.
    pub(super) fn stopped_at(&self) -> Option<Instant> {
        self.stopping.get().copied()
    }

    /// Readable when the server is to end, and from then on.
    pub(super) fn stop_fd(&self) -> BorrowedFd<'_> {
        self.stop.as_fd()
    }

    fn peers(&self) -> MutexGuard<'_, Vec<Arc<Peer>>> {
        self.peers.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// There is no memory left: lets a client go that holds some and does nothing.
    pub(super) fn end_a_stuck_peer(&self, but: u64) {
        let peers = self.peers();
        if let Some(peer) = peers.iter().find(|peer| peer.number != but && peer.is_stuck()) {
            peer.stream.shutdown();
        }
    }

    /// Makes room for one more connection, if one is still shaking hands: the oldest goes.
    fn make_room(&self) -> bool {
        let peers = self.peers();
        if peers.len() < CONNECTIONS_MAX {
            return true;
        }
        let oldest = peers.iter().find(|peer| peer.shakes.swap(false, Ordering::AcqRel));
        if let Some(peer) = oldest {
            peer.stream.shutdown();
        }
        oldest.is_some()
    }

    fn stop(&self) {
        self.stopping.get_or_init(Instant::now);
        let _ = self.stop.write(1);
        for peer in self.peers().iter().filter(|peer| peer.shakes.load(Ordering::Acquire)) {
            peer.stream.shutdown();
        }
    }
}

/// A running server.
pub struct Server {
    shared: Arc<Shared>,
    acceptor: Option<JoinHandle<()>>,
    uri: String,
    socket: Option<PathBuf>,
    exposed: Option<SocketAddr>,
}

impl Server {
    /// Serves `export`.
    ///
    /// # Errors
    /// `Usage` when there is nothing to listen on, `Incomplete` when there are no threads.
    pub fn start(export: Export, listen: &Listen) -> Result<Self> {
        let listener = Listener::new(listen)?;
        let uri = listener.uri(&export.name);
        let socket = listener.socket().map(Path::to_path_buf);
        let exposed = listener.exposed();
        allow_descriptors();
        let flags = EfdFlags::EFD_CLOEXEC | EfdFlags::EFD_NONBLOCK;
        let stop = EventFd::from_flags(flags).map_err(io::Error::from);
        let shared = Arc::new(Shared {
            workers: Arc::new(Workers::new(Arc::clone(&export.image))),
            export: Arc::new(export),
            pool: Arc::default(),
            budget: Budget::new(HELD_BYTES_MAX),
            stopping: OnceLock::new(),
            stop: stop.writing("", "cannot make an eventfd")?,
            peers: Mutex::default(),
            connections: AtomicU64::new(0),
        });
        let work = Arc::clone(&shared);
        let acceptor = std::thread::Builder::new()
            .name("nbd-accept".to_owned())
            .spawn(move || accept_all(&listener, &work))
            .map_err(|e| Error::incomplete("no thread for the server").source(e))?;
        Ok(Self { shared, acceptor: Some(acceptor), uri, socket, exposed })
    }

    /// Where it is: `nbd+unix:///?socket=…`, `nbd://127.0.0.1:10809/`.
    pub fn uri(&self) -> &str {
        &self.uri
    }

    /// Its Unix socket.
    pub fn socket(&self) -> Option<&Path> {
        self.socket.as_deref()
    }

    /// Its address, if others than this machine can reach it.
    pub fn exposed(&self) -> Option<SocketAddr> {
        self.exposed
    }

    /// Takes no more connections, answers what has been asked, ends those that are there, and has
    /// the image written.
    ///
    /// # Errors
    /// `Incomplete` when the image cannot be flushed.
    pub fn stop(mut self) -> Result<Counts> {
        self.end();
        let export = &self.shared.export;
        if !export.read_only {
            let path = &export.image.info().path;
            export.image.flush().writing(path, "cannot flush the image")?;
        }
        Ok(Counts {
            connections: self.shared.connections.load(Ordering::Relaxed),
            broken: export.broken.load(Ordering::Relaxed),
            refused: export.refused.load(Ordering::Relaxed),
            unsaid: export.unsaid.load(Ordering::Relaxed),
            failed: export.failed.load(Ordering::Relaxed),
            turned_away: export.turned_away.load(Ordering::Relaxed),
        })
    }

    fn end(&mut self) {
        self.shared.stop();
        if let Some(acceptor) = self.acceptor.take() {
            let _ = acceptor.join();
        }
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.end();
    }
}

/// As many descriptors as we may have: each connection takes a few.
fn allow_descriptors() {
    use nix::sys::resource::{Resource, getrlimit, setrlimit};
    if let Ok((_, hard)) = getrlimit(Resource::RLIMIT_NOFILE) {
        let _ = setrlimit(Resource::RLIMIT_NOFILE, hard, hard);
    }
}

fn accept_all(listener: &Listener, shared: &Arc<Shared>) {
    let mut threads: Vec<JoinHandle<()>> = Vec::new();
    while !shared.is_stopping() {
        match listener.accept() {
            Ok(stream) => {
                threads.retain(|thread| !thread.is_finished());
                threads.extend(connect(stream, shared));
            }
            Err(e) if e.kind() == io::ErrorKind::WouldBlock => {
                let mut fds = [
                    PollFd::new(listener.as_fd(), PollFlags::POLLIN),
                    PollFd::new(shared.stop_fd(), PollFlags::POLLIN),
                ];
                let _ = poll(&mut fds, PollTimeout::NONE);
            }
            // The client is gone again, or there are no descriptors just now.
            Err(_) => {
                let mut fds = [PollFd::new(shared.stop_fd(), PollFlags::POLLIN)];
                let _ = poll(&mut fds, PollTimeout::from(PAUSE_MS));
            }
        }
    }
    for thread in threads {
        let _ = thread.join();
    }
}

/// Gives a connection its thread; one too many is closed.
fn connect(stream: Stream, shared: &Arc<Shared>) -> Option<JoinHandle<()>> {
    let number = shared.connections.fetch_add(1, Ordering::Relaxed);
    if !shared.make_room() {
        shared.export.broken.fetch_add(1, Ordering::Relaxed);
        if shared.export.turned_away.fetch_add(1, Ordering::Relaxed) == 0 {
            tracing::warn!("a client was turned away: {CONNECTIONS_MAX} connections are there");
        }
        return None;
    }
    let peer = Arc::new(Peer {
        number,
        stream: stream.try_clone().ok()?,
        shakes: AtomicBool::new(true),
        stuck: Mutex::default(),
    });
    shared.peers().push(Arc::clone(&peer));
    let (work, who) = (Arc::clone(shared), Arc::clone(&peer));
    let thread = std::thread::Builder::new()
        .name(format!("nbd-{number}"))
        .stack_size(STACK_BYTES)
        .spawn(move || converse(stream, &work, &who));
    if thread.is_err() {
        shared.peers().retain(|known| known.number != number);
    }
    thread.ok()
}

fn converse(stream: Stream, shared: &Arc<Shared>, peer: &Arc<Peer>) {
    if let Err(error) = serve(stream, shared, peer) {
        shared.export.broken.fetch_add(1, Ordering::Relaxed);
        tracing::info!(connection = peer.number, "closed: {error}");
    }
    shared.peers().retain(|known| known.number != peer.number);
}

fn serve(mut stream: Stream, shared: &Arc<Shared>, peer: &Arc<Peer>) -> io::Result<()> {
    stream.tune();
    let shaken = shake(&mut Timed::new(&mut stream, HANDSHAKE_PATIENCE), &shared.export);
    if !peer.shakes.swap(false, Ordering::AcqRel) {
        // It was told to go meanwhile.
        return Err(io::ErrorKind::TimedOut.into());
    }
    match shaken? {
        Shaken::Aborted => Ok(()),
        Shaken::Go(agreed) => {
            Connection::new(Arc::clone(shared), Arc::clone(peer), stream, agreed)?.serve()
        }
    }
}
