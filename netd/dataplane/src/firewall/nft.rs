//! Runs `nft`: for whole tables only, never for an endpoint.

use std::{io, path::Path, process::Command, time::Duration};

use super::own::OwnChanges;
use crate::{DataplaneError, program, version::version_numbers};

/// The first nft that takes the tables' rules.
const OLDEST: [u32; 3] = [1, 0, 6];

/// It takes tens of milliseconds. Attaches wait for it.
const TIMEOUT: Duration = Duration::from_secs(5);

/// Loads `ruleset` in the calling thread's network namespace, all or nothing.
///
/// # Errors
/// `Io` when the program can't be run or does not end, `Kernel` with its words when it
/// refuses.
pub(super) fn load(nft: &Path, ruleset: &str, own: &OwnChanges) -> Result<(), DataplaneError> {
    let failed = |e: io::Error| match e.kind() {
        io::ErrorKind::NotFound => DataplaneError::Io {
            what: format!("running {}", nft.display()),
            reason: format!("not found; install nftables {} or later", shown(OLDEST)),
        },
        _ => crate::error::failed(format!("running {}", nft.display()))(e),
    };
    let mut command = Command::new(nft);
    command.args(["-f", "-"]).env("LC_ALL", "C");
    // It changes nothing before it has read all of its input, which comes after it is noted.
    let note = |id| own.add_process(id);
    let output = program::run(&mut command, ruleset, TIMEOUT, note).map_err(failed)?;
    if output.status.success() {
        return Ok(());
    }
    match version(nft) {
        Some(version) if version < OLDEST => Err(too_old(version, &output.stderr)),
        _ => Err(refused(&output.stderr, ruleset)),
    }
}

/// An old nft's own words name a line of the rules, which nobody who runs a node can mend.
fn too_old(version: [u32; 3], stderr: &[u8]) -> DataplaneError {
    let (found, wanted) = (shown(version), shown(OLDEST));
    let said = String::from_utf8_lossy(stderr);
    let said = said.lines().next().unwrap_or_default();
    DataplaneError::Kernel {
        operation: "loading the nftables tables with nft".into(),
        errno: format!(
            "nft is {found}, too old for netd's rules; install nftables {wanted} or later; it said: {said}"
        ),
    }
}

fn shown([major, minor, patch]: [u32; 3]) -> String {
    format!("{major}.{minor}.{patch}")
}

fn version(nft: &Path) -> Option<[u32; 3]> {
    let output = program::run(Command::new(nft).arg("--version"), "", TIMEOUT, |_| {}).ok()?;
    parse_version(&String::from_utf8_lossy(&output.stdout))
}

/// Of `nftables v1.0.6 (Lester Gooch #5)`.
fn parse_version(text: &str) -> Option<[u32; 3]> {
    let mut words = text.split_whitespace().filter_map(|word| word.strip_prefix('v'));
    words.find(|word| word.starts_with(|c: char| c.is_ascii_digit())).map(version_numbers)
}

/// nft's words, each error with the line of the ruleset that it is about.
fn refused(stderr: &[u8], ruleset: &str) -> DataplaneError {
    /// Elements can make lines of words long.
    const MOST: usize = 512;
    let text = String::from_utf8_lossy(stderr);
    let errors: Vec<String> =
        text.lines().filter(|l| l.contains("Error")).map(|l| quoted(l, ruleset)).collect();
    let said = if errors.is_empty() { text.trim().to_owned() } else { errors.join("; ") };
    DataplaneError::Kernel {
        operation: "loading the nftables tables with nft".into(),
        errno: said.chars().take(MOST).collect(),
    }
}

/// `/dev/stdin:14:4-15: Error: words` as `words: "line 14"`.
fn quoted(error: &str, ruleset: &str) -> String {
    let words = error.split_once("Error: ").map_or(error, |(_, words)| words);
    let number = error.split(':').nth(1).and_then(|n| n.parse::<usize>().ok());
    match number.and_then(|n| ruleset.lines().nth(n.saturating_sub(1))) {
        Some(line) => format!("{words}: \"{}\"", line.trim()),
        None => words.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_old_nft_is_known_by_its_version() {
        assert_eq!(parse_version("nftables v0.9.8 (E.D.S.)"), Some([0, 9, 8]));
        assert_eq!(parse_version("nftables v1.1 (Commodore)\n"), Some([1, 1, 0]));
        assert_eq!(parse_version("nftables v1.0.6-3 (x)"), Some([1, 0, 6]));
        assert_eq!(parse_version("nft: command not found"), None);
        assert!(parse_version("nftables v1.0.6 (Lester Gooch #5)") >= Some(OLDEST));
        let said = too_old([0, 9, 8], b"/dev/stdin:1:1: Error: x\nmore").to_string();
        assert!(
            said.contains("nft is 0.9.8")
                && said.contains("1.0.6 or later; it said: /dev/stdin:1:1: Error: x"),
            "{said}"
        );
    }
}
