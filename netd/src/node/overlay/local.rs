//! What backends need to know of this node: its underlay, its addresses, its subnets.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use super::{
    command,
    core::{ClusterModel, Overlay},
    local_node::LocalNode,
};
use netd_cluster::{ClusterConfig, Local, Underlay, backend};
use netd_dataplane::{DataplaneError, UnderlayChoice, UnderlayFound};

/// Why this node can't be part of the overlay; names the setting to change.
#[derive(Debug, thiserror::Error)]
pub(super) enum LocalError {
    /// The underlay's device.
    #[error("{0}; set \"underlay\" or overlay.can_reach")]
    Dataplane(#[from] DataplaneError),
    /// What the backend needs is missing.
    #[error("{0}")]
    Backend(#[from] backend::PeerProblem),
    /// The extension backend's command.
    #[error("{0}")]
    Command(String),
}

impl Overlay {
    /// Reads what backends need to know of this node.
    pub(super) async fn local(
        &self,
        node: &dyn LocalNode,
        state: &mut ClusterModel,
        cluster: &ClusterConfig,
    ) -> Result<Local, LocalError> {
        let found = node.dataplane().underlay_of(self.choice(node)).await?;
        let (first_v4, first_v6) = addresses(&found);
        let capabilities = node.dataplane().overlay_capabilities().await?;
        let extension_data = self.pre_startup(state, cluster).await?;
        // The oldest first, whatever their numbers: it is the one that is published.
        let mut fitting: Vec<_> = state.own.iter().filter(|own| own.fits).collect();
        fitting.sort_by_key(|own| own.since);
        Ok(Local {
            public_v4: self.settings.public_ip.or(first_v4),
            public_v6: self.settings.public_ipv6.or(first_v6),
            underlay: Underlay { device: found.device, mtu: found.mtu, addresses: found.addresses },
            subnets: fitting.into_iter().map(|own| own.subnets).collect(),
            cluster: cluster.clone(),
            identity: self.identity.clone(),
            kernel_wireguard: capabilities.wireguard,
            blackhole: self.settings.blackhole,
            extension_data,
        })
    }

    fn choice(&self, node: &dyn LocalNode) -> UnderlayChoice {
        let public = self.settings.public_ip.map(IpAddr::V4);
        let public = public.or(self.settings.public_ipv6.map(IpAddr::V6));
        match (&node.config().underlay, self.settings.can_reach, public) {
            (Some(name), _, _) => UnderlayChoice::Name(name.clone()),
            (None, Some(ip), _) => UnderlayChoice::Reaches(ip),
            // The device that has the address; a router in front of this node may have it.
            (None, None, Some(ip)) => UnderlayChoice::Address(ip),
            (None, None, None) => UnderlayChoice::DefaultRoute,
        }
    }

    /// Runs the extension backend's first command, again only after it has changed.
    async fn pre_startup(
        &self,
        state: &mut ClusterModel,
        cluster: &ClusterConfig,
    ) -> Result<Option<String>, LocalError> {
        let Some(command) = backend::pre_startup(&cluster.backend) else {
            state.extension = None;
            return Ok(None);
        };
        if let Some((line, output)) = &state.extension
            && *line == command.line
        {
            return Ok(Some(output.clone()));
        }
        let output = command::run(&command)
            .await
            .map_err(|why| LocalError::Command(format!("PreStartupCommand: {why}")))?;
        state.extension = Some((command.line.clone(), output.clone()));
        state.post_started = false;
        state.commanded.clear();
        Ok(Some(output))
    }
}

/// The device's first address of each family that other nodes can send to.
fn addresses(found: &UnderlayFound) -> (Option<Ipv4Addr>, Option<Ipv6Addr>) {
    let all = || found.addresses.iter().map(ipnet::IpNet::addr);
    let v4 = all().find_map(|ip| match ip {
        IpAddr::V4(v4) if !v4.is_link_local() && !v4.is_loopback() => Some(v4),
        _ => None,
    });
    let v6 = all().find_map(|ip| match ip {
        IpAddr::V6(v6) if !v6.is_unicast_link_local() && !v6.is_loopback() => Some(v6),
        _ => None,
    });
    (v4, v6)
}
