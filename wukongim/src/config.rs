//! Configuration: v2's YAML keys and `WK_` variables, one table of keys, nothing silently ignored. Spec: operations 1.
//!
//! Precedence: flag > environment > file > default. Unknown keys are warnings with the nearest known key; values that do not fit are
//! errors that name key, value and expectation.

mod keys;
mod settings;
mod value;

use std::collections::BTreeMap;
use std::path::Path;

pub use keys::KEYS;
pub use settings::Settings;

/// What a value must look like.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// `true` or `false`.
    Bool,
    /// A whole number.
    Int,
    /// `300ms`, `5s`, `1m30s`, `24h`, `30d`; a bare number is nanoseconds, as in v2.
    Duration,
    /// Anything.
    Text,
    /// A YAML list or words separated by white space.
    List,
}

/// What setting a key does in this build.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Effect {
    /// It is honoured.
    Works,
    /// It will be; said once at start.
    NotYet,
    /// It had no effect in v2, or tuned a part this server does not have; said once at start.
    Dead,
}

/// One key of the table.
#[derive(Clone, Copy, Debug)]
pub struct Key {
    /// Dotted name as in v2's documentation.
    pub name: &'static str,
    /// What values it takes.
    pub kind: Kind,
    /// v2's default, as text; `<…>` if derived.
    pub default: &'static str,
    /// What it does.
    pub effect: Effect,
}

impl Key {
    /// `cluster.nodeId` → `WK_CLUSTER_NODEID`.
    pub fn env_name(&self) -> String {
        format!("WK_{}", self.name.replace('.', "_").to_uppercase())
    }
}

/// A value with its origin.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    /// As given; lists joined by a blank.
    pub value: String,
    /// `wk.yaml:12`, `WK_ADDR`, or `--mode`.
    pub source: String,
}

/// Everything given, by table key, plus what an operator should hear.
#[derive(Debug, Default)]
pub struct Given {
    entries: BTreeMap<&'static str, Entry>,
    /// Unknown keys and the like, one sentence each.
    pub warnings: Vec<String>,
}

/// The configuration cannot be used; the text says where and why.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub struct ConfigError(pub String);

impl Given {
    /// Reads a file (if any) and the environment.
    pub fn load(
        file: Option<&Path>,
        env: impl IntoIterator<Item = (String, String)>,
    ) -> Result<Self, ConfigError> {
        let mut given = Self::default();
        if let Some(path) = file {
            let text = std::fs::read_to_string(path)
                .map_err(|e| ConfigError(format!("cannot read {}: {e}", path.display())))?;
            given.take_file(&path.display().to_string(), &text)?;
        }
        given.take_env(env);
        given.check_kinds()?;
        Ok(given)
    }

    /// Adds a command-line flag: strongest.
    pub fn set_flag(&mut self, name: &str, flag: &str, value: &str) {
        if let Some(key) = find(name) {
            let entry = Entry {
                value: value.to_owned(),
                source: flag.to_owned(),
            };
            self.entries.insert(key.name, entry);
        }
    }

    /// v2 takes any word for a mode; one it does not know deserves a remark.
    pub fn check_mode(&mut self) {
        const KNOWN: [&str; 4] = ["release", "debug", "test", "bench"];
        if let Some(Entry { value, source }) = self.get("mode")
            && !KNOWN.contains(&value.as_str())
        {
            let remark = format!(
                "{source}: unknown mode \"{value}\" is taken for release; known are {}",
                KNOWN.join(", ")
            );
            self.warnings.push(remark);
        }
    }

    /// What was given for a key; `None` = the default applies. An empty text counts as not given, as in v2.
    pub fn get(&self, name: &str) -> Option<&Entry> {
        debug_assert!(find(name).is_some(), "{name} is in the table");
        self.entries.get(name).filter(|e| !e.value.is_empty())
    }

    /// All keys that were given, in table order.
    pub fn iter(&self) -> impl Iterator<Item = (&'static Key, &Entry)> {
        KEYS.iter()
            .filter_map(|k| self.entries.get(k.name).map(|e| (k, e)))
    }

    fn take_file(&mut self, path: &str, text: &str) -> Result<(), ConfigError> {
        let root: serde_yaml_ng::Value =
            serde_yaml_ng::from_str(text).map_err(|e| ConfigError(format!("{path}: {e}")))?;
        // An empty file, or one of comments alone, says nothing.
        if !(root.is_mapping() || root.is_null()) {
            return Err(ConfigError(format!(
                "{path}: lines of the form \"key: value\" are expected"
            )));
        }
        let mut flat = Vec::new();
        value::flatten("", &root, &mut flat);
        for (name, value) in flat {
            let line = value::line_of(text, &name)
                .map_or_else(|| path.to_owned(), |n| format!("{path}:{n}"));
            match find(&name) {
                Some(key) => {
                    self.entries.insert(
                        key.name,
                        Entry {
                            value,
                            source: line,
                        },
                    );
                }
                None => self.warnings.push(unknown(&line, &name)),
            }
        }
        Ok(())
    }

    fn take_env(&mut self, env: impl IntoIterator<Item = (String, String)>) {
        for (name, value) in env {
            if !name.starts_with("WK_") || value.is_empty() {
                continue;
            }
            match KEYS.iter().find(|k| k.env_name() == name) {
                Some(key) => {
                    self.entries.insert(
                        key.name,
                        Entry {
                            value,
                            source: name,
                        },
                    );
                }
                None => {
                    let dotted = name["WK_".len()..].to_lowercase().replace('_', ".");
                    self.warnings.push(unknown(&name, &dotted));
                }
            }
        }
    }

    fn check_kinds(&self) -> Result<(), ConfigError> {
        for (key, entry) in self
            .iter()
            .filter(|(k, e)| k.effect == Effect::Works && !e.value.is_empty())
        {
            let fits = match key.kind {
                Kind::Bool => value::bool(&entry.value).is_some(),
                Kind::Int => entry.value.parse::<i64>().is_ok(),
                Kind::Duration => value::duration_ms(&entry.value).is_some(),
                Kind::Text | Kind::List => true,
            };
            if !fits {
                let expected = match key.kind {
                    Kind::Bool => "true or false",
                    Kind::Int => "a whole number",
                    Kind::Duration => "a duration like 300ms, 5s, 1m30s or 30d",
                    Kind::Text | Kind::List => "text",
                };
                let Entry { value, source } = entry;
                return Err(ConfigError(format!(
                    "{source}: {} must be {expected}, not \"{value}\"",
                    key.name
                )));
            }
        }
        Ok(())
    }
}

/// All keys as a Markdown table: `docs/configuration.md` holds it, and a test compares.
pub fn table() -> String {
    let mut out =
        String::from("| Key | Variable | Type | Default | Effect |\n|---|---|---|---|---|\n");
    for key in KEYS {
        let kind = format!("{:?}", key.kind).to_lowercase();
        let default = if key.default.is_empty() {
            ""
        } else {
            &format!("`{}`", key.default)
        };
        let effect = match key.effect {
            Effect::Works => "works",
            Effect::NotYet => "not yet",
            Effect::Dead => "none (accepted)",
        };
        out.push_str(&format!(
            "| `{}` | `{}` | {kind} | {default} | {effect} |\n",
            key.name,
            key.env_name()
        ));
    }
    out
}

/// The table's entry for a name, compared without case; v2's misspelling has a right twin.
fn find(name: &str) -> Option<&'static Key> {
    let lower = name
        .to_lowercase()
        .replace("channeldestroyafteridletick", "channeldestoryafteridletick");
    KEYS.iter().find(|k| k.name.to_lowercase() == lower)
}

fn unknown(source: &str, name: &str) -> String {
    let nearest = KEYS
        .iter()
        .map(|k| {
            (
                value::distance(&k.name.to_lowercase(), &name.to_lowercase()),
                k.name,
            )
        })
        .min();
    match nearest {
        Some((d, near)) if d <= name.len() / 2 => {
            format!("{source}: unknown key \"{name}\" is ignored; did you mean \"{near}\"?")
        }
        _ => format!("{source}: unknown key \"{name}\" is ignored"),
    }
}

#[cfg(test)]
mod tests;
