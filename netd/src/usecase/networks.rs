//! Networks: create, delete.

use std::sync::Arc;

use super::{
    Node,
    error::{Error, Result},
    records,
};
use crate::{
    domain::{Network, NetworkName},
    store::{Change, Compare, Outcome, Txn, keys},
};

impl Node {
    /// Creates a network, or finds that the same one is there.
    ///
    /// # Errors
    /// [`Error::NetworkExists`] for another of that name, or with overlapping pools,
    /// or on the same bridge.
    pub async fn create_network(&self, network: Network) -> Result<()> {
        if let Some(state) = self.registry.network(&network.name) {
            if *state.network == network {
                return Ok(());
            }
            let text = format!("network \"{}\" exists with other settings", network.name);
            return Err(Error::NetworkExists(text));
        }
        self.refuse_clash(&network)?;
        let key = keys::network(&network.name);
        let txn = Txn {
            compares: vec![Compare::Absent(key.clone())],
            changes: vec![Change::Put { key, value: records::encode(&network)?, lease: 0 }],
        };
        if let Outcome::Conflict(_) = self.store.commit(txn).await? {
            let text = format!("network \"{}\" is being created by someone else", network.name);
            return Err(Error::NetworkExists(text));
        }
        self.adopt_network(network).await
    }

    /// Puts a recorded network into force.
    pub(super) async fn adopt_network(&self, network: Network) -> Result<()> {
        let mtu = match network.mtu {
            Some(mtu) => mtu,
            None => self.dataplane.underlay_mtu().await?,
        };
        let name = network.name.clone();
        let wiring = Arc::new(network.wiring(mtu));
        self.registry.put_network(Arc::new(network), wiring);
        self.mend_network(&name).await?;
        self.mend_firewall().await
    }

    fn refuse_clash(&self, network: &Network) -> Result<()> {
        for state in self.registry.networks() {
            if let Some(text) = network.clash(&state.network) {
                return Err(Error::NetworkExists(text));
            }
        }
        Ok(())
    }

    /// Deletes a network without endpoints; nothing happens when it is not there.
    ///
    /// # Errors
    /// [`Error::NetworkInUse`].
    pub async fn delete_network(&self, name: &NetworkName) -> Result<()> {
        let Some(state) = self.registry.network(name) else { return Ok(()) };
        // From here on no attach finds it.
        let endpoints = self.registry.retire_network(name);
        if endpoints > 0 {
            return Err(Error::NetworkInUse { name: name.clone(), endpoints });
        }
        let changes = vec![Change::Delete { key: keys::network(name) }];
        if let Err(error) = self.store.commit(Txn { compares: vec![], changes }).await {
            self.registry.put_network(state.network, state.wiring);
            return Err(error.into());
        }
        self.health.forget(&format!("network/{name}"));
        self.dataplane.remove_network(state.wiring).await?;
        self.mend_firewall().await
    }
}
