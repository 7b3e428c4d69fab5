//! Addresses reserved before their endpoint is created: a runtime's IPAM asks for them
//! one by one, and releases each when it no longer needs it.

use std::{net::IpAddr, sync::Arc};

use ipnet::IpNet;

use super::{
    core::Node,
    error::{Error, Result},
    record::encode,
    run_to_end::run_to_end,
    state::{AddressOwner, AddressReservation},
};
use netd_domain::ipam::IpamError;
use netd_domain::{Endpoint, EndpointKey};
use netd_store::{Store as _, TxnOutcome};

/// How often another address is tried when the store says that one is in use.
const MAX_TRIES: usize = 16;

impl Node {
    /// Reserves an address of `part` of a network's subnet: `wanted`, or any.
    /// Runs to its end even if the caller goes away.
    ///
    /// # Errors
    /// Nothing is reserved then.
    pub async fn reserve_address(
        self: &Arc<Self>,
        part: IpNet,
        wanted: Option<IpAddr>,
    ) -> Result<AddressReservation> {
        let node = self.clone();
        let reserve = async move { node.reserve_to_end(part, wanted).await };
        run_to_end("reserve address", reserve).await
    }

    async fn reserve_to_end(
        &self,
        part: IpNet,
        wanted: Option<IpAddr>,
    ) -> Result<AddressReservation> {
        if let Some(network) = self.state.network_of(&part) {
            self.refuse_others_subnets(&network)?;
        }
        for _ in 0..MAX_TRIES {
            let reservation = self.state.reserve_address(part, wanted)?;
            let (network, ip) = (&reservation.network, reservation.address.addr());
            match self.store.commit(encode::reserve(network, ip)).await {
                Ok(TxnOutcome::Committed(_)) => return Ok(reservation),
                Ok(TxnOutcome::Conflict(_)) => {
                    tracing::warn!(%network, %ip, "{ip} of network {network} is in use according to the store; trying another one");
                    self.state.end_reservation(network, ip, true);
                }
                Err(error) => {
                    self.state.end_reservation(network, ip, false);
                    return Err(error.into());
                }
            }
            if let Some(ip) = wanted {
                let source = IpamError::Taken { ip };
                return Err(Error::Ipam { network: reservation.network, source });
            }
        }
        let text = format!("{MAX_TRIES} addresses in a row were in use according to the store");
        Err(Error::Internal(text))
    }

    /// Ends the reservation of an address. An endpoint that uses it keeps it until its detach.
    ///
    /// # Errors
    /// The store's; the address stays reserved then, until garbage collection releases it.
    pub async fn release_address(self: &Arc<Self>, ip: IpAddr) -> Result<()> {
        let node = self.clone();
        run_to_end("release address", async move { node.release(ip).await }).await
    }

    /// As [`Node::release_address`], for callers that run to their end themselves.
    pub(super) async fn release(&self, ip: IpAddr) -> Result<()> {
        let ending = self.removals.lock().await;
        match self.state.release_address(ip) {
            AddressOwner::None => self.release_external(ip).await.map(drop),
            AddressOwner::Reservation(network) => {
                let told = self.store.commit(encode::unreserve(&network, ip)).await;
                match told {
                    Ok(_) => self.state.end_reservation(&network, ip, false),
                    Err(_) => self.state.restore_reservation(&network, ip),
                }
                told.map(drop).map_err(Error::from)
            }
            AddressOwner::Endpoint(key) => {
                drop(ending);
                self.remove_reservation_of(&key, ip).await
            }
        }
    }

    /// The address is no longer reserved: it becomes free when its endpoint is detached.
    async fn remove_reservation_of(&self, key: &EndpointKey, ip: IpAddr) -> Result<()> {
        let _lock = self.locks.lock(key).await;
        let ending = self.removals.lock().await;
        let Some((endpoint, _)) = self.state.endpoint(key) else {
            // It was detached meanwhile, and left its addresses reserved.
            drop(ending);
            return Box::pin(self.release(ip)).await;
        };
        let mut next = Endpoint::clone(&endpoint);
        let Some(placed) = &mut next.runtime_placed else { return Ok(()) };
        placed.leased.retain(|leased| *leased != ip);
        if next != *endpoint {
            self.record_change(next).await?;
        }
        Ok(())
    }
}
