//! Runs programs that may hang.

use std::{
    io::{self, Read, Write},
    os::unix::process::CommandExt as _,
    process::{Child, Command, ExitStatus, Output, Stdio},
    sync::mpsc,
    thread,
    time::{Duration, Instant},
};

use nix::{
    sys::signal::{Signal, killpg},
    unistd::Pid,
};

/// Between two looks whether it has ended.
const LOOK_INTERVAL: Duration = Duration::from_millis(2);
/// What it printed arrives at once, unless a process that it left behind holds the pipe.
const PRINTED: Duration = Duration::from_secs(1);

/// Runs a program with `input` on its standard input, and gathers what it prints. `started` is
/// called with its process id before it gets the input. Blocking.
///
/// # Errors
/// The system's when it can't be run. `TimedOut` when it has not ended after `limit`: it was
/// killed then, with the processes that it started.
pub fn run(
    command: &mut Command,
    input: &str,
    limit: Duration,
    started: impl FnOnce(u32),
) -> io::Result<Output> {
    let piped = command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = piped.process_group(0).spawn()?;
    started(child.id());
    if let Some(mut pipe) = child.stdin.take() {
        let input = input.as_bytes().to_vec();
        // A program may end before it reads everything; its exit status says more.
        thread::spawn(move || drop(pipe.write_all(&input)));
    }
    let (stdout, stderr) = (gather(child.stdout.take()), gather(child.stderr.take()));
    let status = wait(&mut child, limit)?;
    let printed = |pipe: mpsc::Receiver<Vec<u8>>| pipe.recv_timeout(PRINTED).unwrap_or_default();
    Ok(Output { status, stdout: printed(stdout), stderr: printed(stderr) })
}

/// Reads a pipe on a thread, which ends with the pipe.
fn gather(pipe: Option<impl Read + Send + 'static>) -> mpsc::Receiver<Vec<u8>> {
    let (send, receive) = mpsc::channel();
    if let Some(mut pipe) = pipe {
        thread::spawn(move || {
            let mut all = Vec::new();
            // What was read before a failure is still worth showing.
            let _ = pipe.read_to_end(&mut all);
            drop(send.send(all));
        });
    }
    receive
}

fn wait(child: &mut Child, limit: Duration) -> io::Result<ExitStatus> {
    let start = Instant::now();
    loop {
        if let Some(status) = child.try_wait()? {
            return Ok(status);
        }
        if start.elapsed() >= limit {
            break;
        }
        thread::park_timeout(LOOK_INTERVAL);
    }
    // Its group has its id. A failure means that it has just ended.
    let group = i32::try_from(child.id()).map_err(io::Error::other)?;
    let _ = killpg(Pid::from_raw(group), Signal::SIGKILL);
    child.wait()?;
    let text = format!("it did not end within {} s and was killed", limit.as_secs());
    Err(io::Error::new(io::ErrorKind::TimedOut, text))
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    fn shell(script: &str, input: &str, limit: Duration) -> io::Result<Output> {
        run(Command::new("sh").args(["-c", script]), input, limit, |_| {})
    }

    #[test]
    fn what_it_prints_is_gathered_however_much_it_is() {
        let input = "x".repeat(1 << 20);
        let output = shell("cat; echo end >&2; exit 3", &input, Duration::from_secs(20)).unwrap();
        assert_eq!(output.stdout.len(), input.len());
        assert_eq!((output.stderr.as_slice(), output.status.code()), (&b"end\n"[..], Some(3)));
    }

    #[test]
    fn one_that_hangs_is_killed_with_what_it_started() {
        for script in ["sleep 71234", "sleep 71234 & wait", "exec sleep 71234"] {
            let start = Instant::now();
            // More than a pipe holds, and nobody reads it.
            let input = "x".repeat(1 << 20);
            let error = shell(script, &input, Duration::from_millis(200)).unwrap_err();
            assert_eq!(error.kind(), io::ErrorKind::TimedOut, "{script}: {error}");
            assert!(start.elapsed() < Duration::from_secs(5), "{script}");
        }
        let left = Command::new("sh").args(["-c", "ps ax | grep '[s]leep 71234'"]).output();
        assert_eq!(String::from_utf8_lossy(&left.unwrap().stdout), "");
    }
}
