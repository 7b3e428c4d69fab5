//! CHECK, and what others changed inside a pod: both only look.

use std::{os::fd::OwnedFd, path::PathBuf, sync::Arc, time::Duration};

use super::{
    core::Node,
    error::{Error, Result},
    pod_netns::own_netns,
    state::KernelStatus,
};
use netd_dataplane::Netns;
use netd_domain::{Endpoint, EndpointKey, NetworkName, Phase, PodSide};

impl Node {
    /// Compares an endpoint with the kernel. Changes nothing, unless a repair is due anyway.
    /// `asked`: the namespace that the caller says it is in; `network`: the network that it
    /// says it joins.
    ///
    /// # Errors
    /// [`Error::Differs`] names every difference.
    pub async fn check(
        &self,
        key: &EndpointKey,
        asked: Option<SandboxNetns>,
        network: Option<&NetworkName>,
    ) -> Result<Arc<Endpoint>> {
        let found = self.state.endpoint(key).filter(|(e, _)| e.phase == Phase::Attached);
        let (endpoint, status) = found.ok_or_else(|| Error::NoEndpoint(key.clone()))?;
        let Some(own) = &endpoint.netns_path else { return Err(Error::NotPlaced(key.clone())) };
        let name = asked.as_ref().map(|asked| asked.path.display().to_string());
        let netns = match asked {
            Some(SandboxNetns { path, descriptor: Some(descriptor) }) => {
                Netns::from_descriptor(descriptor, &path)?
            }
            Some(SandboxNetns { path, descriptor: None }) => Netns::open(&path)?,
            None => Netns::open(own)?,
        };
        if !endpoint.netns.is_some_and(|own| own.is_same(&netns.id())) {
            return Err(Error::WrongNetns {
                key: key.clone(),
                asked: name.unwrap_or_else(|| "its namespace".to_owned()),
                have: own.display().to_string(),
            });
        }
        if let Some(network) = network.filter(|network| **network != endpoint.network) {
            let text = format!("its network is \"{}\", not \"{network}\"", endpoint.network);
            return Err(Error::Differs { key: key.clone(), differences: vec![text] });
        }
        let netns = Arc::new(netns);
        let endpoint = match status {
            KernelStatus::Attaching => self.bring_up_to_date(&endpoint, netns.clone()).await?,
            _ => endpoint,
        };
        let wiring = endpoint.wiring.clone();
        let differences = self.dataplane.check(netns, wiring).await?;
        if differences.is_empty() {
            return Ok(endpoint);
        }
        Err(Error::Differs { key: key.clone(), differences })
    }

    /// A repair is due anyway, for example because the network's MTU has changed.
    async fn bring_up_to_date(
        &self,
        endpoint: &Endpoint,
        netns: Arc<Netns>,
    ) -> Result<Arc<Endpoint>> {
        let _lock = self.locks.lock(&endpoint.key).await;
        let found = self.state.endpoint(&endpoint.key).map(|(now, _)| now);
        let same =
            |now: &Arc<Endpoint>| now.phase == Phase::Attached && now.sequence == endpoint.sequence;
        let now = found.filter(same).ok_or_else(|| Error::NoEndpoint(endpoint.key.clone()))?;
        self.repair_locked(&now, netns).await?;
        Ok(now)
    }

    /// How the sandbox's side of an endpoint differs from what netd made there, in words; empty if
    /// nothing does, or if its namespace can't be looked at.
    pub async fn changes_inside(&self, endpoint: &Endpoint) -> Vec<String> {
        /// Other work on links may be before it.
        const TIMEOUT: Duration = Duration::from_secs(2);
        if endpoint.phase != Phase::Attached || endpoint.pod_side() != PodSide::Placed {
            return Vec::new();
        }
        let Ok(Some(netns)) = own_netns(endpoint) else { return Vec::new() };
        let look = self.dataplane.changes_inside(netns, endpoint.wiring.clone());
        match tokio::time::timeout(TIMEOUT, look).await {
            Ok(Ok(changes)) => changes,
            Ok(Err(error)) => vec![format!("unknown: {error}")],
            Err(_) => vec!["unknown: the kernel did not answer in time".to_owned()],
        }
    }
}

/// The network namespace in which a caller says that a sandbox is.
#[derive(Debug)]
pub struct SandboxNetns {
    /// What the caller calls it.
    pub path: PathBuf,
    /// The namespace itself; without it the path is what counts.
    pub descriptor: Option<OwnedFd>,
}
