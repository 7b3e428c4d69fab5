//! Follows a part of the store: one list, one watch, and again when that ends.

use std::{sync::Arc, time::Duration};

use tokio::{
    sync::{Notify, mpsc},
    time::{Instant, sleep, timeout},
};

use super::{backoff::STORE_BACKOFF, reconciler::StoreUpdate, view::Part};
use netd_store::{LeaseStore, StoreError, WatchUpdate};

/// A list that takes longer is tried again.
const LIST_TIMEOUT: Duration = Duration::from_secs(60);
/// A watch that lived so long was no failure.
const LIVED: Duration = Duration::from_secs(30);

/// Lists and watches one part of the store.
#[derive(Debug)]
pub(super) struct Follower {
    pub store: Arc<dyn LeaseStore>,
    pub part: Part,
    pub prefix: String,
    pub news: mpsc::Sender<(Part, StoreUpdate)>,
    /// Notified when everything has to be listed again.
    pub relist: Arc<Notify>,
}

impl Follower {
    /// Runs until the receiver is dropped. A watch reconnects by itself to a store that was
    /// away; when it ends, changes may be missing, so everything is listed again.
    pub(super) async fn run(self) {
        let mut rng = fastrand::Rng::new();
        let mut backoff = STORE_BACKOFF;
        while !self.news.is_closed() {
            let began = Instant::now();
            if let Err(err) = self.list_and_watch().await {
                self.tell(StoreUpdate::Failed(err.to_string())).await;
            }
            if began.elapsed() > LIVED {
                backoff.reset();
            }
            sleep(backoff.next_delay(rng.f64())).await;
        }
    }

    async fn tell(&self, seen: StoreUpdate) -> Option<()> {
        self.news.send((self.part, seen)).await.ok()
    }

    /// `Ok`: list again.
    async fn list_and_watch(&self) -> Result<(), StoreError> {
        let list = timeout(LIST_TIMEOUT, self.store.list(&self.prefix)).await;
        let late = |_| StoreError::Unavailable(format!("no list within {LIST_TIMEOUT:?}"));
        let list = list.map_err(late)??;
        let revision = list.revision;
        if self.tell(StoreUpdate::List(list.entries, revision)).await.is_none() {
            return Ok(());
        }
        let mut watch = self.store.watch(&self.prefix, revision).await?;
        loop {
            let next = tokio::select! {
                next = watch.next() => next,
                () = self.relist.notified() => return Ok(()),
                () = self.news.closed() => return Ok(()),
            };
            let seen = match next {
                Some(Ok(WatchUpdate::Changes { events, revision })) => {
                    StoreUpdate::Changes(events, revision)
                }
                Some(Ok(WatchUpdate::Compacted)) => return Ok(()),
                Some(Err(err)) => StoreUpdate::Failed(err.to_string()),
                None => return Err(StoreError::Unavailable("the watch was ended".to_owned())),
            };
            if self.tell(seen).await.is_none() {
                return Ok(());
            }
        }
    }
}
