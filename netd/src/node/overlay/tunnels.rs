//! Tunnels and their peers in netd-tunnel.

use super::{core::Overlay, local_node::LocalNode};
use crate::metrics::TunnelLosses;
use crate::tunnel::{PeerChange, Tunnel, TunnelError, TunnelKind, TunnelPeerName};
use netd_cluster::{
    Local,
    desired::{Delta, Desired},
};
use netd_domain::{
    IfName,
    overlay::{self, TunnelDevice, TunnelPeer},
};

impl Overlay {
    /// Makes every tunnel with all its peers, and removes the others. What is as wanted
    /// already is not disturbed.
    ///
    /// # Errors
    /// netd-tunnel's error, as text.
    pub(super) async fn all_tunnels(
        &self,
        node: &dyn LocalNode,
        desired: &Desired,
        complete: bool,
    ) -> Result<(), String> {
        let wanted = &desired.local_plan().tunnels;
        self.end_others(wanted).await?;
        for device in wanted {
            let tunnel = tunnel(desired.local(), device);
            if let Err(error) = self.tunnel.configure(&tunnel).await {
                return Err(explained(node, &tunnel, error).await);
            }
            let here = |peer: &TunnelPeer| peer.device() == &device.name;
            let set = desired.tunnels().filter(here).collect();
            // Until all peers are known, netd-tunnel may rightly have others.
            let change = PeerChange { replace_all: complete, set, remove: vec![] };
            self.tunnel.update_peers(&device.name, &change).await.map_err(|e| e.to_string())?;
        }
        Ok(())
    }

    /// Removes tunnels of an earlier configuration. If no tunnel is wanted, netd-tunnel need
    /// not run.
    async fn end_others(&self, wanted: &[TunnelDevice]) -> Result<(), String> {
        let there = match self.tunnel.status().await {
            Ok(status) => status.tunnels,
            Err(_) if wanted.is_empty() => return Ok(()),
            Err(error) => return Err(error.to_string()),
        };
        let names = there.into_iter().filter_map(|t| t.tunnel).map(|t| t.device);
        for name in names.filter(|name| !wanted.iter().any(|d| d.name.as_str() == name)) {
            let Ok(name) = name.parse::<IfName>() else { continue };
            tracing::info!(device = %name, "removing tunnel {name}: the cluster's backend does not use it");
            self.tunnel.remove(&name).await.map_err(|e| e.to_string())?;
        }
        Ok(())
    }

    /// How many packets netd-tunnel did not pass on; empty while it does not answer.
    pub(super) async fn losses(&self) -> Vec<TunnelLosses> {
        let status = match self.tunnel.status().await {
            Ok(status) => status,
            Err(error) => {
                tracing::debug!(%error, "netd-tunnel's counters can't be read: {error}");
                return Vec::new();
            }
        };
        let counted = status.tunnels.into_iter().filter_map(|t| t.tunnel.zip(t.counters));
        let losses = counted.map(|(tunnel, c)| TunnelLosses {
            device: tunnel.device,
            refused: [c.rx_refused, c.tx_refused],
            dropped: [c.rx_dropped, c.tx_dropped],
        });
        losses.collect()
    }

    /// Applies a change of peers, with one call for each tunnel.
    ///
    /// # Errors
    /// netd-tunnel's error, as text.
    pub(super) async fn change_tunnels(
        &self,
        desired: &Desired,
        delta: &Delta,
    ) -> Result<(), String> {
        for device in &desired.local_plan().tunnels {
            let set = delta.tunnels_set.iter().filter(|peer| peer.device() == &device.name);
            let remove = delta.tunnels_removed.iter().filter_map(|name| named(name, &device.name));
            let change = PeerChange {
                replace_all: false,
                set: set.cloned().collect(),
                remove: remove.collect(),
            };
            if change != PeerChange::default() {
                let done = self.tunnel.update_peers(&device.name, &change).await;
                done.map_err(|e| e.to_string())?;
            }
        }
        Ok(())
    }
}

/// The error; of a port that is taken with its holder.
async fn explained(node: &dyn LocalNode, tunnel: &Tunnel, error: TunnelError) -> String {
    let port = tunnel.listen.first().map(std::net::SocketAddr::port);
    let (TunnelError::PortTaken { message }, Some(port)) = (&error, port) else {
        return error.to_string();
    };
    let (device, refusal) = (tunnel.device.clone(), message.clone());
    node.dataplane().port_taken(port, device, refusal).await.unwrap_or_else(|_| error.to_string())
}

fn tunnel(local: &Local, device: &TunnelDevice) -> Tunnel {
    let (listen, kind) = match &device.kind {
        overlay::TunnelKind::Udp { listen } => (listen.clone(), TunnelKind::Udp),
        overlay::TunnelKind::Wireguard { private_key, listen, .. } => {
            (listen.clone(), TunnelKind::Wireguard(private_key.clone()))
        }
    };
    Tunnel {
        device: device.name.clone(),
        listen,
        subnets: local.subnets.iter().flat_map(|subnets| subnets.iter()).collect(),
        kind,
    }
}

/// The name of a peer of this device.
fn named(name: &overlay::TunnelPeerName, device: &IfName) -> Option<TunnelPeerName> {
    match name {
        overlay::TunnelPeerName::Wireguard(of, key) if of == device => {
            Some(TunnelPeerName::Key(*key))
        }
        overlay::TunnelPeerName::Udp(of, endpoint) if of == device => {
            Some(TunnelPeerName::Endpoint(*endpoint))
        }
        _ => None,
    }
}
