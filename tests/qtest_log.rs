//! `qtrace replay --machine qemu --test qtest-log`: reports of crashes on a real QEMU.

mod common;

use std::collections::BTreeMap;
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use common::{expect, qtrace, shared};
use serde_json::Value;

/// Whether there is a QEMU with the qtest accelerator; says why not.
fn have_qemu() -> bool {
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("t"), "# args: -M none\nendianness\n").unwrap();
    let out = qtrace(folder.path(), ARGS.into_iter().chain(["tracefile=t"]));
    let found = out.status.code() == Some(0);
    if !found {
        println!("skipped: {}", String::from_utf8_lossy(&out.stderr).trim());
    }
    found
}

/// The binary with which the outcomes below were found out.
fn have_qemu_7_2() -> bool {
    let version = Command::new("/usr/libexec/xen-qemu-system-i386").arg("--version").output();
    let found = version.is_ok_and(|out| String::from_utf8_lossy(&out.stdout).contains("7.2."));
    if !found {
        println!("skipped: no QEMU 7.2 with the qtest accelerator (Debian: qemu-system-xen)");
    }
    found
}

const ARGS: [&str; 5] = ["replay", "--machine", "qemu", "--test", "qtest-log"];

/// Replays `text`; the JSON report.
#[track_caller]
fn replay(folder: &Path, code: i32, text: &str, options: &str) -> Value {
    std::fs::write(folder.join("report.txt"), text).unwrap();
    let options = format!("tracefile=report.txt{options}");
    let args = ARGS.into_iter().chain(["--format", "json", &options]);
    serde_json::from_str(&expect(folder, code, args)).expect("a JSON report")
}

/// Replays `text`, which is not to be done; what stderr says.
#[track_caller]
fn refused(folder: &Path, code: i32, text: &str, options: &str) -> String {
    std::fs::write(folder.join("report.txt"), text).unwrap();
    let options = format!("tracefile=report.txt{options}");
    let out = qtrace(folder, ARGS.into_iter().chain([options.as_str()]));
    let stderr = String::from_utf8_lossy(&out.stderr).into_owned();
    assert_eq!(out.status.code(), Some(code), "{text}: {stderr}");
    stderr
}

/// A DMA of the hard disk is begun, the bus is reset, and the CD drive, which has no geometry, is
/// selected when the DMA engine is started: QEMU 7.2 divides by its number of heads.
const DIES: &str = "\
outl 0xcf8 0x80000904
outw 0xcfc 0x5
outl 0xcf8 0x80000920
outl 0xcfc 0xc001
outb 0x1f6 0xf0
outb 0x1f2 0x1
outb 0x1f7 0xc8
outb 0x3f6 0x4
outb 0x3f6 0x0
outb 0x1f6 0xa0
outb 0x1f7 0xa1
outb 0xc000 0x9
";

const DIES_ON: &str = "-M pc -nodefaults -drive if=none,id=d0,file=null-co://,format=raw \
                       -drive if=none,id=d1,file=null-co://,format=raw \
                       -device ide-cd,drive=d0,bus=ide.0,unit=0 \
                       -device ide-hd,drive=d1,bus=ide.0,unit=1";

/// Every public reproducer ends as was found out with a plain QEMU.
#[test]
fn outcomes_of_public_reproducers() {
    let Some(folder) = shared("reproducers") else { return };
    if !have_qemu_7_2() {
        return;
    }
    let table = std::fs::read_to_string(folder.join("results.tsv")).unwrap();
    let begun = Instant::now();
    let mut outcomes: BTreeMap<&str, u32> = BTreeMap::new();
    for row in table.lines().skip(1) {
        let row: Vec<&str> = row.split('\t').collect();
        let [id, status, done, commands, exit] = row[..] else { panic!("{row:?}") };
        let options = format!("tracefile={}", folder.join(format!("{id}.qtest")).display());
        let args = ARGS.into_iter().chain(["--format", "json", options.as_str()]);
        let code = match status {
            "ok" => 0,
            "died" => 1,
            "nostart" => 5,
            other => panic!("{other}"),
        };
        let stdout = expect(&folder, code, args);
        *outcomes.entry(status).or_default() += 1;
        if code == 5 {
            continue;
        }
        let report: Value = serde_json::from_str(&stdout).unwrap();
        let got = (report["done"]["answered"].to_string(), report["done"]["commands"].to_string());
        assert_eq!(got, (done.to_owned(), commands.to_owned()), "{id}");
        let signal = report["finding"]["signal"].as_i64().map(|signal| (-signal).to_string());
        assert_eq!(signal.as_deref().unwrap_or("None"), exit, "{id}");
        if code == 1 {
            check_reproduction(&report);
        }
    }
    assert!(begun.elapsed() < Duration::from_secs(60), "{:?}", begun.elapsed());
    assert!(["ok", "died", "nostart"].iter().all(|status| outcomes[status] > 2), "{outcomes:?}");
}

/// The line of a finding does to a plain QEMU what the replay did.
#[track_caller]
fn check_reproduction(report: &Value) {
    let line = report["finding"]["reproduce"].as_str().unwrap();
    let script = format!("{line}\nexit $?");
    let folder = tempfile::tempdir().unwrap();
    // A QEMU that survived would wait for ever.
    let mut command = Command::new("timeout");
    command.args(["-s", "KILL", "20", "sh", "-c", &script]).current_dir(folder.path());
    let out = command.output().unwrap();
    let signal = report["finding"]["signal"].as_i64().unwrap();
    assert_eq!(out.status.code().map(i64::from), Some(128 + signal), "{line}");
}

#[test]
fn a_reproducer_that_qemu_survives() {
    if !have_qemu() {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let text = "Hello,\n\n> cat << EOF | ./qemu-system-x86_64 -display sdl -machine accel=kvm,\n\
                > -m 64M -M q35 -device virtio-blk,drive=d -drive\n\
                > id=d,if=none,file=null-co://,format=raw -serial stdio -qtest stdio\n\
                > outl 0xcf8 0x80000000\n> inl 0xcfc\n> write 0x1000 0x4 0x0102\n> 0304\n\
                > read 0x1000 0x4\n> set_irq_in /no/device unnamed-gpio-in 0 1\n> clock_step 1000\n\
                > outl 0xcf8\n> quit\n> EOF\n\n#0 0x55 in abort ()\noutb 0x64 0xfe\n";
    let report = replay(folder.path(), 0, text, "");
    assert_eq!(report["outcome"], "survived");
    let done = &report["done"];
    assert_eq!([&done["commands"], &done["sent"], &done["answered"]], [6, 6, 6].map(|n| n));
    assert_eq!(done["refused"], 1, "{report:#}");
    let args = report["machine"]["args"].to_string();
    assert!(args.contains("q35") && args.contains("-accel") && !args.contains("kvm"), "{args}");
    assert_eq!(report["machine"]["reported"], "./qemu-system-x86_64");
    let rejected = report["rejected"].to_string();
    for want in ["malformed command", "\"text\":\"quit\"", "after the end", "abort"] {
        assert!(rejected.contains(want), "{want}: {rejected}");
    }
    assert!(report["finding"].is_null());
    let stdout = expect(folder.path(), 0, ARGS.into_iter().chain(["tracefile=report.txt"]));
    assert!(stdout.contains("verdict      survived"), "{stdout}");
    assert!(stdout.contains("line 13: outl 0xcf8\n"), "{stdout}");
}

#[test]
fn a_reproducer_that_qemu_dies_of() {
    if !have_qemu_7_2() {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let text = format!("# args: {DIES_ON}\n\n{DIES}");
    let report = replay(folder.path(), 1, &text, ",report=r.json");
    assert_eq!((&report["outcome"], &report["finding"]["signal"]), (&"died".into(), &8.into()));
    let last = report["finding"]["last"].as_array().unwrap();
    let lines: Vec<u64> = last.iter().map(|command| command["line"].as_u64().unwrap()).collect();
    assert!(lines.contains(&14) && lines.windows(2).all(|two| two[0] < two[1] || two[1] == 0));
    assert_eq!(report["done"]["answered"], 12);
    check_reproduction(&report);
    let file = std::fs::read_to_string(folder.path().join("r.json")).unwrap();
    let file: Value = serde_json::from_str(&file).unwrap();
    assert_eq!(file["finding"], report["finding"]);
    let stdout = expect(folder.path(), 1, ARGS.into_iter().chain(["tracefile=report.txt"]));
    for want in ["died of signal 8 (SIGFPE)", "line 14: outb 0xc000 0x9", "reproduce:\n"] {
        assert!(stdout.contains(want), "{want}: {stdout}");
    }
}

#[test]
fn a_qemu_that_is_ended_by_the_guest_or_by_itself() {
    if !have_qemu() {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    // PIIX4 power management at 0x600: soft off (ACPI 4.8.3.2.1, SLP_TYP 0 in QEMU's tables).
    let off = "outl 0xcf8 0x80000b40\noutl 0xcfc 0x601\noutl 0xcf8 0x80000b80\noutb 0xcfc 0x1\n\
               outw 0x604 0x2000\ninb 0x64\ninb 0x64\n";
    let report = replay(folder.path(), 0, &format!("args: -M pc -nodefaults\n{off}"), "");
    assert_eq!(report["outcome"], "powered-off", "{report:#}");
    assert_eq!(report["events"]["SHUTDOWN"], 1);
    // The same with the machine kept: the rest is sent.
    let kept = format!("args: -M pc -nodefaults -no-shutdown\n{off}");
    let report = replay(folder.path(), 0, &kept, "");
    assert_eq!((&report["outcome"], &report["done"]["answered"]), (&"survived".into(), &7.into()));
    // An exit that is no power-off is one.
    let exit = "args: -M pc -nodefaults -device isa-debug-exit,iobase=0xf4,iosize=4\noutl 0xf4 3\n";
    let report = replay(folder.path(), 1, exit, "");
    assert_eq!((&report["outcome"], &report["finding"]["status"]), (&"died".into(), &7.into()));
}

/// The periodic interrupt of the clock, 8192 times a second, for three centuries.
#[test]
fn a_qemu_that_hangs() {
    if !have_qemu() {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let text = "# args: -M pc -nodefaults\noutb 0x70 0xb\noutb 0x71 0x42\noutb 0x70 0xa\n\
                outb 0x71 0x23\nclock_step 9000000000000000000\ninb 0x64\n";
    let report = replay(folder.path(), 1, text, ",deadline=500ms");
    assert_eq!(report["outcome"], "hung", "{report:#}");
    let last = report["finding"]["last"].as_array().unwrap().last().unwrap();
    assert_eq!((&last["line"], &last["answered"]), (&6.into(), &false.into()));
    assert_eq!(report["done"]["answered"], 4);
    assert!(report["notes"].to_string().contains("longer deadline="), "{report:#}");
}

/// A finding names the first command without an answer, however many came behind it.
#[test]
fn several_commands_may_be_under_way() {
    if !have_qemu() {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let many: String =
        (0..2000).map(|n| format!("outl 0xcf8 {:#x}\ninl 0xcfc\n", n << 2)).collect();
    let text = format!("# args: -M pc -nodefaults\n{many}set_irq_in /none x 0 1\n");
    let report = replay(folder.path(), 0, &text, ",window=256");
    assert_eq!(report["done"]["answered"], 4001);
    assert_eq!(report["done"]["refused"], 1);
    let exit = "args: -M pc -nodefaults -device isa-debug-exit,iobase=0xf4,iosize=4\n";
    let text = format!("{exit}{many}outl 0xf4 3\n{many}");
    let report = replay(folder.path(), 1, &text, ",window=256");
    assert_eq!(report["finding"]["status"], 7);
    let last = report["finding"]["last"].as_array().unwrap();
    let open = last.iter().find(|command| command["answered"] == false).unwrap();
    assert_eq!((&open["line"], &open["text"]), (&4002.into(), &"outl 0xf4 3".into()));
}

#[test]
fn what_reaches_the_host_does_not_reach_qemu() {
    if !have_qemu() {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    for argument in [
        "-drive file=/etc/passwd,format=raw",
        "-kernel /boot/vmlinuz",
        "-device e1000e,romfile=x.rom",
        "-device vfio-pci,host=01:00.0",
        "-chardev socket,id=c,path=/x,server=on",
        "-netdev user,id=n",
        "-netdev tap,id=n,script=/x",
        "-incoming exec:id",
        "-object memory-backend-file,id=m,mem-path=/x,size=1M",
        "-fsdev local,id=f,path=/,security_model=none",
        "-trace file=x",
        "-readconfig x",
        "-plugin x.so",
        "disk.img",
        "-no-such-option",
    ] {
        let text = format!("# args: -M pc -nodefaults {argument}\ninb 0x64\n");
        let stderr = refused(folder.path(), 5, &text, "");
        assert!(stderr.contains(argument) && stderr.contains("trust_args=on"), "{stderr}");
        assert!(stderr.contains("report.txt: line 1: "), "{stderr}");
    }
    // Nothing of it was there: a trace file, a socket.
    assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 1);
    // With trust, QEMU decides.
    let text = "# args: -M pc -nodefaults -smbios file=nothing.bin\ninb 0x64\n";
    let stderr = refused(folder.path(), 5, text, ",trust_args=on");
    assert!(stderr.contains("did not start") && stderr.contains("nothing.bin"), "{stderr}");
    let text = "# args: -M pc -nodefaults -smbios type=1,serial=a/b\ninb 0x64\n";
    refused(folder.path(), 5, text, "");
    assert_eq!(replay(folder.path(), 0, text, ",trust_args=on")["outcome"], "survived");
}

#[test]
fn an_image_of_the_reports_folder_stays_as_it_is() {
    if !have_qemu() {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let image: Vec<u8> = (0..1u32 << 20).map(|n| (n / 512) as u8).collect();
    std::fs::write(folder.path().join("disk.img"), &image).unwrap();
    // ATA: READ SECTOR 5, its first bytes, then WRITE SECTOR 5 of what the port gives.
    let mut text = String::from(
        "outb 0x1f6 0xe0\noutb 0x1f2 1\noutb 0x1f3 5\noutb 0x1f4 0\n\
                                 outb 0x1f5 0\noutb 0x1f7 0x20\ninw 0x1f0\noutb 0x1f7 0x30\n",
    );
    text.push_str(&"outw 0x1f0 0xffff\n".repeat(256));
    for args in [
        "-M pc -nodefaults -drive file=disk.img,format=raw,if=ide",
        "-M pc -nodefaults -hda disk.img",
        "-M pc -nodefaults -drive file=disk.img,format=raw,if=none,id=d -device ide-hd,drive=d",
        "-M pc -nodefaults -blockdev driver=file,filename=disk.img,node-name=f \
         -blockdev driver=raw,file=f,node-name=d -device ide-hd,drive=d",
        "-M pc -nodefaults -blockdev driver=raw,file.driver=file,file.filename=disk.img,node-name=d \
         -device ide-hd,drive=d",
        "-M pc -nodefaults -blockdev \
         '{\"driver\":\"raw\",\"node-name\":\"d\",\"file\":{\"driver\":\"file\",\"filename\":\"disk.img\"}}' \
         -device ide-hd,drive=d",
    ] {
        let report = replay(folder.path(), 0, &format!("# args: {args}\n{text}"), "");
        assert_eq!(report["outcome"], "survived", "{args}");
        assert_eq!(report["machine"]["images"].as_array().unwrap().len(), 1, "{args}");
    }
    assert!(std::fs::read(folder.path().join("disk.img")).unwrap() == image, "it was written to");
    let outside = "# args: -M pc -drive file=../disk.img,format=raw\ninb 1\n";
    assert!(refused(folder.path(), 5, outside, "").contains("report's own folder"));
}

#[test]
fn through_a_pipe() {
    if !have_qemu() {
        return;
    }
    use std::io::Write;
    let mut child = Command::new(common::QTRACE)
        .args(ARGS.into_iter().chain(["tracefile=-"]))
        .stdin(std::process::Stdio::piped())
        .stdout(std::process::Stdio::piped())
        .spawn()
        .unwrap();
    let text = b"cat << EOF | qemu-system-i386 -M pc -nodefaults\ninb 0x64\nEOF\n";
    child.stdin.take().unwrap().write_all(text).unwrap();
    let out = child.wait_with_output().unwrap();
    assert_eq!(out.status.code(), Some(0));
    assert!(String::from_utf8_lossy(&out.stdout).contains("1 of 1 sent, 1 answered"));
}

#[test]
fn wrong_ways_to_ask() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path();
    assert!(refused(path, 4, "It crashes.\n", "").contains("no qtest command"));
    let none = refused(path, 4, "outl 0xcf8\noutb 0x10000 1\n", "");
    assert!(none.contains("2 begin as one") && none.contains("line 1: "), "{none}");
    assert!(refused(path, 2, "inb 1\n", "").contains("which machine"));
    assert!(refused(path, 2, "inb 1\n", ",args='-M").contains("unclosed quote"));
    assert!(refused(path, 2, "inb 1\n", ",window=0").contains("window=0"));
    let out = qtrace(path, ["replay", "--test", "qtest-log", "tracefile=report.txt"]);
    assert_eq!(out.status.code(), Some(2));
    assert!(String::from_utf8_lossy(&out.stderr).contains("--machine qemu"));
    assert!(refused(path, 5, "# args: -M $MACHINE\ninb 1\n", "").contains("$MACHINE"));
    std::fs::write(path.join("report.txt"), "# args: -M pc\ninb 1\n").unwrap();
    let args = ["replay", "--machine", "qemu,binary=/bin/true", "--test", "qtest-log"];
    assert_eq!(
        qtrace(path, args.into_iter().chain(["tracefile=report.txt"])).status.code(),
        Some(5)
    );
    let help = expect(path, 0, ARGS.into_iter().chain(["help"]));
    assert!(help.contains("trust_args=on|off"), "{help}");
}
