//! The command line of `netd-hook`.

use clap::{Parser, Subcommand};

use crate::{docker, install, nri, oci};

/// The hook of netd, the pod-network daemon.
///
/// Called by a container runtime as a CNI plugin (CNI_COMMAND is set and there are
/// no arguments), as an NRI plugin or as an OCI hook, it asks netd for the pod's network.
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
