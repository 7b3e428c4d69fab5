//! Typed reading of JSON that a stranger wrote: every wrong field is reported, with
//! its path, instead of the first one without.

use std::collections::BTreeMap;
use std::ops::{Deref, RangeInclusive};

use netd_api::suggest::closest;
use serde_json::Value;

use crate::{
    error::{HookError, shown},
    status::Violation,
};

/// The most violations that are reported.
const MAX_VIOLATIONS: usize = 20;

/// A value and where it is.
#[derive(Clone)]
pub struct JsonNode<'a> {
    path: String,
    value: &'a Value,
}

impl Deref for JsonNode<'_> {
    type Target = Value;
    fn deref(&self) -> &Value {
        self.value
    }
}

impl<'a> JsonNode<'a> {
    /// The document itself.
    pub fn root(value: &'a Value) -> Self {
        Self { path: String::new(), value }
    }

    /// The keys of this object and their values, without those that are null; none if it is
    /// no object.
    pub fn fields(&self) -> impl Iterator<Item = (&'a str, JsonNode<'a>)> {
        let fields = self.value.as_object().into_iter().flatten();
        let given = fields.filter(|(_, value)| !value.is_null());
        given.map(|(key, value)| (key.as_str(), JsonNode { path: self.path_of(&cut(key)), value }))
    }

    /// Where it is: `runtimeConfig.ips[0]`.
    pub fn path(&self) -> &str {
        &self.path
    }

    /// The value with the document's lifetime.
    pub fn value(&self) -> &'a Value {
        self.value
    }

    /// Path of a field of this object.
    pub fn path_of(&self, key: &str) -> String {
        if self.path.is_empty() { key.to_owned() } else { format!("{}.{key}", self.path) }
    }

    /// The field, unless it is missing or null.
    pub fn get(&self, key: &str) -> Option<JsonNode<'a>> {
        let value = self.value.get(key).filter(|v| !v.is_null())?;
        Some(JsonNode { path: self.path_of(key), value })
    }
}

/// Collects what is wrong while fields are read.
#[derive(Debug, Default)]
pub struct Reader {
    found: Vec<Violation>,
    more: usize,
}

impl Reader {
    /// Nothing found so far.
    pub fn new() -> Self {
        Self::default()
    }

    /// Records a violation.
    pub fn add(&mut self, field: impl Into<String>, problem: impl Into<String>) {
        if self.found.len() < MAX_VIOLATIONS {
            self.found.push(Violation { field: field.into(), problem: problem.into() });
        } else {
            self.more += 1;
        }
    }

    /// Records that `node` is not `wanted`.
    pub fn wrong(&mut self, node: &JsonNode<'_>, wanted: &str) {
        let field = if node.path.is_empty() { "(document)" } else { &node.path };
        self.add(field, format!("must be {wanted}, is {}", describe(node.value)));
    }

    /// Records that nothing reads the field `key`, which is at `node`, and which of the `known`
    /// ones was probably meant.
    pub fn unknown(&mut self, key: &str, node: &JsonNode<'_>, known: &[&str]) {
        let hint = match closest(key, known) {
            Some(name) => format!("did you mean \"{name}\"?"),
            None => format!("known keys: {}", known.join(", ")),
        };
        self.add(node.path(), format!("unknown key; {hint}"));
    }

    /// Records every field of `object` that is none of `known`, whatever its spelling if
    /// `any_case` (see [`Reader::any_case`]).
    pub fn only(&mut self, object: &JsonNode<'_>, known: &[&str], any_case: bool) {
        for (key, node) in object.fields() {
            let same = |name: &&str| *name == key || any_case && name.eq_ignore_ascii_case(key);
            if !known.iter().any(same) {
                self.unknown(key, &node, known);
            }
        }
    }

    /// An error when anything was found.
    ///
    /// # Errors
    /// [`HookError::Config`].
    pub fn finish(mut self) -> Result<(), HookError> {
        if self.more > 0 {
            let problem = format!("and {} more", self.more);
            self.found.push(Violation { field: "...".into(), problem });
        }
        if self.found.is_empty() { Ok(()) } else { Err(HookError::Config(self.found)) }
    }

    /// The node if it is an object.
    pub fn object<'a>(&mut self, node: Option<JsonNode<'a>>) -> Option<JsonNode<'a>> {
        let node = node?;
        if node.is_object() {
            return Some(node);
        }
        self.wrong(&node, "an object");
        None
    }

    /// A field of an object under either spelling (`hostPort`, `HostPort`): runtimes
    /// in Go write both. Given under both is a violation.
    pub(crate) fn any_case<'a>(
        &mut self,
        object: &JsonNode<'a>,
        key: &str,
    ) -> Option<JsonNode<'a>> {
        let fields = object.value.as_object()?;
        let mut same = fields.iter().filter(|(k, v)| k.eq_ignore_ascii_case(key) && !v.is_null());
        let (name, value) = same.next()?;
        if let Some((other, _)) = same.next() {
            self.add(object.path_of(name), format!("is given again as {}", shown(other)));
        }
        Some(JsonNode { path: object.path_of(name), value })
    }

    /// A string; `None` if missing.
    pub fn string(&mut self, node: Option<JsonNode<'_>>) -> Option<String> {
        let node = node?;
        let text = node.as_str().map(str::to_owned);
        if text.is_none() {
            self.wrong(&node, "a string");
        }
        text
    }

    /// `true` or `false`; `None` if missing.
    pub fn flag(&mut self, node: Option<JsonNode<'_>>) -> Option<bool> {
        let node = node?;
        let flag = node.as_bool();
        if flag.is_none() {
            self.wrong(&node, "true or false");
        }
        flag
    }

    /// A whole number; `None` if missing.
    pub fn number(
        &mut self,
        node: Option<JsonNode<'_>>,
        range: RangeInclusive<u64>,
    ) -> Option<u64> {
        let node = node?;
        let number = node.as_u64().filter(|n| range.contains(n));
        if number.is_none() {
            let most = *range.end();
            let wanted = match most {
                u64::MAX => format!("a whole number from {} on", range.start()),
                _ => format!("a whole number from {} to {most}", range.start()),
            };
            self.wrong(&node, &wanted);
        }
        number
    }

    /// The elements of a list; none if missing.
    pub fn list<'a>(&mut self, node: Option<JsonNode<'a>>) -> Vec<JsonNode<'a>> {
        let Some(node) = node else { return Vec::new() };
        let Some(values) = node.value.as_array() else {
            self.wrong(&node, "a list");
            return Vec::new();
        };
        let element = |(i, value)| JsonNode { path: format!("{}[{i}]", node.path), value };
        values.iter().enumerate().map(element).collect()
    }

    /// A list of strings; empty if missing.
    pub fn strings(&mut self, node: Option<JsonNode<'_>>) -> Vec<String> {
        self.list(node).into_iter().filter_map(|n| self.string(Some(n))).collect()
    }

    /// An object whose values are strings; empty if missing.
    pub fn string_map(&mut self, node: Option<JsonNode<'_>>) -> BTreeMap<String, String> {
        let Some(node) = self.object(node) else { return BTreeMap::new() };
        let Some(fields) = node.value.as_object() else { return BTreeMap::new() };
        let mut map = BTreeMap::new();
        for (key, value) in fields {
            match value {
                Value::String(text) => drop(map.insert(key.clone(), text.clone())),
                Value::Null => {}
                _ => {
                    let path = node.path_of(&shown(key));
                    self.add(path, format!("must be a string, is {}", describe(value)));
                }
            }
        }
        map
    }
}

/// As much of a key as is shown: it can be megabytes of junk.
fn cut(key: &str) -> String {
    const MOST: usize = 64;
    if key.len() <= MOST && !key.contains(char::is_control) {
        return key.to_owned();
    }
    shown(key)
}

fn describe(value: &Value) -> String {
    match value {
        Value::Null => "null".into(),
        Value::Bool(b) => b.to_string(),
        Value::Number(n) => n.to_string(),
        Value::String(s) => shown(s),
        Value::Array(_) => "a list".into(),
        Value::Object(_) => "an object".into(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn every_wrong_field_is_named_by_its_path() {
        let value = json!({"a": [{"b": "x"}, {"b": -1}, 7], "s": {"t": []}});
        let root = JsonNode::root(&value);
        let mut reader = Reader::new();
        for node in reader.list(root.get("a")) {
            if let Some(object) = reader.object(Some(node)) {
                reader.number(object.get("b"), 1..=65535);
            }
        }
        reader.string(root.get("s").and_then(|s| s.get("t")));
        let text = reader.finish().unwrap_err().to_string();
        for part in [
            "a[0].b: must be a whole number from 1 to 65535, is \"x\"",
            "a[1].b: must be a whole number from 1 to 65535, is -1",
            "a[2]: must be an object, is 7",
            "s.t: must be a string, is a list",
        ] {
            assert!(text.contains(part), "{part} in {text}");
        }
    }

    #[test]
    fn a_field_under_two_spellings_is_refused() {
        let value = json!({"hostPort": 1, "HostPort": 2});
        let mut reader = Reader::new();
        reader.any_case(&JsonNode::root(&value), "hostPort");
        let text = reader.finish().unwrap_err().to_string();
        assert!(text.contains("is given again"), "{text}");
    }

    #[test]
    fn reports_stay_short_however_much_is_wrong() {
        let value = Value::Array(vec![json!(1); 100_000]);
        let mut reader = Reader::new();
        assert!(reader.strings(Some(JsonNode::root(&value))).is_empty());
        let text = reader.finish().unwrap_err().to_string();
        assert!(text.len() < 2000 && text.ends_with("and 99980 more"), "{text}");
    }
}
