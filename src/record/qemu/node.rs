//! The value of a `-drive` or `-blockdev`: settings with paths for names (`file.filename`), or a
//! JSON object, changed in place and written again in its own form.

use serde_json::{Map, Value};

use crate::replay::qtest_log::opts::{Setting, Settings};

/// Settings of a block node.
#[derive(Clone, Debug)]
pub struct Node(Form);

#[derive(Clone, Debug)]
enum Form {
    Dotted(Vec<Setting>),
    Json(Map<String, Value>),
}

impl Node {
    /// Reads the value of a `-blockdev`, where a first word alone is the driver.
    ///
    /// # Errors
    /// Says what is wrong with it.
    pub fn blockdev(text: &str) -> Result<Self, &'static str> {
        let settings = Settings::parse(text)?;
        if settings.is_json() {
            return match serde_json::from_str(text) {
                Ok(Value::Object(object)) => Ok(Self(Form::Json(object))),
                _ => Err("it is no JSON object"),
            };
        }
        Ok(Self::named(settings, |first| Setting { key: "driver".to_owned(), ..first }))
    }

    /// Reads the value of a `-drive`, where a first word alone is switched on.
    ///
    /// # Errors
    /// Says what is wrong with it.
    pub fn drive(text: &str) -> Result<Self, &'static str> {
        let settings = Settings::parse(text)?;
        if settings.is_json() {
            return Err("a -drive takes no JSON");
        }
        let switch = |first: Setting| Setting { key: first.value().to_owned(), value: None };
        Ok(Self::named(settings, switch))
    }

    fn named(settings: Settings, name: impl FnOnce(Setting) -> Setting) -> Self {
        let mut items = settings.items;
        if let Some(first) = items.first_mut().filter(|first| first.key.is_empty()) {
            *first = name(first.clone());
        }
        Self(Form::Dotted(items))
    }

    /// A node without settings.
    pub fn empty() -> Self {
        Self(Form::Dotted(Vec::new()))
    }

    /// The value at `path`, the last one given; switches are `on` and `off`. Null is none.
    pub fn get(&self, path: &str) -> Option<String> {
        match &self.0 {
            Form::Dotted(items) => {
                let item = items.iter().rev().find(|item| item.key == path)?;
                Some(item.value().to_owned())
            }
            Form::Json(object) => match walk(object, path)? {
                Value::String(text) => Some(text.clone()),
                Value::Bool(on) => Some(if *on { "on" } else { "off" }.to_owned()),
                Value::Number(number) => Some(number.to_string()),
                Value::Null | Value::Array(_) | Value::Object(_) => None,
            },
        }
    }

    /// Whether the switch at `path` is on.
    pub fn is_on(&self, path: &str) -> bool {
        self.get(path).is_some_and(|value| matches!(value.as_str(), "on" | "yes" | "true" | "y"))
    }

    /// Whether the value at `path` is JSON's null.
    pub fn is_null(&self, path: &str) -> bool {
        match &self.0 {
            Form::Dotted(_) => false,
            Form::Json(object) => walk(object, path) == Some(&Value::Null),
        }
    }

    /// The first names of what stands below `prefix`, which is empty or ends with a dot; each once.
    pub fn names_below(&self, prefix: &str) -> Vec<String> {
        let mut names: Vec<String> = match &self.0 {
            Form::Dotted(items) => items
                .iter()
                .filter_map(|item| item.key.strip_prefix(prefix)?.split('.').next())
                .map(str::to_owned)
                .collect(),
            Form::Json(object) => match prefix.strip_suffix('.') {
                None => object.keys().cloned().collect(),
                Some(path) => match walk(object, path) {
                    Some(Value::Object(inner)) => inner.keys().cloned().collect(),
                    _ => Vec::new(),
                },
            },
        };
        names.sort();
        names.dedup();
        names
    }

    /// Whether anything in it, however deep, is called `name` and has a value.
    pub fn mentions(&self, name: &str) -> bool {
        match &self.0 {
            Form::Dotted(items) => {
                items.iter().any(|item| item.key.rsplit('.').next() == Some(name))
            }
            Form::Json(object) => object.iter().any(|(key, value)| mentions(key, value, name)),
        }
    }

    /// Takes away `path` and all below it.
    pub fn remove(&mut self, path: &str) {
        match &mut self.0 {
            Form::Dotted(items) => items.retain(|item| {
                item.key
                    .strip_prefix(path)
                    .is_none_or(|rest| !rest.is_empty() && !rest.starts_with('.'))
            }),
            Form::Json(object) => {
                let (folder, name) = path.rsplit_once('.').unwrap_or(("", path));
                if let Some(object) = walk_mut(object, folder) {
                    object.remove(name);
                }
            }
        }
    }

    /// Takes away the value at `path`, and nothing that is below it.
    pub fn remove_value(&mut self, path: &str) {
        match &mut self.0 {
            Form::Dotted(items) => items.retain(|item| item.key != path),
            Form::Json(object) if walk(object, path).is_some_and(Value::is_object) => {}
            Form::Json(_) => self.remove(path),
        }
    }

    /// Sets `path` to a string, in place of what was there.
    pub fn set(&mut self, path: &str, value: &str) {
        match &mut self.0 {
            Form::Dotted(items) => {
                let new = Setting { key: path.to_owned(), value: Some(value.to_owned()) };
                match items.iter().position(|item| item.key == path) {
                    Some(at) => {
                        items[at] = new;
                        let mut index = 0;
                        items.retain(|item| {
                            index += 1;
                            index - 1 <= at || item.key != path
                        });
                    }
                    None => items.push(new),
                }
            }
            Form::Json(object) => {
                let (folder, name) = path.rsplit_once('.').unwrap_or(("", path));
                if let Some(object) = walk_mut(object, folder) {
                    object.insert(name.to_owned(), Value::String(value.to_owned()));
                }
            }
        }
    }

    /// As QEMU reads it.
    pub fn text(&self) -> String {
        match &self.0 {
            Form::Dotted(items) => Settings::of(items.clone()).text(),
            Form::Json(object) => Value::Object(object.clone()).to_string(),
        }
    }
}

fn mentions(key: &str, value: &Value, name: &str) -> bool {
    match value {
        Value::Object(below) => below.iter().any(|(key, value)| mentions(key, value, name)),
        // What stands in a list has no names of its own.
        Value::Array(items) => items.iter().any(|value| mentions("", value, name)),
        Value::Null => false,
        _ => key == name,
    }
}

fn walk<'v>(object: &'v Map<String, Value>, path: &str) -> Option<&'v Value> {
    let mut names = path.split('.');
    let mut value = object.get(names.next()?)?;
    for name in names {
        value = value.as_object()?.get(name)?;
    }
    Some(value)
}

/// The object at `path`, made where it is missing.
fn walk_mut<'v>(
    object: &'v mut Map<String, Value>,
    path: &str,
) -> Option<&'v mut Map<String, Value>> {
    let mut at = object;
    for name in path.split('.').filter(|name| !name.is_empty()) {
        let value = at.entry(name).or_insert_with(|| Value::Object(Map::new()));
        at = value.as_object_mut()?;
    }
    Some(at)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_forms_are_changed_alike() {
        let dotted =
            "qcow2,node-name=d,read-only=on,file.driver=file,file.filename=a,,b,file.aio=native";
        let json = r#"{"driver":"qcow2","node-name":"d","read-only":true,
            "file":{"driver":"file","filename":"a,b","aio":"native"}}"#;
        for text in [dotted, json] {
            let mut node = Node::blockdev(text).unwrap();
            assert_eq!(node.get("driver").as_deref(), Some("qcow2"));
            assert_eq!(node.get("file.filename").as_deref(), Some("a,b"));
            assert!(node.is_on("read-only") && node.get("file").is_none(), "{text}");
            assert_eq!(node.names_below(""), ["driver", "file", "node-name", "read-only"]);
            assert_eq!(node.names_below("file."), ["aio", "driver", "filename"]);
            node.set("driver", "raw");
            node.remove("file");
            node.set("file.server.path", "/x,y");
            assert_eq!(node.get("file.driver"), None);
            assert_eq!(node.get("file.server.path").as_deref(), Some("/x,y"));
            let again = Node::blockdev(&node.text()).unwrap();
            assert_eq!(again.names_below(""), node.names_below(""), "{}", node.text());
        }
    }

    #[test]
    fn words_and_repetitions() {
        let mut node = Node::drive("readonly,file=a,filename=b,file=c").unwrap();
        assert!(node.is_on("readonly"));
        assert_eq!(node.get("file").as_deref(), Some("c"));
        node.set("file", "d");
        assert_eq!(node.text(), "readonly,file=d,filename=b");
        node.remove("file");
        assert_eq!(node.text(), "readonly,filename=b");
        assert!(Node::drive(r#"{"file":"x"}"#).is_err());
        let node = Node::blockdev(r#"{"driver":"qcow2","backing":null,"file":"f"}"#).unwrap();
        assert!(node.is_null("backing") && !node.is_null("file") && node.get("backing").is_none());
    }
}
