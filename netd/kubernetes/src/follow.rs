//! Follows the Nodes of the API server: lists them once and watches them.
//!
//! kube's own watcher would do, but for one thing: after the API server's etcd was restored from
//! an older copy, a watch from a number that is yet to come is silent, not refused.

use std::{sync::Arc, time::Duration};

use futures_util::{StreamExt as _, pin_mut};
use kube::core::{WatchEvent, params::WatchParams};
use tokio::{
    sync::mpsc,
    time::{Instant, sleep, timeout},
};

use crate::{
    api::{ApiError, ApiServer, explain},
    node::NodeFacts,
    reconciler::{News, RETRY},
};

/// The API server ends a watch after this time, which is no failure; seconds.
const WATCH_SECONDS: u32 = 290;
/// A watch that says nothing for so long may be dead, or the cluster is quiet: another one tells.
const SILENCE: Duration = Duration::from_secs(120);
/// A watch that lived so long was a good one.
const GOOD: Duration = Duration::from_secs(30);
/// All is listed again after this time, up to a fifth more: what a watch never told, for whatever
/// reason, is known by then.
const RELIST: Duration = Duration::from_secs(3600);

/// See the module.
pub(crate) struct Follower {
    pub api: Arc<ApiServer>,
    pub news: mpsc::Sender<News>,
}

/// Why there is nothing more to follow from here.
enum End {
    /// Nobody listens.
    Closed,
    /// All has to be listed.
    Relist,
}

impl Follower {
    /// Runs until nobody listens.
    pub(crate) async fn run(self) {
        let mut backoff = RETRY;
        loop {
            match self.api.list().await {
                Ok((nodes, version)) => {
                    if self.tell(News::Listed(nodes)).await.is_err() {
                        return;
                    }
                    let began = Instant::now();
                    if let End::Closed = self.watch(version).await {
                        return;
                    }
                    // Changes that are forgotten before they were watched must not end in a
                    // list after the other.
                    if began.elapsed() > GOOD {
                        backoff.reset();
                    }
                }
                // A list of many pages took too long.
                Err(ApiError::Expired) => {}
                Err(ApiError::Failed(why)) => {
                    if self.tell(News::Failed(why)).await.is_err() {
                        return;
                    }
                }
            }
            sleep(backoff.next_delay(fastrand::f64())).await;
        }
    }

    /// Watches from `version` on, again and again.
    async fn watch(&self, mut version: String) -> End {
        let mut backoff = RETRY;
        let relist = Instant::now() + RELIST.mul_f64(1.0 + fastrand::f64() / 5.0);
        loop {
            let began = Instant::now();
            if began > relist {
                return End::Relist;
            }
            match self.watch_once(&mut version).await {
                Ok(Ok(())) => {}
                Ok(Err(end)) => return end,
                Err(ApiError::Expired) => return End::Relist,
                Err(ApiError::Failed(why)) => {
                    if self.tell(News::Failed(why)).await.is_err() {
                        return End::Closed;
                    }
                }
            }
            if began.elapsed() + Duration::from_secs(5) >= Duration::from_secs(WATCH_SECONDS.into())
            {
                continue;
            }
            if began.elapsed() > GOOD {
                backoff.reset();
            }
            sleep(backoff.next_delay(fastrand::f64())).await;
            // What fails is said by the next watch.
            if let Ok(true) = self.api.is_behind(&version).await {
                tracing::warn!(
                    "the API server is behind what it had told: it was restored from an older \
                     copy; all Nodes are listed"
                );
                return End::Relist;
            }
        }
    }

    /// One watch to its end.
    async fn watch_once(&self, version: &mut String) -> Result<Result<(), End>, ApiError> {
        let nodes = self.api.nodes().await?;
        let params = WatchParams::default().timeout(WATCH_SECONDS);
        let stream = self.api.in_time(nodes.watch(&params, version)).await?;
        pin_mut!(stream);
        if self.tell(News::Works).await.is_err() {
            return Ok(Err(End::Closed));
        }
        loop {
            let event = match timeout(SILENCE, stream.next()).await {
                Err(_) | Ok(None) => return Ok(Ok(())),
                Ok(Some(event)) => event.map_err(|e| explain(&e))?,
            };
            let is_gone = matches!(event, WatchEvent::Deleted(_));
            let node = match event {
                WatchEvent::Added(node)
                | WatchEvent::Modified(node)
                | WatchEvent::Deleted(node) => node,
                WatchEvent::Bookmark(bookmark) => {
                    *version = bookmark.metadata.resource_version;
                    continue;
                }
                WatchEvent::Error(status) => return Err(explain(&kube::Error::Api(status))),
            };
            if let Some(at) = &kube::Resource::meta(&node).resource_version {
                version.clone_from(at);
            }
            let Some(node) = NodeFacts::of(node, self.api.prefix()) else { continue };
            let news =
                if is_gone { News::Deleted(node.name) } else { News::Changed(Box::new(node)) };
            if self.tell(news).await.is_err() {
                return Ok(Err(End::Closed));
            }
        }
    }

    async fn tell(&self, news: News) -> Result<(), ()> {
        self.news.send(news).await.map_err(drop)
    }
}
