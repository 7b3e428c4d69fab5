//! Lists all objects that are followed: as a stream, which costs the API server as little as a
//! watch, else page by page.

use std::{
    collections::BTreeMap,
    time::{Duration, Instant},
};

use futures_util::{StreamExt as _, pin_mut};
use kube::core::{WatchEvent, params::WatchParams, watch::Bookmark};

use crate::{
    api::{ApiError, ApiServer, explain},
    followed::Followed,
};

/// What marks the event after the last object of a list.
const END_OF_LIST: &str = "k8s.io/initial-events-end";
/// The API server ends the stream of a list after this time, seconds.
const STREAM_SECONDS: u32 = 120;

/// For so long a server that refused is asked for pages: it may be replaced by a newer one.
const REFUSAL: Duration = Duration::from_secs(3600);

/// What was listed, and what a watch may go on from.
type Listed<T> = (Vec<<T as Followed>::Facts>, String);

/// What became of a list as a stream.
enum Streamed<T: Followed> {
    All(Listed<T>),
    /// The API server can't: Kubernetes before 1.27, or its feature WatchList is off.
    Refused,
    /// It began with nothing in time: it may be busy, or not know how to end a stream.
    Silent,
}

impl ApiServer {
    /// All objects that are followed, and what a watch may go on from.
    pub(crate) async fn list<T: Followed>(&self, what: &T) -> Result<Listed<T>, ApiError> {
        let refused = *self.no_streams_since.lock();
        if refused.is_none_or(|since| since.elapsed() > REFUSAL) {
            match self.list_as_stream(what).await? {
                Streamed::All(all) => return Ok(all),
                Streamed::Refused => {
                    tracing::info!("the API server sends no lists as streams: pages are asked for");
                    *self.no_streams_since.lock() = Some(Instant::now());
                }
                Streamed::Silent => {}
            }
        }
        self.list_by_pages(what).await
    }

    async fn list_as_stream<T: Followed>(&self, what: &T) -> Result<Streamed<T>, ApiError> {
        const BAD_REQUEST: u16 = 400;
        const INVALID: u16 = 422;
        let objects = self.objects::<T::Object>().await?;
        let params = WatchParams::streaming_lists().timeout(STREAM_SECONDS);
        let params = WatchParams { field_selector: what.selector(), ..params };
        let stream = match self.answered(objects.watch(&params, "")).await? {
            Err(kube::Error::Api(status)) if [BAD_REQUEST, INVALID].contains(&status.code) => {
                return Ok(Streamed::Refused);
            }
            answer => answer.map_err(|e| explain(&e))?,
        };
        pin_mut!(stream);
        // What changes meanwhile comes among the list.
        let mut all = BTreeMap::new();
        loop {
            let event = match self.answered(stream.next()).await {
                Err(_) if all.is_empty() => return Ok(Streamed::Silent),
                event => event?,
            };
            let Some(event) = event else { break };
            match event.map_err(|e| explain(&e))? {
                WatchEvent::Added(object) | WatchEvent::Modified(object) => {
                    let facts = what.facts(object);
                    all.extend(facts.map(|facts| (T::key(&facts).to_owned(), facts)));
                }
                WatchEvent::Deleted(object) => {
                    what.facts(object).map(|facts| all.remove(T::key(&facts)));
                }
                WatchEvent::Bookmark(Bookmark { metadata, .. }) => {
                    if metadata.annotations.contains_key(END_OF_LIST) {
                        let all = all.into_values().collect();
                        return Ok(Streamed::All((all, metadata.resource_version)));
                    }
                }
                WatchEvent::Error(status) => return Err(explain(&kube::Error::Api(status))),
            }
        }
        Err(ApiError::Failed(format!("the list of {} ended before its end", T::PLURAL)))
    }

    async fn list_by_pages<T: Followed>(&self, what: &T) -> Result<Listed<T>, ApiError> {
        let objects = self.objects::<T::Object>().await?;
        let mut all = Vec::new();
        let mut page = what.list_params();
        loop {
            let answer = self.in_time(objects.list(&page)).await?;
            all.extend(answer.items.into_iter().filter_map(|object| what.facts(object)));
            match answer.metadata.continue_.filter(|token| !token.is_empty()) {
                Some(token) => page = page.continue_token(&token),
                None => return Ok((all, answer.metadata.resource_version.unwrap_or_default())),
            }
        }
    }
}
