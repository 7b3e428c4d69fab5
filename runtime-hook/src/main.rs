//! The `netd-hook` executable: finds out which front was called.

use std::{env, process::ExitCode};

use clap::Parser;
use runtime_hook::{
    cli::{Cli, Front},
    clock, cni, docker, install, nri, oci,
};

fn main() -> ExitCode {
    // Taken before anything else: an attach that had to wait must still look older than a detach
    // that was issued after it.
    let issued_at = clock::boottime_ns();
    // A runtime executes the CNI plugin for every pod, so this path does without clap.
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
        Front::Docker(args) => docker::main(&args),
        Front::Install(args) => install::install(&args),
        Front::Uninstall(args) => install::uninstall(&args),
        Front::Version => {
            println!("netd-hook {}", cni::about());
            ExitCode::SUCCESS
        }
    }
}
