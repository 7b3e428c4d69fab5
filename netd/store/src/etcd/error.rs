//! What etcd's errors mean: whether the request was carried out, and what to report.

use std::{error::Error as _, fmt::Write as _};

use etcd_client::Error;
use tonic::{Code, ConnectError, Status};

use crate::StoreError;

/// Why a member gave no answer that can be used.
#[derive(Debug)]
pub(super) enum AttemptError {
    /// Nothing was done; another member may do it.
    NotDone(String),
    /// It may have been done.
    Unknown(String),
    /// etcd will not do it, whichever member is asked.
    Refused(Refusal, String),
}

/// Why etcd refuses.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Refusal {
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
    /// etcd or the configuration has to be corrected by an operator.
    Setup,
}

/// Why a request was not answered by any member.
#[derive(Debug)]
pub(super) enum RequestError {
    Refused { endpoint: String, why: Refusal, text: String },
    Unavailable(String),
}

impl From<RequestError> for StoreError {
    fn from(failure: RequestError) -> Self {
        match failure {
            RequestError::Unavailable(text) => Self::Unavailable(text),
            RequestError::Refused { endpoint, why, text } => match why {
                Refusal::Limit => Self::BadTransaction(text),
                Refusal::Setup => Self::Failed { path: endpoint, reason: text },
                // Each request deals with those that it can meet.
                Refusal::Compacted | Refusal::Future | Refusal::TooLarge | Refusal::LeaseGone => {
                    Self::Unavailable(format!("{endpoint}: {text}"))
                }
            },
        }
    }
}

/// What an error of the client means.
pub(super) fn judge(error: Error) -> AttemptError {
    match error {
        Error::GRpcStatus(status) => judge_status(&status),
        Error::LeaseKeepAliveError(text) if text == "lease not found" => {
            AttemptError::Refused(Refusal::LeaseGone, text)
        }
        Error::TransportError(error) => AttemptError::NotDone(chain(&error)),
        Error::InvalidArgs(_) | Error::InvalidUri(_) | Error::InvalidMetadataValue(_) => {
            AttemptError::Refused(Refusal::Setup, error.to_string())
        }
        other => AttemptError::Unknown(other.to_string()),
    }
}

/// etcd's texts: `api/v3rpc/rpctypes/error.go` of its source.
pub(super) fn judge_status(status: &Status) -> AttemptError {
    let said = status.message();
    let has = |part: &str| said.contains(part);
    match status.code() {
        Code::Unavailable if is_connect(status) => AttemptError::NotDone(chain(status)),
        Code::Unavailable if has("no leader") => AttemptError::NotDone(said.to_owned()),
        Code::ResourceExhausted if has("too many requests") => {
            AttemptError::NotDone(said.to_owned())
        }
        Code::ResourceExhausted if has("space exceeded") => AttemptError::Refused(
            Refusal::Setup,
            format!("{said}; compact and defragment etcd, then disarm its alarm (etcdctl alarm)"),
        ),
        Code::ResourceExhausted if has("larger than max") => {
            AttemptError::Refused(Refusal::Limit, large(said))
        }
        Code::OutOfRange if has("compacted") => {
            AttemptError::Refused(Refusal::Compacted, said.to_owned())
        }
        Code::OutOfRange if has("future revision") => {
            AttemptError::Refused(Refusal::Future, said.to_owned())
        }
        Code::OutOfRange if has("too large") => {
            AttemptError::Refused(Refusal::TooLarge, said.to_owned())
        }
        Code::NotFound if has("lease not found") => {
            AttemptError::Refused(Refusal::LeaseGone, said.to_owned())
        }
        // The next client logs in again.
        Code::Unauthenticated => AttemptError::NotDone(said.to_owned()),
        Code::InvalidArgument if has("auth store is old") => AttemptError::NotDone(said.to_owned()),
        Code::InvalidArgument if has("authentication failed") || has("user name is empty") => {
            AttemptError::Refused(
                Refusal::Setup,
                format!("{said}; give netd a user of etcd and its password"),
            )
        }
        Code::PermissionDenied => AttemptError::Refused(
            Refusal::Setup,
            format!("{said}; grant netd's user the role for its prefixes (etcdctl role)"),
        ),
        Code::InvalidArgument if has("too large") => {
            AttemptError::Refused(Refusal::Limit, large(said))
        }
        Code::InvalidArgument => AttemptError::Refused(Refusal::Limit, said.to_owned()),
        Code::FailedPrecondition | Code::Unimplemented | Code::DataLoss => {
            AttemptError::Refused(Refusal::Setup, said.to_owned())
        }
        _ => AttemptError::Unknown(chain(status)),
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

    fn of(code: Code, said: &str) -> AttemptError {
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
            assert!(matches!(of(code, said), AttemptError::NotDone(_)), "{said}");
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
            assert!(matches!(of(code, said), AttemptError::Unknown(_)), "{said}");
        }
    }

    #[test]
    fn refusals_are_told_apart() {
        for (code, said, why) in [
            (
                Code::OutOfRange,
                "etcdserver: mvcc: required revision has been compacted",
                Refusal::Compacted,
            ),
            (
                Code::OutOfRange,
                "etcdserver: mvcc: required revision is a future revision",
                Refusal::Future,
            ),
            (
                Code::OutOfRange,
                "Error, decoded message length too large: found 9 bytes",
                Refusal::TooLarge,
            ),
            (Code::NotFound, "etcdserver: requested lease not found", Refusal::LeaseGone),
            (
                Code::InvalidArgument,
                "etcdserver: too many operations in txn request",
                Refusal::Limit,
            ),
            (Code::InvalidArgument, "etcdserver: request is too large", Refusal::Limit),
            (Code::ResourceExhausted, "grpc: received message larger than max", Refusal::Limit),
            (Code::ResourceExhausted, "etcdserver: mvcc: database space exceeded", Refusal::Setup),
            (Code::PermissionDenied, "etcdserver: permission denied", Refusal::Setup),
            (
                Code::InvalidArgument,
                "etcdserver: authentication failed, invalid user",
                Refusal::Setup,
            ),
            (Code::FailedPrecondition, "etcdserver: authentication is not enabled", Refusal::Setup),
        ] {
            let miss = of(code, said);
            let AttemptError::Refused(found, text) = &miss else { panic!("{said}: {miss:?}") };
            assert!(*found == why && text.contains(said), "{said}: {miss:?}");
        }
    }
}
