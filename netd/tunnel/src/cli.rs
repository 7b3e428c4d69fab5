//! The command line of `netd-tunnel`.

use std::path::PathBuf;

use clap::Parser;

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
