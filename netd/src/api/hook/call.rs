//! From a ttrpc request to the handler that a gRPC call of the same name ends in.

use std::{os::fd::OwnedFd, sync::Arc};

use netd_api::{
    ttrpc::{self, Request, Response},
    v1::{
        endpoint_service_server::{self as endpoints, EndpointService as _},
        node_service_server::{self as nodes, NodeService as _},
        sandbox_service_server::{self as sandboxes, SandboxService as _},
    },
};
use prost::Message;
use tonic::Status;

use netd_dataplane::DataplaneError;
use netd_domain::Invalid;

use super::requests::Problem;
use crate::{
    api::{
        Api,
        transport::{field_count, peer_cred::Peer},
    },
    node::Error,
};

/// Field of the API that a descriptor stands for.
const FIELD: &str = "netns_path";

/// The descriptor in a request's extensions, which have to be `Clone`.
#[derive(Debug, Clone)]
struct Descriptor(Arc<OwnedFd>);

/// The sandbox's network namespace that came with a request, if one did; it is not looked at
/// yet.
pub(crate) fn take_descriptor<T>(request: &mut tonic::Request<T>) -> Option<OwnedFd> {
    let Descriptor(shared) = request.extensions_mut().remove()?;
    // There is one owner: nobody clones a hook's request.
    Arc::into_inner(shared)
}

/// Makes the call. What changes something goes on to its end though this is dropped.
pub(crate) async fn make(
    api: &Api,
    peer: Peer,
    request: Request,
    netns: Option<OwnedFd>,
) -> Response {
    let call = Call { payload: &request.payload, peer, netns };
    let done = match (request.service.as_str(), request.method.as_str()) {
        (endpoints::SERVICE_NAME, "Attach") => call.with(async |r| api.attach(r).await).await,
        (endpoints::SERVICE_NAME, "Check") => call.with(async |r| api.check(r).await).await,
        (endpoints::SERVICE_NAME, "Detach") => call.without(async |r| api.detach(r).await).await,
        (sandboxes::SERVICE_NAME, "Synchronize") => {
            call.without(async |r| api.synchronize(r).await).await
        }
        (nodes::SERVICE_NAME, "GetStatus") => call.without(async |r| api.get_status(r).await).await,
        _ => Err(unknown(&request)),
    };
    answer_of(done)
}

struct Call<'a> {
    payload: &'a [u8],
    peer: Peer,
    netns: Option<OwnedFd>,
}

impl Call<'_> {
    /// A method that takes a namespace.
    async fn with<Q: Message + Default, A: Message>(
        self,
        handler: impl AsyncFnOnce(tonic::Request<Q>) -> Result<tonic::Response<A>, Status>,
    ) -> Result<Vec<u8>, Status> {
        field_count::check(self.payload)?;
        let message = Q::decode(self.payload)
            .map_err(|e| Status::invalid_argument(format!("the message can't be decoded: {e}")))?;
        let mut request = tonic::Request::new(message);
        request.extensions_mut().insert(Some(self.peer));
        if let Some(netns) = self.netns {
            request.extensions_mut().insert(Descriptor(Arc::new(netns)));
        }
        Ok(handler(request).await?.into_inner().encode_to_vec())
    }

    /// A method that takes none.
    async fn without<Q: Message + Default, A: Message>(
        self,
        handler: impl AsyncFnOnce(tonic::Request<Q>) -> Result<tonic::Response<A>, Status>,
    ) -> Result<Vec<u8>, Status> {
        if self.netns.is_some() {
            return Err(invalid("comes as a descriptor, which this call does not take"));
        }
        self.with(handler).await
    }
}

/// A status, or the encoded message, as it is sent.
pub(crate) fn answer_of(done: Result<Vec<u8>, Status>) -> Response {
    match done {
        Ok(payload) => Response { status: None, payload },
        Err(status) => {
            // What gRPC sends as trailers is an encoded google.rpc.Status.
            let details = ttrpc::Status::decode(status.details()).unwrap_or_default().details;
            let (code, message) = (status.code() as i32, status.message().to_owned());
            let status = Some(ttrpc::Status { code, message, details });
            Response { status, payload: Vec::new() }
        }
    }
}

impl From<Problem> for Status {
    fn from(problem: Problem) -> Self {
        match problem {
            Problem::Undecodable(_) => Self::invalid_argument(problem.to_string()),
            Problem::Lost => {
                let what = "taking the network namespace's descriptor".to_owned();
                let reason = problem.to_string();
                Error::from(DataplaneError::Exhausted { what, reason }).into()
            }
            _ => invalid(&problem.to_string()),
        }
    }
}

fn invalid(text: &str) -> Status {
    Error::from(Invalid::field(FIELD, text)).into()
}

fn unknown(request: &Request) -> Status {
    let shown = |text: &str| text.chars().take(64).collect::<String>();
    let (service, method) = (shown(&request.service), shown(&request.method));
    Status::unimplemented(format!("hooks have no call {service:?}/{method:?}; gRPC has more"))
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use tonic_types::StatusExt as _;

    #[test]
    fn a_refusal_has_the_details_that_grpc_sends() {
        let status = Status::from(Problem::TooManyDescriptors);
        let sent = answer_of(Err(status.clone())).status.unwrap();
        assert_eq!((sent.code, sent.message.as_str()), (3, status.message()));
        let back =
            Status::with_details(status.code(), status.message(), sent.encode_to_vec().into());
        let details = back.get_error_details();
        assert_eq!(details.bad_request().unwrap().field_violations[0].field, FIELD);
        assert_eq!(details.error_info().unwrap().reason, "INVALID_FIELD");
    }

    #[test]
    fn a_success_has_no_status() {
        let sent = answer_of(Ok(b"x".to_vec()));
        assert_eq!((sent.status, sent.payload), (None, b"x".to_vec()));
    }
}
