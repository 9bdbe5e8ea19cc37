//! A run of tests as JUnit XML, as the servers of continuous integration read it.

use std::fmt::Write;

use super::suite_text::finding;
use crate::suite::{CaseResult, Status, SuiteReport};

/// The whole document.
pub fn render(report: &SuiteReport) -> String {
    let mut out = String::from("<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n");
    let _ = writeln!(
        out,
        "<testsuites name=\"qtrace\" {} time=\"{}\">",
        counts(report.cases.iter()),
        seconds(report.wall.elapsed_ns)
    );
    let mut rest = &report.cases[..];
    while let Some(first) = rest.first() {
        // A module that is named twice is two suites, each in its place.
        let len = rest.iter().take_while(|case| case.module == first.module).count();
        let (cases, after) = rest.split_at(len);
        suite(&mut out, report, cases, &first.module);
        rest = after;
    }
    out.push_str("</testsuites>\n");
    out
}

fn suite(out: &mut String, report: &SuiteReport, cases: &[CaseResult], module: &str) {
    let time = cases.iter().map(|case| case.wall.elapsed_ns).sum();
    let _ = writeln!(
        out,
        "  <testsuite name=\"{}\" {} time=\"{}\">",
        escape(module),
        counts(cases.iter()),
        seconds(time)
    );
    out.push_str("    <properties>\n");
    for (name, value) in [("machine", report.machine.clone()), ("seed", report.seed.to_string())] {
        let value = escape(&value);
        let _ = writeln!(out, "      <property name=\"{name}\" value=\"{value}\"/>");
    }
    out.push_str("    </properties>\n");
    for case in cases {
        test_case(out, case);
    }
    out.push_str("  </testsuite>\n");
}

fn test_case(out: &mut String, case: &CaseResult) {
    let _ = writeln!(
        out,
        "    <testcase classname=\"{}\" name=\"{}\" time=\"{}\">",
        escape(&case.module),
        escape(&case.case),
        seconds(case.wall.elapsed_ns)
    );
    let message = match &case.finding {
        Some(found) => finding(found, case.time_grade),
        None => case.reason.clone(),
    };
    let message = escape(&message);
    let _ = match case.status {
        Status::Passed => Ok(()),
        Status::Failed => writeln!(out, "      <failure message=\"{message}\"/>"),
        Status::Error => writeln!(out, "      <error message=\"{message}\"/>"),
        Status::Skipped => writeln!(out, "      <skipped message=\"{message}\"/>"),
        Status::NotRun => writeln!(out, "      <skipped message=\"not run\"/>"),
    };
    let artifacts = case.artifacts.iter().map(|path| format!("kept in {path}"));
    let notes = case.notes.iter().cloned().chain(artifacts);
    let said: Vec<String> = case.all_lines().map(str::to_owned).chain(notes).collect();
    if !said.is_empty() {
        let _ = writeln!(out, "      <system-out>{}</system-out>", escape(&said.join("\n")));
    }
    out.push_str("    </testcase>\n");
}

fn counts<'a>(cases: impl Iterator<Item = &'a CaseResult>) -> String {
    let (mut tests, mut failures, mut errors, mut skipped) = (0, 0, 0, 0);
    for case in cases {
        tests += 1;
        match case.status {
            Status::Passed => {}
            Status::Failed => failures += 1,
            Status::Error => errors += 1,
            Status::Skipped | Status::NotRun => skipped += 1,
        }
    }
    format!("tests=\"{tests}\" failures=\"{failures}\" errors=\"{errors}\" skipped=\"{skipped}\"")
}

fn seconds(ns: u64) -> String {
    format!("{:.6}", ns as f64 / 1e9)
}

/// Text for XML 1.0, in an attribute or between tags. Most control characters are not allowed
/// there in any form (§2.2); they become U+FFFD.
pub fn escape(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '&' => out.push_str("&amp;"),
            '<' => out.push_str("&lt;"),
            '>' => out.push_str("&gt;"),
            '"' => out.push_str("&quot;"),
            '\'' => out.push_str("&apos;"),
            // As references, or an attribute would read them as spaces (§3.3.3).
            '\n' | '\t' => {
                let _ = write!(out, "&#{};", u32::from(c));
            }
            '\u{fffe}' | '\u{ffff}' => out.push('\u{fffd}'),
            c if c.is_control() => out.push('\u{fffd}'),
            c => out.push(c),
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_that_xml_forbids_is_left() {
        let all: String = (0..0x11_0000).filter_map(char::from_u32).collect();
        let text = escape(&all);
        assert!(!text.contains(['<', '>', '"', '\'', '\u{fffe}', '\u{ffff}']));
        assert!(!text.chars().any(char::is_control));
        assert_eq!(escape("a&b<c>\"'\n\u{1b}"), "a&amp;b&lt;c&gt;&quot;&apos;&#10;\u{fffd}");
    }
}
