//! Addresses reserved before their endpoint is created: a runtime's IPAM asks for them
//! one by one, and says when it needs them no more.

use std::{net::IpAddr, sync::Arc};

use ipnet::IpNet;
use tracing::Instrument as _;

use super::{
    core::Node,
    error::{Error, Result},
    record::encode,
    state::{AddressOwner, AddressReservation},
};
use netd_domain::ipam::IpamError;
use netd_domain::{Endpoint, EndpointKey};
use netd_store::{Store as _, TxnOutcome};

/// How often another address is tried when the store says that one is held.
const TRIES: usize = 16;

impl Node {
    /// Reserves an address of `part` of a network's subnet: `wanted`, or any.
    /// Goes on to its end even if the caller goes away.
    ///
    /// # Errors
    /// Nothing is reserved then.
    pub async fn reserve_address(
        self: &Arc<Self>,
        part: IpNet,
        wanted: Option<IpAddr>,
    ) -> Result<AddressReservation> {
        let node = self.clone();
        let work = async move { node.reserve_to_the_end(part, wanted).await };
        let work = tokio::spawn(work.in_current_span());
        work.await.map_err(|e| Error::Internal(format!("reserve: {e}")))?
    }

    async fn reserve_to_the_end(
        &self,
        part: IpNet,
        wanted: Option<IpAddr>,
    ) -> Result<AddressReservation> {
        if let Some(network) = self.state.network_of(&part) {
            self.refuse_docker0s(&network)?;
        }
        for _ in 0..TRIES {
            let reservation = self.state.reserve_address(part, wanted)?;
            let (network, ip) = (&reservation.network, reservation.address.addr());
            match self.store.commit(encode::reserve(network, ip)).await {
                Ok(TxnOutcome::Committed(_)) => return Ok(reservation),
                Ok(TxnOutcome::Conflict(_)) => {
                    tracing::warn!(%network, %ip, "the store says that this address is held");
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
        let text = format!("{TRIES} addresses in a row are held by others in the store");
        Err(Error::Internal(text))
    }

    /// Ends the reservation of an address; an endpoint that has it keeps it until it goes.
    ///
    /// # Errors
    /// The store's; the address stays reserved then, and is collected.
    pub async fn release_address(&self, ip: IpAddr) -> Result<()> {
        let ending = self.removals.lock().await;
        match self.state.release_address(ip) {
            AddressOwner::Nobody => Ok(()),
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
                self.end_lease(&key, ip).await
            }
        }
    }

    /// An endpoint's address is to be free when it goes.
    async fn end_lease(&self, key: &EndpointKey, ip: IpAddr) -> Result<()> {
        let _lock = self.locks.lock(key).await;
        let ending = self.removals.lock().await;
        let Some((endpoint, _)) = self.state.endpoint(key) else {
            // It went meanwhile, and left its addresses reserved.
            drop(ending);
            return Box::pin(self.release_address(ip)).await;
        };
        let mut next = Endpoint::clone(&endpoint);
        let Some(moved) = &mut next.moved else { return Ok(()) };
        moved.leased.retain(|leased| *leased != ip);
        if next != *endpoint {
            self.store.commit(encode::update(&next)?).await?;
            self.state.replace(Arc::new(next));
        }
        Ok(())
    }
}
