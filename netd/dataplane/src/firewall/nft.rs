//! Runs `nft`: for whole tables only, never for an endpoint.

use std::{io, path::Path, process::Command, time::Duration};

use super::own::OwnChanges;
use crate::{DataplaneError, program};

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
            reason: "not found; install nftables 1.0.6 or later".into(),
        },
        _ => crate::error::failed(format!("running {}", nft.display()))(e),
    };
    let mut command = Command::new(nft);
    command.args(["-f", "-"]).env("LC_ALL", "C");
    // It changes nothing before it has read all of its input, which comes after it is noted.
    let note = |id| own.add_process(id);
    let output = program::run(&mut command, ruleset, TIMEOUT, note).map_err(failed)?;
    if output.status.success() { Ok(()) } else { Err(refused(&output.stderr, ruleset)) }
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
