//! The dataplane's operations on networks and on what the host has of its own.

use std::sync::Arc;

use netd_domain::{HostNetwork, IfName, Mac, NetworkWiring, attach::bridge_mac};

use super::{bridge, host_networks, underlay};
use crate::{Dataplane, DataplaneError, Repair, error::failed, exec::context::Context};

impl Dataplane {
    /// Makes or adopts a network's bridge and its kernel settings. Returns the repairs.
    ///
    /// # Errors
    /// `InterfaceExists` when a device of the bridge's name is no bridge,
    /// `Unsupported`, `Kernel`, `Io`.
    pub async fn ensure_network(
        &self,
        network: Arc<NetworkWiring>,
    ) -> Result<Vec<Repair>, DataplaneError> {
        self.repairs.call(move |k| bridge::ensure(k, &network)).await
    }

    /// The MAC of a bridge of this node: the one that netd gives a bridge of this name, or that of
    /// the bridge that another program made and netd goes on with.
    pub fn bridge_mac(&self, name: &IfName) -> Mac {
        let known = self.shared.bridge_macs.lock().get(name).copied();
        known.unwrap_or_else(|| bridge_mac(name))
    }

    /// Describes a device that has the name of the network's bridge and that netd did not make;
    /// `None` if there is none.
    ///
    /// # Errors
    /// `Io`.
    pub async fn in_the_way(
        &self,
        network: Arc<NetworkWiring>,
    ) -> Result<Option<String>, DataplaneError> {
        self.repairs.call(move |k| bridge::in_the_way(k, &network)).await
    }

    /// An address of docker0 that lies in one of the network's subnets.
    ///
    /// # Errors
    /// `Io`.
    pub async fn owned_by_docker(
        &self,
        network: Arc<NetworkWiring>,
    ) -> Result<Option<ipnet::IpNet>, DataplaneError> {
        self.repairs.call(move |k| bridge::owned_by_docker(k, &network)).await
    }

    /// Takes gateways of pools that are gone off the network's bridge.
    ///
    /// # Errors
    /// `Kernel`.
    pub async fn remove_gateways(
        &self,
        network: Arc<NetworkWiring>,
        gone: Vec<ipnet::IpNet>,
    ) -> Result<(), DataplaneError> {
        self.repairs.call(move |k| bridge::remove_addresses(k, &network, &gone)).await
    }

    /// The networks that the host itself is in or leads to, without netd's own.
    ///
    /// # Errors
    /// `Io`.
    pub async fn host_networks(&self) -> Result<Vec<HostNetwork>, DataplaneError> {
        let what = "reading the host's addresses and routes";
        self.repairs.call(move |k| host_networks::list(k).map_err(failed(what))).await
    }

    /// Those of a network's gateways that its bridge has already.
    ///
    /// # Errors
    /// `Io`.
    pub async fn gateways(
        &self,
        network: Arc<NetworkWiring>,
    ) -> Result<Vec<ipnet::IpNet>, DataplaneError> {
        let what = "reading the addresses of a bridge";
        let list = move |k: &mut Context| host_networks::gateways(k, &network);
        self.repairs.call(move |k| list(k).map_err(failed(what))).await
    }

    /// Removes a network's bridge. A missing one is no error; a device that netd did not make
    /// stays.
    ///
    /// # Errors
    /// `Kernel`.
    pub async fn remove_network(&self, network: Arc<NetworkWiring>) -> Result<(), DataplaneError> {
        self.repairs.call(move |k| bridge::remove(k, &network)).await
    }

    /// MTU of the device of the node's default route, or of the configured one, bytes; 1500 if
    /// there is neither.
    ///
    /// # Errors
    /// `Kernel` when the configured device is not there.
    pub async fn underlay_mtu(&self) -> Result<u32, DataplaneError> {
        self.repairs.call(underlay_mtu).await
    }
}

fn underlay_mtu(kernel: &mut Context) -> Result<u32, DataplaneError> {
    let configured = kernel.shared.settings.underlay.clone();
    let shared = kernel.shared.clone();
    let found = underlay::find(&mut kernel.socket, configured.as_ref(), &shared)
        .map_err(failed("looking for the underlay's device"))?;
    match (found, configured) {
        (Some(link), _) => Ok(link.mtu),
        (None, None) => Ok(underlay::DEFAULT_MTU),
        (None, Some(name)) => Err(DataplaneError::Kernel {
            operation: format!("looking for the underlay's device {name}"),
            errno: "there is no such device; set another one, or none to follow the default route"
                .into(),
        }),
    }
}
