//! What systemd knows of a netd that does not answer.

use crate::exec::output;

const UNIT: &str = "netd.service";

/// The unit's state and the last error that netd logged; empty where systemd does not run netd.
pub(super) fn says() -> String {
    let show = ["show", UNIT, "-p", "LoadState,ActiveState,SubState,Result"];
    let shown = output("systemctl", &show, "").unwrap_or_default();
    let Some(state) = state(&shown) else { return String::new() };
    let log = ["-u", UNIT, "-b", "-p", "err", "-n", "1", "-o", "cat", "--no-pager", "-q"];
    let logged = output("journalctl", &log, "").unwrap_or_default();
    match logged.trim() {
        "" => format!("; systemd says of {UNIT}: {state}"),
        error => format!("; systemd says of {UNIT}: {state}; its last error: {error}"),
    }
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
