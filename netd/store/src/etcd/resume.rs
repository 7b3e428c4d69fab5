//! How a watch begins, and begins again: on a member that is up to date, once it is
//! sure that etcd still has the data that the watch has seen.

use etcd_client::{Client, GetOptions, ResponseHeader, WatchOptions, WatchResponse, WatchStream};

use super::{
    cluster_identity::Observation,
    error::RequestError,
    kv,
    members::Repeat,
    metrics::Rpc,
    watch::{End, Follower},
    watch_event::{WatchEvent, read},
};

/// A member that is up to date.
struct Found {
    at: usize,
    member: Option<u64>,
    /// The last entry of raft that it had applied.
    applied: Option<i64>,
}

impl Follower {
    /// A stream that tells what comes after `after`, from the member that it names.
    pub(super) async fn connect(&mut self) -> Result<(usize, WatchStream), End> {
        self.progress = None;
        let found = self.find().await?;
        let at = found.at;
        let (from, end) = kv::range(&self.prefix);
        let options = WatchOptions::new()
            .with_range(end)
            .with_start_revision(self.after.saturating_add(1))
            .with_progress_notify();
        let open = |client: Client| {
            let (from, options) = (from.clone(), options.clone());
            let mut watch = client.watch_client().max_decoding_message_size(kv::MAX_ANSWER_BYTES);
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
            Some(WatchEvent::Created) => {
                self.note(&found, first.as_ref().and_then(WatchResponse::header));
                Ok((at, stream))
            }
            Some(WatchEvent::Compacted) => Err(End::Compacted),
            Some(WatchEvent::Refused(why)) => Err(End::Lost(self.refused(at, &why))),
            Some(WatchEvent::Events { .. } | WatchEvent::Progress(_)) | None => {
                Err(End::Lost(format!("{}: it began no watch", self.members.endpoint(at))))
            }
        }
    }

    fn refused(&self, at: usize, why: &str) -> String {
        format!("{}: it refuses to watch {:?}: {why}", self.members.endpoint(at), self.prefix)
    }

    fn note(&self, found: &Found, header: Option<&ResponseHeader>) {
        let same = header.filter(|header| Some(header.member_id()) == found.member);
        if let (Some(applied), Some(header)) = (found.applied, same) {
            self.members.identity.lock().applied(self.epoch, applied, header.revision());
        }
    }

    /// A member that is up to date, having made sure that it has the data that `after`
    /// is a revision of.
    async fn find(&self) -> Result<Found, End> {
        let mark = self.members.identity.lock().mark();
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
            Err(RequestError::Refused { .. }) => None,
            Err(failure) => return Err(failure.into()),
        };
        let member = answer.header().map(ResponseHeader::member_id);
        // Behind a load balancer it may be another one, which lags.
        let same = status.filter(|s| s.header().map(ResponseHeader::member_id) == member);
        let number = |index: u64| i64::try_from(index).unwrap_or(i64::MAX);
        let index = same.as_ref().map(|status| number(status.raft_index()));
        let applied = same.map(|status| number(status.raft_applied_index()));
        let (cluster, revision) =
            answer.header().map_or((0, 0), |header| (header.cluster_id(), header.revision()));
        let mut identity = self.members.identity.lock();
        identity.judge(mark, Observation { cluster, revision, index });
        match identity.can_resume(mark, self.epoch, self.after, revision) {
            true => Ok(Found { at, member, applied }),
            false => Err(End::Compacted),
        }
    }
}
