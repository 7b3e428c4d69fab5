//! What backends need to know of this node: its underlay, its addresses, its subnets.

use std::{
    collections::HashSet,
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
};

use super::{
    command,
    core::{ClusterModel, Overlay},
    local_node::LocalNode,
};
use crate::node::listed::listed;
use netd_cluster::{
    ClusterConfig, Family, Local, Subnets, Underlay, backend, desired::Desired,
    membership::OwnSubnets,
};
use netd_dataplane::{DataplaneError, UnderlayChoice, UnderlayFound};

/// Why this node can't be part of the overlay; names the setting to change.
#[derive(Debug, thiserror::Error)]
pub(super) enum LocalError {
    /// The device that leads to the other nodes.
    #[error("{0}; set \"underlay\" or overlay.can_reach")]
    Dataplane(#[from] DataplaneError),
    /// The address by which an operator chose the device.
    #[error(
        "{1}: {0} is what the Node's annotation node-public-ip, or overlay.public_ipv6, says; correct it"
    )]
    Underlay(IpAddr, DataplaneError),
    /// What the backend needs is missing.
    #[error("{0}")]
    Backend(#[from] backend::PeerProblem),
    /// Which MACs other nodes know is in etcd, or in the Kubernetes API.
    #[error("waiting for the list of the cluster's nodes")]
    NotListed,
    /// The node's keys can't be written.
    #[error("the node's keys: {0}")]
    Keys(#[from] std::io::Error),
    /// The extension backend's command.
    #[error("{0}")]
    Command(String),
}

/// Whether netd-tunnel does WireGuard already. It goes on until the node boots again, also when
/// the kernel has got its module meanwhile: peers would refuse the kernel's first handshakes,
/// since its timestamps are 27 seconds behind those of the tunnel process.
async fn tunnel_does_wireguard(node: &dyn LocalNode) -> Result<bool, DataplaneError> {
    for device in backend::wireguard_devices() {
        if node.dataplane().has_tunnel(device).await? {
            return Ok(true);
        }
    }
    Ok(false)
}

impl Overlay {
    /// Reads what backends need to know of this node.
    pub(super) async fn local(
        &self,
        node: &dyn LocalNode,
        state: &mut ClusterModel,
        cluster: &ClusterConfig,
    ) -> Result<Local, LocalError> {
        let known = self.known_addresses(state);
        let public = (
            self.settings.public_ip.or(state.addresses.0),
            self.settings.public_ipv6.or(state.addresses.1),
        );
        let choice = self.choice(node, &known, public);
        let found =
            node.dataplane().underlay_of(choice.clone()).await.map_err(|error| match choice {
                UnderlayChoice::Address(ip) if self.settings.public_ip.is_none() => {
                    LocalError::Underlay(ip, error)
                }
                _ => error.into(),
            })?;
        say_underlay(state, &choice, &found);
        let (first_v4, first_v6) = addresses(&found, &known);
        let capabilities = node.dataplane().overlay_capabilities().await?;
        let kernel_wireguard = capabilities.wireguard && !tunnel_does_wireguard(node).await?;
        let extension_data = self.pre_startup(state, cluster).await?;
        Ok(Local {
            public_v4: public.0.or(first_v4),
            public_v6: public.1.or(first_v6),
            underlay: Underlay { device: found.device, mtu: found.mtu, addresses: found.addresses },
            subnets: usable(&state.own, &state.retiring),
            cluster: cluster.clone(),
            identity: self.identity.lock().clone(),
            kernel_wireguard,
            blackhole: self.settings.blackhole,
            extension_data,
        })
    }

    /// The addresses that other nodes know this one by, from before a restart too.
    fn known_addresses(&self, state: &ClusterModel) -> Vec<IpAddr> {
        if let Some(local) = state.desired.as_ref().map(Desired::local) {
            return Family::ALL.into_iter().filter_map(|family| local.public(family)).collect();
        }
        let announced = self.membership.status().announced.unwrap_or_default();
        Family::ALL.into_iter().filter_map(|family| announced.public(family)).collect()
    }

    fn choice(
        &self,
        node: &dyn LocalNode,
        known: &[IpAddr],
        (v4, v6): (Option<Ipv4Addr>, Option<Ipv6Addr>),
    ) -> UnderlayChoice {
        let public = v4.map(IpAddr::V4).or(v6.map(IpAddr::V6));
        match (&node.config().underlay, self.settings.can_reach, public) {
            (Some(name), _, _) => UnderlayChoice::Name(name.clone()),
            (None, Some(ip), _) => UnderlayChoice::Reaches(ip),
            // The device that has the address; a router in front of this node may have it.
            (None, None, Some(ip)) => UnderlayChoice::Address(ip),
            // Another default route, a VPN's for example, moves no node.
            (None, None, None) => UnderlayChoice::Keeping(known.to_vec()),
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

/// Logs which device was chosen, and why, when it is another one than before.
fn say_underlay(state: &mut ClusterModel, choice: &UnderlayChoice, found: &UnderlayFound) {
    let has = |ip: &IpAddr| found.addresses.iter().any(|net| net.addr() == *ip);
    let why = match choice {
        UnderlayChoice::Name(_) => "it is configured".to_owned(),
        UnderlayChoice::Address(ip) => format!("it has {ip}"),
        UnderlayChoice::Reaches(ip) => format!("it leads to {ip}"),
        UnderlayChoice::Keeping(known) if known.iter().any(has) => {
            "other nodes know this one by its address".to_owned()
        }
        UnderlayChoice::Keeping(_) | UnderlayChoice::DefaultRoute => {
            "the default route leads over it".to_owned()
        }
    };
    let addresses = listed(&found.addresses);
    let (device, mtu) = (&found.device, found.mtu);
    let text = format!("the underlay is {device} ({addresses}, MTU {mtu}): {why}");
    if state.underlay.as_ref() != Some(&text) {
        tracing::info!(device = %device, "{text}");
        state.underlay = Some(text);
    }
}

/// The device's address of each family that other nodes can send to: the one that they know,
/// else the first.
fn addresses(found: &UnderlayFound, known: &[IpAddr]) -> (Option<Ipv4Addr>, Option<Ipv6Addr>) {
    let is_known = |ip: &IpAddr| known.contains(ip);
    let every = || found.addresses.iter().map(ipnet::IpNet::addr);
    let all = || every().filter(is_known).chain(every());
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

/// The subnets that pools are made of, the oldest first, whatever their numbers: it is the one
/// that is published. One that is being returned to the cluster is none of them.
fn usable(own: &[OwnSubnets], retiring: &HashSet<Subnets>) -> Vec<Subnets> {
    let stays = |own: &&OwnSubnets| own.fits && !retiring.contains(&own.subnets);
    let mut fitting: Vec<_> = own.iter().filter(stays).collect();
    fitting.sort_by_key(|own| own.since);
    fitting.into_iter().map(|own| own.subnets).collect()
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    fn own(subnet: &str, since: u64) -> OwnSubnets {
        let subnets = Subnets { v4: Some(subnet.parse().unwrap()), v6: None };
        OwnSubnets { key: subnet.into(), subnets, reservation: false, fits: true, since }
    }

    /// Between the removal of an empty pool and the cluster's word that it has the subnet back,
    /// whatever makes the node compute its pools again must not make one of it.
    #[test]
    fn a_subnet_that_is_being_returned_is_no_pool_until_it_is_gone_or_stays() {
        let (first, second) = (own("10.5.9.0/24", 7), own("10.5.1.0/24", 9));
        let mut retiring = HashSet::new();
        let both = [second.clone(), first.clone()];
        assert_eq!(usable(&both, &retiring), [first.subnets, second.subnets], "the oldest first");
        retiring.insert(second.subnets);
        assert_eq!(usable(&both, &retiring), [first.subnets]);
        // The lease is written again meanwhile: it has another age, and is the same subnet.
        let renewed = [first.clone(), own("10.5.1.0/24", 11)];
        assert_eq!(usable(&renewed, &retiring), [first.subnets]);
        assert_eq!(usable(std::slice::from_ref(&first), &retiring), [first.subnets]);
        retiring.clear();
        assert_eq!(usable(&both, &retiring).len(), 2);
        let unfit = OwnSubnets { fits: false, ..second };
        assert_eq!(usable(&[unfit, first.clone()], &retiring), [first.subnets]);
    }
}
