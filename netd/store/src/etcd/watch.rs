//! Watches: a task each, which finds its way from member to member.

use std::{sync::Arc, time::Duration};

use async_trait::async_trait;
use etcd_client::{WatchResponse, WatchStream};
use tokio::{
    sync::{mpsc, watch::Receiver},
    task::AbortHandle,
    time::{Instant, sleep_until, timeout},
};

use super::{
    error::{AttemptError, Refusal, RequestError, judge},
    members::Members,
    metrics::Rpc,
    watch_event::{WatchEvent, read},
};
use crate::{Revision, StoreError, Watch, WatchUpdate};
use netd_domain::Backoff;

/// Batches that wait for a slow consumer; more stay with etcd.
const AHEAD: usize = 4;
/// A stream that lasted this long is looked for elsewhere at once when it ends.
const SETTLED: Duration = Duration::from_secs(1);
/// Between two attempts.
const RETRY_BACKOFF: Backoff = Backoff::new(Duration::from_millis(100), Duration::from_secs(5));

/// The consumer's end; dropping it ends the task.
#[derive(Debug)]
pub(super) struct EtcdWatch {
    told: mpsc::Receiver<Result<WatchUpdate, StoreError>>,
    task: AbortHandle,
}

#[async_trait]
impl Watch for EtcdWatch {
    async fn next(&mut self) -> Option<Result<WatchUpdate, StoreError>> {
        self.told.recv().await
    }
}

impl Drop for EtcdWatch {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// Starts a watch that ends when `closed` has lost its sender.
pub(super) fn start(
    members: Arc<Members>,
    prefix: &str,
    after: Revision,
    closed: Receiver<()>,
) -> EtcdWatch {
    let (tell, told) = mpsc::channel(AHEAD);
    let epoch = members.identity.lock().epoch();
    let (prefix, progress) = (prefix.to_owned(), None);
    let follower = Follower { members, prefix, after, epoch, progress, tell, closed };
    EtcdWatch { told, task: tokio::spawn(follower.run()).abort_handle() }
}

/// The task's state.
pub(super) struct Follower {
    pub members: Arc<Members>,
    pub prefix: String,
    /// Everything up to this revision was delivered.
    pub after: Revision,
    /// What data `after` is a revision of.
    pub epoch: u64,
    /// How far etcd was when last asked. It counts with the next answer only: members
    /// before 3.5.8 may name a revision whose events are still on their way.
    pub progress: Option<Revision>,
    tell: mpsc::Sender<Result<WatchUpdate, StoreError>>,
    closed: Receiver<()>,
}

/// Why a stream came to its end.
pub(super) enum End {
    /// The store or the watch was dropped.
    Closed,
    /// To be listed again.
    Compacted,
    Lost(String),
    /// As `Lost`, of a stream that has been in use for a while.
    Settled(String),
}

impl From<RequestError> for End {
    fn from(failure: RequestError) -> Self {
        match failure {
            RequestError::Refused { why: Refusal::Compacted, .. } => Self::Compacted,
            other => Self::Lost(StoreError::from(other).to_string()),
        }
    }
}

impl Follower {
    async fn run(mut self) {
        let mut backoff = RETRY_BACKOFF;
        let mut was_away = false;
        loop {
            match self.once(was_away).await {
                End::Closed => return,
                End::Compacted => {
                    let _ = self.tell.send(Ok(WatchUpdate::Compacted)).await;
                    return;
                }
                // Losing one member is no error as long as another one answers.
                End::Settled(why) => {
                    tracing::debug!(prefix = self.prefix, why, "a watch goes to another member");
                    backoff.reset();
                    was_away = false;
                }
                End::Lost(why) => {
                    let told = self.tell.send(Err(StoreError::Unavailable(why))).await;
                    let delay = backoff.next_delay(fastrand::f64());
                    if told.is_err() || self.is_closed_within(delay).await {
                        return;
                    }
                    was_away = true;
                }
            }
        }
    }

    /// Serves one connection until it is lost.
    async fn once(&mut self, was_away: bool) -> End {
        let (at, stream) = match self.connect().await {
            Ok(found) => found,
            Err(end) => return end,
        };
        let start = Instant::now();
        if was_away {
            let back = WatchUpdate::Changes { events: Vec::new(), revision: self.after };
            if self.tell.send(Ok(back)).await.is_err() {
                return End::Closed;
            }
        }
        match self.follow(stream).await {
            End::Lost(why) => {
                self.members.distrust(at);
                let why = format!("{}: {why}", self.members.endpoint(at));
                if start.elapsed() >= SETTLED { End::Settled(why) } else { End::Lost(why) }
            }
            end => end,
        }
    }

    /// Forwards the stream's events until it ends.
    async fn follow(&mut self, mut stream: WatchStream) -> End {
        let quiet = self.members.options().quiet_time;
        let mut ask_at = Instant::now() + quiet;
        loop {
            let message = tokio::select! {
                message = stream.message() => message,
                () = self.tell.closed() => return End::Closed,
                _ = self.closed.changed() => return End::Closed,
                () = sleep_until(ask_at) => {
                    ask_at = Instant::now() + quiet;
                    let asked = stream.request_progress().await;
                    self.members.metrics.record(Rpc::Progress, Duration::ZERO, asked.is_err());
                    continue;
                }
            };
            ask_at = Instant::now() + quiet;
            match message {
                Ok(Some(message)) => {
                    if let Err(end) = self.take(&message).await {
                        return end;
                    }
                }
                Ok(None) => return End::Lost("it ended the watch".to_owned()),
                Err(error) => return self.broken(judge(error)),
            }
        }
    }

    async fn take(&mut self, message: &WatchResponse) -> Result<(), End> {
        match read(message) {
            WatchEvent::Created => {}
            WatchEvent::Compacted => return Err(End::Compacted),
            WatchEvent::Refused(why) => return Err(End::Lost(why)),
            WatchEvent::Progress(revision) => {
                let before = self.progress.replace(revision);
                self.after = self.after.max(before.unwrap_or(0));
            }
            WatchEvent::Events { mut events, revision } => {
                // Never twice, whatever a member sends.
                events.retain(|(at, _)| *at > self.after);
                self.members.identity.lock().seen(revision);
                if events.is_empty() {
                    return Ok(());
                }
                self.after = self.after.max(revision);
                let events = events.into_iter().map(|(_, event)| event).collect();
                let told = WatchUpdate::Changes { events, revision: self.after };
                self.tell.send(Ok(told)).await.map_err(|_| End::Closed)?;
            }
        }
        Ok(())
    }

    fn broken(&self, miss: AttemptError) -> End {
        match miss {
            // The changes since `after` are more than fit; a list comes in pages.
            AttemptError::Refused(Refusal::TooLarge | Refusal::Compacted, _) => End::Compacted,
            AttemptError::Refused(_, why)
            | AttemptError::NotDone(why)
            | AttemptError::Unknown(why) => End::Lost(why),
        }
    }

    async fn is_closed_within(&mut self, pause: Duration) -> bool {
        let closed = async {
            tokio::select! {
                () = self.tell.closed() => {}
                _ = self.closed.changed() => {}
            }
        };
        timeout(pause, closed).await.is_ok()
    }
}
