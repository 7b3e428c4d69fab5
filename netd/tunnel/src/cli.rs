//! The command line of `netd-tunnel`.

use std::path::PathBuf;

use clap::{CommandFactory as _, FromArgMatches as _, Parser, builder::Resettable};

/// netd-tunnel: packets of netd's udp and wireguard backends
#[derive(Debug, Parser)]
#[command(name = "netd-tunnel", version, max_term_width = 100)]
pub struct Args {
    /// Where netd calls
    #[arg(
        long,
        env = "NETD_TUNNEL_SOCKET",
        default_value = "/run/netd/tunnel.sock",
        value_name = "PATH"
    )]
    pub socket: PathBuf,
    /// What is remembered for coming back after a crash; it holds private keys
    #[arg(
        long,
        env = "NETD_TUNNEL_STATE",
        default_value = "/run/netd/tunnel.state",
        value_name = "FILE"
    )]
    pub state: PathBuf,
    /// What is logged, as tracing's EnvFilter reads it
    #[arg(
        long,
        env = "NETD_TUNNEL_LOG",
        default_value = "info,boringtun=off",
        value_name = "FILTER"
    )]
    pub log: String,
    /// Queues of each device, 1 to 64; without: one a processor, 16 at most
    #[arg(long, env = "NETD_TUNNEL_QUEUES", value_parser = clap::value_parser!(u8).range(1..=64))]
    pub queues: Option<u8>,
}

impl Args {
    /// Reads the command line and the environment, in which an empty variable counts as not
    /// set: a unit's environment file leaves one out in this way.
    ///
    /// # Errors
    /// What is wrong, or the text of `--help` or `--version`.
    pub fn read(
        command_line: impl IntoIterator<Item = std::ffi::OsString>,
    ) -> Result<Self, clap::Error> {
        let is_empty =
            |name: &std::ffi::OsStr| std::env::var_os(name).is_some_and(|v| v.is_empty());
        let command = Self::command().mut_args(|arg| match arg.get_env() {
            Some(name) if is_empty(name) => arg.env(Resettable::Reset),
            _ => arg,
        });
        Self::from_arg_matches(&command.try_get_matches_from(command_line)?)
    }
}
