//! `netd-manual DIR`: writes the manual pages and the completions of netd, netd-hook and
//! netd-tunnel below DIR, laid out as below /usr/share.
//!
//! A program of its own, so that the daemon carries none of it, and so that a build for
//! another processor can run it on the machine that builds: `deploy/install.mk`.

mod completions;
mod page;

use std::{env, io, path::Path, process::ExitCode};

use clap::{Command, CommandFactory};

fn main() -> ExitCode {
    let arguments: Vec<_> = env::args_os().skip(1).collect();
    let [dir] = arguments.as_slice() else {
        eprintln!("usage: netd-manual DIR");
        return ExitCode::from(2);
    };
    match write(Path::new(dir)) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("netd-manual: {}: {error}", dir.display());
            ExitCode::FAILURE
        }
    }
}

/// The programs that have a page, as their own parsers describe them.
fn programs() -> [Command; 3] {
    [
        netd::cli::Cli::command(),
        runtime_hook::cli::Cli::command(),
        netd_tunnel::cli::Args::command(),
    ]
}

fn write(dir: &Path) -> io::Result<()> {
    for program in programs() {
        completions::write(&program, dir)?;
        page::write(program, &dir.join("man/man8"))?;
    }
    Ok(())
}

#[cfg(test)]
mod tests;
