//! Runs small system programs (`ip`, `nft`, `tc`) and reads what they print.

use std::{io::ErrorKind, process::Command, time::Duration};

use netd_dataplane::program;

/// They take some milliseconds, or a second on a large ruleset.
const TIMEOUT: Duration = Duration::from_secs(10);

/// Why a program printed no result.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum ExecError {
    /// The program is not installed.
    Missing,
    /// The program failed: the first line of its standard error.
    Failed(String),
}

/// What the program `name` prints on standard output. It is also searched for in the system's
/// directories (`/usr/sbin`, ...), which a plain user's PATH leaves out. One that hangs is
/// killed.
pub(crate) fn output(name: &str, args: &[&str], stdin: &str) -> Result<String, ExecError> {
    let path = std::env::var("PATH").unwrap_or_default();
    let failed = |e: std::io::Error| match e.kind() {
        ErrorKind::NotFound => ExecError::Missing,
        _ => ExecError::Failed(e.to_string()),
    };
    let mut command = Command::new(name);
    command
        .args(args)
        .env("PATH", format!("{path}:/usr/local/sbin:/usr/sbin:/sbin:/usr/bin:/bin"))
        .env("LC_ALL", "C");
    let done = program::run(&mut command, stdin, TIMEOUT, |_| {}).map_err(failed)?;
    if done.status.success() {
        return Ok(String::from_utf8_lossy(&done.stdout).into_owned());
    }
    let said = String::from_utf8_lossy(&done.stderr);
    let first = said.lines().find(|l| !l.trim().is_empty()).unwrap_or("no reason given");
    Err(ExecError::Failed(first.trim().to_owned()))
}
