//! What is checked.

use std::sync::Arc;

use async_trait::async_trait;

use crate::Store;

/// A store under test.
#[async_trait]
pub trait Subject: Sync {
    /// A store, empty under the prefixes `/netd/v1/conformance/` and
    /// `/netd/v1/node/conformance/`; a new one or the same every time.
    async fn store(&self) -> Arc<dyn Store>;

    /// Makes `store` forget its history up to and including the current revision.
    async fn compact(&self, store: &Arc<dyn Store>);
}
