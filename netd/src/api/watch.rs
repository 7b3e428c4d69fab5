//! Watches: all records that exist, a SYNCED event, then changes. A client resumes a watch
//! after the last revision that it has seen.

use std::{pin::Pin, sync::Arc};

use netd_api::v1::EventType;
use serde::de::DeserializeOwned;
use tokio::sync::{mpsc, watch::Receiver};
use tokio_stream::{Stream, wrappers::ReceiverStream};
use tonic::Status;

use crate::node::Error;
use netd_domain::Invalid;
use netd_store::{Entry, Event, Store, WatchUpdate};

/// The stream of a watch's answers.
pub(crate) type Outgoing<T> = Pin<Box<dyn Stream<Item = Result<T, Status>> + Send>>;

/// One change of a record.
pub(crate) struct Change<R> {
    pub kind: EventType,
    pub revision: i64,
    pub record: Option<R>,
    pub key: String,
}

/// A prefix that no record has: listing it answers the store's revision and nothing else.
const EMPTY_PREFIX: &str = "/netd/v1/nothing/";

/// How many messages netd keeps for a slow reader. A reader that falls further behind can
/// continue as long as the store's history reaches back far enough.
const MAX_BUFFERED: usize = 256;

/// The records to watch.
pub(crate) struct Source {
    pub store: Arc<dyn Store>,
    pub prefix: String,
    /// Becomes true when netd stops.
    pub stop: Receiver<bool>,
}

impl super::Api {
    /// The records under `prefix`.
    pub(super) fn watched(&self, prefix: &str) -> Source {
        Source { store: self.node.store(), prefix: prefix.to_owned(), stop: self.stop.clone() }
    }
}

/// Streams the changes of `source` after the revision `after`; 0: all records that exist,
/// then changes. `message` makes an answer from a change, or `None` to skip it.
pub(crate) fn records<R, T>(
    source: Source,
    after: i64,
    message: impl Fn(Change<R>) -> Option<T> + Send + Sync + 'static,
) -> Outgoing<T>
where
    R: DeserializeOwned + Send + 'static,
    T: Send + 'static,
{
    let (sender, receiver) = mpsc::channel(MAX_BUFFERED);
    tokio::spawn(async move {
        let outgoing = Sender { sender, message };
        if let Err(status) = follow(source, after, &outgoing).await {
            // This fails if the reader has disconnected, which is fine.
            let _ = outgoing.sender.send(Err(status)).await;
        }
    });
    Box::pin(ReceiverStream::new(receiver))
}

struct Sender<T, F> {
    sender: mpsc::Sender<Result<T, Status>>,
    message: F,
}

impl<T, F> Sender<T, F> {
    /// False if the reader has disconnected.
    async fn send<R>(&self, change: Change<R>) -> bool
    where
        F: Fn(Change<R>) -> Option<T>,
    {
        match (self.message)(change) {
            Some(message) => self.sender.send(Ok(message)).await.is_ok(),
            None => !self.sender.is_closed(),
        }
    }
}

async fn follow<R, T, F>(source: Source, after: i64, out: &Sender<T, F>) -> Result<(), Status>
where
    R: DeserializeOwned,
    F: Fn(Change<R>) -> Option<T>,
{
    if after < 0 {
        let wrong = format!("{after} is not a revision; 0 begins with all records that exist");
        return Err(Error::from(Invalid::field("after_revision", wrong)).into());
    }
    let Source { store, prefix, mut stop } = source;
    let mut from = after;
    if after == 0 {
        let snapshot = store.list(&prefix).await.map_err(Error::from)?;
        from = snapshot.revision;
        for entry in &snapshot.entries {
            if !out.send(change(entry, EventType::Added)).await {
                return Ok(());
            }
        }
        let synced =
            Change { kind: EventType::Synced, revision: from, record: None, key: String::new() };
        if !out.send(synced).await {
            return Ok(());
        }
    }
    // The revision is of an earlier store. Waiting for it would lose all changes until then.
    if after > 0 && after > store.list(EMPTY_PREFIX).await.map_err(Error::from)?.revision {
        let text = format!("revision {after} is in the future; list again and watch from there");
        return Err(Error::Compacted(text).into());
    }
    let mut watch = store.watch(&prefix, from).await.map_err(Error::from)?;
    loop {
        let next = tokio::select! {
            next = watch.next() => next,
            () = out.sender.closed() => return Ok(()),
            // An error means that the sender was dropped, which happens only with the runtime.
            _ = stop.wait_for(|stop| *stop) => None,
        };
        match next {
            Some(Ok(WatchUpdate::Changes { events, .. })) => {
                for event in &events {
                    if !out.send(of_event(event)).await {
                        return Ok(());
                    }
                }
            }
            Some(Ok(WatchUpdate::Compacted)) => {
                let text = format!("revision {from} is too old; list again and watch from there");
                return Err(Error::Compacted(text).into());
            }
            Some(Err(error)) => return Err(Error::from(error).into()),
            None => return Err(Status::unavailable("netd is stopping")),
        }
    }
}

fn change<R: DeserializeOwned>(entry: &Entry, kind: EventType) -> Change<R> {
    Change {
        kind,
        revision: entry.mod_revision,
        record: serde_json::from_slice(&entry.value).ok(),
        key: entry.key.clone(),
    }
}

fn of_event<R: DeserializeOwned>(event: &Event) -> Change<R> {
    match event {
        Event::Put(entry) if entry.create_revision == entry.mod_revision => {
            change(entry, EventType::Added)
        }
        Event::Put(entry) => change(entry, EventType::Updated),
        Event::Delete { key, revision } => {
            Change { kind: EventType::Removed, revision: *revision, record: None, key: key.clone() }
        }
    }
}
