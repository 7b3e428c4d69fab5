//! What calls may take together: a call has to arrive soon, must not grow in memory when it
//! is decoded, and ends some day. Those of users other than root are few at a time, so that
//! their requests have a bounded size together and root's calls don't wait for them.

use std::{
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
    time::Duration,
};

use http::{Request, Response};
use http_body_util::{BodyExt as _, Full, Limited};
use tokio::{sync::Semaphore, time::timeout};
use tonic::{Status, body::Body};
use tower::{Layer, Service};

use super::{field_count, peer_cred::Peer};

/// The maximum size of a request; it has room for 10,000 labels.
pub(crate) const MAX_REQUEST_BYTES: usize = 4 << 20;
/// Calls at a time of all users but root.
const OTHERS_CALLS: usize = 16;
/// Calls of root at a time: more than a node attaches at once.
const ROOT_CALLS: usize = 1024;
/// In which a request has to arrive whole: a machine that is short of processor time sends a
/// large one slowly.
const ARRIVAL_TIMEOUT: Duration = Duration::from_secs(30);
/// The longest time until a call is answered; a watch is answered when it begins.
const OTHERS_TIMEOUT: Duration = Duration::from_secs(60);
/// For root: as long as a CNI configuration can ask for.
const ROOT_TIMEOUT: Duration = Duration::from_secs(600);
/// Before each message (gRPC over HTTP/2: Length-Prefixed-Message).
const PREFIX: usize = 5;
/// Services whose requests are one message each; reflection's are streams.
const OWN_SERVICES: &str = "/netd.v1.";

/// Makes [`LimitedCalls`].
#[derive(Debug, Clone)]
pub(crate) struct CallLimits {
    others: Arc<Semaphore>,
    root: Arc<Semaphore>,
}

impl CallLimits {
    /// For one server.
    pub(crate) fn new() -> Self {
        let places = |count| Arc::new(Semaphore::new(count));
        Self { others: places(OTHERS_CALLS), root: places(ROOT_CALLS) }
    }
}

impl<S> Layer<S> for CallLimits {
    type Service = LimitedCalls<S>;

    fn layer(&self, inner: S) -> LimitedCalls<S> {
        LimitedCalls { inner, limits: self.clone() }
    }
}

/// A service whose calls are limited.
#[derive(Debug, Clone)]
pub(crate) struct LimitedCalls<S> {
    inner: S,
    limits: CallLimits,
}

type Answer<E> = Pin<Box<dyn Future<Output = Result<Response<Body>, E>> + Send>>;

impl<S> Service<Request<Body>> for LimitedCalls<S>
where
    S: Service<Request<Body>, Response = Response<Body>> + Clone + Send + 'static,
    S::Future: Send,
{
    type Response = Response<Body>;
    type Error = S::Error;
    type Future = Answer<S::Error>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        self.inner.poll_ready(cx)
    }

    fn call(&mut self, request: Request<Body>) -> Self::Future {
        // The clone takes the place of the one that is ready.
        let clone = self.inner.clone();
        let mut ready = std::mem::replace(&mut self.inner, clone);
        let peer = request.extensions().get::<Option<Peer>>().copied().flatten();
        let is_root = peer.is_some_and(|peer| peer.is_root());
        let (places, limit) = match is_root {
            true => (self.limits.root.clone(), ROOT_TIMEOUT),
            false => (self.limits.others.clone(), OTHERS_TIMEOUT),
        };
        Box::pin(async move {
            let call = async {
                // Never closed, so always there.
                let _place = places.acquire_owned().await.ok();
                match arrived(request).await {
                    Ok(request) => ready.call(request).await,
                    Err(refusal) => Ok(refusal.into_http()),
                }
            };
            timeout(limit, call).await.unwrap_or_else(|_| {
                let text = format!("netd did not answer the call within {limit:?}");
                Ok(Status::deadline_exceeded(text).into_http())
            })
        })
    }
}

/// The request with all of its body, if that can be decoded in bounded memory.
async fn arrived(request: Request<Body>) -> Result<Request<Body>, Status> {
    if !request.uri().path().starts_with(OWN_SERVICES) {
        return Ok(request);
    }
    let (head, body) = request.into_parts();
    let body = Limited::new(body, MAX_REQUEST_BYTES + PREFIX).collect();
    let body = timeout(ARRIVAL_TIMEOUT, body).await.map_err(|_| {
        Status::deadline_exceeded(format!("the request did not arrive within {ARRIVAL_TIMEOUT:?}"))
    })?;
    let bytes = body.map_err(|e| unread(&*e))?.to_bytes();
    field_count::check(bytes.get(PREFIX..).unwrap_or_default())?;
    Ok(Request::from_parts(head, Body::new(Full::new(bytes))))
}

fn unread(error: &(dyn std::error::Error + Send + Sync + 'static)) -> Status {
    if error.is::<http_body_util::LengthLimitError>() {
        let text = format!("the request has more than {MAX_REQUEST_BYTES} bytes");
        return Status::out_of_range(text);
    }
    Status::cancelled(format!("the request can't be read: {error}"))
}
