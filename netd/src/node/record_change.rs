//! Changes of an endpoint's record that leave its status in the kernel as it is.

use std::sync::Arc;

use super::{core::Node, error::Result, record::encode};
use netd_domain::Endpoint;
use netd_store::Store as _;

impl Node {
    /// The store has the record first, then the state. The caller holds what keeps others from
    /// changing it meanwhile: the key's lock, or `removals`.
    pub(super) async fn record_change(&self, changed: Endpoint) -> Result<Arc<Endpoint>> {
        self.store.commit(encode::update(&changed)?).await?;
        let changed = Arc::new(changed);
        self.state.replace(changed.clone());
        Ok(changed)
    }
}
