//! Which cases run, and with which options: `rtc/drift hz=1024 'hpet/*' pit clock=host`.

use super::module::{Case, Module};
use super::settings::{COMMON, Settings};
use crate::base::options::{OptionSpec, Options, nearest};
use crate::base::{Error, Result};

/// A list of modules, as [`registry::MODULES`](super::registry::MODULES).
pub type Modules = &'static [&'static dyn Module];

/// A case that is going to run.
#[derive(Clone)]
pub struct Planned {
    /// Its module.
    pub module: &'static dyn Module,
    /// The case.
    pub case: &'static Case,
    /// The options given that it understands, the common ones among them.
    pub options: Options,
    /// The common options.
    pub settings: Settings,
}

impl Planned {
    /// Its name: `rtc/drift`.
    pub fn name(&self) -> String {
        full_name(self.module, self.case)
    }
}

/// `module/case`.
pub fn full_name(module: &dyn Module, case: &Case) -> String {
    format!("{}/{}", module.name(), case.name)
}

/// One name of the command line with the options behind it.
struct Item<'a> {
    /// `None`: the options before the first name, for every case.
    pattern: Option<&'a str>,
    options: String,
}

/// Makes a plan of words: names (a case, a module, a glob), each with `key=value,…` behind it;
/// options before the first name are for every case; no name selects all. Cases run in the order
/// of the names, and one that is named twice runs twice.
///
/// # Errors
/// A usage error for a name that selects nothing, an option that none of its cases understands, or
/// a common option with a wrong value.
pub fn plan(modules: Modules, words: &[String]) -> Result<Vec<Planned>> {
    let mut items = items(words);
    let everywhere = items.remove(0);
    if items.is_empty() {
        return planned(&select(modules, None)?, &[&everywhere.options]);
    }
    let mut selections = Vec::with_capacity(items.len());
    for item in items {
        selections.push((select(modules, item.pattern)?, item.options));
    }
    // Understood by one case of any name is understood.
    let all: Vec<Selected> = selections.iter().flat_map(|(cases, _)| cases).copied().collect();
    let global = Options::parse(&everywhere.options, &specs(&all))?;
    let mut plan = Vec::with_capacity(all.len());
    for (cases, options) in &selections {
        let own = Options::parse(options, &specs(cases))?;
        for (module, case) in cases {
            plan.push(planned_case(*module, case, &[&own, &global])?);
        }
    }
    Ok(plan)
}

type Selected = (&'static dyn Module, &'static Case);

fn planned(cases: &[Selected], options: &[&str]) -> Result<Vec<Planned>> {
    let specs = specs(cases);
    let parsed = options.iter().map(|text| Options::parse(text, &specs));
    let parsed = parsed.collect::<Result<Vec<_>>>()?;
    let parsed: Vec<&Options> = parsed.iter().collect();
    cases.iter().map(|(module, case)| planned_case(*module, case, &parsed)).collect()
}

/// A case with what it understands of `sources`; the earlier source wins.
fn planned_case(
    module: &'static dyn Module,
    case: &'static Case,
    sources: &[&Options],
) -> Result<Planned> {
    let specs = specs(&[(module, case)]);
    let mut options = Options::default();
    for (key, value) in sources.iter().flat_map(|source| source.iter()) {
        let understood = specs.iter().any(|spec| spec.name == key);
        if understood && options.get(key).is_none() {
            options.insert(key, value, &specs)?;
        }
    }
    let settings = Settings::of(&options, case.real_time)?;
    Ok(Planned { module, case, options, settings })
}

/// The options that one of `cases` understands.
fn specs(cases: &[Selected]) -> Vec<OptionSpec> {
    let mut specs: Vec<OptionSpec> = Vec::new();
    let own = cases.iter().flat_map(|(_, case)| case.options);
    for spec in own.chain(COMMON) {
        if specs.iter().all(|known| known.name != spec.name) {
            specs.push(*spec);
        }
    }
    specs
}

/// Groups the words. The first item is the one without a name.
fn items(words: &[String]) -> Vec<Item<'_>> {
    let mut items = vec![Item { pattern: None, options: String::new() }];
    for word in words {
        match items.last_mut() {
            Some(item) if word.contains('=') => {
                item.options.push_str(word);
                item.options.push(',');
            }
            _ => items.push(Item { pattern: Some(word), options: String::new() }),
        }
    }
    items
}

/// The cases that `pattern` names.
///
/// # Errors
/// A usage error when there are none.
pub fn select(modules: Modules, pattern: Option<&str>) -> Result<Vec<Selected>> {
    let all = modules.iter().flat_map(|m| m.cases().iter().map(|case| (*m, case)));
    let Some(pattern) = pattern else { return Ok(all.collect()) };
    let found: Vec<Selected> =
        all.filter(|(module, case)| matches(pattern, module.name(), case.name)).collect();
    if found.is_empty() { Err(unknown(modules, pattern)) } else { Ok(found) }
}

/// Whether `pattern` names the case: a whole name, its module, or either as a glob.
fn matches(pattern: &str, module: &str, case: &str) -> bool {
    match pattern.split_once('/') {
        Some((first, rest)) => glob(first, module) && glob(rest, case),
        None => glob(pattern, module),
    }
}

/// `*` is any text, `?` any one character.
fn glob(pattern: &str, text: &str) -> bool {
    let (pattern, text): (Vec<char>, Vec<char>) =
        (pattern.chars().collect(), text.chars().collect());
    let (mut p, mut t) = (0, 0);
    // Where to go on when the text after the last star turns out to be longer.
    let mut star = None;
    while t < text.len() {
        match pattern.get(p) {
            Some('*') => {
                star = Some((p, t));
                p += 1;
            }
            Some(c) if *c == '?' || text.get(t) == Some(c) => (p, t) = (p + 1, t + 1),
            _ => match &mut star {
                Some((at, from)) => {
                    *from += 1;
                    (p, t) = (*at + 1, *from);
                }
                None => return false,
            },
        }
    }
    pattern.iter().skip(p).all(|c| *c == '*')
}

fn unknown(modules: Modules, pattern: &str) -> Error {
    let error = Error::usage(format!("there is no test '{pattern}'"));
    let cases = modules.iter().flat_map(|m| m.cases().iter().map(|case| full_name(*m, case)));
    let mut names: Vec<String> = modules.iter().map(|m| m.name().to_owned()).collect();
    let hint = match nearest(pattern, names.iter().map(String::as_str)) {
        Some(near) => format!("did you mean '{near}'?"),
        None => {
            let module_names = names.join(", ");
            names = cases.collect();
            match nearest(pattern, names.iter().map(String::as_str)) {
                Some(near) => format!("did you mean '{near}'?"),
                None => format!("tests: {module_names}; qtrace test --list shows their cases"),
            }
        }
    };
    error.hint(hint)
}

#[cfg(test)]
mod tests {
    use super::super::testing::MODULES;
    use super::*;

    fn names(words: &[&str]) -> Vec<String> {
        let words: Vec<String> = words.iter().map(|w| (*w).to_owned()).collect();
        plan(MODULES, &words).unwrap().iter().map(Planned::name).collect()
    }

    fn refused(words: &[&str]) -> Error {
        let words: Vec<String> = words.iter().map(|w| (*w).to_owned()).collect();
        let error = plan(MODULES, &words).map(|_| ()).unwrap_err();
        assert_eq!(error.kind().exit_code(), 2);
        error
    }

    #[test]
    fn names_are_whole_prefixes_or_globs() {
        assert_eq!(names(&["good/pass"]), ["good/pass"]);
        assert_eq!(names(&["good"]), ["good/pass", "good/options", "good/time"]);
        assert_eq!(names(&["g*d/*s*"]), ["good/pass", "good/options"]);
        assert_eq!(names(&["*/p?ss"]), ["good/pass"]);
        assert_eq!(names(&["good/pass", "good/pass"]).len(), 2);
        let all: usize = MODULES.iter().map(|module| module.cases().len()).sum();
        assert_eq!(names(&[]).len(), all);
    }

    #[test]
    fn stars_try_every_length() {
        for (pattern, text, want) in [
            ("*irq*", "an-irq-one", true),
            ("a*b*c", "abbcbc", true),
            ("a*b*c", "abbcbd", false),
            ("*", "", true),
            ("**", "x", true),
            ("?", "", false),
            ("x", "", false),
            ("", "x", false),
        ] {
            assert_eq!(glob(pattern, text), want, "{pattern} {text}");
        }
    }

    #[test]
    fn a_name_that_is_not_there_suggests() {
        assert!(refused(&["god"]).hint_text().unwrap().contains("'good'"));
        assert!(refused(&["good/opions"]).hint_text().unwrap().contains("'good/options'"));
        assert!(refused(&["nothing-like/it*"]).hint_text().unwrap().contains("--list"));
        // A prefix ends at a slash.
        refused(&["goo"]);
    }

    #[test]
    fn options_reach_the_cases_that_understand_them() {
        let words = ["clock=host", "good", "number=3", "good/pass", "clock=virtual"];
        let words: Vec<String> = words.iter().map(|w| (*w).to_owned()).collect();
        let plan = plan(MODULES, &words).unwrap();
        let get = |at: usize, key| plan[at].options.get(key);
        assert_eq!((get(0, "number"), get(0, "clock")), (None, Some("host")));
        assert_eq!((get(1, "number"), get(1, "clock")), (Some("3"), Some("host")));
        assert_eq!(get(3, "clock"), Some("virtual"), "the nearer one wins");
    }

    #[test]
    fn an_option_that_nobody_understands_is_refused() {
        assert!(refused(&["good", "numbr=3"]).hint_text().unwrap().contains("'number'"));
        refused(&["good/pass", "number=3"]);
        refused(&["numbr=3"]);
        refused(&["good", "number=1", "number=2"]);
        refused(&["clock=sundial"]);
    }
}
