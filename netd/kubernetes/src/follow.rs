//! Follows objects of the API server: lists them once and watches them.
//!
//! kube's own watcher would do, but for one thing: after the API server's etcd was restored from
//! an older copy, a watch from a number that is yet to come is silent, not refused.

use std::{sync::Arc, time::Duration};

use futures_util::{StreamExt as _, pin_mut};
use kube::core::{WatchEvent, params::WatchParams};
use tokio::{
    sync::mpsc,
    time::{Instant, sleep, timeout_at},
};

use crate::{
    api::{ApiError, ApiServer, explain},
    followed::{Followed, News},
    pace::RETRY,
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

/// After a watch was cut all is listed within this time, at random, and so much more for each
/// object: an API server that comes back is not asked for everything by all nodes at once.
const SPREAD: Duration = Duration::from_secs(1);
const SPREAD_EACH: Duration = Duration::from_millis(10);

/// See the module.
pub(crate) struct Follower<T: Followed> {
    pub api: Arc<ApiServer>,
    pub what: T,
    pub news: mpsc::Sender<News<T::Facts>>,
}

/// Why there is nothing more to follow from here.
enum End {
    /// Nobody listens.
    Closed,
    /// All has to be listed.
    Relist,
}

/// Why a watch has ended.
enum WatchEnd {
    /// Nobody listens.
    Closed,
    /// By this side: it said nothing for long, or it is time to list.
    Quiet,
    /// By the other side.
    Cut,
}

impl<T: Followed> Follower<T> {
    /// Runs until nobody listens.
    pub(crate) async fn run(self) {
        let mut backoff = RETRY;
        loop {
            match self.api.list(&self.what).await {
                Ok((all, version)) => {
                    tracing::info!(count = all.len(), "listed {} {}", all.len(), T::PLURAL);
                    let spread = SPREAD + SPREAD_EACH * u32::try_from(all.len()).unwrap_or(0);
                    if self.tell(News::Listed(all)).await.is_err() {
                        return;
                    }
                    let began = Instant::now();
                    if let End::Closed = self.watch(version, spread).await {
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

    /// Watches from `version` on, again and again. `spread`: within this time all is listed after
    /// a cut.
    async fn watch(&self, mut version: String, spread: Duration) -> End {
        let mut backoff = RETRY;
        let mut relist = Instant::now() + RELIST.mul_f64(1.0 + fastrand::f64() / 5.0);
        loop {
            let began = Instant::now();
            let end = self.watch_once(&mut version, relist).await;
            let whole = began.elapsed() + Duration::from_secs(5)
                >= Duration::from_secs(WATCH_SECONDS.into());
            match end {
                Ok(WatchEnd::Closed) => return End::Closed,
                Err(ApiError::Expired) => return End::Relist,
                Ok(WatchEnd::Cut) if whole => continue,
                Ok(WatchEnd::Quiet) => {}
                // It may be another history that goes on: its numbers may have passed the known
                // ones by the time that they can be compared.
                Ok(WatchEnd::Cut) => relist = relist.min(within(spread)),
                Err(ApiError::Failed(why)) => {
                    relist = relist.min(within(spread));
                    if self.tell(News::Failed(why)).await.is_err() {
                        return End::Closed;
                    }
                }
            }
            if began.elapsed() > GOOD {
                backoff.reset();
            }
            sleep(backoff.next_delay(fastrand::f64())).await;
            // Why it can't be asked is said by the next watch or list.
            let is_behind = self.api.is_behind(&version).await.unwrap_or(false);
            if is_behind {
                tracing::warn!(
                    "the API server is behind what it had told: it was restored from an older \
                     copy; all {} are listed",
                    T::PLURAL
                );
            }
            if is_behind || Instant::now() >= relist {
                return End::Relist;
            }
        }
    }

    /// One watch to its end.
    async fn watch_once(
        &self,
        version: &mut String,
        relist: Instant,
    ) -> Result<WatchEnd, ApiError> {
        let objects = self.api.objects::<T::Object>().await?;
        let params = WatchParams::default().timeout(WATCH_SECONDS);
        let params = WatchParams { field_selector: self.what.selector(), ..params };
        let stream = self.api.in_time(objects.watch(&params, version)).await?;
        pin_mut!(stream);
        if self.tell(News::Works).await.is_err() {
            return Ok(WatchEnd::Closed);
        }
        while Instant::now() < relist {
            let until = relist.min(Instant::now() + SILENCE);
            let event = match timeout_at(until, stream.next()).await {
                Err(_) => return Ok(WatchEnd::Quiet),
                Ok(None) => return Ok(WatchEnd::Cut),
                Ok(Some(event)) => event.map_err(|e| explain(&e))?,
            };
            let is_gone = matches!(event, WatchEvent::Deleted(_));
            let object = match event {
                WatchEvent::Added(object)
                | WatchEvent::Modified(object)
                | WatchEvent::Deleted(object) => object,
                WatchEvent::Bookmark(bookmark) => {
                    *version = bookmark.metadata.resource_version;
                    continue;
                }
                WatchEvent::Error(status) => return Err(explain(&kube::Error::Api(status))),
            };
            if let Some(at) = &kube::Resource::meta(&object).resource_version {
                version.clone_from(at);
            }
            let Some(facts) = self.what.facts(object) else { continue };
            let facts = Box::new(facts);
            let news = if is_gone { News::Deleted(facts) } else { News::Changed(facts) };
            if self.tell(news).await.is_err() {
                return Ok(WatchEnd::Closed);
            }
        }
        Ok(WatchEnd::Quiet)
    }

    async fn tell(&self, news: News<T::Facts>) -> Result<(), ()> {
        self.news.send(news).await.map_err(drop)
    }
}

fn within(spread: Duration) -> Instant {
    Instant::now() + spread.mul_f64(fastrand::f64())
}
