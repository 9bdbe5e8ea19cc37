//! What is kept of a failure: a folder for each case, which appears whole or not at all.

use std::collections::HashMap;
use std::fs::{self, File};
use std::io::IoSliceMut;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use serde::Serialize;

use super::results::CaseResult;
use super::runner::RunOptions;
use crate::base::error::IoContext;
use crate::base::{Error, Result};
use crate::image::Image;
use crate::machine::Obituary;

/// The file that every folder of ours has.
const FINDING: &str = "finding.json";

/// Bytes of an image copied at a time.
const COPY_BYTES: u64 = 64 << 10;

/// The folder of `--artifacts`.
pub(super) struct Artifacts {
    folder: PathBuf,
    /// How often each case has failed in this run.
    kept: HashMap<String, usize>,
}

/// What a failure leaves besides its finding.
pub(super) struct Remains<'a> {
    /// The last accesses.
    pub log: Option<&'a str>,
    /// The disks.
    pub images: &'a [Arc<dyn Image>],
    /// How the machine died.
    pub obituary: Option<&'a Obituary>,
}

/// What `finding.json` holds.
#[derive(Serialize)]
struct Kept<'a> {
    schema: &'static str,
    /// Runs the case again as it ran.
    reproduce: String,
    #[serde(flatten)]
    case: &'a CaseResult,
}

impl Artifacts {
    /// Makes the folder if it is not there.
    ///
    /// # Errors
    /// An incomplete error when it cannot be made.
    pub fn create(path: &Path) -> Result<Self> {
        fs::create_dir_all(path).writing(path, "creating the folder for artifacts")?;
        Ok(Self { folder: path.to_path_buf(), kept: HashMap::new() })
    }

    /// Keeps a failure; the folder of it. One of an earlier run is replaced.
    ///
    /// # Errors
    /// An incomplete error when it cannot be written; a usage error when something that no run has
    /// made is in its place.
    pub fn keep(
        &mut self,
        case: &CaseResult,
        options: &RunOptions,
        remains: &Remains<'_>,
    ) -> Result<PathBuf> {
        let mut name = format!("{}-{}", case.module, case.case);
        let count = self.kept.entry(name.clone()).or_default();
        *count += 1;
        if *count > 1 {
            name.push_str(&format!("-{count}"));
        }
        let part = self.folder.join(format!(".{name}.{}", std::process::id()));
        let written = write(&part, case, options, remains);
        let kept = written.and_then(|()| self.put(&part, &name));
        if kept.is_err() {
            let _ = fs::remove_dir_all(&part);
        }
        kept
    }

    /// Gives the finished folder its name.
    fn put(&self, part: &Path, name: &str) -> Result<PathBuf> {
        let place = self.folder.join(name);
        if place.symlink_metadata().is_ok() {
            if !place.join(FINDING).is_file() {
                return Err(Error::usage("is in the way: no earlier run made it").path(&place));
            }
            // Beside the new one until that has its place; then it goes.
            let former = part.with_extension("former");
            fs::rename(&place, &former).writing(&place, "moving the former artifacts away")?;
            let moved = fs::rename(part, &place).writing(&place, "naming the artifacts");
            fs::remove_dir_all(&former).writing(&former, "removing the former artifacts")?;
            return moved.map(|()| place);
        }
        fs::rename(part, &place).writing(&place, "naming the artifacts")?;
        Ok(place)
    }
}

fn write(
    folder: &Path,
    case: &CaseResult,
    options: &RunOptions,
    remains: &Remains<'_>,
) -> Result<()> {
    fs::create_dir(folder).writing(folder, "creating a folder")?;
    let kept = Kept { schema: "qtrace.test-finding/1", reproduce: reproduce(case, options), case };
    let path = folder.join(FINDING);
    let text = serde_json::to_vec_pretty(&kept)
        .map_err(|e| Error::incomplete("cannot write the finding as JSON").source(e))?;
    fs::write(&path, text).writing(&path, "writing the finding")?;
    if let Some(log) = remains.log {
        let path = folder.join("bus.log");
        fs::write(&path, log).writing(&path, "writing the bus log")?;
    }
    if let Some(obituary) = remains.obituary {
        let path = folder.join("machine.txt");
        let text = obituary.lines().join("\n") + "\n";
        fs::write(&path, text).writing(&path, "writing how the machine died")?;
    }
    for (index, image) in remains.images.iter().enumerate() {
        let path = folder.join(format!("disk{index}.raw"));
        copy(&**image, &path).writing(&path, "copying a disk")?;
    }
    Ok(())
}

fn reproduce(case: &CaseResult, options: &RunOptions) -> String {
    let mut words = format!("qtrace test {}", case.name());
    let given: Vec<String> =
        case.options.iter().map(|(k, v)| format!("{k}={}", v.replace(',', ",,"))).collect();
    if !given.is_empty() {
        words.push_str(&format!(" '{}'", given.join(",").replace('\'', "'\\''")));
    }
    words.push_str(&format!(" --machine {} --seed {}", options.machine.text(), options.seed));
    words
}

/// A raw copy; zeros are holes.
fn copy(image: &dyn Image, path: &Path) -> std::io::Result<()> {
    let file = File::create(path)?;
    file.set_len(image.size())?;
    let mut buf = vec![0; COPY_BYTES as usize];
    let mut offset = 0;
    while offset < image.size() {
        let len = COPY_BYTES.min(image.size() - offset);
        let Some(part) = buf.get_mut(..len as usize) else { break };
        image.read(&mut [IoSliceMut::new(part)], offset)?;
        if part.iter().any(|byte| *byte != 0) {
            file.write_all_at(part, offset)?;
        }
        offset += len;
    }
    Ok(())
}
