//! A host with netd that collects soon.

use std::time::Duration;

use anyhow::Result;
use testbed::{Bed, Daemon, DaemonConfig, Host, Sandbox, inventory, stack::check_nothing_left};

/// Of [`Node::start`].
pub(crate) const GRACE: Duration = Duration::from_secs(2);
/// Grace, a look, and room for a slow machine.
pub(crate) const SOON: Duration = Duration::from_secs(10);

pub(crate) struct Node {
    pub netd: Daemon,
    before: String,
    pub host: Host,
}

pub(crate) fn config(driver: &str) -> DaemonConfig {
    let mut config = DaemonConfig::with_driver(driver);
    config.networks += "[gc]\ngrace = \"2s\"\ninterval = \"1s\"\nunsafe_short_grace = true\n";
    config
}

impl Node {
    pub(crate) fn start(bed: &Bed) -> Result<Self> {
        Self::start_named(bed, "node")
    }

    /// On a host of this name, for beds with several.
    pub(crate) fn start_named(bed: &Bed, name: &str) -> Result<Self> {
        let host = bed.host(name)?;
        let netd = Daemon::start(&host, &config("bridge"))?;
        let before = inventory::of(&host)?;
        Ok(Self { netd, before, host })
    }

    pub(crate) fn attached(&self, name: &str) -> Result<Sandbox> {
        Sandbox::attached(&self.host, name)
    }

    pub(crate) fn has(&self, sandbox: &Sandbox) -> Result<bool> {
        let endpoints = self.netd.endpoints()?;
        Ok(endpoints.iter().any(|endpoint| endpoint.sandbox_id == sandbox.id))
    }

    pub(crate) fn nothing_left(&self) -> Result<()> {
        check_nothing_left(&self.host, &self.netd, &self.before)
    }
}
