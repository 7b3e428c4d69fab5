//! Leases. etcd counts whole seconds and makes very short ones longer.

use std::time::Duration;

use etcd_client::Client;

use super::{
    error::{Refusal, RequestError},
    members::{Members, Repeat},
    metrics::Rpc,
};
use crate::{LeaseId, StoreError};

/// Longest time of a lease, as etcd has it; longer ones are cut.
const MAX_TTL: u64 = 9_000_000_000;

/// A lease whose answer was lost expires by itself.
pub(super) async fn grant(members: &Members, ttl: Duration) -> Result<LeaseId, StoreError> {
    if ttl.is_zero() {
        return Err(StoreError::BadTransaction("a lease of no time; give it some".to_owned()));
    }
    let whole = ttl.as_secs().saturating_add(u64::from(ttl.subsec_nanos() > 0));
    let seconds = i64::try_from(whole.min(MAX_TTL)).unwrap_or(i64::MAX);
    let request = |client: Client| async move { client.lease_client().grant(seconds, None).await };
    Ok(members.call(Rpc::Grant, Repeat::Yes, request).await?.id())
}

pub(super) async fn keep_alive(members: &Members, lease: LeaseId) -> Result<(), StoreError> {
    // A stream for each time: there are minutes between two of them. The first answer
    // is waited for inside, and dropping the halves closes the stream.
    let request = |client: Client| async move { client.lease_client().keep_alive(lease).await };
    match members.call(Rpc::KeepAlive, Repeat::Yes, request).await {
        Ok(_) => Ok(()),
        Err(RequestError::Refused { why: Refusal::LeaseGone, .. }) => {
            Err(StoreError::LeaseGone(lease))
        }
        Err(failure) => Err(failure.into()),
    }
}

pub(super) async fn revoke(members: &Members, lease: LeaseId) -> Result<(), StoreError> {
    let request = |client: Client| async move { client.lease_client().revoke(lease).await };
    match members.call(Rpc::Revoke, Repeat::Yes, request).await {
        Ok(_) | Err(RequestError::Refused { why: Refusal::LeaseGone, .. }) => Ok(()),
        Err(failure) => Err(failure.into()),
    }
}

/// Whether a lease can hold keys.
pub(super) async fn is_there(members: &Members, lease: LeaseId) -> Result<bool, StoreError> {
    let request =
        |client: Client| async move { client.lease_client().time_to_live(lease, None).await };
    match members.call(Rpc::TimeToLive, Repeat::Yes, request).await {
        Ok(answer) => Ok(answer.ttl() > 0),
        Err(RequestError::Refused { why: Refusal::LeaseGone, .. }) => Ok(false),
        Err(failure) => Err(failure.into()),
    }
}
