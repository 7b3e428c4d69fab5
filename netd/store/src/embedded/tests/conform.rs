//! The embedded store passes the suite that every store has to pass.

use std::sync::Arc;

use async_trait::async_trait;

use super::{options, put, puts, volatile};
use crate::{
    Store,
    conformance::{self, Subject},
    embedded::{EmbeddedOptions, EmbeddedStore, HistoryLimit},
};

const HISTORY: usize = 300;

struct Embedded {
    store: Arc<EmbeddedStore>,
    _dir: tempfile::TempDir,
}

impl Embedded {
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let history = HistoryLimit { revisions: HISTORY, bytes: 16 << 20 };
        let store = EmbeddedStore::open(EmbeddedOptions { history, ..options(dir.path()) });
        Self { store: store.unwrap(), _dir: dir }
    }
}

#[async_trait]
impl Subject for Embedded {
    async fn store(&self) -> Arc<dyn Store> {
        Arc::clone(&self.store) as Arc<dyn Store>
    }

    async fn compact(&self, store: &Arc<dyn Store>) {
        for n in 0..=HISTORY {
            store.commit(puts([put(&volatile("filler"), n.to_string().as_bytes())])).await.unwrap();
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn embedded_store_conforms_on_many_threads() {
    conformance::run(&Embedded::new()).await;
}

#[tokio::test]
async fn embedded_store_conforms_on_one_thread() {
    conformance::run(&Embedded::new()).await;
}
