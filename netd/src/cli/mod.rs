//! The command line: `netd serve`, and the commands that call a running netd.
//!
//! Exit codes: 0 done, 1 failed, 2 wrong usage, 3 not ready (`status`), problems found
//! (`doctor`) or the kernel's route is not netd's (`route get`).

mod cluster;
mod docker_opts;
mod endpoint;
mod network;
mod serve;
mod status;
mod table;

use std::process::ExitCode;

use clap::{CommandFactory, Parser, Subcommand};
use clap_complete::Shell;

use crate::client::ClientArgs;
use crate::terminal::{Failure, print, print_bytes, print_errors};

/// netd: the node's pod network
#[derive(Debug, Parser)]
#[command(name = "netd", version, propagate_version = true, max_term_width = 100)]
pub struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Run the daemon
    Serve(Box<serve::ServeArgs>),
    /// Show whether netd is ready, and if not, why
    Status(ClientArgs),
    /// List, inspect, create and delete networks
    #[command(subcommand)]
    Network(network::NetworkCommand),
    /// List, inspect, attach, detach and watch endpoints
    #[command(subcommand)]
    Endpoint(endpoint::EndpointCommand),
    /// Show the cluster's nodes
    #[command(subcommand)]
    Node(cluster::NodeCommand),
    /// Show which node and pod have an address, and the route to it
    #[command(subcommand)]
    Route(cluster::RouteCommand),
    /// Find out why pods on this node get no network
    Doctor(Box<crate::doctor::DoctorArgs>),
    /// Write dockerd's options from the node's lease, so that docker0 holds its subnet
    DockerOpts(Box<docker_opts::DockerOptsArgs>),
    /// Print a shell's completion script
    Completions {
        /// The shell
        shell: Shell,
    },
    /// Print the version
    Version,
}

/// Runs the command; errors go to standard error.
pub fn run(cli: Cli) -> ExitCode {
    match dispatch(cli.command) {
        Ok(code) => code,
        Err(failure) => {
            print_errors(&failure.lines());
            ExitCode::FAILURE
        }
    }
}

fn dispatch(command: Command) -> Result<ExitCode, Failure> {
    match command {
        Command::Serve(args) => serve::run(*args),
        Command::Status(args) => client(status::run(args)),
        Command::Network(command) => client(network::run(command)),
        Command::Endpoint(command) => client(endpoint::run(command)),
        Command::Node(command) => client(cluster::nodes(command)),
        Command::Route(command) => client(cluster::route(command)),
        Command::Doctor(args) => client(crate::doctor::run(*args)),
        Command::DockerOpts(args) => client(docker_opts::run(*args)),
        Command::Completions { shell } => {
            let mut script = vec![];
            clap_complete::generate(shell, &mut Cli::command(), "netd", &mut script);
            print_bytes(&script)?;
            Ok(ExitCode::SUCCESS)
        }
        Command::Version => {
            print(&format!("netd {}\n", env!("CARGO_PKG_VERSION")))?;
            Ok(ExitCode::SUCCESS)
        }
    }
}

/// Runs a client command on a runtime of one thread.
fn client(work: impl Future<Output = Result<ExitCode, Failure>>) -> Result<ExitCode, Failure> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    runtime.map_err(|e| Failure::Other(format!("can't start: {e}")))?.block_on(work)
}

#[cfg(test)]
mod tests;
