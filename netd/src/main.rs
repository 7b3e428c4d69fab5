//! The `netd` binary.

use std::process::ExitCode;

use clap::Parser;

fn main() -> ExitCode {
    netd::cli::run(netd::cli::Cli::parse())
}
