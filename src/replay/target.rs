//! The disk a trace is replayed onto: created, opened in place, or left untouched under an overlay.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use super::options::Config;
use crate::base::{Error, Result};
use crate::image::fault::FaultSpec;
use crate::image::overlay::Overlay;
use crate::image::watch::{self, Watch};
use crate::image::{self, Image, OpenOptions, PendingImage, fault};
use crate::report::{FaultReport, ImageReport};

/// An open target.
pub struct Target {
    image: Arc<dyn Image>,
    /// What the device is given: the image, watched, and with the fault that was asked for.
    device: Arc<dyn Image>,
    watch: Arc<Watch>,
    pending: Option<PendingImage>,
    /// The fault that was asked for, and the writes that reached it.
    fault: Option<(FaultSpec, Arc<AtomicU64>)>,
    snapshot: bool,
}

impl Target {
    /// Opens or creates the target; a new one has `new_bytes` unless `target_size=` says otherwise.
    /// The first failure of the image itself raises `stop`: see [`Target::failure`].
    ///
    /// # Errors
    /// Usage errors for names that clash, sizes that contradict and formats that are missing;
    /// otherwise those of the image.
    pub fn open(config: &Config, new_bytes: u64, stop: &Arc<AtomicBool>) -> Result<Self> {
        let size = config.target_bytes.unwrap_or(new_bytes);
        let (image, pending) = match (&config.target, config.target_format.as_deref()) {
            (None, Some("null")) => (image::null(size), None),
            (None, _) => (image::mem(size), None),
            (Some(path), format) if is_missing(path) => {
                let pending = create(config, path, format, size)?;
                (pending.image(), Some(pending))
            }
            (Some(path), _) => (open(config, path)?, None),
        };
        let (watched, watch) = watch::wrap(Arc::clone(&image), Arc::clone(stop));
        let (device, fault) = match config.fault {
            Some(spec) => {
                let (device, writes) = fault::wrap_counted(watched, spec);
                (device, Some((spec, writes)))
            }
            None => (watched, None),
        };
        Ok(Self { image, device, watch, pending, fault, snapshot: config.snapshot })
    }

    /// Why the image stopped the replay, if it did: the host's failure, not the device's.
    pub fn failure(&self, config: &Config) -> Option<Error> {
        let error = self.watch.take()?;
        Some(match &config.target {
            Some(path) => error.path(path),
            None => error,
        })
    }

    /// What became of the fault that was asked for.
    pub fn fault_report(&self) -> Option<FaultReport> {
        let (spec, writes) = self.fault.as_ref()?;
        let writes = writes.load(Ordering::Relaxed);
        Some(FaultReport { fault: spec.to_string(), fired: writes > spec.write, writes })
    }

    /// The disk.
    pub fn image(&self) -> &Arc<dyn Image> {
        &self.image
    }

    /// The disk as the device gets it.
    pub fn device_image(&self) -> Arc<dyn Image> {
        Arc::clone(&self.device)
    }

    /// Whether this run made it.
    pub fn is_new(&self) -> bool {
        self.pending.is_some()
    }

    /// What the report says of it; `path` as the user gave it.
    pub fn report(&self, config: &Config) -> ImageReport {
        let info = self.image.info();
        ImageReport {
            path: config.target.as_deref().map(|p| p.display().to_string()).unwrap_or_default(),
            format: info.format.clone(),
            via: info.via.clone(),
            size: self.image.size(),
            created: self.is_new(),
            snapshot: self.snapshot,
        }
    }

    /// Gives a new image its name. One that is dropped without it is removed.
    ///
    /// # Errors
    /// Those of the image.
    pub fn commit(self) -> Result<()> {
        let Self { image, device, pending, .. } = self;
        drop((image, device));
        pending.map_or(Ok(()), PendingImage::commit)
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
        aio: config.aio,
        allow_backing: config.allow_backing,
    }
}

fn create(config: &Config, path: &Path, format: Option<&str>, size: u64) -> Result<PendingImage> {
    if config.snapshot {
        return Err(Error::usage("snapshot=on needs an image that exists").path(path));
    }
    let format = format.ok_or_else(|| {
        Error::usage("the image is to be created, and its format is not known")
            .path(path)
            .hint("give target_fmt=raw or target_fmt=qcow2")
    })?;
    image::create(path, format, size, &open_options(config, true))
}

fn open(config: &Config, path: &Path) -> Result<Arc<dyn Image>> {
    let image = image::open(path, &open_options(config, !config.snapshot))?;
    if let Some(want) = config.target_bytes.filter(|want| *want != image.size()) {
        let what = format!("the image has {} bytes, and target_size= says {want}", image.size());
        return Err(Error::usage(what).path(path).hint("target_size= is for images to be created"));
    }
    if config.snapshot { Overlay::new(image) } else { Ok(image) }
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
    fn a_snapshot_leaves_the_image_as_it_was() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("d.raw");
        let text = format!("tracefile=t,target_img={},target_fmt=raw,snapshot=on", path.display());
        let error = Target::open(&config(text.clone()), 4096, &Arc::default()).err().unwrap();
        assert!(error.to_string().contains("snapshot=on"), "{error}");
        std::fs::write(&path, [7u8; 4096]).unwrap();
        let target = Target::open(&config(text), 4096, &Arc::default()).unwrap();
        image::write_all(&*target.device_image(), &[9; 512], 512).unwrap();
        let mut seen = [0; 1024];
        image::read_exact(&**target.image(), &mut seen, 0).unwrap();
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
