//! Runs the operator's commands of the extension backend: the only programs that netd
//! starts for the overlay.

use std::{process::Stdio, time::Duration};

use tokio::{io::AsyncWriteExt as _, process};

use netd_cluster::backend::Command;

/// A command that takes longer is killed.
const COMMAND_TIMEOUT: Duration = Duration::from_secs(30);
/// Bytes of output that are kept.
const MAX_OUTPUT: usize = 64 << 10;

/// Runs a command to its end; returns its standard output and error, trimmed.
///
/// # Errors
/// In words: it can't be started, failed, or took too long.
pub(super) async fn run(command: &Command) -> Result<String, String> {
    let argv = command.argv(|name| std::env::var(name).ok());
    let Some((program, arguments)) = argv.split_first() else {
        return Err(format!("\"{}\" names no program", command.line));
    };
    let failed = |what: String| format!("\"{}\": {what}", command.line);
    let mut child = process::Command::new(program)
        .args(arguments)
        .envs(command.env.iter().map(|(name, value)| (*name, value.as_str())))
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .kill_on_drop(true)
        .spawn()
        .map_err(|e| failed(format!("can't be started: {e}")))?;
    if let Some(mut stdin) = child.stdin.take() {
        // The command need not read its input.
        let _ = stdin.write_all(command.stdin.as_bytes()).await;
    }
    let output = tokio::time::timeout(COMMAND_TIMEOUT, child.wait_with_output())
        .await
        .map_err(|_| {
            failed(format!("took longer than {} s and was killed", COMMAND_TIMEOUT.as_secs()))
        })?
        .map_err(|e| failed(e.to_string()))?;
    let mut bytes = output.stdout;
    bytes.extend_from_slice(&output.stderr);
    bytes.truncate(MAX_OUTPUT);
    let text = String::from_utf8_lossy(&bytes).trim().to_owned();
    if output.status.success() {
        return Ok(text);
    }
    let last = text.lines().last().unwrap_or("it said nothing");
    Err(failed(format!("{}: {last}", output.status)))
}
