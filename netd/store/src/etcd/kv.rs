//! Keys and transactions in etcd's terms.

use std::collections::BTreeSet;

use etcd_client::{
    Compare as Condition, CompareOp, GetOptions, GetResponse, KeyValue, PutOptions, Txn as Request,
    TxnOp, TxnOpResponse, TxnResponse,
};

use super::{
    error::{Refusal, RequestError},
    members::{Members, Repeat},
    metrics::Rpc,
};
use crate::{
    Change, Compare, Entry, LeaseId, Revision, Snapshot, StoreError, Txn, TxnOutcome, rules,
};

/// Keys in one page of a list, at most.
const PAGE: i64 = 1000;
/// The longest answer that is taken, bytes. A list gets on with shorter pages.
pub(super) const MAX_ANSWER_BYTES: usize = 16 << 20;
/// How often a list begins again because its revision was compacted meanwhile.
const AGAIN: usize = 5;

/// From the first key with `prefix` to the one after the last.
pub(super) fn range(prefix: &str) -> (Vec<u8>, Vec<u8>) {
    if prefix.is_empty() {
        return (vec![0], vec![0]);
    }
    let mut end = prefix.as_bytes().to_vec();
    // 0xff, which has no successor, is in no UTF-8 text.
    if let Some(last) = end.last_mut() {
        *last = last.saturating_add(1);
    }
    (prefix.as_bytes().to_vec(), end)
}

/// An entry as etcd keeps it. Keys that are not UTF-8 text are not netd's; they are
/// shown as near as can be, which no key that netd writes looks like.
pub(super) fn entry(kv: KeyValue) -> Entry {
    let (create_revision, mod_revision, lease) =
        (kv.create_revision(), kv.mod_revision(), kv.lease());
    let (key, value) = kv.into_key_value();
    Entry { key: text(&key), value, create_revision, mod_revision, lease }
}

/// See [`entry`].
pub(super) fn text(key: &[u8]) -> String {
    String::from_utf8_lossy(key).into_owned()
}

pub(super) async fn get(members: &Members, key: &str) -> Result<Option<Entry>, StoreError> {
    if key.is_empty() {
        return Ok(None);
    }
    let mut answer = ask(members, Rpc::Get, key.as_bytes(), &GetOptions::new()).await?;
    Ok(answer.take_kvs().into_iter().next().map(entry))
}

/// One range read, which all earlier changes go before.
async fn ask(
    members: &Members,
    rpc: Rpc,
    key: &[u8],
    options: &GetOptions,
) -> Result<GetResponse, RequestError> {
    let request = |client: etcd_client::Client| {
        let (key, options) = (key.to_vec(), options.clone());
        let mut kv = client.kv_client().max_decoding_message_size(MAX_ANSWER_BYTES);
        async move { kv.get(key, Some(options)).await }
    };
    let answer = members.call(rpc, Repeat::Yes, request).await?;
    seen(members, answer.header());
    Ok(answer)
}

fn seen(members: &Members, header: Option<&etcd_client::ResponseHeader>) -> Revision {
    let revision = header.map_or(0, etcd_client::ResponseHeader::revision);
    members.identity.lock().seen(revision);
    revision
}

pub(super) async fn list(members: &Members, prefix: &str) -> Result<Snapshot, StoreError> {
    let mut again = 0;
    loop {
        match pages(members, prefix).await {
            Err(RequestError::Refused { why: Refusal::Compacted | Refusal::Future, .. })
                if again < AGAIN =>
            {
                again += 1;
            }
            outcome => return Ok(outcome?),
        }
    }
}

/// All pages at the revision of the first one.
async fn pages(members: &Members, prefix: &str) -> Result<Snapshot, RequestError> {
    let (mut from, end) = range(prefix);
    let (mut limit, mut revision, mut entries) = (PAGE, 0, Vec::new());
    loop {
        let options =
            GetOptions::new().with_range(end.clone()).with_limit(limit).with_revision(revision);
        let mut answer = match ask(members, Rpc::Page, &from, &options).await {
            Err(RequestError::Refused { why: Refusal::TooLarge, .. }) if limit > 1 => {
                limit = (limit / 8).max(1);
                continue;
            }
            answer => answer?,
        };
        if revision == 0 {
            revision = seen(members, answer.header());
        }
        let (more, kvs) = (answer.more(), answer.take_kvs());
        let last = kvs.last().map(|kv| kv.key().to_vec());
        entries.extend(kvs.into_iter().map(entry));
        match last {
            Some(last) if more => {
                from = last;
                from.push(0);
            }
            _ => return Ok(Snapshot { entries, revision }),
        }
    }
}

pub(super) async fn commit(members: &Members, txn: Txn) -> Result<TxnOutcome, StoreError> {
    rules::check(&txn)?;
    let request = request(&txn);
    let send = |client: etcd_client::Client| {
        let request = request.clone();
        let mut kv = client.kv_client().max_decoding_message_size(MAX_ANSWER_BYTES);
        async move { kv.txn(request).await }
    };
    match members.call(Rpc::Commit, Repeat::IfNotDone, send).await {
        Ok(answer) => {
            seen(members, answer.header());
            Ok(outcome(&answer))
        }
        Err(RequestError::Refused { why: Refusal::LeaseGone, endpoint, text }) => {
            match lease_gone(members, &txn).await? {
                Some(lease) => Err(StoreError::LeaseGone(lease)),
                None => Err(StoreError::Unavailable(format!("{endpoint}: {text}"))),
            }
        }
        Err(failure) => Err(failure.into()),
    }
}

fn request(txn: &Txn) -> Request {
    let compared: BTreeSet<&str> = txn.compares.iter().map(Compare::key).collect();
    let look = |key: &str| TxnOp::get(key, None);
    Request::new()
        .when(txn.compares.iter().flat_map(conditions).collect::<Vec<_>>())
        .and_then(txn.changes.iter().map(operation).collect::<Vec<_>>())
        .or_else(compared.into_iter().map(look).collect::<Vec<_>>())
}

/// A key that is not there has revisions of 0.
fn conditions(compare: &Compare) -> Vec<Condition> {
    let created = |key: &str, op| Condition::create_revision(key, op, 0);
    match compare {
        Compare::Absent(key) => vec![created(key, CompareOp::Equal)],
        Compare::Present(key) => vec![created(key, CompareOp::Greater)],
        Compare::Unchanged(key, revision) => vec![
            created(key, CompareOp::Greater),
            Condition::mod_revision(key.as_str(), CompareOp::Equal, *revision),
        ],
    }
}

fn operation(change: &Change) -> TxnOp {
    match change {
        Change::Put { key, value, lease } => {
            let options = PutOptions::new().with_lease(*lease);
            TxnOp::put(key.as_str(), value.clone(), Some(options))
        }
        Change::Delete { key } => TxnOp::delete(key.as_str(), None),
    }
}

fn outcome(answer: &TxnResponse) -> TxnOutcome {
    if answer.succeeded() {
        let revision = answer.header().map_or(0, etcd_client::ResponseHeader::revision);
        return TxnOutcome::Committed(revision);
    }
    let there = answer.op_responses().into_iter().filter_map(|response| match response {
        TxnOpResponse::Get(mut found) => found.take_kvs().into_iter().next().map(entry),
        _ => None,
    });
    TxnOutcome::Conflict(there.collect())
}

/// Which of a refused transaction's leases is gone: etcd does not say.
async fn lease_gone(members: &Members, txn: &Txn) -> Result<Option<LeaseId>, StoreError> {
    let lease = |change: &Change| match change {
        Change::Put { lease, .. } if *lease != 0 => Some(*lease),
        _ => None,
    };
    let leases: BTreeSet<LeaseId> = txn.changes.iter().filter_map(lease).collect();
    if leases.len() == 1 {
        return Ok(leases.into_iter().next());
    }
    for lease in leases {
        if !super::lease::is_there(members, lease).await? {
            return Ok(Some(lease));
        }
    }
    Ok(None)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_range_is_all_keys_with_the_prefix() {
        assert_eq!(range("/a/"), (b"/a/".to_vec(), b"/a0".to_vec()));
        assert_eq!(range(""), (vec![0], vec![0]));
        let (from, end) = range("\u{e9}");
        assert!(from < "\u{e9}x".as_bytes().to_vec() && "\u{e9}\u{10ffff}".as_bytes() < &end[..]);
    }
}
