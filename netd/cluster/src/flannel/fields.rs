//! Reads JSON objects the way flannel's reader does: the case of a key doesn't count,
//! `null` is as good as nothing, an unknown key is ignored.

use std::{fmt::Display, ops::RangeInclusive, str::FromStr};

use serde_json::{Map, Value};

use netd_domain::Invalid;

/// An object of which keys are taken until only unknown ones are left.
pub(super) struct Fields {
    map: Map<String, Value>,
    /// Before the names of its fields: "" or "Backend.".
    prefix: &'static str,
}

impl Fields {
    /// `None` if `value` is no object.
    pub(super) fn new(value: Value, prefix: &'static str) -> Option<Self> {
        match value {
            Value::Object(map) => Some(Self { map, prefix }),
            _ => None,
        }
    }

    /// A field's name in messages.
    pub(super) fn path(&self, name: &str) -> String {
        format!("{}{name}", self.prefix)
    }

    /// Takes a key out; `None` if it is not there or is `null`.
    pub(super) fn take(&mut self, name: &str) -> Option<Value> {
        let value = self.map.remove(name).or_else(|| {
            let same = self.map.keys().find(|key| key.eq_ignore_ascii_case(name))?.clone();
            self.map.remove(&same)
        });
        value.filter(|v| !v.is_null())
    }

    /// Takes a key out and reads it; what `read` objects to is recorded.
    pub(super) fn get<T, E: Display>(
        &mut self,
        name: &str,
        bad: &mut Invalid,
        read: impl FnOnce(&Value) -> Result<T, E>,
    ) -> Option<T> {
        let value = self.take(name)?;
        bad.take(&self.path(name), read(&value))
    }

    /// The names of what is left.
    pub(super) fn unknown(self) -> Vec<String> {
        self.map.keys().map(|key| format!("{}{}", self.prefix, shortened(key))).collect()
    }
}

/// How much of a value is shown back: it can be megabytes of junk.
const MAX_SHOWN: usize = 64;

fn shortened(text: &str) -> String {
    let mut short: String = text.chars().take(MAX_SHOWN).flat_map(char::escape_debug).collect();
    if text.chars().nth(MAX_SHOWN).is_some() {
        short.push_str("...");
    }
    short
}

/// A value as messages show it. Strings in quotes.
pub(super) fn shown(value: &Value) -> String {
    match value {
        Value::String(text) => format!("\"{}\"", shortened(text)),
        // Only numbers and the like are short; a list's text would have to be made first.
        Value::Array(_) => "a list".to_owned(),
        Value::Object(_) => "an object".to_owned(),
        other => shortened(&other.to_string()),
    }
}

/// Text.
pub(super) fn text(value: &Value) -> Result<&str, String> {
    value.as_str().ok_or_else(|| format!("{} is not a string", shown(value)))
}

/// Text that stands for something.
pub(super) fn parsed<T: FromStr>(value: &Value, what: &str) -> Result<T, String> {
    text(value)?.parse().map_err(|_| format!("{} is not {what}", shown(value)))
}

/// A network with a prefix length. Its address is read by the standard library, which
/// doesn't take `010.5.0.0`: octal to some, decimal to others.
pub(super) fn network<A: FromStr, N: FromStr>(text: &str) -> Option<N> {
    let (address, _) = text.split_once('/')?;
    address.parse::<A>().ok()?;
    text.parse().ok()
}

/// `true` or `false`.
pub(super) fn boolean(value: &Value) -> Result<bool, String> {
    value.as_bool().ok_or_else(|| format!("{} is neither true nor false", shown(value)))
}

/// A whole number of a range, as a number, not as text.
pub(super) fn number<T>(value: &Value, range: RangeInclusive<T>) -> Result<T, String>
where
    T: TryFrom<u64> + PartialOrd + Display,
{
    let number = value.as_u64().and_then(|n| T::try_from(n).ok());
    number.filter(|n| range.contains(n)).ok_or_else(|| {
        let (first, last) = (range.start(), range.end());
        format!("{} is not a whole number in {first}..={last}", shown(value))
    })
}
