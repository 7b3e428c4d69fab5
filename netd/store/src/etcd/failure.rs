//! What etcd's errors mean: whether anything was done, and what to say.

use std::{error::Error as _, fmt::Write as _};

use etcd_client::Error;
use tonic::{Code, ConnectError, Status};

use crate::StoreError;

/// Why a member gave no answer that can be used.
#[derive(Debug)]
pub(super) enum Miss {
    /// Nothing was done; another member may do it.
    NotDone(String),
    /// It may have been done.
    Unknown(String),
    /// etcd will not do it, whichever member is asked.
    Refused(Why, String),
}

/// Why etcd refuses.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Why {
    /// The revision is forgotten.
    Compacted,
    /// The revision is still to come.
    Future,
    /// The answer is larger than netd takes.
    TooLarge,
    /// The lease is not there.
    LeaseGone,
    /// The request breaks one of etcd's limits.
    Limit,
    /// Somebody has to do something about etcd, or the configuration.
    Setup,
}

/// Why a request was not answered by any member.
#[derive(Debug)]
pub(super) enum Failure {
    Refused { endpoint: String, why: Why, text: String },
    Unavailable(String),
}

impl From<Failure> for StoreError {
    fn from(failure: Failure) -> Self {
        match failure {
            Failure::Unavailable(text) => Self::Unavailable(text),
            Failure::Refused { endpoint, why, text } => match why {
                Why::Limit => Self::BadTransaction(text),
                Why::Setup => Self::Failed { path: endpoint, reason: text },
                // Each request deals with those that it can meet.
                Why::Compacted | Why::Future | Why::TooLarge | Why::LeaseGone => {
                    Self::Unavailable(format!("{endpoint}: {text}"))
                }
            },
        }
    }
}

/// What an error of the client means.
pub(super) fn judge(error: Error) -> Miss {
    match error {
        Error::GRpcStatus(status) => judge_status(&status),
        Error::LeaseKeepAliveError(text) if text == "lease not found" => {
            Miss::Refused(Why::LeaseGone, text)
        }
        Error::TransportError(error) => Miss::NotDone(chain(&error)),
        Error::InvalidArgs(_) | Error::InvalidUri(_) | Error::InvalidMetadataValue(_) => {
            Miss::Refused(Why::Setup, error.to_string())
        }
        other => Miss::Unknown(other.to_string()),
    }
}

/// etcd's texts: `api/v3rpc/rpctypes/error.go` of its source.
pub(super) fn judge_status(status: &Status) -> Miss {
    let said = status.message();
    let has = |part: &str| said.contains(part);
    match status.code() {
        Code::Unavailable if is_connect(status) => Miss::NotDone(chain(status)),
        Code::Unavailable if has("no leader") => Miss::NotDone(said.to_owned()),
        Code::ResourceExhausted if has("too many requests") => Miss::NotDone(said.to_owned()),
        Code::ResourceExhausted if has("space exceeded") => Miss::Refused(
            Why::Setup,
            format!("{said}; compact and defragment etcd, then disarm its alarm (etcdctl alarm)"),
        ),
        Code::ResourceExhausted if has("larger than max") => Miss::Refused(Why::Limit, large(said)),
        Code::OutOfRange if has("compacted") => Miss::Refused(Why::Compacted, said.to_owned()),
        Code::OutOfRange if has("future revision") => Miss::Refused(Why::Future, said.to_owned()),
        Code::OutOfRange if has("too large") => Miss::Refused(Why::TooLarge, said.to_owned()),
        Code::NotFound if has("lease not found") => Miss::Refused(Why::LeaseGone, said.to_owned()),
        // The next client logs in anew.
        Code::Unauthenticated => Miss::NotDone(said.to_owned()),
        Code::InvalidArgument if has("auth store is old") => Miss::NotDone(said.to_owned()),
        Code::InvalidArgument if has("authentication failed") || has("user name is empty") => {
            Miss::Refused(Why::Setup, format!("{said}; give netd a user of etcd and its password"))
        }
        Code::PermissionDenied => Miss::Refused(
            Why::Setup,
            format!("{said}; grant netd's user the role for its prefixes (etcdctl role)"),
        ),
        Code::InvalidArgument if has("too large") => Miss::Refused(Why::Limit, large(said)),
        Code::InvalidArgument => Miss::Refused(Why::Limit, said.to_owned()),
        Code::FailedPrecondition | Code::Unimplemented | Code::DataLoss => {
            Miss::Refused(Why::Setup, said.to_owned())
        }
        _ => Miss::Unknown(chain(status)),
    }
}

fn large(said: &str) -> String {
    format!("{said}; do it in several transactions (etcd's --max-request-bytes)")
}

/// Whether no connection came about, so that nothing was sent.
fn is_connect(status: &Status) -> bool {
    let mut source = status.source();
    while let Some(error) = source {
        if error.is::<ConnectError>() {
            return true;
        }
        source = error.source();
    }
    false
}

/// The error and what caused it, each thing said once.
fn chain(error: &(dyn std::error::Error + 'static)) -> String {
    // What tonic says when the cause has more to say.
    const EMPTY: &str = "transport error";
    let mut text = match error.downcast_ref::<Status>() {
        Some(status) => status.message().to_owned(),
        None => error.to_string(),
    };
    let mut source = error.source();
    while let Some(error) = source {
        let said = error.to_string();
        if text == EMPTY {
            text = said;
        } else if said != EMPTY && !text.contains(&said) {
            let _ = write!(text, ": {said}");
        }
        source = error.source();
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(code: Code, said: &str) -> Miss {
        judge(Error::GRpcStatus(Status::new(code, said)))
    }

    #[test]
    fn only_what_is_sure_to_be_undone_is_called_so() {
        for (code, said) in [
            (Code::Unavailable, "etcdserver: no leader"),
            (Code::ResourceExhausted, "etcdserver: too many requests"),
            (Code::Unauthenticated, "etcdserver: invalid auth token"),
            (Code::InvalidArgument, "etcdserver: revision of auth store is old"),
        ] {
            assert!(matches!(of(code, said), Miss::NotDone(_)), "{said}");
        }
        for (code, said) in [
            (Code::Unavailable, "etcdserver: request timed out"),
            (Code::Unavailable, "etcdserver: leader changed"),
            (Code::Unavailable, "etcdserver: server stopped"),
            (Code::Unavailable, "connection reset by peer"),
            (Code::Unknown, "h2 protocol error"),
            (Code::DeadlineExceeded, ""),
            (Code::Cancelled, "operation was canceled"),
            (Code::Internal, "x"),
        ] {
            assert!(matches!(of(code, said), Miss::Unknown(_)), "{said}");
        }
    }

    #[test]
    fn refusals_are_told_apart() {
        for (code, said, why) in [
            (
                Code::OutOfRange,
                "etcdserver: mvcc: required revision has been compacted",
                Why::Compacted,
            ),
            (
                Code::OutOfRange,
                "etcdserver: mvcc: required revision is a future revision",
                Why::Future,
            ),
            (
                Code::OutOfRange,
                "Error, decoded message length too large: found 9 bytes",
                Why::TooLarge,
            ),
            (Code::NotFound, "etcdserver: requested lease not found", Why::LeaseGone),
            (Code::InvalidArgument, "etcdserver: too many operations in txn request", Why::Limit),
            (Code::InvalidArgument, "etcdserver: request is too large", Why::Limit),
            (Code::ResourceExhausted, "grpc: received message larger than max", Why::Limit),
            (Code::ResourceExhausted, "etcdserver: mvcc: database space exceeded", Why::Setup),
            (Code::PermissionDenied, "etcdserver: permission denied", Why::Setup),
            (Code::InvalidArgument, "etcdserver: authentication failed, invalid user", Why::Setup),
            (Code::FailedPrecondition, "etcdserver: authentication is not enabled", Why::Setup),
        ] {
            let miss = of(code, said);
            let Miss::Refused(found, text) = &miss else { panic!("{said}: {miss:?}") };
            assert!(*found == why && text.contains(said), "{said}: {miss:?}");
        }
    }
}
