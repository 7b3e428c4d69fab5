//! netd's answers as the commands show them: tables for people, and JSON whose field
//! names stay the same for programs.

pub(super) mod cluster;
pub(super) mod endpoint;
pub(super) mod network;
pub(super) mod status;

use std::time::{Duration, SystemTime};

/// `ENDPOINT_STATE_ATTACHED` as `attached`.
fn short(name: &str, prefix: &str) -> String {
    name.strip_prefix(prefix).unwrap_or(name).to_lowercase()
}

/// How long ago, roughly: `12s`, `5m`, `3h`, `8d`; `-` when unknown.
fn age(unix_seconds: i64, now: SystemTime) -> String {
    let since = u64::try_from(unix_seconds).ok().filter(|s| *s > 0);
    let then = since.and_then(|s| SystemTime::UNIX_EPOCH.checked_add(Duration::from_secs(s)));
    let Some(then) = then else { return "-".to_owned() };
    match now.duration_since(then).unwrap_or_default().as_secs() {
        s @ 0..120 => format!("{s}s"),
        s @ 120..7200 => format!("{}m", s / 60),
        s @ 7200..172_800 => format!("{}h", s / 3600),
        s => format!("{}d", s / 86400),
    }
}

/// A dash for an empty text.
fn or_dash(text: &str) -> String {
    if text.is_empty() { "-".to_owned() } else { text.to_owned() }
}

/// One line `name: value` for each value that is not empty.
fn fields(all: &[(&str, String)]) -> String {
    let width = all.iter().map(|(name, _)| name.len()).max().unwrap_or(0) + 1;
    let present = all.iter().filter(|(_, value)| !value.is_empty());
    present
        .map(|(name, value)| {
            format!("{:<width$} {}\n", format!("{name}:"), crate::terminal::printable(value))
        })
        .collect()
}

#[cfg(test)]
mod tests;

#[cfg(test)]
mod text_tests {
    use super::*;

    #[test]
    fn ages_are_rough_and_never_negative() {
        let at = |s| SystemTime::UNIX_EPOCH + Duration::from_secs(s);
        assert_eq!(age(1000, at(1030)), "30s");
        assert_eq!(age(1000, at(1000 + 300)), "5m");
        assert_eq!(age(1000, at(1000 + 86400 * 3)), "3d");
        assert_eq!(age(1000, at(10)), "0s");
        assert_eq!(age(0, at(10)), "-");
        assert_eq!(age(i64::MAX, at(10)).len(), 2);
    }

    #[test]
    fn escapes_do_not_reach_the_terminal() {
        assert_eq!(fields(&[("pod", "a\u{1b}[2J".to_owned())]), "pod: a\u{fffd}[2J\n");
    }
}
