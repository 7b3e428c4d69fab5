//! The hook's NRI front, as a service beside containerd.

use anyhow::Result;

use crate::{containerd::Containerd, daemon::Daemon, host::Host, paths, service::Service};

/// Starts it; it dials containerd's NRI socket until it is let in.
pub fn start(host: &Host) -> Result<Service> {
    let mut command = host.net.command(paths::built("netd-hook")?);
    command.arg("nri").arg("--nri-socket").arg(Containerd::nri_socket_of(host));
    command.arg("--netd-socket").arg(Daemon::socket_of(host));
    Service::start("netd-hook nri", command, &host.directory().join("nri.log"))
}
