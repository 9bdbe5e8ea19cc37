use std::path::Path;

use super::*;
use crate::record::qemu::disk::Access;

fn words(line: &str) -> Vec<String> {
    line.split_whitespace().map(str::to_owned).collect()
}

fn socket(n: usize) -> String {
    format!("/t/{n}")
}

fn all(line: &str) -> Result<Rewritten> {
    rewrite(&words(line), &Wanted::All, socket)
}

/// One tap, and the command line that comes of it.
#[track_caller]
fn one(line: &str, file: &str, format: Option<&str>, access: Access, want: &str) -> Rewritten {
    let got = all(line).unwrap();
    assert_eq!(got.words.join(" "), words(want).join(" "));
    let [disk] = &got.disks[..] else { panic!("{:?}", got.disks) };
    assert_eq!((disk.file.as_path(), disk.format.as_deref()), (Path::new(file), format));
    assert_eq!(disk.access, access);
    got
}

#[track_caller]
fn refused(line: &str, why: &[&str]) {
    let error = all(line).expect_err(line);
    let text = format!("{error} {}", error.hint_text().unwrap_or_default());
    assert!(why.iter().all(|word| text.contains(word)), "{line}: {text}");
}

const NBD: &str = "file.driver=nbd,file.server.type=unix,file.server.path=/t/0";

#[test]
fn drives_keep_all_but_their_file() {
    let got = one(
        "qemu-system-x86_64 -m 2G -drive file=vm.qcow2,if=virtio,format=qcow2,id=sys,cache=none,aio=native,discard=unmap -nographic",
        "vm.qcow2",
        Some("qcow2"),
        Access::ReadWrite,
        &format!(
            "qemu-system-x86_64 -m 2G -drive if=virtio,format=raw,id=sys,cache=none,aio=native,discard=unmap,{NBD} -nographic"
        ),
    );
    assert_eq!((got.disks[0].name.as_str(), got.disks[0].direct), ("sys", true));
    one(
        "/usr/bin/qemu-system-aarch64 -M virt -drive if=none,file=rootfs.img,format=raw,id=hd0,readonly=on -device virtio-blk-device,drive=hd0",
        "rootfs.img",
        Some("raw"),
        Access::ReadOnly,
        &format!(
            "/usr/bin/qemu-system-aarch64 -M virt -drive if=none,format=raw,id=hd0,readonly=on,{NBD} -device virtio-blk-device,drive=hd0"
        ),
    );
    // The format is not said: the tap finds out.
    let got = one(
        "qemu-kvm -drive file=/srv/a,,b.img,werror=stop,throttling.iops-total=100",
        "/srv/a,b.img",
        None,
        Access::ReadWrite,
        &format!("qemu-kvm -drive werror=stop,throttling.iops-total=100,format=raw,{NBD}"),
    );
    assert_eq!(got.disks[0].name, "/srv/a,b.img");
    // A file node written out; what only files understand goes.
    one(
        "qemu-system-x86_64 -drive driver=qcow2,file.driver=file,file.filename=x.qcow2,file.locking=off,file.node-name=f,file.cache.direct=on,if=none,id=d,l2-cache-size=8M",
        "x.qcow2",
        Some("qcow2"),
        Access::ReadWrite,
        &format!(
            "qemu-system-x86_64 -drive {},file.node-name=f,file.cache.direct=on,if=none,id=d,format=raw,file.server.type=unix,file.server.path=/t/0",
            "file.driver=nbd"
        ),
    );
    one(
        "qemu-system-i386 -drive file=file:disk.img,media=cdrom",
        "disk.img",
        None,
        Access::ReadOnly,
        &format!("qemu-system-i386 -drive media=cdrom,format=raw,{NBD}"),
    );
}

#[test]
fn a_part_of_an_image_is_told_as_one() {
    for (line, part) in [
        ("-drive file=d,format=raw,offset=1048576,size=512,id=d", true),
        ("-drive file.filename=d,file.driver=file,format=raw,size=1M", true),
        ("-drive file=d,format=qcow2,l2-cache-size=1M", false),
        (
            r#"-blockdev {"driver":"raw","offset":512,"file":{"driver":"file","filename":"d"}}"#,
            true,
        ),
        ("-blockdev raw,file=f,size=1M,node-name=r -blockdev file,filename=d,node-name=f", true),
        ("-blockdev raw,file=f,node-name=r -blockdev file,filename=d,node-name=f", false),
    ] {
        let got = all(&format!("qemu-system-x86_64 {line}")).unwrap();
        assert_eq!(got.disks.iter().map(|disk| disk.part).collect::<Vec<_>>(), [part], "{line}");
    }
}

#[test]
fn images_that_no_tap_would_see_are_refused() {
    for line in [
        "-drive driver=quorum,vote-threshold=1,children.0.file.filename=a,children.1.file.filename=b",
        "-drive driver=blkverify,raw.filename=a,test.driver=qcow2,test.file.filename=b",
        "-drive file=blkverify:a:b,if=virtio",
        "-drive file.driver=throttle,file.throttle-group=g,file.file.filename=a,format=raw",
        r#"-blockdev {"driver":"quorum","node-name":"q","vote-threshold":1,
            "children":[{"driver":"file","filename":"a"},{"driver":"file","filename":"b"}]}"#,
    ] {
        let line = line.split_whitespace().collect::<Vec<_>>().concat();
        let line = line.replacen("-drive", "-drive ", 1).replacen("-blockdev", "-blockdev ", 1);
        refused(&format!("qemu-system-x86_64 {line}"), &["no tap can be put"]);
    }
}

#[test]
fn shorthands_and_images_become_drives() {
    let line = "qemu-system-x86_64 -hda a,b=c.img";
    let want = format!("qemu-system-x86_64 -drive index=0,media=disk,format=raw,{NBD}");
    one(line, "a,b=c.img", None, Access::ReadWrite, &want);
    one("qemu-system-x86_64 a,b=c.img", "a,b=c.img", None, Access::ReadWrite, &want);
    one(
        "qemu-system-x86_64 --cdrom debian.iso -boot d",
        "debian.iso",
        None,
        Access::ReadOnly,
        &format!("qemu-system-x86_64 -drive index=2,media=cdrom,format=raw,{NBD} -boot d"),
    );
    one(
        "taskset -c 1 qemu-system-x86_64 -fda dos.img",
        "dos.img",
        None,
        Access::ReadWrite,
        &format!("taskset -c 1 qemu-system-x86_64 -drive if=floppy,index=0,format=raw,{NBD}"),
    );
    let got = all("qemu-system-x86_64 -hda a -hdb b -drive file=c,format=raw").unwrap();
    let names: Vec<&str> = got.disks.iter().map(|disk| disk.name.as_str()).collect();
    assert_eq!(names, ["hda", "hdb", "c"]);
    assert!(got.words.join(" ").contains(
        "index=1,media=disk,format=raw,file.driver=nbd,file.server.type=unix,file.server.path=/t/1"
    ));
}

#[test]
fn blockdevs_keep_their_names() {
    // libvirt's: the file and the format are nodes of their own.
    let file = r#"{"driver":"file","filename":"/var/lib/libvirt/images/vm.qcow2","aio":"native","node-name":"libvirt-1-storage","auto-read-only":true,"discard":"unmap","cache":{"direct":true,"no-flush":false}}"#;
    let format = r#"{"node-name":"libvirt-1-format","read-only":false,"discard":"unmap","driver":"qcow2","file":"libvirt-1-storage","backing":null}"#;
    let line = format!(
        "qemu-system-x86_64 -blockdev {file} -blockdev {format} -device virtio-blk-pci,drive=libvirt-1-format"
    );
    let got = one(
        &line,
        "/var/lib/libvirt/images/vm.qcow2",
        Some("qcow2"),
        Access::Auto,
        r#"qemu-system-x86_64
        -blockdev {"auto-read-only":true,"cache":{"direct":true,"no-flush":false},"discard":"unmap","driver":"nbd","node-name":"libvirt-1-storage","server":{"path":"/t/0","type":"unix"}}
        -blockdev {"discard":"unmap","driver":"raw","file":"libvirt-1-storage","node-name":"libvirt-1-format","read-only":false}
        -device virtio-blk-pci,drive=libvirt-1-format"#,
    );
    assert_eq!((got.disks[0].name.as_str(), got.disks[0].alone), ("libvirt-1-format", true));
    assert!(got.disks[0].direct);
    // In one, in both forms.
    one(
        "qemu-system-x86_64 -blockdev qcow2,node-name=d,discard=unmap,file.driver=file,file.filename=d.qcow2,file.aio=io_uring,lazy-refcounts=on -device nvme,serial=1,drive=d",
        "d.qcow2",
        Some("qcow2"),
        Access::ReadWrite,
        &format!(
            "qemu-system-x86_64 -blockdev driver=raw,node-name=d,discard=unmap,{NBD} -device nvme,serial=1,drive=d"
        ),
    );
    one(
        r#"qemu-system-x86_64 -blockdev {"driver":"raw","node-name":"d","read-only":true,"offset":1048576,"file":{"driver":"host_device","filename":"/dev/sdb","locking":"on"}}"#,
        "/dev/sdb",
        Some("raw"),
        Access::ReadOnly,
        r#"qemu-system-x86_64 -blockdev {"driver":"raw","file":{"driver":"nbd","server":{"path":"/t/0","type":"unix"}},"node-name":"d","offset":1048576,"read-only":true}"#,
    );
    // No format node at all, and a filter between.
    one(
        "qemu-system-x86_64 -blockdev file,node-name=f,filename=d.raw -device ide-hd,drive=f",
        "d.raw",
        Some("raw"),
        Access::ReadWrite,
        "qemu-system-x86_64 -blockdev driver=nbd,node-name=f,server.type=unix,server.path=/t/0 -device ide-hd,drive=f",
    );
    one(
        "qemu-system-x86_64 -object throttle-group,id=g -blockdev throttle,node-name=t,throttle-group=g,file.driver=qcow2,file.file.driver=file,file.file.filename=d.qcow2",
        "d.qcow2",
        Some("qcow2"),
        Access::ReadWrite,
        "qemu-system-x86_64 -object throttle-group,id=g -blockdev driver=throttle,node-name=t,throttle-group=g,file.driver=raw,file.file.driver=nbd,file.file.server.type=unix,file.file.server.path=/t/0",
    );
}

#[test]
fn what_has_no_image_is_passed_over_and_told() {
    let got = all("qemu-system-x86_64 -machine q35,pflash0=fw -drive if=pflash,format=raw,readonly=on,file=OVMF_VARS.fd \
        -blockdev file,node-name=fw,filename=OVMF_CODE.fd,read-only=on -drive if=ide,media=cdrom -drive file=nbd://h/x,if=virtio \
        -drive driver=null-co,id=n,if=none -blockdev null-co,node-name=z,size=1M -drive file=d.raw,format=raw,id=d").unwrap();
    assert_eq!(got.disks.len(), 1);
    let passed: Vec<String> =
        got.passed.iter().map(|(name, why)| format!("{name}: {why}")).collect();
    assert_eq!(
        passed,
        [
            "OVMF_VARS.fd: if=pflash is firmware",
            "-drive if=ide,media=cdrom: it has no image",
            "nbd://h/x: it is no image file (nbd)",
            "n: it is no image file (null-co)",
            "fw: it is firmware",
            "z: it is no image file (null-co)",
        ]
    );
}

#[test]
fn drives_are_asked_for_by_name() {
    let line = "qemu-system-x86_64 -readconfig x.cfg -drive file=a.raw,id=a -drive file=b.raw,id=b,snapshot=on -hdc c.raw";
    let named = |names: &[&str]| {
        let wanted = Wanted::Named(names.iter().map(|name| (*name).to_owned()).collect());
        rewrite(&words(line), &wanted, socket)
    };
    for name in ["a", "a.raw"] {
        let got = named(&[name]).unwrap();
        assert_eq!(got.disks.len(), 1);
        assert!(got.words.join(" ").contains("-drive file=b.raw,id=b,snapshot=on -hdc c.raw"));
        assert_eq!(got.passed.len(), 2);
    }
    assert_eq!(named(&["hdc", "a"]).unwrap().disks.len(), 2);
    let error = named(&["a", "x"]).unwrap_err();
    assert!(error.to_string().contains("--block=x"), "{error}");
    assert!(error.hint_text().is_some_and(|hint| hint.contains("a, b, hdc")));
    assert!(named(&["b"]).unwrap_err().to_string().contains("snapshot=on"));
}

#[test]
fn what_cannot_be_tapped_is_refused() {
    const Q: &str = "qemu-system-x86_64";
    refused(&format!("{Q} -drive file=a.raw,snapshot=on"), &["snapshot=on", "temporary file"]);
    refused(&format!("{Q} -snapshot -hda a.raw"), &["-snapshot"]);
    refused(&format!("{Q} -hda a.raw -loadvm s"), &["-loadvm s"]);
    refused(&format!("{Q} -hda a.raw -readconfig x"), &["-readconfig", "not seen"]);
    refused(&format!("{Q} -drive id=d,file=a -set drive.d.snapshot=on"), &["-set"]);
    refused(&format!("{Q} -drive file=a.qcow2,backing.driver=raw"), &["backing"]);
    refused(&format!("{Q} -drive file=a.qcow2,encrypt.key-secret=s"), &["encrypt"]);
    refused(&format!("{Q} -drive file=a,format=luks,key-secret=s"), &["luks"]);
    refused(&format!("{Q} -drive file=a.qcow2,copy-on-read=on"), &["copy-on-read"]);
    refused(&format!("{Q} -drive file=json:{{}}"), &["JSON"]);
    refused(&format!("{Q} -drive file=/dev/fdset/1"), &["add-fd"]);
    refused(&format!("{Q} -drive file=a,\u{e9}=x"), &["whose name is none"]);
    refused(&format!("{Q} -blockdev {{"), &["JSON"]);
    refused(&format!("{Q} -drive if=none,id=x"), &["no drive", "--block"]);
    refused(Q, &["no drive"]);
    refused(&format!("{Q} -no-such x.img"), &["-no-such"]);
    refused(
        &format!(
            "{Q} -blockdev file,node-name=f,filename=b -blockdev qcow2,node-name=t,backing=f,file=g -blockdev file,node-name=g,filename=t"
        ),
        &["backing"],
    );
    refused(
        &format!(
            "{Q} -blockdev file,node-name=f,filename=b -blockdev raw,node-name=a,file=f -blockdev raw,node-name=b,file=f"
        ),
        &["2 nodes"],
    );
    assert!(stays(&words("qemu-system-x86_64 -daemonize -hda x")).is_err());
    assert!(stays(&words("qemu-system-x86_64 -name daemonize -hda x")).is_ok());
}

#[test]
fn accelerators_are_found_wherever_they_are_named() {
    for (line, want) in [
        ("qemu-system-x86_64 -m 1G", &[][..]),
        ("qemu-system-x86_64 -accel kvm,dirty-ring-size=1 -accel tcg", &["kvm", "tcg"]),
        ("sudo xen-qemu-system-i386 -machine pc,accel=qtest", &["qtest"]),
        ("qemu-system-x86_64 -M accel=kvm:tcg,type=q35 -enable-kvm", &["kvm", "tcg", "kvm"]),
    ] {
        assert_eq!(accelerators(&words(line)), want, "{line}");
    }
    assert!(may_use_kvm(&words("qemu-kvm")) && !may_use_kvm(&words("qemu-system-x86_64 -S")));
}

#[test]
fn values_that_look_like_options_are_values() {
    let line = r#"qemu-system-x86_64 -append -hda -kernel x -drive file=d"#;
    let got = all(line).unwrap();
    assert_eq!(got.disks.len(), 1);
    assert!(got.words.join(" ").starts_with("qemu-system-x86_64 -append -hda -kernel x -drive "));
}
