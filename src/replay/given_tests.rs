//! A replay on a machine that opens its disk itself, without one: the builtin machine does so here,
//! knowing nothing of the image but its description, and dies when it is told to.

use std::collections::BTreeMap;
use std::os::fd::BorrowedFd;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::options::Config;
use super::session::{exit_code, run};
use crate::base::options::{OptionSpec, Options};
use crate::base::{BlockOp, Clock, Error, HostClock, Nanos, OpFlags, Result};
use crate::image::given::GivenImage;
use crate::image::{self, Image, OpenOptions};
use crate::machine::builtin::{BuiltinConfig, BuiltinMachine, DiskConfig};
use crate::machine::obituary::End;
use crate::machine::{Bus, Capabilities, GuestRam, Interrupts, Machine, Obituary};
use crate::oracle::FindingKind;
use crate::report::{Report, json, text};
use crate::suite::machines::{MachineChoice, MachineKind, TestMachine};
use crate::suite::one_disk::{DiskImage, DiskMachine, ImageHolder, OneDisk};
use crate::suite::setup::MachineSetup;
use crate::trace::{
    Event, Issue, PayloadRef, StreamId, StreamInfo, TraceHeader, TraceSummary, TraceWriter,
};

const DISK_BYTES: u64 = 1 << 20;

/// The image as its description has it.
fn open(given: &GivenImage) -> Result<Arc<dyn Image>> {
    let text = |value: &serde_json::Value| value.as_str().unwrap().to_owned();
    let node = &given.node;
    if node["driver"] == "null-co" {
        return Ok(image::null(node["size"].as_u64().unwrap()));
    }
    assert_eq!(node["read-only"], false);
    assert!(node["backing"].is_null() && given.files.len() == 1);
    let path = PathBuf::from(text(&node["file"]["filename"]));
    assert_eq!(path, given.files[0].path());
    let format = Some(text(&node["driver"]));
    image::open(&path, &OpenOptions { format, writable: true, ..OpenOptions::default() })
}

/// When the machine dies.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Dies {
    Never,
    /// At this use of its bus.
    AtBus(u32),
    AtQuit,
}

struct Kind(Dies);

static LIVES: Kind = Kind(Dies::Never);
static DIES_AT_ONCE: Kind = Kind(Dies::AtBus(1));
static DIES_IN_THE_MIDDLE: Kind = Kind(Dies::AtBus(80));
static DIES_AT_QUIT: Kind = Kind(Dies::AtQuit);

impl MachineKind for Kind {
    fn name(&self) -> &'static str {
        "other"
    }
    fn purpose(&self) -> &'static str {
        "opens its disk itself"
    }
    fn options(&self) -> &'static [OptionSpec] {
        &[]
    }
    fn check(&self, _options: &Options) -> Result<()> {
        Ok(())
    }
    fn build(&self, _options: &Options, _setup: &MachineSetup) -> Result<TestMachine> {
        Err(Error::machine("only for replays"))
    }
    fn image_holder(&self, _options: &Options) -> ImageHolder {
        ImageHolder::Machine
    }
    fn build_for_replay(&self, _options: &Options, disk: OneDisk) -> Result<DiskMachine> {
        let DiskImage::Given(given) = disk.image else { panic!("an image that is held") };
        let clock: Arc<dyn Clock> = Arc::new(HostClock::new());
        let machine = BuiltinMachine::new(BuiltinConfig {
            clock: Arc::clone(&clock),
            disks: vec![DiskConfig::new(open(&given)?)],
            ..BuiltinConfig::default()
        })?;
        let machine =
            Other { machine: Some(machine), clock, dies: self.0, uses: 0, obituary: None };
        let details = BTreeMap::from([("version".to_owned(), "7".to_owned())]);
        Ok(DiskMachine { machine: Box::new(machine), details })
    }
}

/// Gone, with its open image, once it quit or died.
struct Other {
    machine: Option<BuiltinMachine>,
    clock: Arc<dyn Clock>,
    dies: Dies,
    uses: u32,
    obituary: Option<Obituary>,
}

impl Other {
    fn live(&mut self) -> Result<&mut BuiltinMachine> {
        self.machine.as_mut().ok_or_else(|| Error::machine("the machine is gone"))
    }

    fn die(&mut self) {
        self.machine = None;
        self.obituary = Some(Obituary {
            program: "QEMU".to_owned(),
            what: End::Signal { number: 6, name: "SIGABRT".into() },
            stderr: "assertion failed\n".into(),
            last_commands: vec![("writew 0x1000 0x0".into(), false)],
            command: "other -M pc".into(),
        });
    }
}

impl Machine for Other {
    fn name(&self) -> &str {
        "other"
    }
    fn capabilities(&self) -> Capabilities {
        self.machine.as_ref().map_or(Capabilities::empty(), Machine::capabilities)
    }
    fn bus(&mut self) -> Result<&mut dyn Bus> {
        self.uses += 1;
        if matches!(self.dies, Dies::AtBus(at) if self.uses >= at) && self.obituary.is_none() {
            self.die();
        }
        self.live()?.bus()
    }
    fn ram(&self) -> Result<Arc<GuestRam>> {
        self.machine.as_ref().ok_or_else(|| Error::machine("the machine is gone"))?.ram()
    }
    fn interrupts(&mut self) -> Result<&mut dyn Interrupts> {
        self.live()?.interrupts()
    }
    fn clock(&self) -> Arc<dyn Clock> {
        Arc::clone(&self.clock)
    }
    fn obituary(&self) -> Option<Obituary> {
        self.obituary.clone()
    }
    fn poll(&mut self) -> Result<bool> {
        self.live()?.poll()
    }
    fn wait(&mut self, fds: &[BorrowedFd<'_>], deadline: Option<Nanos>) -> Result<()> {
        self.live()?.wait(fds, deadline)
    }
    fn quit(&mut self) -> Result<()> {
        if self.dies == Dies::AtQuit {
            self.die();
            return Err(Error::machine("it did not quit, it died"));
        }
        self.machine = None;
        Ok(())
    }
}

/// A folder with a trace of stamped writes and reads over the whole disk.
struct Desk(tempfile::TempDir);

impl Desk {
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("t.qtrace");
        let mut writer = TraceWriter::create(&path, TraceHeader::default()).unwrap();
        let device_bytes = Some(DISK_BYTES);
        writer.stream(StreamInfo { device_bytes, ..StreamInfo::default() }).unwrap();
        for n in 0..400 {
            let op = if n % 3 == 2 { BlockOp::Read } else { BlockOp::Write };
            let issue = Issue {
                time: Nanos(n),
                tag: n,
                stream: StreamId(0),
                op,
                flags: OpFlags::empty(),
                offset: n / 3 * 7919 % 256 * 4096,
                len: 4096,
                payload: PayloadRef::Absent,
                cpu: None,
            };
            writer.event(&Event::Issue(issue)).unwrap();
        }
        writer.finish(TraceSummary::default()).unwrap();
        Self(folder)
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    fn config(&self, kind: &'static Kind, options: &str) -> Result<Config> {
        let dir = self.0.path().display();
        let text = format!("tracefile={dir}/t.qtrace,{options}").replace('@', &format!("{dir}/"));
        Config::parse_for(MachineChoice::of(kind), &[text])
    }

    /// The report, and the exit code it stands for.
    fn run(&self, kind: &'static Kind, options: &str) -> (Report, u8) {
        let config = self.config(kind, options).unwrap();
        let report = run(&config, &Arc::default(), &mut |_, _, _| ()).unwrap();
        let code = exit_code(&config, &report);
        (report, code)
    }

    fn names(&self) -> Vec<String> {
        let entries = std::fs::read_dir(self.0.path()).unwrap();
        let mut names: Vec<String> =
            entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
        names.sort();
        names
    }
}

/// SHA-256 of the disk that the same replay on the builtin machine leaves.
fn builtin_sha256(desk: &Desk) -> Option<String> {
    let text = format!("tracefile={},target_fmt=mem", desk.path("t.qtrace").display());
    let config = Config::parse(&[text]).unwrap();
    run(&config, &Arc::default(), &mut |_, _, _| ()).unwrap().image_sha256
}

#[test]
fn the_disk_is_the_same_whoever_opens_it() {
    let desk = Desk::new();
    let want = builtin_sha256(&desk);
    assert!(want.is_some());
    for (options, format) in [
        ("target_img=@a,target_fmt=raw", "raw"),
        ("target_img=@b,target_fmt=qcow2", "qcow2"),
        ("target_fmt=mem", "mem"),
        ("target_img=@c,target_fmt=raw,cache=unsafe,iodepth=1", "raw"),
    ] {
        let (report, code) = desk.run(&LIVES, options);
        assert_eq!((code, &report.image_sha256), (0, &want), "{options}");
        assert!(report.complete && report.verdict.image_bytes_checked > Some(0));
        assert_eq!((report.target.format.as_str(), report.target.via.as_str()), (format, "other"));
        assert_eq!((report.machine.kind.as_str(), report.machine.board.as_str()), ("other", ""));
        assert_eq!(report.machine.details["version"], "7");
        assert!(!report.settings.contains_key("board"));
    }
    assert_eq!(desk.names(), ["a", "b", "c", "t.qtrace"]);
    // Again, now that they are there.
    let (report, code) = desk.run(&LIVES, "target_img=@b");
    assert_eq!((code, report.target.created, report.image_sha256), (0, false, want));
    let (report, code) = desk.run(&LIVES, "target_fmt=null");
    assert_eq!((code, report.image_sha256), (0, None));
}

#[test]
fn what_the_machine_wrote_wrong_is_found() {
    let desk = Desk::new();
    std::fs::write(desk.path("want"), vec![0; DISK_BYTES as usize]).unwrap();
    let (report, code) =
        desk.run(&LIVES, "target_img=@d,target_fmt=raw,comparison_img=@want,comparison_fmt=raw");
    assert_eq!(code, 1);
    assert_eq!(report.verdict.findings[0].kind, FindingKind::ComparisonMismatch);
    assert_eq!(desk.names(), ["d", "t.qtrace", "want"], "a finding leaves the new target");
}

#[test]
fn a_machine_that_dies_is_a_finding() {
    let desk = Desk::new();
    for (kind, said, complete) in [
        (&DIES_AT_ONCE, "before the first request", false),
        (&DIES_IN_THE_MIDDLE, "requests in flight", false),
        (&DIES_AT_QUIT, "after 400 requests", true),
    ] {
        let (report, code) = desk.run(kind, "target_img=@d,target_fmt=raw,iodepth=4");
        assert_eq!((code, report.complete, report.interrupted), (1, complete, false));
        let finding = &report.verdict.findings[0];
        assert_eq!(finding.kind, FindingKind::MachineDied);
        let message = &finding.message;
        assert!(message.starts_with("machine 'other' died of signal 6 (SIGABRT)"), "{message}");
        assert!(message.contains(said), "{message}");
        assert_eq!(finding.event.is_some(), said == "requests in flight");
        assert!(report.notes.iter().any(|note| note.starts_with("the machine died")));
        // The image is checked all the same, and kept.
        assert!(report.verdict.image_bytes_checked.is_some() && report.image_sha256.is_some());
        std::fs::remove_file(desk.path("d")).unwrap();
        let text = text::render(&report);
        for part in ["finding 1: machine_died", "assertion failed", "writew 0x1000", "other -M pc"]
        {
            assert!(text.contains(part), "{part} in {text}");
        }
        let json = json::to_string(&report).unwrap();
        let value: serde_json::Value = serde_json::from_str(&json).unwrap();
        let obituary = &value["verdict"]["findings"][0]["obituary"];
        assert_eq!(
            (&obituary["what"]["number"], &obituary["command"]),
            (&6.into(), &"other -M pc".into())
        );
        assert_eq!(serde_json::from_str::<Report>(&json).unwrap().verdict, report.verdict);
    }
    assert_eq!(desk.names(), ["t.qtrace"]);
}

#[test]
fn what_only_the_builtin_machine_does_is_refused() {
    let desk = Desk::new();
    let error = |text: &str| {
        let error = desk.config(&LIVES, text).unwrap_err();
        assert_eq!(error.kind().exit_code(), 2, "{text}: {error}");
        error.to_string()
    };
    assert!(error("target_fmt=mem,fault=drop:1").contains("'other' opens the image itself"));
    assert!(error("target_fmt=mem,aio=sync").contains("of the builtin machine"));
    assert!(error("target_fmt=mem,aio=native,cache=none").contains("cache=none"));
    assert!(error("target_img=@d,aio=native").contains("cache=none"));
    assert!(error("target_fmt=mem,board=q35").contains("board"));
    desk.config(&LIVES, "target_img=@d,aio=native,cache=none").unwrap();
    let builtin = |text: &str| Config::parse(&[format!("tracefile=t,target_fmt=mem,{text}")]);
    assert!(builtin("aio=threads").unwrap_err().to_string().contains("is QEMU's"));
    builtin("aio=sync").unwrap();
}

#[test]
fn images_that_are_not_right_are_refused_before_the_machine_is_built() {
    let desk = Desk::new();
    let refused = |options: &str| {
        let config = desk.config(&DIES_AT_ONCE, options).unwrap();
        run(&config, &Arc::default(), &mut |_, _, _| ()).map(|r| r.complete).unwrap_err()
    };
    std::fs::write(desk.path("small"), [0; 4096]).unwrap();
    assert!(refused("target_img=@small,target_fmt=raw").to_string().contains("4096 bytes"));
    assert!(refused("target_img=@small,target_size=8k").to_string().contains("target_size="));
    std::fs::write(desk.path("full"), vec![0; DISK_BYTES as usize]).unwrap();
    let options = OpenOptions { writable: true, ..OpenOptions::default() };
    let user = image::open(Path::new(&desk.path("full")), &options).unwrap();
    assert!(refused("target_img=@full").hint_text().unwrap().contains("stop the VM"));
    drop(user);
    assert!(refused("target_img=@new,target_fmt=raw,snapshot=on").to_string().contains("exists"));
    assert!(refused("target_img=@new").to_string().contains("format"));
    assert_eq!(desk.names(), ["full", "small", "t.qtrace"]);
}
