use super::*;

/// A report in a file of its own.
#[track_caller]
fn report(text: &str) -> Report {
    let mut file = tempfile::tempfile().unwrap();
    file.write_all(text.as_bytes()).unwrap();
    Report { path: PathBuf::from("report"), spool: Some(file) }
}

/// Machine, commands with their lines.
#[track_caller]
fn read(text: &str) -> (Option<String>, Vec<(u64, String)>) {
    let (survey, sent) = read_pick(text, 1).expect(text);
    assert_eq!(survey.commands, sent.len() as u64, "{text}");
    let words =
        |words: &[Word]| words.iter().map(|word| word.text.as_str()).collect::<Vec<_>>().join(" ");
    (survey.machine.map(|machine| words(&machine.words)), sent)
}

fn read_pick(text: &str, pick: u64) -> Result<(Survey, Vec<(u64, String)>)> {
    let report = report(text);
    let survey = report.survey(pick, &AtomicBool::new(false))?;
    let mut commands = report.commands(survey.part)?;
    let mut sent = Vec::new();
    while let Some(command) = commands.read()? {
        sent.push((command.line, command.text));
    }
    Ok((survey, sent))
}

const ARGS: &str = "-display none -machine accel=qtest, -m 512M -M q35 -nodefaults -device am53c974,id=scsi \
                    -drive id=disk0,if=none,file=null-co://,format=raw -qtest stdio";

/// The same reproducer in every form in which people paste it.
#[test]
fn forms_of_a_report() {
    let body = "outl 0xcf8 0x80001010\nwrite 0x10 0x4 0x01020304\n";
    let wrapped = "-display none -machine accel=qtest, -m 512M -M q35 -nodefaults\n\
                   -device am53c974,id=scsi -drive id=disk0,if=none,\n\
                   file=null-co://,format=raw -qtest stdio";
    let slashes = ARGS.replace(" -d", " \\\n  -d");
    let quote = |text: &str| text.lines().map(|line| format!("> {line}\n")).collect::<String>();
    let indent = |text: &str| text.lines().map(|line| format!("    {line}\n")).collect::<String>();
    let script = format!("cat << EOF | ./qemu-system-i386 {ARGS}\n{body}EOF\n");
    let forms = [
        script.clone(),
        format!("cat <<EOF | $QEMU {ARGS}\n{body}EOF"),
        format!("cat << 'EOF' | /b/qemu-system-x86_64 {ARGS}\n{body}EOF\n"),
        format!(
            "cat <<-\"END\" | qemu-system-x86_64 {ARGS}\n\t{}\tEND\n",
            body.replace('\n', "\n\t")
        ),
        format!("cat << EOF | ASAN_OPTIONS=x=1 gdb --args ./qemu-system-i386 {ARGS}\n{body}EOF\n"),
        format!("cat << EOF | timeout 5 ${{QEMU_PATH}} {slashes}\n{body}EOF\n"),
        format!("cat << EOF | ./qemu-system-i386 {wrapped}\n{body}EOF\n"),
        format!("cat << EOF \\\n| ./qemu-system-i386 {wrapped}\n{body}EOF\n"),
        format!("./qemu-system-i386 {ARGS} << EOF\n{body}EOF\n"),
        format!("./qemu-system-i386 {ARGS} 2>&1 <<EOF | tee log\n{body}EOF\n"),
        format!("cat << EOF > in\n{body}EOF\n./qemu-system-i386 {ARGS} < in\n"),
        format!("QEMU_ARGS=\"{ARGS}\"\ncat << EOF | ./qemu-system-i386 $QEMU_ARGS\n{body}EOF\n"),
        format!("export ARGS='{ARGS}'\ncat << EOF | $BIN ${{ARGS}}\n{body}EOF\n"),
        format!("Hello,\n\n```\n{script}```\n\nThe trace:\n#0 0x55 in raise (/lib/x.so+0x1)\n"),
        format!("$ {script}qemu-system-i386: ../hw/scsi/esp.c:1: Assertion `x' failed.\nAborted\n"),
        format!("# {script}"),
        format!("user@host:~/qemu$ {script}"),
        quote(&script),
        quote(&quote(&script)),
        indent(&script),
        quote(&indent(&format!("cat << EOF | ./qemu-system-i386 {slashes}\n{body}EOF\n"))),
        script.replace('\n', "\r\n"),
        format!("/*\n * {}\n */\n", script.replace('\n', "\n * ")),
        format!("# args: {ARGS}\n{body}"),
        format!("/* args: {ARGS} */\n{body}"),
        format!("// QEMU args: {ARGS}\n{body}"),
        format!("Command line: ./qemu-system-i386 {ARGS}\n\n{body}"),
        format!("./qemu-system-i386 {ARGS}\n{body}"),
        format!("Start it:\n  $ ./qemu-system-i386 {ARGS}\nand give it\n{body}\nIt dies.\n"),
        format!("printf '{}' | ./qemu-system-i386 {ARGS}\n", body.replace('\n', "\\n")),
        format!("echo -e \"{}\" | ./qemu-system-i386 {ARGS}\n", body.replace('\n', "\\n")),
        format!("echo \"{body}\" | \\\n./qemu-system-i386 {ARGS}\n"),
        format!(
            "(echo outl 0xcf8 0x80001010; echo 'write 0x10 0x4 0x01020304') | ./qemu-system-i386 {ARGS}\n"
        ),
        script.replace("0x01020304", "0x0102\n0304"),
        script.replace("0x01020304", "0x0102\\\n0304"),
        script.replace("0x4 0x01020304", "\n0x4 0x01020304"),
        quote(&script.replace("0x01020304", "0x0102\n0304")),
        script.replace("outl 0xcf8", "[R +0.1] outl 0xcf8").replace("write", "[R +0.2] write"),
        format!(
            "[I 0.000000] OPENED\n[R +0.01] outl 0xcf8 0x80001010\n[S +0.01] OK\noutl 0xcf8 0x80001010\nOK\n\
                 [R +0.02] write 0x10 0x4 0x01020304\n[S +0.02] OK\n[I +0.03] CLOSED\nargs: {ARGS}\n"
        ),
    ];
    for text in forms {
        let (machine, sent) = read(&text);
        let commands: Vec<&str> = sent.iter().map(|(_, text)| text.as_str()).collect();
        assert_eq!(commands, ["outl 0xcf8 0x80001010", "write 0x10 0x4 0x01020304"], "{text}");
        assert_eq!(machine.as_deref(), Some(ARGS), "{text}");
    }
}

#[test]
fn lines_keep_their_numbers() {
    let text = "Hi\n\ncat << EOF | \\\nqemu-system-i386 -M pc\n# first\noutb 1 2\n\nwrite 0 2 0x01\n02\n\
                inb 1\nEOF\n";
    let (_, sent) = read(text);
    let lines: Vec<u64> = sent.iter().map(|(line, _)| *line).collect();
    assert_eq!(lines, [6, 8, 10]);
}

#[test]
fn what_is_not_sent_is_told_by_line() {
    let (survey, sent) = read_pick(
        "outb 9 9\ncat << EOF | qemu-system-i386 -M pc\n# x\noutb 1 2\noutl 0xcf8\noutb 0x10000 1\n\
         quit\nwrite 0x0 0xffffffffff 0x01\nread 0x0 0x200000\ninb 1\u{e9}\nmodule_load a b\nOK 0x1\nEOF\ninb 7\nend\n",
        1,
    )
    .unwrap();
    assert_eq!(sent, [(4, "outb 1 2".to_owned())]);
    let lines = survey.rejected.into_lines();
    let got: Vec<_> = lines
        .iter()
        .map(|lines| (lines.reason.as_str(), lines.count, lines.first[0].line))
        .collect();
    let want = [
        ("it loads a module from the host's files", 1, 11),
        ("it reads more than one answer may hold", 1, 9),
        ("it writes more than QEMU can hold in memory", 1, 8),
        ("malformed command", 2, 5),
        ("port beyond 0xffff (QEMU aborts)", 1, 6),
        ("no qtest command", 1, 7),
        ("command outside of the here-document", 1, 1),
        ("after the end of the here-document", 2, 14),
        ("what QEMU said", 1, 12),
        ("comment", 1, 3),
        ("line of the shell", 2, 2),
    ];
    assert_eq!(got, want);
    assert!(lines.iter().all(|lines| lines.count as usize >= lines.first.len()));
}

#[test]
fn text_around_an_unclosed_document_is_never_sent() {
    let text = "cat << EOF | qemu-system-i386 -M pc -qtest stdio\noutb 1 2\n\n==12==ERROR: AddressSanitizer\n\
                READ of size 4 at 0x6020 thread T0\n    #0 0x55 in read /x/read.c:1\nwrite(2) failed\n\
                read it\ninb\nwriteback 1 2 3\noutl0xcf8 1 2\n{\"execute\": \"quit\"}\n";
    assert_eq!(read(text).1, [(2, "outb 1 2".to_owned())]);
}

#[test]
fn one_of_several_reproducers_is_picked() {
    let text = "cat << EOF > notes\nnothing\nEOF\n\
                cat << EOF | qemu-system-i386 -M pc\noutb 1 1\nEOF\n\
                cat << E2 | qemu-system-i386 -M q35\noutb 2 2\noutb 2 3\nE2\n";
    let (survey, sent) = read_pick(text, 1).unwrap();
    assert_eq!((survey.reproducers, sent.len()), (2, 1));
    assert_eq!(survey.machine.unwrap().words[1].text, "pc");
    assert_eq!(survey.rejected.count(Why::Another), 2);
    let (survey, sent) = read_pick(text, 2).unwrap();
    assert_eq!((survey.machine.unwrap().words[1].text.as_str(), sent.len()), ("q35", 2));
    let error = read_pick(text, 3).unwrap_err();
    assert_eq!((error.kind().exit_code(), error.hint_text()), (2, Some("pick=1 to pick=2")));
}

#[test]
fn the_pipeline_of_the_commands_says_the_machine() {
    let text = "# args: -M header\nqemu-system-i386 -M other -qtest stdio\n\
                cat << E | qemu-system-i386 -M own -qtest stdio\ninb 1\nE\n";
    assert_eq!(read(text).0.as_deref(), Some("-M own -qtest stdio"));
    let text =
        "I run qemu-system-i386 -M prose\n# args: -M header\nqemu -M x -qtest stdio\ninb 1\n";
    assert_eq!(read(text).0.as_deref(), Some("-M header"));
    assert_eq!(read("inb 1\n").0, None);
    let error = read_pick("cat << E | qemu-system-i386 -M 'pc\ninb 1\nE\n", 1).unwrap_err();
    assert_eq!(
        error.to_string(),
        "report: line 1: the machine's command line cannot be read: unclosed quote"
    );
}

#[test]
fn a_report_without_a_command_is_nothing_to_do() {
    for (text, hint) in [
        ("", "commands are lines such as"),
        ("It crashes.\n", "commands are lines such as"),
        ("outl 0xcf8\n", "line 1: malformed command: outl 0xcf8"),
        ("cat << E | qemu -M pc\nE\n", "commands are lines such as"),
    ] {
        let error = read_pick(text, 1).unwrap_err();
        assert_eq!(error.kind().exit_code(), 4, "{text}");
        assert!(error.hint_text().unwrap().contains(hint), "{text}: {error:?}");
    }
}

#[test]
fn bytes_at_random_end_without_harm() {
    let mut rng = crate::base::prng::Prng::new(7);
    let words: [&[u8]; 16] = [
        b"cat << EOF | qemu-system-i386 -M pc ",
        b"EOF\n",
        b"outb 1 2\n",
        b"write 0 8 0x01",
        b"\n",
        b"echo '",
        b"'",
        b"\"",
        b"\\",
        b"> ",
        b"# ",
        b"[R +0.1] ",
        b" -qtest stdio",
        b"$(",
        b"\xff\xc2\xa0",
        b"0102",
    ];
    for _ in 0..3000 {
        let mut text = Vec::new();
        for _ in 0..rng.next_u64() % 40 {
            text.extend(words[(rng.next_u64() % 16) as usize]);
        }
        let mut file = tempfile::tempfile().unwrap();
        file.write_all(&text).unwrap();
        let report = Report { path: PathBuf::from("report"), spool: Some(file) };
        if let Ok(survey) = report.survey(1, &AtomicBool::new(false)) {
            let mut commands = report.commands(survey.part).unwrap();
            let mut count = 0;
            while let Some(sent) = commands.read().unwrap() {
                assert!(matches!(command::parse(sent.text.as_bytes()), Some(Ok(_))), "{sent:?}");
                count += 1;
            }
            assert_eq!(count, survey.commands, "{}", text.escape_ascii());
        }
    }
}

#[test]
fn reading_stops_when_the_user_wants() {
    let error = report("inb 1\n").survey(1, &AtomicBool::new(true)).unwrap_err();
    assert_eq!(error.kind().exit_code(), 130);
}
