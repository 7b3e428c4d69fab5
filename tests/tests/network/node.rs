//! A host with netd, and a client outside.

use anyhow::{Context as _, Result, ensure};
use netd_api::v1::{Driver, Endpoint, Network, PodAccess, Pool};
use testbed::{
    Bed, Daemon, DaemonConfig, Host, Sandbox, hook::Answer, inventory, stack::check_nothing_left,
};

pub(crate) struct Node {
    pub netd: Daemon,
    before: String,
    pub host: Host,
}

impl Node {
    pub(crate) fn start(bed: &Bed) -> Result<Self> {
        Self::start_with(bed, &DaemonConfig::default())
    }

    pub(crate) fn start_with(bed: &Bed, config: &DaemonConfig) -> Result<Self> {
        let host = bed.host("node")?;
        let netd = Daemon::start(&host, config)?;
        let before = inventory::of(&host)?;
        Ok(Self { netd, before, host })
    }

    pub(crate) fn bare(&self, name: &str) -> Result<Sandbox> {
        Sandbox::bare(&self.host, name)
    }

    pub(crate) fn attached(&self, name: &str) -> Result<Sandbox> {
        Sandbox::attached(&self.host, name)
    }

    pub(crate) fn to(&self, name: &str, network: &str) -> Result<Sandbox> {
        Sandbox::attached_to(&self.host, name, network)
    }

    pub(crate) fn add(&self, sandbox: &Sandbox) -> Result<Answer> {
        sandbox.call("ADD").execute(&self.host)
    }

    pub(crate) fn endpoint(&self, sandbox: &Sandbox) -> Result<Endpoint> {
        let endpoints = self.netd.endpoints()?;
        let found = endpoints.into_iter().find(|endpoint| endpoint.sandbox_id == sandbox.id);
        found.with_context(|| format!("{} has no endpoint", sandbox.id))
    }

    pub(crate) fn nothing_left(&self) -> Result<()> {
        check_nothing_left(&self.host, &self.netd, &self.before)
    }
}

/// A network with masquerade, as CreateNetwork takes it.
pub(crate) fn network(name: &str, driver: Driver, subnets: &[&str]) -> Network {
    let pool = |subnet: &&str| Pool { subnet: (*subnet).to_owned(), ..Pool::default() };
    Network {
        name: name.to_owned(),
        driver: driver.into(),
        pools: subnets.iter().map(pool).collect(),
        masquerade: true,
        pods: Some(PodAccess { namespaces: vec!["*".to_owned()], addresses: true, macs: true }),
        ..Network::default()
    }
}

/// An error unless the hook refused with this code and said all of `words`.
pub(crate) fn refused(answer: &Answer, code: u64, words: &[&str]) -> Result<()> {
    ensure!(answer.code() == Some(code), "not code {code}: {answer:?}");
    let said = answer.json.to_string();
    for word in words {
        ensure!(said.contains(word), "does not say `{word}`: {said}");
    }
    Ok(())
}
