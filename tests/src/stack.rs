//! A node as it is in use: netd, containerd, the hook's CNI and NRI fronts.

use std::time::Duration;

use anyhow::{Result, ensure};

use crate::{
    bed::Bed,
    containerd::{Containerd, Version},
    cri::Cri,
    daemon::{Daemon, DaemonConfig},
    host::Host,
    inventory, nri,
    service::Service,
    wait,
};

/// Dropped in this order: the fronts, containerd, netd, the host.
#[derive(Debug)]
pub struct Stack {
    /// The NRI front.
    pub nri: Service,
    /// The runtime.
    pub containerd: Containerd,
    /// The daemon.
    pub netd: Daemon,
    /// Where they run.
    pub host: Host,
    /// What the kernel held before the first pod.
    before: String,
}

impl Stack {
    /// Starts everything on a new host named `node`.
    pub fn start(bed: &Bed, version: Version, config: &DaemonConfig) -> Result<Self> {
        let host = bed.host("node")?;
        let netd = Daemon::start(&host, config)?;
        let (containerd, _) = Containerd::with_hook(&host, version)?;
        let nri = nri::start(&host)?;
        let before = inventory::of(&host)?;
        Ok(Self { nri, containerd, netd, host, before })
    }

    /// A CRI client.
    pub fn cri(&self) -> Result<Cri> {
        self.containerd.cri()
    }

    /// An error unless everything is as before the first pod: devices, addresses,
    /// routes, rules, records. netd may take a moment to remove a link.
    pub fn check_nothing_left(&self) -> Result<()> {
        check_nothing_left(&self.host, &self.netd, &self.before)
    }
}

/// As [`Stack::check_nothing_left`], for a host without containerd.
pub fn check_nothing_left(host: &Host, netd: &Daemon, before: &str) -> Result<()> {
    wait::until(Duration::from_secs(20), "nothing is left of the pods", || {
        let endpoints = netd.endpoints()?;
        ensure!(endpoints.is_empty(), "records: {endpoints:?}");
        let used = netd.addresses_used()?;
        ensure!(used == 0, "{used} addresses are held");
        let difference = inventory::difference(before, &inventory::of(host)?);
        ensure!(difference.is_empty(), "the kernel differs (- before, + now):\n{difference}");
        Ok(())
    })?;
    Ok(())
}
