//! What systemd knows of a netd that does not answer.

use crate::exec::output;

const UNIT: &str = "netd.service";

/// The unit's state and what its last run logged last, an error if there is one; empty where
/// systemd does not run netd.
pub(super) fn says() -> String {
    let show = ["show", UNIT, "-p", "LoadState,ActiveState,SubState,Result,InvocationID"];
    let shown = output("systemctl", &show, "").unwrap_or_default();
    let Some(state) = state(&shown) else { return String::new() };
    let run = value(&shown, "InvocationID").filter(|run| !run.is_empty());
    let said = run.and_then(|run| said_last(&state, run));
    let said = said.map(|text| format!("; it said last: {text}"));
    format!("; systemd says of {UNIT}: {state}{}", said.unwrap_or_default())
}

fn said_last(state: &str, run: &str) -> Option<String> {
    let of_run = format!("_SYSTEMD_INVOCATION_ID={run}");
    // Where it ends again and again, the error of the run before is the reason.
    let of_before = state.starts_with("activating").then(|| format!("_SYSTEMD_UNIT={UNIT}"));
    let error = ["-p", "err"];
    last_logged(&of_run, &error)
        .or_else(|| last_logged(&of_before?, &error))
        .or_else(|| last_logged(&of_run, &[]))
}

/// What netd itself logged last on this boot; systemd's own lines about it say less.
fn last_logged(of: &str, which: &[&str]) -> Option<String> {
    let last = [of, "-b", "-n", "1", "-o", "cat", "--no-pager", "-q"];
    let logged = output("journalctl", &[&last, which].concat(), "").ok()?;
    let text = logged.trim();
    (!text.is_empty()).then(|| text.to_owned())
}

/// `failed (failed), exit-code` of what `systemctl show` prints.
fn state(shown: &str) -> Option<String> {
    if value(shown, "LoadState")? != "loaded" {
        return None;
    }
    let state = format!("{} ({})", value(shown, "ActiveState")?, value(shown, "SubState")?);
    Some(match value(shown, "Result") {
        Some("success") | None => state,
        Some(result) => format!("{state}, {result}"),
    })
}

fn value<'a>(shown: &'a str, key: &str) -> Option<&'a str> {
    let mut lines = shown.lines().filter_map(|line| line.split_once('='));
    lines.find(|(name, _)| *name == key).map(|(_, value)| value.trim())
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
