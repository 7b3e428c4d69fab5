//! The command line of `netd-hook`.

use clap::{Parser, Subcommand};

use crate::{docker, install, nri, oci};

/// The hook of netd, the pod-network daemon.
///
/// A container runtime calls it as a CNI plugin (CNI_COMMAND is set and there are no
/// arguments), as an NRI plugin or as an OCI hook, and it asks netd for the pod's network.
#[derive(Debug, Parser)]
#[command(name = "netd-hook", version)]
pub struct Cli {
    #[command(subcommand)]
    pub front: Front,
}

#[derive(Debug, Subcommand)]
pub enum Front {
    /// CNI plugin: CNI_* from the environment, the configuration from stdin
    Cni,
    /// OCI hook for createRuntime (or prestart) and poststop: the state from stdin
    Oci(oci::Args),
    /// NRI plugin: connects to the runtime and serves it until SIGTERM
    Nri(nri::Options),
    /// Docker plugin: serves dockerd as a network and IPAM driver until SIGTERM
    Docker(docker::Args),
    /// Install the CNI plugin and its conflist as soon as netd is ready
    Install(install::InstallArgs),
    /// Remove what `install` installed
    Uninstall(install::UninstallArgs),
    /// Print the versions of the hook and of the CNI specs it speaks
    Version,
}
