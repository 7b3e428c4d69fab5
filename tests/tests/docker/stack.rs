//! netd, the plugin and dockerd on one host.

use std::time::Duration;

use anyhow::{Result, ensure};
use testbed::{
    Bed, Daemon, DaemonConfig, Docker, DockerVersion, Host,
    docker::{NO_NETWORK, Plugin},
    inventory,
    stack::check_nothing_left,
    wait,
};

/// Dropped in this order: dockerd, the plugin, netd, the host.
pub(crate) struct Stack {
    pub docker: Docker,
    pub plugin: Plugin,
    pub netd: Daemon,
    pub host: Host,
    pub outside: Host,
    networks: usize,
    before: String,
}

/// Of endpoints that nobody ends; a look more, and room for a slow machine.
pub(crate) const SOON: Duration = Duration::from_secs(60);

fn config() -> DaemonConfig {
    let mut config =
        DaemonConfig::default().and_network("rt", "routed", &["10.99.0.0/16", "fd00:99::/64"]);
    config.networks += "[gc]\ngrace = \"12s\"\ninterval = \"1s\"\nunsafe_short_grace = true\n";
    config
}

impl Stack {
    pub(crate) fn start(bed: &Bed, version: DockerVersion) -> Result<Self> {
        let host = bed.host("node")?;
        let outside = bed.host("outside")?;
        let netd = Daemon::start(&host, &config())?;
        let plugin = Plugin::start(&host)?;
        let mut flags = NO_NETWORK.to_vec();
        flags.push("--live-restore");
        let docker = Docker::start(&host, version, &flags)?;
        let before = inventory::of(&host)?;
        let networks = netd.networks()?.len();
        Ok(Self { docker, plugin, netd, host, outside, networks, before })
    }

    /// `docker network create -d netd FLAGS NAME`
    pub(crate) fn create(&self, name: &str, flags: &[&str]) -> Result<String> {
        let mut all = vec!["network", "create", "-d", &self.plugin.driver];
        all.extend(flags);
        all.push(name);
        self.docker.run(&all)
    }

    /// As [`Stack::create`], with netd's IPAM.
    pub(crate) fn create_with_ipam(&self, name: &str, flags: &[&str]) -> Result<String> {
        let driver = self.plugin.driver.clone();
        let mut all = vec!["--ipam-driver", driver.as_str()];
        all.extend(flags);
        self.create(name, &all)
    }

    /// One that shares netd's network `of`, which has these pools.
    pub(crate) fn share(&self, name: &str, of: &str, subnets: &[&str]) -> Result<String> {
        let (ipam, option) = (format!("netd.network={of}"), format!("netd.network={of}"));
        let mut flags = vec!["--ipam-opt", &ipam, "-o", &option, "--ipv6"];
        flags.extend(subnets.iter().flat_map(|subnet| ["--subnet", subnet]));
        self.create_with_ipam(name, &flags)
    }

    pub(crate) fn remove_networks(&self, names: &[&str]) -> Result<()> {
        let mut all = vec!["network", "rm"];
        all.extend(names);
        self.docker.run(&all).map(drop)
    }

    /// No endpoint, no held address, no network more, nothing in the kernel.
    pub(crate) fn nothing_left(&self) -> Result<()> {
        check_nothing_left(&self.host, &self.netd, &self.before)?;
        let networks = self.netd.networks()?.len();
        ensure!(networks == self.networks, "{networks} networks, not {}", self.networks);
        Ok(())
    }

    /// Waits until netd has seen every endpoint in its sandbox.
    pub(crate) fn settled(&self, endpoints: usize) -> Result<()> {
        wait::until(SOON, "all endpoints are in their sandboxes", || {
            let all = self.netd.endpoints()?;
            let attached = netd_api::v1::EndpointState::Attached;
            let there = all.iter().filter(|e| e.state() == attached).count();
            ensure!(there == endpoints && all.len() == endpoints, "{there} of {all:?}");
            Ok(())
        })
        .map(drop)
    }
}
