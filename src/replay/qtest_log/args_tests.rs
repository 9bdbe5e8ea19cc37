use super::*;
use crate::import::qtest::shell::{Variables, split};

fn words(text: &str) -> Vec<Word> {
    split(text, &Variables::default()).unwrap().concat()
}

fn policy(trust: bool) -> Policy {
    Policy { trust, folder: None }
}

/// What is passed on of `text`, without our own arguments at its end.
fn kept(text: &str) -> Result<String> {
    let arguments = look_at(&words(text), &policy(false))?;
    let text = arguments.words.join(" ");
    Ok(text.strip_suffix(" -display none -accel qtest").unwrap_or("-").to_owned())
}

#[test]
fn harmless_arguments_are_passed_on() {
    for text in [
        "-machine q35 -nodefaults -m 512M -smp 2",
        "-nodefaults -device am53c974,id=scsi -device scsi-hd,drive=disk0 \
         -drive id=disk0,if=none,file=null-co://,format=raw",
        "-nodefaults -device nec-usb-xhci -trace usb* -device usb-audio -device usb-storage,drive=mydrive \
         -drive id=mydrive,file=null-co://,size=2M,format=raw,if=none",
        "-machine pc-q35-5.0 -serial none -monitor none -nodefaults",
        "-nodefaults -blockdev driver=null-co,read-zeroes=on,node-name=null0 -device scsi-cd,drive=null0",
        "-nodefaults -chardev null,id=cd0 -device usb-braille,chardev=cd0 -device usb-serial,chardev=cd0",
        "-nodefaults -object iothread,id=io0 -object memory-backend-ram,id=m,size=64M -numa node,memdev=m",
        "-nodefaults -global virtio-pci.disable-modern=on -cpu max,+avx,-vmx -vga qxl -usb -S",
        "-net none -name fuzz -uuid 01234567-89ab-cdef-0123-456789abcdef -rtc base=utc,clock=vm",
        "-nic none -boot order=d -no-shutdown -no-reboot -action panic=none -watchdog-action none",
        "-netdev hubport,id=n0,hubid=1 -device e1000e,netdev=n0,mac=52:54:00:12:34:56",
        "-nodefaults -audiodev none,id=snd0 -device intel-hda -device hda-output,audiodev=snd0",
        "-nodefaults -usbdevice tablet -fsdev synth,id=f -device virtio-9p-pci,fsdev=f,mount_tag=t",
        "-nodefaults -device {\"drive\":\"d\",\"driver\":\"nvme\",\"serial\":\"x\"}",
        "-nodefaults -set device.a.addr=5 -global driver=e1000,property=autonegotiation,value=off",
        "-nodefaults -hda null-co://",
    ] {
        let text = text.replace("\\\"", "\"");
        let quoted = text.replace("{\"drive\"", "'{\"drive\"").replace("\"x\"}", "\"x\"}'");
        let want = text.replace("-hda null-co://", "-drive file=null-co://,index=0,media=disk");
        assert_eq!(kept(&quoted).expect(&text), want, "{text}");
    }
}

#[test]
fn the_harness_has_its_own() {
    for (text, want) in [
        (
            "-display none -machine accel=qtest, -m 512M -M q35 -nodefaults -qtest stdio",
            "-m 512M -machine q35 -nodefaults",
        ),
        (
            "-machine q35,accel=kvm,kernel_irqchip=split,smm=off -nodefaults",
            "-machine q35,smm=off -nodefaults",
        ),
        ("--enable-kvm --accel tcg,thread=single -nodefaults", "-nodefaults"),
        ("-nographic -nodefaults", "-machine graphics=off -nodefaults"),
        ("-vnc :0 -spice port=1 -display sdl,gl=on -k de -nodefaults", "-nodefaults"),
        (
            "-monitor stdio -serial mon:stdio -parallel file:/x -nodefaults",
            "-monitor none -serial null -parallel null -nodefaults",
        ),
        ("-serial none -debugcon stdio -nodefaults", "-serial none -debugcon null -nodefaults"),
        (
            "-qtest /dev/null -qtest-log /x -qmp unix:/x,server -mon x -gdb tcp::1 -s -nodefaults",
            "-nodefaults",
        ),
        (
            "-daemonize -pidfile /x -D /x -d int -icount shift=auto -sandbox on -nodefaults",
            "-nodefaults",
        ),
        ("-chardev stdio,mux=on,id=c0 -nodefaults", "-chardev null,id=c0,mux=on -nodefaults"),
        ("-audiodev alsa,id=s0,out.dev=/dev/x -nodefaults", "-audiodev none,id=s0 -nodefaults"),
        ("-append 'root=/dev/sda' -L ../pc-bios -nodefaults", "-nodefaults"),
        // Without -nodefaults there is a card, and QEMU would give it a network.
        ("-M pc", "-machine pc -net nic"),
    ] {
        assert_eq!(kept(text).expect(text), want, "{text}");
    }
    let arguments =
        look_at(&words("-nographic -M q35,accel=kvm -qtest stdio"), &policy(false)).unwrap();
    assert_eq!(arguments.changes.len(), 3, "{:?}", arguments.changes);
}

/// Every way out that an argument could be.
#[test]
fn what_reaches_the_host_is_refused_by_name() {
    for text in [
        "accel=qtest, -m 512M",
        "disk.img",
        "''",
        "-",
        "-hda /etc/passwd",
        "-cdrom disk.iso",
        "-fda x",
        "-sd x",
        "-pflash x",
        "-mtdblock x",
        "-drive file=/etc/passwd,format=raw",
        "-drive file=x,,y",
        "-blockdev driver=file,filename=/etc/passwd,node-name=n",
        "-kernel vmlinuz",
        "-initrd x",
        "-dtb x",
        "-bios bios.bin",
        "-option-rom x",
        "-acpitable file=x",
        "-smbios file=x",
        "-smbios type=11,path=x",
        "-fw_cfg name=x,file=y",
        "-mem-path x",
        "-readconfig x",
        "-writeconfig x",
        "-dump-vmstate x",
        "-plugin x.so",
        "-trace events=x",
        "-trace usb*,file=x",
        "-trace file=x",
        "-boot splash=x.bmp",
        "-incoming exec:id",
        "-incoming tcp:0:4444",
        "-incoming defer",
        "-loadvm x",
        "-add-fd fd=3,set=1",
        "-chroot /x",
        "-runas root",
        "-run-with chroot=/x",
        "-netdev user,id=net0",
        "-netdev tap,id=net0,script=x",
        "-netdev socket,id=n,listen=:1",
        "-netdev {\\\"type\\\":\\\"user\\\",\\\"id\\\":\\\"n\\\"}",
        "-netdev id=n,type=user",
        "-netdev hubport,id=n,type=user",
        "-net user",
        "-net nic -net tap",
        "-nic user,model=e1000e",
        "-nic model=e1000e",
        "-chardev socket,id=c,path=x",
        "-chardev file,id=c,path=x",
        "-chardev pty,id=c",
        "-chardev null,id=c,logfile=x",
        "-chardev id=c,backend=pipe",
        "-object memory-backend-file,id=m,mem-path=x,size=1M",
        "-object memory-backend-ram,id=m,size=1G,prealloc=on",
        "-object rng-random,id=r,filename=/dev/random",
        "-object secret,id=s,file=x",
        "-object qtest,id=q,chardev=c",
        "-object filter-dump,id=f,netdev=n,file=x",
        "-object input-linux,id=i,evdev=/dev/input/event0",
        "-object iothread,id=i,qom-type=secret",
        "-object id=i",
        "-device e1000e,romfile=x.rom",
        "-device e1000e,romfile=",
        "-device vfio-pci,host=01:00.0",
        "-device usb-host,hostbus=1",
        "-device usb-mtp,rootdir=x",
        "-device usb-kbd,pcap=x",
        "-device loader,file=x",
        "-device driver=loader,addr=1",
        "-device e1000e,driver=loader",
        "-device cxl-type3,cdat=x",
        "-device vhost-vsock-pci,guest-cid=3",
        "-device virtio-input-host-pci,evdev=/dev/input/event0",
        "-device '{\"driver\":\"usb-host\"}'",
        "-device '{\"driver\":\"e1000e\",\"romfile\":\"x\"}'",
        "-device ide-hd,serial=/etc/passwd",
        "-device",
        "-global e1000e.romfile=x",
        "-global driver=e1000e,property=romfile,value=x",
        "-global usb-mtp.rootdir=/",
        "-set drive.a.file=/etc/passwd",
        "-set device.a.romfile=x",
        "-set chardev.a.path=x",
        "-machine q35,kernel=x",
        "-machine virt,dumpdtb=x",
        "-machine pc,firmware=x",
        "-fsdev local,path=/,id=f,security_model=none",
        "-virtfs local,path=/,mount_tag=t,security_model=none",
        "-tpmdev passthrough,id=t",
        "-usbdevice host:1.1",
        "-usbdevice disk:x",
        "-iscsi initiator-name=x",
        "-xen-attach",
        "-preconfig",
        "-help",
        "-no-such-option",
        "---version",
        "-m $MEM",
        "-m `id`",
        "-name a/b",
        "-cpu \"a\nb\"",
    ] {
        let result = look_at(&words(text), &policy(false));
        let Err(error) = result else { panic!("{text}: {:?}", result.unwrap().words) };
        assert_eq!(error.kind().exit_code(), 5, "{text}");
        let first = words(text)[0].text.clone();
        let named = text.split_whitespace().any(|word| error.to_string().contains(word));
        assert!(named || first.is_empty() || error.to_string().contains(&first), "{text}: {error}");
        assert!(error.hint_text().unwrap().contains("trust_args=on"), "{text}");
    }
}

#[test]
fn all_refused_arguments_are_told() {
    let text = "-kernel a -initrd b -bios c -dtb d -loadvm e -mem-path f";
    let error = look_at(&words(text), &policy(false)).unwrap_err().to_string();
    assert!(error.contains("'-kernel a'") && error.contains("'-loadvm e'"), "{error}");
    assert!(error.ends_with("; and 1 more"), "{error}");
}

#[test]
fn trusted_arguments_lose_only_what_the_harness_has() {
    let text = "-M q35,accel=kvm -netdev user,id=n -kernel /boot/x -new-option y disk.img -qtest stdio \
                -monitor stdio -device e1000e,romfile=/x";
    let arguments = look_at(&words(text), &policy(true)).unwrap();
    assert_eq!(
        arguments.words.join(" "),
        "-machine q35 -netdev user,id=n -kernel /boot/x -new-option y disk.img -monitor none \
         -device e1000e,romfile=/x -display none -accel qtest"
    );
    // What a shell would have made of it is not known, trust or no trust.
    assert!(look_at(&words("-m $MEM"), &policy(true)).is_err());
}

#[test]
fn arguments_at_random_never_let_a_path_through() {
    let mut rng = crate::base::prng::Prng::new(11);
    let parts = [
        "-device",
        "-drive",
        "-chardev",
        "-object",
        "-machine",
        "-netdev",
        "-global",
        "-trace",
        "-hda",
        "-serial",
        "e1000e",
        "null-co",
        "file=",
        "/etc/passwd",
        ",",
        ",,",
        "=",
        "driver=",
        "id=a",
        "null",
        "file.filename=",
        "{\"driver\":\"",
        "\"}",
        "-M",
        "--",
        " ",
        " ",
        " ",
    ];
    for _ in 0..20_000 {
        let text: String =
            (0..rng.below(12)).map(|_| parts[rng.below(parts.len() as u64) as usize]).collect();
        let Ok(segments) = split(&text, &Variables::default()) else { continue };
        if let Ok(arguments) = look_at(&segments.concat(), &policy(false)) {
            assert!(!arguments.words.iter().any(|word| word.contains("passwd")), "{text}");
        }
    }
}
