//! The tracer's settings: what a recording needs, and what was there before.
//!
//! They are the machine's, not ours, and are put back whatever becomes of us: a shell that waits
//! for the end of a pipe that we hold does it, also when we are killed.

use std::fs::File;
use std::io;
use std::process::{Child, Command, Stdio};

use super::device::Device;
use super::tracefs::Tracefs;
use crate::base::{Error, Result, shell};

/// The tracer's buffer of each CPU, in KiB: what half a second of a million records a second takes
/// on a machine of sixteen CPUs.
const BUFFER_KIB: u32 = 8192;

/// The options that are changed: records as blktrace has them, and nothing around them.
const OPTIONS: [(&str, bool); 2] = [("bin", true), ("context-info", false)];

/// How often a setting is put back that the kernel refuses: for about a second.
const TRIES: u32 = 50_000;

/// Settings in force until it is dropped.
#[derive(Debug)]
pub struct Settings {
    /// Ends when its standard input does, having put everything back.
    keeper: Child,
}

impl Settings {
    /// Switches the tracer to the requests of `device`; what it traces comes out of the pipe.
    ///
    /// # Errors
    /// A machine error: somebody else traces, or the kernel refuses. Everything is as before then.
    pub fn apply(tracefs: &Tracefs, device: &Device) -> Result<(Self, File)> {
        refuse_other_tracers(tracefs, device)?;
        let script = restore_script(tracefs, device)?;
        let keeper = keeper(tracefs, &script)
            .map_err(|e| Error::machine("no shell to put the tracer's settings back").source(e))?;
        // From here on dropping it puts back what was changed.
        let settings = Self { keeper };
        tracefs.write("tracing_on", "0")?;
        tracefs.write("trace_clock", "mono")?;
        tracefs.write("buffer_size_kb", &BUFFER_KIB.to_string())?;
        for (name, on) in OPTIONS {
            tracefs.write(&format!("options/{name}"), if on { "1" } else { "0" })?;
        }
        tracefs.write("current_tracer", "blk")?;
        tracefs.write("trace", "")?;
        // Not before: while a pipe is open the kernel refuses another tracer (EBUSY,
        // tracing_set_tracer() of kernel/trace/trace.c).
        let pipe = tracefs.pipe()?;
        device.enable(true)?;
        tracefs.write("tracing_on", "1")?;
        Ok((settings, pipe))
    }
}

impl Drop for Settings {
    fn drop(&mut self) {
        drop(self.keeper.stdin.take());
        let _ = self.keeper.wait();
    }
}

/// The kernel's tracer, where it has one of block devices.
///
/// # Errors
/// A machine error that says what is missing.
pub fn tracer() -> Result<Tracefs> {
    let tracefs = Tracefs::open()?;
    let tracers = tracefs.read("available_tracers")?;
    match tracers.split_whitespace().any(|tracer| tracer == "blk") {
        true => Ok(tracefs),
        false => Err(Error::machine("this kernel has no tracer of block devices")
            .hint("it needs CONFIG_BLK_DEV_IO_TRACE")),
    }
}

/// There is one tracer, and one buffer.
fn refuse_other_tracers(tracefs: &Tracefs, device: &Device) -> Result<()> {
    let current = tracefs.read("current_tracer")?;
    let events = tracefs.read("set_event")?;
    let busy = match (current.as_str(), events.is_empty(), device.is_enabled()?) {
        ("nop", true, false) => return Ok(()),
        ("nop", true, true) => format!("{} is traced by somebody already", device.name()),
        ("nop", false, _) => "the kernel's tracer is in use: events are switched on".to_owned(),
        _ => format!("the kernel's tracer is in use: current_tracer is {current}"),
    };
    Err(Error::machine(busy).hint("there is one for the whole machine; end what uses it first"))
}

/// Commands that put everything back. The tracer's files are at $T.
fn restore_script(tracefs: &Tracefs, device: &Device) -> Result<String> {
    let clocks = tracefs.read("trace_clock")?;
    let clock = clocks.split(['[', ']']).nth(1).unwrap_or("local").to_owned();
    let mut rows = vec![("current_tracer".to_owned(), "nop".to_owned())];
    for (name, _) in OPTIONS {
        let file = format!("options/{name}");
        let value = tracefs.read(&file)?;
        rows.push((file, value));
    }
    rows.push(("trace_clock".to_owned(), clock));
    rows.push(("buffer_size_kb".to_owned(), buffer_kib(&tracefs.read("buffer_size_kb")?)));
    rows.push(("tracing_on".to_owned(), tracefs.read("tracing_on")?));
    let mut script = format!(
        "trap '' INT TERM HUP QUIT; T=/proc/self/fd/2; read -r _; echo 0 >{}; echo 0 >$T/tracing_on; ",
        shell::join([device.enable_path().display().to_string().as_str()])
    );
    for (file, value) in rows {
        let put = format!("echo {} >$T/{file}", shell::join([value.as_str()]));
        // The pipe of a recorder that is killed may be open for a moment longer than the shell's.
        script.push_str(&format!("n=0; until {put} || [ $n = {TRIES} ]; do n=$((n+1)); done; "));
    }
    Ok(script)
}

/// The size to write: `7 (expanded: 1408)` stands for a buffer that nobody used yet.
fn buffer_kib(text: &str) -> String {
    let digits = |text: &str| text.chars().take_while(char::is_ascii_digit).collect::<String>();
    let expanded = text.split_once("expanded: ").map(|(_, rest)| digits(rest));
    expanded.filter(|size| !size.is_empty()).unwrap_or_else(|| digits(text))
}

/// A shell in a session of its own, so that no key that is pressed reaches it. The tracer's files
/// are its descriptor 2.
fn keeper(tracefs: &Tracefs, script: &str) -> io::Result<Child> {
    use std::os::unix::process::CommandExt;
    let mut command = Command::new("/bin/sh");
    command
        .args(["-c", script])
        .current_dir("/")
        .env_clear()
        .stdin(Stdio::piped())
        .stdout(File::options().write(true).open("/dev/null")?)
        .stderr(Stdio::from(tracefs.share()?));
    // SAFETY: setsid(2) is async-signal-safe and touches no memory.
    unsafe {
        command.pre_exec(|| {
            libc::setsid();
            Ok(())
        });
    }
    command.spawn()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_size_of_a_buffer_is_one_that_can_be_written() {
        for (text, want) in [("7 (expanded: 1408)", "1408"), ("1408", "1408"), ("8", "8")] {
            assert_eq!(buffer_kib(text), want);
        }
    }
}
