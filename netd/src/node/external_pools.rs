//! Addresses that netd assigns for networks that other programs make, such as Docker's own
//! drivers with netd as IPAM driver. No endpoint of netd's ever has them, so the caller alone
//! says when one is free again; they are stored durably, since a gateway or an auxiliary
//! address is asked for once in the life of a Docker network.

use std::{net::IpAddr, sync::Arc};

use ipnet::IpNet;

use super::{
    core::Node,
    error::{Error, Result},
    record::encode,
    run_to_end::run_to_end,
};
use netd_domain::ipam::IpamError;
use netd_store::{Store as _, TxnOutcome};

impl Node {
    /// Whether netd has no network with this subnet, so that its addresses are another
    /// program's to ask for.
    pub(crate) fn is_external(&self, subnet: &IpNet) -> bool {
        self.state.is_external(subnet)
    }

    /// Reserves `wanted`, or any address of `part`, of a subnet of which netd has no network;
    /// returns it with the subnet's prefix length. Runs to its end even if the caller goes away.
    ///
    /// # Errors
    /// Nothing is reserved then.
    pub async fn reserve_external_address(
        self: &Arc<Self>,
        subnet: IpNet,
        part: IpNet,
        wanted: Option<IpAddr>,
    ) -> Result<IpNet> {
        let node = self.clone();
        let reserve = async move { node.reserve_external_to_end(subnet, part, wanted).await };
        run_to_end("reserve external address", reserve).await
    }

    async fn reserve_external_to_end(
        &self,
        subnet: IpNet,
        part: IpNet,
        wanted: Option<IpAddr>,
    ) -> Result<IpNet> {
        // No network with this subnet is made meanwhile.
        let _topology = self.network_changes.lock().await;
        loop {
            let ip = self.state.reserve_external(subnet, part, wanted)?;
            match self.store.commit(encode::reserve_external(subnet, ip)).await {
                Ok(TxnOutcome::Committed(_)) => {
                    return IpNet::new(ip, subnet.prefix_len())
                        .map_err(|e| Error::Internal(format!("{ip} of {subnet}: {e}")));
                }
                // A commit that seemed to fail has reserved it: from now on the state knows.
                Ok(TxnOutcome::Conflict(_)) if wanted.is_none() => {}
                Ok(TxnOutcome::Conflict(_)) => {
                    return Err(Error::External { subnet, source: IpamError::Taken { ip } });
                }
                Err(error) => {
                    self.state.release_external(subnet, ip);
                    return Err(error.into());
                }
            }
        }
    }

    /// Frees an address of an external subnet; returns whether it was one. The caller holds
    /// `removals`.
    pub(super) async fn release_external(&self, ip: IpAddr) -> Result<bool> {
        let Some(subnet) = self.state.external_subnet_of(ip) else { return Ok(false) };
        self.store.commit(encode::unreserve_external(subnet, ip)).await?;
        self.state.release_external(subnet, ip);
        Ok(true)
    }

    /// The subnets whose addresses netd assigns for other programs, each with the number of
    /// addresses in use.
    pub fn external_pools(&self) -> Vec<(IpNet, usize)> {
        self.state.external_pools()
    }
}
