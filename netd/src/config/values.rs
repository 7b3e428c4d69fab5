//! Parses the values of single keys.

use std::{fmt, net::SocketAddr, path::PathBuf, str::FromStr};

use toml::Value;
use tracing_subscriber::EnvFilter;

use netd_api::suggest::closest;

/// The format and destination of the log.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum LogFormat {
    /// The journal if standard error is connected to it; otherwise text.
    #[default]
    Auto,
    /// Text on standard error.
    Text,
    /// One JSON object a line, on standard error.
    Json,
    /// The journal, with fields.
    Journald,
}

/// The group that may use the socket besides root.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum SocketGroup {
    /// A group's name; it is looked up when the socket is made.
    Name(String),
    /// A group's number.
    Gid(u32),
}

impl fmt::Display for SocketGroup {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Name(name) => f.write_str(name),
            Self::Gid(gid) => write!(f, "{gid}"),
        }
    }
}

/// A wrong value, shortened for an error.
pub(super) fn shown(value: &Value) -> String {
    const MAX_CHARS: usize = 64;
    let whole = match value {
        Value::Table(_) => "a table".to_owned(),
        Value::Array(_) => "a list".to_owned(),
        Value::String(s) => {
            let cut: String = s.chars().take(MAX_CHARS + 1).collect();
            format!("\"{}\"", cut.escape_debug())
        }
        other => other.to_string(),
    };
    if whole.chars().count() <= MAX_CHARS + 2 {
        return whole;
    }
    format!("{}...\"", whole.chars().take(MAX_CHARS).collect::<String>())
}

pub(super) fn text(value: &Value) -> Result<String, String> {
    let Value::String(s) = value else {
        return Err(format!("{} is not a text; put it in quotes", shown(value)));
    };
    if s.chars().any(char::is_control) {
        return Err(format!("{} has control characters", shown(value)));
    }
    Ok(s.clone())
}

/// A string that parses as `T`; `what` says in errors what is expected.
pub(super) fn parsed<T: FromStr>(value: &Value, what: &str) -> Result<T, String>
where
    T::Err: fmt::Display,
{
    let s = text(value)?;
    s.parse().map_err(|e| format!("{} is not {what} ({e})", shown(value)))
}

/// Like [`parsed`], for types whose errors name the value and the rule.
pub(super) fn named<T: FromStr>(value: &Value) -> Result<T, String>
where
    T::Err: fmt::Display,
{
    text(value)?.parse().map_err(|e: T::Err| e.to_string())
}

/// `true` or `false`; as a string too, because the environment has only strings.
pub(super) fn boolean(value: &Value) -> Result<bool, String> {
    match value {
        Value::Boolean(b) => Ok(*b),
        Value::String(s) if s == "true" => Ok(true),
        Value::String(s) if s == "false" => Ok(false),
        other => Err(format!("{} is neither true nor false", shown(other))),
    }
}

/// `true`, `false`, or `auto`, which is `None`.
pub(super) fn auto_or_boolean(value: &Value) -> Result<Option<bool>, String> {
    if value.as_str() == Some("auto") {
        return Ok(None);
    }
    let given = boolean(value).map(Some);
    given.map_err(|_| format!("{} is none of \"auto\", true and false", shown(value)))
}

/// A number of bytes.
pub(super) fn mtu(value: &Value) -> Result<u32, String> {
    let number = value.as_integer().and_then(|n| u32::try_from(n).ok());
    number.ok_or_else(|| format!("{} is not a number of bytes, e.g. 1450", shown(value)))
}

/// An absolute path without `..`.
pub(super) fn path(value: &Value) -> Result<PathBuf, String> {
    let given = PathBuf::from(text(value)?);
    if !given.is_absolute() {
        return Err(format!("{} is not an absolute path", shown(value)));
    }
    if given.components().any(|c| c == std::path::Component::ParentDir) {
        return Err(format!("{} must not contain \"..\"", shown(value)));
    }
    if given.as_os_str().len() > 4095 {
        return Err("a path has at most 4095 bytes".to_owned());
    }
    Ok(given)
}

/// `off`, or a path.
pub(super) fn path_or_off(value: &Value) -> Result<Option<PathBuf>, String> {
    if value.as_str() == Some("off") || *value == Value::Boolean(false) {
        return Ok(None);
    }
    path(value).map(Some)
}

/// The path of a Unix socket: at most 107 bytes, as `sun_path` has 108 (unix(7)).
pub(super) fn socket(value: &Value) -> Result<PathBuf, String> {
    let given = path(value)?;
    match given.as_os_str().len() {
        0..=107 if given.file_name().is_some() => Ok(given),
        0..=107 => Err(format!("{} names no file", shown(value))),
        n => Err(format!("{} has {n} bytes; a Unix socket's path has at most 107", shown(value))),
    }
}

/// gRPC's: not where the hooks' socket is, which is in the same directory.
pub(super) fn grpc_socket(value: &Value) -> Result<PathBuf, String> {
    let path = socket(value)?;
    if path.file_name().is_some_and(|name| name == netd_api::hook::SOCKET_NAME) {
        let text = "is where netd makes the hooks' socket; give gRPC's another name";
        return Err(format!("{} {text}", shown(value)));
    }
    Ok(path)
}

pub(super) fn socket_group(value: &Value) -> Result<SocketGroup, String> {
    let rule = || format!("{} is neither a group's name nor a gid", shown(value));
    if let Value::Integer(n) = value {
        return u32::try_from(*n).map(SocketGroup::Gid).map_err(|_| rule());
    }
    let name = text(value)?;
    if let Ok(gid) = name.parse() {
        return Ok(SocketGroup::Gid(gid));
    }
    let ok = |b: u8| b.is_ascii_alphanumeric() || b"_.-".contains(&b);
    let starts = name.starts_with(|c: char| c.is_ascii_alphabetic() || c == '_');
    let fits = starts && name.len() <= 32 && name.bytes().all(ok);
    if fits { Ok(SocketGroup::Name(name)) } else { Err(rule()) }
}

/// `off`, or an address with a port.
pub(super) fn listen(value: &Value) -> Result<Option<SocketAddr>, String> {
    if value.as_str() == Some("off") || *value == Value::Boolean(false) {
        return Ok(None);
    }
    parsed(value, "an address with a port (\"127.0.0.1:9479\", \"[::1]:9479\") or \"off\"")
        .map(Some)
}

/// A packet mark of one bit, as a number or as a string: `0x2000`.
pub(super) fn mark(value: &Value) -> Result<u32, String> {
    let number = match value {
        Value::Integer(n) => u32::try_from(*n).ok(),
        Value::String(s) => match s.strip_prefix("0x") {
            Some(hex) => u32::from_str_radix(hex, 16).ok(),
            None => s.parse().ok(),
        },
        _ => None,
    };
    match number {
        Some(n) if n.is_power_of_two() => Ok(n),
        _ => Err(format!("{} is not a mark of exactly one of 32 bits, e.g. 0x2000", shown(value))),
    }
}

/// A node's name: a DNS subdomain (RFC 1123), at most 253 bytes.
pub(super) fn node_name(name: &str) -> Result<String, String> {
    let inner = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-';
    let label = |l: &str| {
        (1..=63).contains(&l.len())
            && l.bytes().all(inner)
            && !l.starts_with('-')
            && !l.ends_with('-')
    };
    if name.len() <= 253 && name.split('.').all(label) {
        return Ok(name.to_owned());
    }
    let value = shown(&Value::String(name.to_owned()));
    Err(format!("{value} is no DNS name of a-z, 0-9, '-' and '.', at most 253 bytes long"))
}

pub(super) fn log_format(value: &Value) -> Result<LogFormat, String> {
    match text(value)?.as_str() {
        "auto" => Ok(LogFormat::Auto),
        "text" => Ok(LogFormat::Text),
        "json" => Ok(LogFormat::Json),
        "journald" => Ok(LogFormat::Journald),
        _ => Err(format!("{} is none of \"auto\", \"text\", \"json\", \"journald\"", shown(value))),
    }
}

const LEVELS: [&str; 6] = ["off", "error", "warn", "info", "debug", "trace"];

/// A level, or directives. A single word that is not a level is an error: the filter would
/// take it for a target and silence everything else.
pub(super) fn log_filter(value: &Value) -> Result<String, String> {
    let filter = text(value)?;
    for word in filter.split(',').map(str::trim) {
        let is_single = !word.contains(['=', '[', '{']);
        if is_single && !LEVELS.contains(&word.to_lowercase().as_str()) {
            let like = closest(word, &LEVELS);
            let hint = like.map(|l| format!("did you mean \"{l}\"?"));
            let hint = hint.unwrap_or_else(|| format!("levels: {}", LEVELS.join(", ")));
            return Err(format!("{} is not a level or target=level; {hint}", shown(value)));
        }
    }
    EnvFilter::try_new(&filter)
        .map_err(|e| format!("{} is not a log filter ({e})", shown(value)))?;
    Ok(filter)
}
