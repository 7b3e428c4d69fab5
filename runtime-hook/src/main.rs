//! `netd-hook`: decides which front was called.

use std::{env, process::ExitCode};

use clap::{Parser, Subcommand};
use runtime_hook::{clock, cni, docker, install, nri, oci};

/// The hook of netd, the pod-network daemon.
///
/// Called by a container runtime as a CNI plugin (CNI_COMMAND is set and there are
/// no arguments), as an NRI plugin or as an OCI hook, it asks netd for the pod's network.
#[derive(Parser)]
#[command(name = "netd-hook", version)]
struct Cli {
    #[command(subcommand)]
    front: Front,
}

#[derive(Subcommand)]
enum Front {
    /// CNI plugin: CNI_* from the environment, the configuration from stdin
    Cni,
    /// OCI hook for createRuntime (or prestart) and poststop: the state from stdin
    Oci(oci::Args),
    /// NRI plugin: dials the runtime and serves it until it is killed
    Nri(nri::Options),
    /// Docker plugin: a network and an IPAM driver for dockerd, until it is killed
    Docker(docker::Options),
    /// Put the CNI plugin and its conflist in place, once netd is ready
    Install(install::InstallArgs),
    /// Remove what `install` put in place
    Uninstall(install::UninstallArgs),
    /// Print the versions of the hook and of the CNI specs it speaks
    Version,
}

fn main() -> ExitCode {
    // First: an attach that waited behind a detach must not look younger than it is.
    let issued_at = clock::boottime_ns();
    // A runtime executes the plugin for every pod: it gets by without clap.
    if env::args_os().len() <= 1 {
        return match env::var_os("CNI_COMMAND") {
            Some(_) => cni::main(issued_at),
            None if nri::preinstalled().is_some() => nri::main(None),
            None => {
                eprintln!("netd-hook {}; see netd-hook --help", cni::about());
                ExitCode::SUCCESS
            }
        };
    }
    match Cli::parse().front {
        Front::Cni => cni::main(issued_at),
        Front::Oci(args) => oci::main(&args, issued_at),
        Front::Nri(options) => nri::main(Some(options)),
        Front::Docker(options) => docker::main(&options),
        Front::Install(args) => install::install(&args),
        Front::Uninstall(args) => install::uninstall(&args),
        Front::Version => {
            println!("netd-hook {}", cni::about());
            ExitCode::SUCCESS
        }
    }
}
