//! What systemd knows of a netd that does not answer.

use crate::exec::output;

const UNIT: &str = "netd.service";

/// The unit's state and what netd logged last, an error if there is one; empty where systemd does not run netd.
pub(super) fn says() -> String {
    let show = ["show", UNIT, "-p", "LoadState,ActiveState,SubState,Result"];
    let shown = output("systemctl", &show, "").unwrap_or_default();
    let Some(state) = state(&shown) else { return String::new() };
    let errors = last_logged(&["-p", "err"]);
    let last = errors.or_else(|| last_logged(&[])).map(|text| format!("; it said last: {text}"));
    format!("; systemd says of {UNIT}: {state}{}", last.unwrap_or_default())
}

/// What netd itself logged last on this boot; systemd's own lines about it say less.
fn last_logged(which: &[&str]) -> Option<String> {
    const NETD: [&str; 8] =
        ["_SYSTEMD_UNIT=netd.service", "-b", "-n", "1", "-o", "cat", "--no-pager", "-q"];
    let logged = output("journalctl", &[&NETD, which].concat(), "").ok()?;
    let text = logged.trim();
    (!text.is_empty()).then(|| text.to_owned())
}

/// `failed (failed), exit-code` of what `systemctl show` prints.
fn state(shown: &str) -> Option<String> {
    let value = |key: &str| {
        let mut lines = shown.lines().filter_map(|line| line.split_once('='));
        lines.find(|(name, _)| *name == key).map(|(_, value)| value.trim())
    };
    if value("LoadState")? != "loaded" {
        return None;
    }
    let state = format!("{} ({})", value("ActiveState")?, value("SubState")?);
    Some(match value("Result") {
        Some("success") | None => state,
        Some(result) => format!("{state}, {result}"),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_state_of_a_unit_is_read_and_a_machine_without_it_has_none() {
        let shown = "Result=exit-code\nLoadState=loaded\nActiveState=activating\n\
                     SubState=auto-restart\n";
        assert_eq!(state(shown).as_deref(), Some("activating (auto-restart), exit-code"));
        let well = "Result=success\nLoadState=loaded\nActiveState=inactive\nSubState=dead\n";
        assert_eq!(state(well).as_deref(), Some("inactive (dead)"));
        assert_eq!(state("LoadState=not-found\nActiveState=inactive\nSubState=dead\n"), None);
        assert_eq!(state(""), None);
    }
}
