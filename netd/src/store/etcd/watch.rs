//! Watches: a task each, which finds its way from member to member.

use std::{sync::Arc, time::Duration};

use async_trait::async_trait;
use etcd_client::{Client, GetOptions, ResponseHeader, WatchOptions, WatchResponse, WatchStream};
use tokio::{
    sync::{mpsc, watch::Receiver},
    task::AbortHandle,
    time::{Instant, sleep_until, timeout},
};

use super::{
    failure::{Failure, Miss, Why, judge},
    kv,
    lineage::Sighting,
    members::{Members, Repeat, random},
    meters::Rpc,
    received::{Received, read},
};
use crate::store::{Revision, StoreError, Watch, Watched};

/// Batches that wait for a slow consumer; more stay with etcd.
const AHEAD: usize = 4;
/// A stream that lasted this long is looked for elsewhere at once when it ends.
const SETTLED: Duration = Duration::from_secs(1);
/// Between two attempts: the first, and the longest, pause.
const PAUSES: [Duration; 2] = [Duration::from_millis(100), Duration::from_secs(5)];

/// The consumer's end; dropping it ends the task.
#[derive(Debug)]
pub(super) struct EtcdWatch {
    told: mpsc::Receiver<Result<Watched, StoreError>>,
    task: AbortHandle,
}

#[async_trait]
impl Watch for EtcdWatch {
    async fn next(&mut self) -> Option<Result<Watched, StoreError>> {
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
    let epoch = members.lineage.lock().epoch();
    let (prefix, progress) = (prefix.to_owned(), None);
    let follower = Follower { members, prefix, after, epoch, progress, tell, closed };
    EtcdWatch { told, task: tokio::spawn(follower.run()).abort_handle() }
}

struct Follower {
    members: Arc<Members>,
    prefix: String,
    /// Everything up to here was told.
    after: Revision,
    /// What data `after` is a revision of.
    epoch: u64,
    /// How far etcd was when last asked. It counts with the next answer only: members
    /// before 3.5.8 may name a revision whose events are still on their way.
    progress: Option<Revision>,
    tell: mpsc::Sender<Result<Watched, StoreError>>,
    closed: Receiver<()>,
}

/// Why a stream came to its end.
enum End {
    /// The store or the watch was dropped.
    Closed,
    /// To be listed again.
    Compacted,
    Lost(String),
    /// As `Lost`, of a stream that has been in use for a while.
    Settled(String),
}

impl From<Failure> for End {
    fn from(failure: Failure) -> Self {
        match failure {
            Failure::Refused { why: Why::Compacted, .. } => Self::Compacted,
            other => Self::Lost(StoreError::from(other).to_string()),
        }
    }
}

impl Follower {
    async fn run(mut self) {
        // Attempts in a row that came to nothing.
        let mut failed = 0;
        loop {
            match self.once(failed > 0).await {
                End::Closed => return,
                End::Compacted => {
                    let _ = self.tell.send(Ok(Watched::Compacted)).await;
                    return;
                }
                // A member went away, which is nobody's concern if another is there.
                End::Settled(why) => {
                    tracing::debug!(prefix = self.prefix, why, "a watch goes to another member");
                    failed = 0;
                }
                End::Lost(why) => {
                    let told = self.tell.send(Err(StoreError::Unavailable(why))).await;
                    if told.is_err() || self.is_closed_within(pause(failed)).await {
                        return;
                    }
                    failed = failed.saturating_add(1);
                }
            }
        }
    }

    /// From one connection to its loss.
    async fn once(&mut self, was_away: bool) -> End {
        let (at, stream) = match self.connect().await {
            Ok(found) => found,
            Err(end) => return end,
        };
        let start = Instant::now();
        if was_away {
            let back = Watched::Changes { events: Vec::new(), revision: self.after };
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

    /// A stream that tells what comes after `after`, from the member that it names.
    async fn connect(&mut self) -> Result<(usize, WatchStream), End> {
        self.progress = None;
        let at = self.find().await?;
        let (from, end) = kv::range(&self.prefix);
        let options = WatchOptions::new()
            .with_range(end)
            .with_start_revision(self.after.saturating_add(1))
            .with_progress_notify();
        let open = |client: Client| {
            let (from, options) = (from.clone(), options.clone());
            let mut watch = client.watch_client().max_decoding_message_size(kv::ANSWER_MOST);
            async move {
                let mut stream = watch.watch(from, Some(options)).await?;
                let first = stream.message().await?;
                // etcd tells only here that the token is not valid (any more).
                if first.as_ref().is_some_and(|m| m.cancel_reason().contains("auth token")) {
                    client.refresh_token().await?;
                }
                Ok((stream, first))
            }
        };
        let (stream, first) = self.members.call_one(at, Rpc::Watch, open).await?;
        match first.as_ref().map(read) {
            Some(Received::Created) => Ok((at, stream)),
            Some(Received::Compacted) => Err(End::Compacted),
            Some(Received::Refused(why)) => Err(End::Lost(self.refused(at, &why))),
            Some(Received::Events { .. } | Received::Progress(_)) | None => {
                Err(End::Lost(format!("{}: it began no watch", self.members.endpoint(at))))
            }
        }
    }

    fn refused(&self, at: usize, why: &str) -> String {
        format!("{}: it refuses to watch {:?}: {why}", self.members.endpoint(at), self.prefix)
    }

    /// A member that is up to date, having made sure that it has the data that `after`
    /// is a revision of.
    async fn find(&self) -> Result<usize, End> {
        let mark = self.members.lineage.lock().mark();
        // A key that whoever may watch the prefix may read; it need not be there.
        let (key, _) = kv::range(&self.prefix);
        let read = |client: Client| {
            let key = key.clone();
            let options = GetOptions::new().with_keys_only();
            async move { client.kv_client().get(key, Some(options)).await }
        };
        let (at, answer) = self.members.call_some(Rpc::Get, Repeat::Yes, read).await?;
        let ask = |client: Client| async move { client.maintenance_client().status().await };
        let status = match self.members.call_one(at, Rpc::Status, ask).await {
            Ok(status) => Some(status),
            Err(Failure::Refused { .. }) => None,
            Err(failure) => return Err(failure.into()),
        };
        let member = |header: &ResponseHeader| header.member_id();
        let answered = answer.header().map(member);
        // Behind a load balancer it may be another one, which lags.
        let same = status.filter(|status| status.header().map(member) == answered);
        let index = same.map(|status| status.raft_index());
        let (cluster, revision) =
            answer.header().map_or((0, 0), |header| (header.cluster_id(), header.revision()));
        let mut lineage = self.members.lineage.lock();
        lineage.judge(mark, Sighting { cluster, revision, index });
        match lineage.can_resume(mark, self.epoch, self.after, revision) {
            true => Ok(at),
            false => Err(End::Compacted),
        }
    }

    /// Tells what the stream says until it ends.
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
                    self.members.meters.record(Rpc::Progress, Duration::ZERO, asked.is_err());
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
            Received::Created => {}
            Received::Compacted => return Err(End::Compacted),
            Received::Refused(why) => return Err(End::Lost(why)),
            Received::Progress(revision) => {
                let before = self.progress.replace(revision);
                self.after = self.after.max(before.unwrap_or(0));
            }
            Received::Events { mut events, revision } => {
                // Never twice, whatever a member sends.
                events.retain(|(at, _)| *at > self.after);
                self.members.lineage.lock().seen(revision);
                if events.is_empty() {
                    return Ok(());
                }
                self.after = self.after.max(revision);
                let events = events.into_iter().map(|(_, event)| event).collect();
                let told = Watched::Changes { events, revision: self.after };
                self.tell.send(Ok(told)).await.map_err(|_| End::Closed)?;
            }
        }
        Ok(())
    }

    fn broken(&self, miss: Miss) -> End {
        match miss {
            // The changes since `after` are more than fit; a list comes in pages.
            Miss::Refused(Why::TooLarge | Why::Compacted, _) => End::Compacted,
            Miss::Refused(_, why) | Miss::NotDone(why) | Miss::Unknown(why) => End::Lost(why),
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

/// Longer after each failure; nodes that lost etcd at once don't come back at once.
fn pause(failed: u32) -> Duration {
    let [first, longest] = PAUSES;
    let whole = first.saturating_mul(1 << failed.min(10)).min(longest);
    let part = u32::try_from(random(500)).unwrap_or(0) + 500;
    whole * part / 1000
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_grow_to_a_bound() {
        for (failed, most) in [(0, 100), (1, 200), (5, 3200), (6, 5000), (u32::MAX, 5000)] {
            let pause = pause(failed).as_millis();
            assert!(pause <= most && pause >= most / 2, "{failed}: {pause}");
        }
    }
}
