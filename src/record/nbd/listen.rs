//! Where the server listens: a Unix socket of one's own, or TCP on the loopback unless told
//! otherwise.

use std::io;
use std::net::{SocketAddr, TcpListener, ToSocketAddrs};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};

use nix::sys::socket::{
    AddressFamily, Backlog, SockFlag, SockType, UnixAddr, bind, listen, socket,
};

use super::private_folder::PrivateFolder;
use super::stream::Stream;
use crate::base::error::IoContext;
use crate::base::{Error, Result};

/// Connections that wait to be accepted.
const BACKLOG: i32 = 128;

/// Who may connect: nobody but the user.
const SOCKET_MODE: u32 = 0o600;

/// Where to listen.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Listen {
    /// On a Unix socket in a folder of our own.
    #[default]
    Private,
    /// On a Unix socket of this name.
    Socket(PathBuf),
    /// On TCP: `HOST:PORT`, `:PORT` for the loopback; port 0 takes a free one.
    Tcp(String),
}

enum Socket {
    Unix { listener: UnixListener, path: PathBuf, inode: (u64, u64) },
    Tcp { listener: TcpListener, address: SocketAddr },
}

/// A listening socket. Its name is removed with it.
pub(crate) struct Listener {
    socket: Socket,
    /// Goes after the socket in it.
    _folder: Option<PrivateFolder>,
}

impl Listener {
    pub(crate) fn new(listen: &Listen) -> Result<Self> {
        match listen {
            Listen::Private => {
                let folder = PrivateFolder::new()
                    .writing(std::env::temp_dir(), "cannot make a folder for the socket")?;
                let socket = unix(&folder.socket())?;
                Ok(Self { socket, _folder: Some(folder) })
            }
            Listen::Socket(path) => Ok(Self { socket: unix(path)?, _folder: None }),
            Listen::Tcp(address) => Ok(Self { socket: tcp(address)?, _folder: None }),
        }
    }

    /// The next connection; `WouldBlock` when there is none.
    pub(super) fn accept(&self) -> io::Result<Stream> {
        Ok(match &self.socket {
            Socket::Unix { listener, .. } => Stream::Unix(listener.accept()?.0),
            Socket::Tcp { listener, .. } => Stream::Tcp(listener.accept()?.0),
        })
    }

    /// Another handle of the Unix socket, for a protocol of that kind only.
    pub(crate) fn unix(&self) -> Result<UnixListener> {
        match &self.socket {
            Socket::Unix { listener, path, .. } => {
                listener.try_clone().writing(path, "cannot share the socket")
            }
            Socket::Tcp { address, .. } => {
                Err(Error::usage(format!("{address} is no Unix socket")))
            }
        }
    }

    /// The name of the Unix socket.
    pub(crate) fn socket(&self) -> Option<&Path> {
        match &self.socket {
            Socket::Unix { path, .. } => Some(path),
            Socket::Tcp { .. } => None,
        }
    }

    /// The address, where it is not of this machine only.
    pub(super) fn exposed(&self) -> Option<SocketAddr> {
        match &self.socket {
            Socket::Tcp { address, .. } if !address.ip().is_loopback() => Some(*address),
            _ => None,
        }
    }

    /// The URI of export `name` (NetworkBlockDevice/nbd `doc/uri.md`).
    pub(super) fn uri(&self, name: &str) -> String {
        let name = percent(name.as_bytes(), b"");
        match &self.socket {
            Socket::Unix { path, .. } => {
                format!("nbd+unix:///{name}?socket={}", percent(path.as_os_str().as_bytes(), b"/"))
            }
            Socket::Tcp { address, .. } => format!("nbd://{address}/{name}"),
        }
    }
}

impl AsFd for Listener {
    fn as_fd(&self) -> BorrowedFd<'_> {
        match &self.socket {
            Socket::Unix { listener, .. } => listener.as_fd(),
            Socket::Tcp { listener, .. } => listener.as_fd(),
        }
    }
}

impl Drop for Listener {
    fn drop(&mut self) {
        if let Socket::Unix { path, inode, .. } = &self.socket
            && std::fs::symlink_metadata(path).is_ok_and(|meta| (meta.dev(), meta.ino()) == *inode)
        {
            let _ = std::fs::remove_file(path);
        }
    }
}

fn unix(path: &Path) -> Result<Socket> {
    const WHAT: &str = "cannot listen on the socket";
    let path = std::path::absolute(path).writing(path, WHAT)?;
    let address = UnixAddr::new(&path).map_err(|_| {
        Error::usage("the name of a Unix socket has at most 107 bytes")
            .path(&path)
            .hint("name one in a folder nearer to /")
    })?;
    make_room(&path)?;
    let made = || {
        let socket = socket(AddressFamily::Unix, SockType::Stream, SockFlag::SOCK_CLOEXEC, None)?;
        // Before it has a name: Linux gives the name these permissions, so that there is no moment
        // at which others may connect.
        let mode = nix::sys::stat::Mode::from_bits_truncate(SOCKET_MODE);
        nix::sys::stat::fchmod(&socket, mode)?;
        bind(socket.as_raw_fd(), &address)?;
        listen(&socket, Backlog::new(BACKLOG)?)?;
        Ok(socket)
    };
    let refused = |e: nix::Error| Error::usage(WHAT).path(&path).source(io::Error::from(e));
    let socket = made().map_err(refused)?;
    let listener = UnixListener::from(socket);
    listener.set_nonblocking(true).writing(&path, WHAT)?;
    let meta = std::fs::symlink_metadata(&path).writing(&path, WHAT)?;
    Ok(Socket::Unix { listener, inode: (meta.dev(), meta.ino()), path })
}

/// Removes a socket on which nobody listens any more: what a server that was killed leaves.
fn make_room(path: &Path) -> Result<()> {
    let Ok(meta) = std::fs::symlink_metadata(path) else { return Ok(()) };
    if !meta.file_type().is_socket() {
        return Err(Error::usage("exists and is no socket").path(path));
    }
    match UnixStream::connect(path) {
        Err(e) if e.kind() == io::ErrorKind::ConnectionRefused => {
            std::fs::remove_file(path).writing(path, "cannot remove an unused socket")
        }
        _ => Err(Error::usage("another program listens on this socket").path(path)),
    }
}

fn tcp(text: &str) -> Result<Socket> {
    let (host, port) = text.rsplit_once(':').unwrap_or(("", text));
    let bad = || {
        Error::usage(format!("'{text}' is no address to listen on"))
            .hint("give HOST:PORT; :PORT is the loopback, port 0 a free one")
    };
    let port: u16 = port.parse().map_err(|_| bad())?;
    let host = host.trim_start_matches('[').trim_end_matches(']');
    let host = if host.is_empty() { "127.0.0.1" } else { host };
    let mut addresses = (host, port).to_socket_addrs().map_err(|e| bad().source(e))?;
    let address = addresses.next().ok_or_else(bad)?;
    let listener = TcpListener::bind(address)
        .and_then(|listener| listener.set_nonblocking(true).map(|()| listener))
        .map_err(|e| Error::usage(format!("cannot listen on {address}")).source(e))?;
    let address = listener.local_addr().unwrap_or(address);
    Ok(Socket::Tcp { listener, address })
}

/// Percent-encodes all but what URIs leave as it is (RFC 3986 §2.3), and `more`.
fn percent(bytes: &[u8], more: &[u8]) -> String {
    let plain =
        |byte: u8| byte.is_ascii_alphanumeric() || b"-._~".contains(&byte) || more.contains(&byte);
    let one = |byte: &u8| match plain(*byte) {
        true => char::from(*byte).to_string(),
        false => format!("%{byte:02X}"),
    };
    bytes.iter().map(one).collect()
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    #[test]
    fn a_socket_is_the_users_alone_and_goes_with_its_server() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("a b.sock");
        let listener = Listener::new(&Listen::Socket(path.clone())).unwrap();
        let mode = std::fs::metadata(&path).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, SOCKET_MODE);
        assert!(listener.uri("x y").starts_with("nbd+unix:///x%20y?socket=/"));
        assert!(listener.uri("").ends_with("/a%20b.sock"));
        let second = Listener::new(&Listen::Socket(path.clone())).map(|_| ()).unwrap_err();
        assert!(second.to_string().contains("listens"), "{second}");
        drop(listener);
        assert!(!path.exists());
    }

    #[test]
    fn what_a_killed_server_left_is_replaced_and_nothing_else_is() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("s");
        drop(UnixListener::bind(&path).unwrap());
        assert!(path.exists());
        drop(Listener::new(&Listen::Socket(path.clone())).unwrap());
        std::fs::write(&path, b"mine").unwrap();
        assert!(Listener::new(&Listen::Socket(path.clone())).is_err());
        assert_eq!(std::fs::read(&path).unwrap(), b"mine");
        for path in [dir.path().join("missing/s"), PathBuf::from("/proc/s")] {
            let error = Listener::new(&Listen::Socket(path)).map(|_| ()).unwrap_err();
            assert_eq!(error.kind().exit_code(), 2, "{error}");
        }
        let long = dir.path().join("n".repeat(200));
        assert!(Listener::new(&Listen::Socket(long)).is_err());
    }

    #[test]
    fn tcp_is_of_this_machine_unless_told_otherwise() {
        for text in [":0", "0", "127.0.0.1:0", "localhost:0"] {
            let listener = Listener::new(&Listen::Tcp(text.into())).unwrap();
            assert_eq!(listener.exposed(), None, "{text}");
        }
        let open = Listener::new(&Listen::Tcp("0.0.0.0:0".into())).unwrap();
        assert!(open.exposed().is_some() && open.uri("").starts_with("nbd://0.0.0.0:"));
        for text in ["", "host", ":99999", "127.0.0.1:x"] {
            assert!(Listener::new(&Listen::Tcp(text.into())).is_err(), "{text}");
        }
    }
}
