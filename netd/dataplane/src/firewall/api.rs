//! What the dataplane offers about the firewall.

use std::{net::IpAddr, sync::Arc};

use super::{FirewallState, HostListener, conntrack::Flows, worker::Rules};
use crate::{Dataplane, DataplaneError, Repair};
use netd_domain::Wiring;

impl Dataplane {
    /// Replaces the firewall's elements of an endpoint by those of `wiring`.
    ///
    /// # Errors
    /// As for [`super::Firewall::replace`]; the old ones may be gone then.
    pub async fn change_rules(
        &self,
        old: Arc<Wiring>,
        wiring: Arc<Wiring>,
    ) -> Result<(), DataplaneError> {
        let ports = !old.port_mappings.is_empty() || !wiring.port_mappings.is_empty();
        let change = move |rules: &mut Rules| rules.remove(&old).and_then(|()| rules.add(wiring));
        self.helpers.rules.call(change).await?;
        if ports { self.end_flows(Vec::new()).await } else { Ok(()) }
    }

    /// Ends every connection of addresses that have no owner any longer, and those that go on
    /// past the present owner of a host port. Takes some milliseconds.
    ///
    /// # Errors
    /// The thread has died. That the kernel can't do it is only logged.
    pub async fn end_flows(&self, addresses: Vec<IpAddr>) -> Result<(), DataplaneError> {
        let end = move |flows: &mut Flows| {
            flows.end_stale(&addresses);
            Ok(())
        };
        self.helpers.flows.call(end).await
    }

    /// Processes of the host that listen on the endpoint's host ports: their clients reach the
    /// pod instead.
    ///
    /// # Errors
    /// `Io`.
    pub async fn host_listeners(
        &self,
        wiring: Arc<Wiring>,
    ) -> Result<Vec<HostListener>, DataplaneError> {
        self.helpers.flows.call(move |flows| flows.listeners(&wiring)).await
    }

    /// Makes host ports without an address of their own follow the node's addresses.
    ///
    /// # Errors
    /// `Io`, `Kernel`.
    pub async fn follow_host_addresses(&self) -> Result<(), DataplaneError> {
        let changed = self.helpers.rules.call(Rules::follow_addresses).await?;
        if changed { self.end_flows(Vec::new()).await } else { Ok(()) }
    }

    /// Makes the nftables table equal to `state`, which is called on the firewall's thread.
    ///
    /// # Errors
    /// As for [`super::Firewall::replace`].
    pub async fn replace_firewall(
        &self,
        state: impl FnOnce() -> FirewallState + Send + 'static,
    ) -> Result<Vec<Repair>, DataplaneError> {
        // Asked for on the firewall's own thread: an endpoint that is added meanwhile is
        // either in the state already or comes after it.
        let repairs = self.helpers.rules.call(move |rules| rules.replace(state())).await?;
        // While tables were missing, packets passed by.
        self.end_flows(Vec::new()).await?;
        Ok(repairs)
    }

    /// Whether the nftables table is as netd made it last.
    ///
    /// # Errors
    /// The kernel can't be asked.
    pub async fn firewall_intact(&self) -> Result<bool, DataplaneError> {
        self.helpers.rules.call(Rules::intact).await
    }

    /// Chains of other tables that drop forwarded packets by default: packets of pods need
    /// rules there.
    ///
    /// # Errors
    /// The kernel can't be asked.
    pub async fn foreign_forward_drops(&self) -> Result<Vec<String>, DataplaneError> {
        self.helpers.rules.call(Rules::foreign_forward_drops).await
    }
}
