//! Reads TOML tables key by key, so that one wrong key does not hide another.

use std::cell::RefCell;

use toml::{Table, Value};

use super::values::shown;
use netd_api::suggest::closest;
use netd_domain::Invalid;

/// Collects the errors of all sections of one configuration.
#[derive(Default)]
pub(super) struct Problems {
    bad: RefCell<Invalid>,
    /// Keys that were set by flags or the environment, and how errors name their source.
    origins: Vec<(String, String)>,
}

impl Problems {
    pub(super) fn new(origins: Vec<(String, String)>) -> Self {
        Self { bad: RefCell::default(), origins }
    }

    pub(super) fn add(&self, path: &str, problem: impl std::fmt::Display) {
        let origin = self.origins.iter().find(|(p, _)| p == path);
        let from = origin.map(|(_, name)| format!(" (from {name})")).unwrap_or_default();
        self.bad.borrow_mut().add(path, format!("{problem}{from}"));
    }

    pub(super) fn into_result(self) -> Result<(), Invalid> {
        self.bad.into_inner().into_result()
    }
}

/// One table. [`Section::finish`] reports the keys that were not read.
pub(super) struct Section<'a> {
    path: String,
    table: Table,
    known: Vec<&'static str>,
    report: &'a Problems,
}

impl<'a> Section<'a> {
    pub(super) fn root(table: Table, report: &'a Problems) -> Self {
        Self { path: String::new(), table, known: vec![], report }
    }

    /// The full path of a key.
    pub(super) fn path_of(&self, key: &str) -> String {
        if self.path.is_empty() { key.to_owned() } else { format!("{}.{key}", self.path) }
    }

    /// The path of this table: `network[1].pool[0]`.
    pub(super) fn path(&self) -> &str {
        &self.path
    }

    /// Reports a problem with a key of this table.
    pub(super) fn bad(&self, key: &str, problem: impl std::fmt::Display) {
        self.report.add(&self.path_of(key), problem);
    }

    /// Whether the table has the key, valid or not.
    pub(super) fn has(&self, key: &str) -> bool {
        self.table.contains_key(key)
    }

    /// The value of a key, which is still to be read.
    pub(super) fn peek(&self, key: &str) -> Option<&Value> {
        self.table.get(key)
    }

    /// Removes `key` and parses its value; `None` if absent, or if invalid and reported.
    pub(super) fn get<T>(
        &mut self,
        key: &'static str,
        parse: impl FnOnce(&Value) -> Result<T, String>,
    ) -> Option<T> {
        self.known.push(key);
        let value = self.table.remove(key)?;
        parse(&value).map_err(|problem| self.bad(key, problem)).ok()
    }

    /// Like [`Section::get`]; if the key is absent, `why` is reported.
    pub(super) fn required<T>(
        &mut self,
        key: &'static str,
        why: &str,
        parse: impl FnOnce(&Value) -> Result<T, String>,
    ) -> Option<T> {
        if !self.has(key) {
            self.bad(key, why);
        }
        self.get(key, parse)
    }

    /// The table under `key`; an empty one if it is absent or not a table.
    pub(super) fn section(&mut self, key: &'static str) -> Section<'a> {
        let table = self.get(key, |v| match v {
            Value::Table(t) => Ok(t.clone()),
            other => Err(format!("{} is not a table; write [{key}]", shown(other))),
        });
        let path = self.path_of(key);
        Section { path, table: table.unwrap_or_default(), known: vec![], report: self.report }
    }

    /// The array of tables under `key`; more than `max` tables are an error.
    pub(super) fn sections(&mut self, key: &'static str, max: usize) -> Vec<Section<'a>> {
        let path = self.path_of(key);
        let heading: String = path.split('.').map(|p| p.split('[').next().unwrap_or(p)).fold(
            String::new(),
            |all, p| {
                if all.is_empty() { p.to_owned() } else { format!("{all}.{p}") }
            },
        );
        let list = self.get(key, |v| match v {
            Value::Array(all) if all.len() > max => {
                Err(format!("{} entries; at most {max} are possible", all.len()))
            }
            Value::Array(all) => Ok(all.clone()),
            other => Err(format!("{} is not a list of tables; write [[{heading}]]", shown(other))),
        });
        let mut found = vec![];
        for (i, value) in list.unwrap_or_default().into_iter().enumerate() {
            let path = format!("{path}[{i}]");
            match value {
                Value::Table(table) => {
                    found.push(Section { path, table, known: vec![], report: self.report });
                }
                other => {
                    let text = format!("{} is not a table; write [[{heading}]]", shown(&other));
                    self.report.add(&path, text);
                }
            }
        }
        found
    }

    /// Reports every key that was not read.
    pub(super) fn finish(self) {
        for key in self.table.keys() {
            let closest = closest(key, &self.known);
            let hint = match closest {
                Some(name) => format!("did you mean \"{name}\"?"),
                None => format!("known keys: {}", self.known.join(", ")),
            };
            let key: String = key.chars().take(64).collect();
            self.bad(&key, format!("unknown key; {hint}"));
        }
    }
}
