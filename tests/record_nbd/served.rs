//! A server in this process, with an image of memory and a recording behind it.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use qtrace::image::{self, Image};
use qtrace::record::nbd::{Counts, Export, ExportOptions, Listen, Server, header};
use qtrace::record::recording::{Options, Recording};
use qtrace::trace::{StreamInfo, Trace};

/// Bytes of the disk.
pub const SIZE: u64 = 64 << 20;

pub struct Served {
    pub dir: tempfile::TempDir,
    pub socket: PathBuf,
    server: Server,
    recording: Recording,
}

impl Served {
    pub fn new() -> Self {
        Self::of(image::mem(SIZE))
    }

    pub fn of(image: Arc<dyn Image>) -> Self {
        let dir = tempfile::tempdir().expect("a folder");
        let socket = dir.path().join("s");
        let path = dir.path().join("t.qtrace");
        let recording = Recording::start(&path, header("mem", "mem", true), &Options::default())
            .expect("starts");
        let info = StreamInfo { device_bytes: Some(image.size()), ..StreamInfo::default() };
        let options = ExportOptions { name: String::new(), read_data: true };
        let export = Export::new(Arc::clone(&image), recording.stream(info), &options);
        let server = Server::start(export, &Listen::Socket(socket.clone())).expect("serves");
        Self { dir, socket, server, recording }
    }

    pub fn socket(&self) -> &Path {
        &self.socket
    }

    /// Ends it: what the server counted, and the trace, in which every request has an answer.
    pub fn end(self) -> (Counts, Trace) {
        let Self { dir, socket, server, recording } = self;
        let counts = server.stop().expect("stops");
        recording.finish().expect("recorded");
        assert!(!socket.exists());
        let trace = Trace::open(&dir.path().join("t.qtrace")).expect("opens");
        assert_eq!(trace.truncation(), None);
        let totals = trace.totals()[0];
        assert_eq!(totals.issues.iter().sum::<u64>(), totals.completes);
        (counts, trace)
    }
}
