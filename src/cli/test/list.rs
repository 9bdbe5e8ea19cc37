//! `qtrace test --list`: every test with its purpose, options and needs.

use std::fmt::Write;

use serde::Serialize;

use crate::base::Result;
use crate::base::options::OptionSpec;
use crate::report::json;
use crate::suite::machines::KINDS;
use crate::suite::needs;
use crate::suite::select::full_name;
use crate::suite::settings::COMMON;
use crate::suite::{Case, Module};

type Selected = (&'static dyn Module, &'static Case);

/// For people.
pub(super) fn text(cases: &[Selected]) -> String {
    let mut out = String::new();
    let mut module_before = "";
    for (module, case) in cases {
        if module.name() != module_before {
            module_before = module.name();
            let _ = writeln!(out, "{module_before}: {}", module.purpose());
        }
        let name = full_name(*module, case);
        let _ = writeln!(out, "  {name:26} {}", case.purpose);
        options(&mut out, case.options, 6);
        let needs = needs::words(case.needs);
        if !needs.is_empty() {
            let _ = writeln!(out, "      needs {}", needs.join(", "));
        }
    }
    out.push_str("options of every case:\n");
    options(&mut out, COMMON, 2);
    out
}

/// The kinds of machine.
pub(in crate::cli) fn machines() -> String {
    let mut out = String::new();
    for kind in KINDS {
        let _ = writeln!(out, "{}: {}", kind.name(), kind.purpose());
        options(&mut out, kind.options(), 2);
    }
    out
}

fn options(out: &mut String, specs: &[OptionSpec], indent: usize) {
    for spec in specs {
        let form = format!("{}={}", spec.name, spec.value);
        let _ = write!(out, "{:indent$}{form:26} {}", "", spec.help);
        let _ = match spec.default {
            "" => writeln!(out),
            default => writeln!(out, " (default {default})"),
        };
    }
}

#[derive(Serialize)]
struct Listing {
    schema: &'static str,
    tests: Vec<ListedCase>,
    common_options: Vec<ListedOption>,
}

#[derive(Serialize)]
struct ListedCase {
    name: String,
    module: &'static str,
    case: &'static str,
    purpose: &'static str,
    real_time: bool,
    needs: Vec<&'static str>,
    chips: Vec<String>,
    options: Vec<ListedOption>,
}

#[derive(Serialize)]
struct ListedOption {
    name: &'static str,
    value: &'static str,
    default: &'static str,
    help: &'static str,
}

/// For programs.
///
/// # Errors
/// The serialiser's own.
pub(super) fn json(cases: &[Selected]) -> Result<String> {
    let tests = cases.iter().map(|(module, case)| ListedCase {
        name: full_name(*module, case),
        module: module.name(),
        case: case.name,
        purpose: case.purpose,
        real_time: case.real_time,
        needs: needs::words(case.needs),
        chips: module.chips().iter_names().map(|(name, _)| name.to_lowercase()).collect(),
        options: listed(case.options),
    });
    json::to_text(&Listing {
        schema: "qtrace.tests/1",
        tests: tests.collect(),
        common_options: listed(COMMON),
    })
}

fn listed(specs: &[OptionSpec]) -> Vec<ListedOption> {
    let listed = specs.iter().map(|spec| ListedOption {
        name: spec.name,
        value: spec.value,
        default: spec.default,
        help: spec.help,
    });
    listed.collect()
}
