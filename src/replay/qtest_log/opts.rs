//! An argument's list of settings, as QEMU reads it: `name,key=value,key=value` with `,,` for a
//! comma in a value (QEMU `util/qemu-option.c`, `util/keyval.c`), or a JSON object.

use serde_json::Value;

/// One setting.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Setting {
    /// Its name; empty for a first value without one.
    pub key: String,
    /// Its value; `None` where the name stands alone, which switches it on.
    pub value: Option<String>,
}

impl Setting {
    /// The value; a name alone is `on`.
    pub fn value(&self) -> &str {
        self.value.as_deref().unwrap_or("on")
    }
}

/// Settings in their order. What is passed on is written anew from what was understood, so that
/// QEMU sees what was looked at.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Settings {
    /// All of them; those of a JSON object have the path to them as their names.
    pub items: Vec<Setting>,
    json: Option<Value>,
}

/// Settings of one argument; nobody writes as many.
const SETTINGS_MAX: usize = 1000;

impl Settings {
    /// Reads `text`.
    ///
    /// # Errors
    /// Says what is wrong with it.
    pub fn parse(text: &str) -> Result<Self, &'static str> {
        if text.trim_start().starts_with('{') {
            return Self::from_json(text);
        }
        let mut items = Vec::new();
        let mut rest = text;
        while !rest.is_empty() {
            let (item, after) = first_item(rest);
            rest = after;
            let setting = match item.split_once('=') {
                Some((key, value)) => Setting { key: key.to_owned(), value: Some(unescape(value)) },
                // The first may be a value alone.
                None if items.is_empty() => {
                    Setting { key: String::new(), value: Some(unescape(item)) }
                }
                None => Setting { key: unescape(item), value: None },
            };
            if !setting.key.is_empty() && !is_name(&setting.key) {
                return Err("a setting whose name is none");
            }
            items.push(setting);
            if items.len() > SETTINGS_MAX {
                return Err("more settings than anybody writes");
            }
        }
        Ok(Self { items, json: None })
    }

    /// Settings made of others.
    pub fn of(items: Vec<Setting>) -> Self {
        Self { items, json: None }
    }

    fn from_json(text: &str) -> Result<Self, &'static str> {
        let value: Value = serde_json::from_str(text).map_err(|_| "it is no JSON")?;
        let mut items = Vec::new();
        flatten("", &value, &mut items)?;
        Ok(Self { items, json: Some(value) })
    }

    /// The value of `key`, the last one given.
    pub fn get(&self, key: &str) -> Option<&str> {
        self.items.iter().rev().find(|item| item.key == key).map(Setting::value)
    }

    /// The value that stands first without a name, or under `name`.
    pub fn first(&self, name: &str) -> Option<&str> {
        let bare = self.items.first().filter(|item| item.key.is_empty());
        bare.map(Setting::value).or_else(|| self.get(name))
    }

    /// Every value that stands first without a name, or under `name`: QEMU may heed any of them.
    pub fn all<'s>(&'s self, name: &'s str) -> impl Iterator<Item = &'s str> {
        let named = move |item: &&Setting| item.key.is_empty() || item.key == name;
        self.items.iter().filter(named).map(Setting::value)
    }

    /// Whether it is a JSON object.
    pub fn is_json(&self) -> bool {
        self.json.is_some()
    }

    /// Keeps the settings that `keep` wants; of a JSON object, of those at its top.
    pub fn retain(&mut self, mut keep: impl FnMut(&str) -> bool) {
        self.items.retain(|item| keep(&item.key));
        if let Some(Value::Object(object)) = &mut self.json {
            object.retain(|key, value| match value {
                Value::Object(_) | Value::Array(_) => keep(&format!("{key}.")),
                _ => keep(key),
            });
        }
    }

    /// Adds a setting.
    pub fn push(&mut self, key: &str, value: &str) {
        self.items.push(Setting { key: key.to_owned(), value: Some(value.to_owned()) });
        if let Some(Value::Object(object)) = &mut self.json {
            object.insert(key.to_owned(), Value::String(value.to_owned()));
        }
    }

    /// As QEMU reads it.
    pub fn text(&self) -> String {
        if let Some(value) = &self.json {
            return value.to_string();
        }
        let text = |item: &Setting| match (&item.key, &item.value) {
            (key, None) => key.clone(),
            (key, Some(value)) if key.is_empty() => value.replace(',', ",,"),
            (key, Some(value)) => format!("{key}={}", value.replace(',', ",,")),
        };
        self.items.iter().map(text).collect::<Vec<_>>().join(",")
    }
}

/// What stands before the first single comma, and what behind it.
fn first_item(text: &str) -> (&str, &str) {
    let bytes = text.as_bytes();
    let mut at = 0;
    while let Some(byte) = bytes.get(at) {
        match (byte, bytes.get(at + 1)) {
            (b',', Some(b',')) => at += 2,
            (b',', _) => {
                let (item, rest) = text.split_at(at);
                return (item, rest.get(1..).unwrap_or_default());
            }
            _ => at += 1,
        }
    }
    (text, "")
}

fn unescape(text: &str) -> String {
    text.replace(",,", ",")
}

fn is_name(key: &str) -> bool {
    key.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-_.:[]+".contains(&byte))
}

fn flatten(path: &str, value: &Value, items: &mut Vec<Setting>) -> Result<(), &'static str> {
    let join = |key: &str| if path.is_empty() { key.to_owned() } else { format!("{path}.{key}") };
    let text = match value {
        Value::Object(object) => {
            for (key, value) in object {
                if !is_name(key) || key.is_empty() || key.contains('.') {
                    return Err("a setting whose name is none");
                }
                flatten(&join(key), value, items)?;
            }
            return Ok(());
        }
        Value::Array(values) => {
            for (index, value) in values.iter().enumerate() {
                flatten(&join(&index.to_string()), value, items)?;
            }
            return Ok(());
        }
        Value::Bool(on) => if *on { "on" } else { "off" }.to_owned(),
        Value::String(text) => text.clone(),
        Value::Number(number) => number.to_string(),
        Value::Null => String::new(),
    };
    if path.is_empty() {
        return Err("it is no JSON object");
    }
    if items.len() >= SETTINGS_MAX {
        return Err("more settings than anybody writes");
    }
    items.push(Setting { key: path.to_owned(), value: Some(text) });
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lists_are_read_and_written_alike() {
        for (text, want, again) in [
            ("q35,accel=qtest", &[("", "q35"), ("accel", "qtest")][..], "q35,accel=qtest"),
            (
                "id=d,file=a,,b,readonly",
                &[("id", "d"), ("file", "a,b"), ("readonly", "on")],
                "id=d,file=a,,b,readonly",
            ),
            ("accel=qtest,", &[("accel", "qtest")], "accel=qtest"),
            ("a,,b,,,c=1", &[("", "a,b,"), ("c", "1")], ""),
            ("", &[], ""),
            ("x==,y=", &[("x", "="), ("y", "")], "x==,y="),
        ] {
            let settings = Settings::parse(text).expect(text);
            let got: Vec<_> =
                settings.items.iter().map(|item| (item.key.as_str(), item.value())).collect();
            if !again.is_empty() || text.is_empty() {
                assert_eq!((got.as_slice(), settings.text().as_str()), (want, again), "{text}");
            }
            assert_eq!(Settings::parse(&settings.text()).unwrap(), settings, "{text}");
        }
        for text in ["a,b c=1", "a,=x,\u{e9}=1", "{", "{\"a b\": 1}", "{\"a.b\": 1}", "{\"\": 1}"] {
            assert!(Settings::parse(text).is_err(), "{text}");
        }
        assert!(Settings::parse(&"a,".repeat(SETTINGS_MAX + 1)).is_err());
    }

    #[test]
    fn json_is_flat_to_look_at() {
        let text =
            r#"{"driver":"raw","file":{"driver":"null-co","size":4096},"read-only":true,"a":[1]}"#;
        let mut settings = Settings::parse(text).unwrap();
        assert!(settings.is_json());
        for (key, value) in [
            ("driver", "raw"),
            ("file.driver", "null-co"),
            ("file.size", "4096"),
            ("read-only", "on"),
            ("a.0", "1"),
        ] {
            assert_eq!(settings.get(key), Some(value));
        }
        settings.retain(|key| !key.starts_with("file."));
        settings.push("file", "node");
        let want = r#"{"a":[1],"driver":"raw","file":"node","read-only":true}"#;
        assert_eq!(settings.text(), want);
        assert_eq!(settings.first("driver"), Some("raw"));
    }
}
