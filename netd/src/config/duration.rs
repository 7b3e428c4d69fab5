//! Durations with units: `90s`, `5m`, `1h 30m`.

use std::{ops::RangeInclusive, time::Duration};

use toml::Value;

use super::values::text;

/// Parses a duration and checks it against `allowed`.
pub(super) fn duration(
    value: &Value,
    allowed: RangeInclusive<Duration>,
) -> Result<Duration, String> {
    let given = text(value)
        .map_err(|e| format!("{e}; a duration has a unit: \"90s\", \"5m\", \"1h 30m\""))?;
    let shown: String = given.chars().take(64).collect();
    let parsed = humantime::parse_duration(&given).map_err(|e| {
        format!("\"{shown}\" is no duration ({e}); write \"90s\", \"5m\", \"1h 30m\"")
    })?;
    if allowed.contains(&parsed) {
        return Ok(parsed);
    }
    let (least, most) = (duration_text(*allowed.start()), duration_text(*allowed.end()));
    Err(format!("\"{shown}\" is not between {least} and {most}"))
}

/// `d` in the form that the configuration uses.
pub(crate) fn duration_text(d: Duration) -> String {
    humantime::format_duration(d).to_string()
}
