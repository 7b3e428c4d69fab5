//! Tests of what only the embedded store promises.

#![allow(clippy::unwrap_used)]

mod conform;
mod crash;
mod failures;
mod history;
mod journal;
mod lifetime;
mod rollback;
mod space;

use std::{path::Path, sync::Arc};

use crate::{
    Change, Store, Txn,
    embedded::{EmbeddedOptions, EmbeddedStore, HistoryLimit},
    keys,
};

/// Options for directories under `dir`, for an invented boot.
fn options(dir: &Path) -> EmbeddedOptions {
    EmbeddedOptions {
        state_dir: dir.join("state"),
        run_dir: dir.join("run"),
        boot_id: "boot-1".to_owned(),
        history: HistoryLimit::default(),
    }
}

fn open(dir: &Path) -> Arc<EmbeddedStore> {
    EmbeddedStore::open(options(dir)).unwrap()
}

fn put(key: &str, value: &[u8]) -> Change {
    Change::Put { key: key.to_owned(), value: value.to_vec(), lease: 0 }
}

fn puts(changes: impl IntoIterator<Item = Change>) -> Txn {
    Txn { compares: vec![], changes: changes.into_iter().collect() }
}

/// A key that lasts over a reboot.
fn durable(name: &str) -> String {
    format!("{}{name}", keys::NETWORKS)
}

/// A key that does not.
fn volatile(name: &str) -> String {
    format!("{}{name}", keys::ENDPOINTS)
}

async fn value(store: &EmbeddedStore, key: &str) -> Option<Vec<u8>> {
    store.get(key).await.unwrap().map(|e| e.value)
}
