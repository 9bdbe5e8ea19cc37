//! The disk a trace is replayed onto: created, opened in place, or left untouched under an overlay.
//!
//! Who opens it depends on the machine. For the builtin one this program does (`held`) and hands
//! an open image to the device. A machine that is a program of its own, with a block layer of its
//! own, is given a description (`given`); the result is opened here once that has ended.
//! What a server holds that runs already is looked at through its own device (`served`).

mod given;
mod held;
mod served;

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use self::given::GivenTarget;
use self::held::HeldTarget;
pub use self::served::DeviceImage;
use super::options::Config;
use crate::base::{Error, Result, SECTOR_SIZE};
use crate::image::{self, Image, OpenOptions, PendingImage};
use crate::machine::IoFailure;
use crate::report::{FaultReport, ImageReport};
use crate::suite::one_disk::{DiskImage, ImageHolder};

const NO_SPACE_HINT: &str =
    "free space on the file system that holds the target, or name another place";

/// A target, ready for a machine.
pub struct Target {
    disk: Disk,
    is_new: bool,
    /// Bytes that a new target was to have.
    wanted: u64,
    snapshot: bool,
}

/// Who has it open while the machine runs.
enum Disk {
    Held(HeldTarget),
    Given(GivenTarget),
    /// A server, which had it before.
    Served,
}

impl Target {
    /// Opens or creates the target for the machine of `config`; a new one has `new_bytes` unless
    /// `target_size=` says otherwise. The first failure of an image that is held here raises
    /// `stop`: see [`Target::failure`].
    ///
    /// # Errors
    /// Usage errors for names that clash, sizes that contradict and formats that are missing;
    /// otherwise those of the image.
    pub fn open(config: &Config, new_bytes: u64, stop: &Arc<AtomicBool>) -> Result<Self> {
        let wanted = config.target_bytes.unwrap_or(new_bytes);
        // A guest has whole sectors.
        let wanted = wanted.checked_next_multiple_of(SECTOR_SIZE).unwrap_or(wanted);
        let is_new = config.target.as_deref().is_some_and(is_missing);
        let disk = match config.machine.image_holder() {
            ImageHolder::Qtrace => Disk::Held(HeldTarget::open(config, wanted, stop)?),
            ImageHolder::Machine => Disk::Given(GivenTarget::open(config, wanted)?),
            ImageHolder::Server => Disk::Served,
        };
        Ok(Self { disk, is_new, wanted, snapshot: config.snapshot })
    }

    /// What the machine is built with.
    pub fn disk_image(&self) -> DiskImage {
        match &self.disk {
            Disk::Held(held) => DiskImage::Held(held.device_image()),
            Disk::Given(given) => DiskImage::Given(given.image().clone()),
            Disk::Served => DiskImage::Served,
        }
    }

    /// Guest-visible bytes, as found before the machine was built; `None` where only the machine's
    /// device tells.
    pub fn size(&self) -> Option<u64> {
        match &self.disk {
            Disk::Held(held) => Some(held.image().size()),
            Disk::Given(given) => Some(given.image().size),
            Disk::Served => None,
        }
    }

    /// The disk as it is after the run. A machine that opened it itself must have ended. A server's
    /// is to be looked at through its device.
    ///
    /// # Errors
    /// Those of opening an image.
    pub fn result(&self) -> Result<Arc<dyn Image>> {
        match &self.disk {
            Disk::Held(held) => Ok(Arc::clone(held.image())),
            Disk::Given(given) => given.reopen(),
            Disk::Served => Err(Error::incomplete("the server's device is of no use any more")),
        }
    }

    /// Why the image kept the replay from being done, if it did: the host's failure, not the
    /// device's. Of an image that the machine opened, `machine_says` what failed; there only a
    /// full disk is the host's for certain.
    pub fn failure(&self, config: &Config, machine_says: &[IoFailure]) -> Option<Error> {
        let error = match &self.disk {
            Disk::Held(held) => held.failure()?,
            Disk::Given(_) => {
                let IoFailure { operation, reason, .. } =
                    machine_says.iter().find(|failure| failure.no_space)?;
                let what = format!("the machine failed to {operation} the target image: {reason}");
                Error::incomplete(what).hint(NO_SPACE_HINT)
            }
            Disk::Served => return None,
        };
        Some(match &config.target {
            Some(path) => error.path(path),
            None => error,
        })
    }

    /// What became of the fault that was asked for.
    pub fn fault_report(&self) -> Option<FaultReport> {
        match &self.disk {
            Disk::Held(held) => held.fault_report(),
            Disk::Given(_) | Disk::Served => None,
        }
    }

    /// Whether this run made it.
    pub fn is_new(&self) -> bool {
        self.is_new
    }

    /// What the report says of it; `path` as the user gave it, `size` in guest-visible bytes.
    pub fn report(&self, config: &Config, size: u64) -> ImageReport {
        let (format, via) = match &self.disk {
            Disk::Held(held) => {
                (held.image().info().format.clone(), held.image().info().via.clone())
            }
            Disk::Given(given) => {
                (given.format().to_owned(), config.machine.kind().name().to_owned())
            }
            Disk::Served => ("served".to_owned(), config.machine.kind().name().to_owned()),
        };
        let socket = config.machine.setting("socket").filter(|_| self.is_served());
        ImageReport {
            path: match &config.target {
                Some(path) => path.display().to_string(),
                None => socket.unwrap_or_default().to_owned(),
            },
            format,
            via,
            size,
            created: self.is_new,
            snapshot: self.snapshot,
        }
    }

    /// Whether a server holds it that was there before.
    pub fn is_served(&self) -> bool {
        matches!(self.disk, Disk::Served)
    }

    /// What a reader of the report should know of a disk of `size` bytes.
    pub fn note(&self, size: u64) -> Option<String> {
        if self.is_served() {
            let text = "the target is what the server holds, read back through its device";
            return Some(text.to_owned());
        }
        let wanted = self.wanted;
        (self.is_new && size != wanted).then(|| {
            format!(
                "the new target has {size} bytes instead of {wanted}: its format has no such size"
            )
        })
    }

    /// Gives a new image its name. One that is dropped without it is removed.
    ///
    /// # Errors
    /// Those of the image.
    pub fn commit(self) -> Result<()> {
        match self.disk {
            Disk::Held(held) => held.commit(),
            Disk::Given(given) => given.commit(),
            Disk::Served => Ok(()),
        }
    }
}

fn is_missing(path: &Path) -> bool {
    matches!(path.symlink_metadata(), Err(e) if e.kind() == std::io::ErrorKind::NotFound)
}

fn open_options(config: &Config, writable: bool) -> OpenOptions {
    OpenOptions {
        format: config.target_format.clone(),
        writable,
        cache: config.cache,
        aio: config.aio.held(),
        allow_backing: config.allow_backing,
    }
}

fn create(config: &Config, path: &Path, size: u64) -> Result<PendingImage> {
    if config.snapshot {
        return Err(Error::usage("snapshot=on needs an image that exists").path(path));
    }
    let format = config.target_format.as_deref().ok_or_else(|| {
        Error::usage("the image is to be created, and its format is not known")
            .path(path)
            .hint("give target_fmt=raw or target_fmt=qcow2")
    })?;
    image::create(path, format, size, &open_options(config, true))
}

/// Refuses an image that exists and has another size than `target_size=` says.
fn check_existing(config: &Config, path: &Path, size: u64) -> Result<()> {
    match config.target_bytes.filter(|want| *want != size) {
        Some(want) => {
            let what = format!("the image has {size} bytes, and target_size= says {want}");
            Err(Error::usage(what).path(path).hint("target_size= is for images to be created"))
        }
        None => Ok(()),
    }
}

/// Refuses a run in which one file plays two parts.
///
/// # Errors
/// A usage error that names both.
pub fn check_files(config: &Config) -> Result<()> {
    let files = [
        ("tracefile", Some(&config.trace)),
        ("target_img", config.target.as_ref()),
        ("comparison_img", config.comparison.as_ref()),
        ("report", config.report.as_ref()),
        ("runlog", config.runlog.as_ref()),
    ];
    for (at, (name, path)) in files.iter().enumerate() {
        for (other_name, other) in files.iter().skip(at + 1) {
            if let (Some(path), Some(other)) = (path, other)
                && is_same(path, other)
            {
                let what = format!("{name}= and {other_name}= are the same file");
                return Err(Error::usage(what).path(other).hint("each needs a file of its own"));
            }
        }
    }
    Ok(())
}

/// Whether two paths lead to one file, which may be still to come.
fn is_same(a: &Path, b: &Path) -> bool {
    use std::os::unix::fs::MetadataExt;
    if let (Ok(a), Ok(b)) = (a.metadata(), b.metadata()) {
        return (a.dev(), a.ino()) == (b.dev(), b.ino());
    }
    let place = |path: &Path| {
        Some((image::home_of(path).canonicalize().ok()?, path.file_name()?.to_owned()))
    };
    a == b || place(a).is_some_and(|place_a| Some(place_a) == place(b))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn config(text: String) -> Config {
        Config::parse(&[text]).unwrap()
    }

    #[test]
    fn no_file_plays_two_parts() {
        let folder = tempfile::tempdir().unwrap();
        let dir = folder.path().display();
        std::fs::write(folder.path().join("a"), "x").unwrap();
        std::os::unix::fs::symlink("a", folder.path().join("b")).unwrap();
        for (text, want) in [
            (format!("tracefile={dir}/a,target_img={dir}/b"), "tracefile= and target_img="),
            (
                format!("tracefile={dir}/t,target_img={dir}/new,comparison_img={dir}/./new"),
                "target_img= and comparison_img=",
            ),
            (
                format!("tracefile={dir}/t,target_fmt=mem,report={dir}/r,runlog={dir}/r"),
                "report= and runlog=",
            ),
        ] {
            let error = check_files(&config(text)).unwrap_err();
            assert!(error.to_string().contains(want), "{error}");
            assert_eq!(error.kind().exit_code(), 2);
        }
        check_files(&config(format!("tracefile={dir}/a,target_img={dir}/c"))).unwrap();
    }

    #[test]
    fn a_new_image_appears_only_when_committed() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("d.raw");
        let text = format!("tracefile=t,target_img={},target_fmt=raw", path.display());
        let target = Target::open(&config(text.clone()), 1 << 20, &Arc::default()).unwrap();
        assert!(target.is_new() && !path.exists());
        drop(target);
        assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 0, "nothing is left");
        let target = Target::open(&config(text.clone()), 1 << 20, &Arc::default()).unwrap();
        target.commit().unwrap();
        assert_eq!(path.metadata().unwrap().len(), 1 << 20);
        let sized = config(format!("{text},target_size=2M"));
        assert!(
            Target::open(&sized, 1 << 20, &Arc::default())
                .err()
                .unwrap()
                .to_string()
                .contains("target_size=")
        );
        assert!(!Target::open(&config(text), 9, &Arc::default()).unwrap().is_new());
    }

    #[test]
    fn a_new_image_of_another_size_than_was_asked_for_is_noted() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("d");
        let text = format!("tracefile=t,target_img={},target_fmt=raw", path.display());
        // A guest sees whole sectors, which is no other size.
        let target = Target::open(&config(text.clone()), 1000, &Arc::default()).unwrap();
        assert_eq!((target.size(), target.note(1024)), (Some(1024), None));
        assert!(target.note(1 << 20).unwrap().contains("1048576 bytes instead of 1024"));
        target.commit().unwrap();
        let target = Target::open(&config(text), 1000, &Arc::default()).unwrap();
        assert_eq!(target.note(1 << 20), None, "it had its size before");
    }

    #[test]
    fn a_snapshot_leaves_the_image_as_it_was() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("d.raw");
        let text = format!("tracefile=t,target_img={},target_fmt=raw,snapshot=on", path.display());
        let error = Target::open(&config(text.clone()), 4096, &Arc::default()).err().unwrap();
        assert!(error.to_string().contains("snapshot=on"), "{error}");
        std::fs::write(&path, [7u8; 4096]).unwrap();
        let target = Target::open(&config(text), 4096, &Arc::default()).unwrap();
        let DiskImage::Held(device) = target.disk_image() else { panic!("held") };
        image::write_all(&*device, &[9; 512], 512).unwrap();
        drop(device);
        let mut seen = [0; 1024];
        image::read_exact(&*target.result().unwrap(), &mut seen, 0).unwrap();
        assert_eq!((seen[0], seen[512]), (7, 9));
        target.commit().unwrap();
        assert_eq!(std::fs::read(&path).unwrap(), [7u8; 4096]);
    }

    #[test]
    fn a_new_image_needs_a_format() {
        let error = Target::open(
            &config("tracefile=t,target_img=/nonexistent/d".into()),
            512,
            &Arc::default(),
        )
        .err();
        assert!(error.unwrap().to_string().contains("format"));
    }
}
