//! Which files an input names: itself, or the per-CPU files of a blktrace capture.

use std::collections::HashSet;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use crate::base::error::IoContext;
use crate::base::{Error, Result};

/// What stands between device and CPU in the name of a per-CPU file: `sda.blktrace.3`.
const PER_CPU: &str = ".blktrace.";

/// Refuses an input that is given twice, by whatever link: its requests would all be there twice,
/// and two that read one pipe would tear its lines apart.
///
/// # Errors
/// Usage: one is.
fn check_distinct(paths: &[PathBuf]) -> Result<()> {
    let mut seen = HashSet::new();
    for path in paths {
        let identity = match path.as_os_str() == "-" {
            true => nix::sys::stat::fstat(std::io::stdin()).ok().map(|s| (s.st_dev, s.st_ino)),
            false => std::fs::metadata(path).ok().map(|meta| (meta.dev(), meta.ino())),
        };
        if identity.is_some_and(|identity| !seen.insert(identity)) {
            return Err(Error::usage("this input is given twice")
                .path(path)
                .hint("name each once; qtrace edit merges a trace with itself"));
        }
    }
    Ok(())
}

/// Replaces each input that does not exist but has per-CPU files (`vdc` → `vdc.blktrace.0` …),
/// as blkparse takes it, by those files in order of CPU.
///
/// # Errors
/// Input: neither the file nor such files exist; Usage: one is given twice.
pub fn expand(inputs: &[PathBuf]) -> Result<Vec<PathBuf>> {
    let mut paths = Vec::new();
    for input in inputs {
        if input.as_os_str() == "-" || input.exists() {
            paths.push(input.clone());
            continue;
        }
        let files = per_cpu_files(input)?;
        if files.is_empty() {
            return Err(Error::input("no such file").path(input));
        }
        paths.extend(files.into_iter().map(|(_, path)| path));
    }
    check_distinct(&paths)?;
    Ok(paths)
}

/// Files of the same capture as `path` (`vdc.blktrace.0`) that are not among `given`.
pub fn siblings_not_given(path: &Path, given: &[&Path]) -> usize {
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    let Some((device, cpu)) = name.rsplit_once(PER_CPU) else { return 0 };
    if cpu.parse::<u32>().is_err() {
        return 0;
    }
    let files = per_cpu_files(&path.with_file_name(device)).unwrap_or_default();
    files.iter().filter(|(_, file)| !given.contains(&file.as_path())).count()
}

/// `PREFIX.blktrace.N`, in order of N.
fn per_cpu_files(prefix: &Path) -> Result<Vec<(u32, PathBuf)>> {
    let Some(stem) = prefix.file_name() else { return Ok(Vec::new()) };
    let folder = match prefix.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent,
        _ => Path::new("."),
    };
    if !folder.is_dir() {
        return Ok(Vec::new());
    }
    let wanted = format!("{}{PER_CPU}", stem.to_string_lossy());
    let mut files = Vec::new();
    for entry in std::fs::read_dir(folder).reading(folder, "cannot list")? {
        let name = entry.reading(folder, "cannot list")?.file_name();
        let name = name.to_string_lossy();
        let cpu = name.strip_prefix(&wanted).and_then(|cpu| cpu.parse::<u32>().ok());
        if let Some(cpu) = cpu {
            files.push((cpu, prefix.with_file_name(&*name)));
        }
    }
    files.sort_unstable();
    Ok(files)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_input_given_twice_is_refused_by_whatever_link() {
        let dir = tempfile::tempdir().unwrap();
        let [a, b, link] = ["a", "b", "link"].map(|name| dir.path().join(name));
        std::fs::write(&a, b"x").unwrap();
        std::fs::write(&b, b"x").unwrap();
        std::os::unix::fs::symlink("a", &link).unwrap();
        check_distinct(&[a.clone(), b.clone()]).unwrap();
        for twice in [[a.clone(), a.clone()], [a, link], ["-".into(), "-".into()]] {
            let error = check_distinct(&twice).unwrap_err();
            assert!(error.to_string().ends_with("this input is given twice"), "{error}");
        }
    }

    #[test]
    fn a_device_stands_for_its_per_cpu_files_in_order() {
        let dir = tempfile::tempdir().unwrap();
        for name in ["vdc.blktrace.10", "vdc.blktrace.2", "vdc.blktrace.x", "vdd.blktrace.0"] {
            std::fs::write(dir.path().join(name), b"").unwrap();
        }
        let got = expand(&[dir.path().join("vdc")]).unwrap();
        assert_eq!(got, [dir.path().join("vdc.blktrace.2"), dir.path().join("vdc.blktrace.10")]);
        let error = expand(&[dir.path().join("vde")]).unwrap_err();
        assert!(error.to_string().ends_with("vde: no such file"));
        let one = dir.path().join("vdc.blktrace.2");
        assert_eq!(siblings_not_given(&one, &[&one]), 1);
        assert_eq!(siblings_not_given(&dir.path().join("x.bin"), &[]), 0);
    }
}
