//! The way to netd of a front that stays: gRPC over its Unix socket, every call with a
//! deadline. Those that make a call and end have [`netd_cni::rpc`].

use std::{
    future::Future,
    io,
    path::{Path, PathBuf},
    pin::Pin,
    task::{Context, Poll},
    time::Duration,
};

use http_body_util::{BodyExt as _, combinators::MapErr};
use hyper::body::Incoming;
use hyper::client::conn::http2::{self, SendRequest};
use hyper_util::rt::{TokioExecutor, TokioIo};
use netd_api::v1::{DetachRequest, endpoint_service_client::EndpointServiceClient};
use netd_cni::rpc::refused_because;
use tokio::{net::UnixStream, sync::Mutex, time};
use tonic::{Request, Response, Status, body::Body, codegen::http};

use crate::{
    error::HookError,
    refusal::{Code, Refusal},
};

/// A connection to netd. Calls may run at the same time; each is made once.
pub struct Client {
    socket: PathBuf,
    deadline: Duration,
    link: Mutex<Option<Link>>,
}

impl Client {
    /// Connects with the first call; `deadline` is for every call each.
    pub fn lazy(socket: &Path, deadline: Duration) -> Self {
        Self { socket: socket.to_owned(), deadline, link: Mutex::new(None) }
    }

    /// Removes endpoints; how many there were.
    ///
    /// # Errors
    /// As every call.
    pub async fn detach(&self, request: DetachRequest) -> Result<u32, HookError> {
        let answer = self
            .call("Detach", request, |link, r| async move {
                EndpointServiceClient::new(link).detach(r).await
            })
            .await?;
        Ok(answer.removed)
    }

    /// One call within the deadline, which netd is told too.
    pub(crate) async fn call<Q, A, F, M>(
        &self,
        operation: &'static str,
        message: Q,
        method: M,
    ) -> Result<A, HookError>
    where
        M: FnOnce(Link, Request<Q>) -> F,
        F: Future<Output = Result<Response<A>, Status>>,
    {
        let work = async {
            let link = self.link().await?;
            let mut request = Request::new(message);
            request.set_timeout(self.deadline);
            match method(link, request).await {
                Ok(answer) => Ok(answer.into_inner()),
                Err(status) => Err(self.failed(operation, &status)),
            }
        };
        time::timeout(self.deadline, work).await.map_err(|_| self.late(operation))?
    }

    fn late(&self, operation: &'static str) -> HookError {
        HookError::Deadline { socket: name(&self.socket), operation, after: self.deadline }
    }

    /// The connection; a new one if netd closed the last one (it was restarted).
    async fn link(&self) -> Result<Link, HookError> {
        let mut link = self.link.lock().await;
        if let Some(open) = link.as_ref().filter(|link| !link.0.is_closed()) {
            return Ok(open.clone());
        }
        let opened = Link::open(&self.socket).await?;
        *link = Some(opened.clone());
        Ok(opened)
    }

    fn failed(&self, operation: &'static str, status: &Status) -> HookError {
        // Only a status made on this side, from a broken connection, has a source.
        match std::error::Error::source(status) {
            Some(cause) => {
                HookError::Lost { socket: name(&self.socket), operation, reason: cause.to_string() }
            }
            None => {
                let code = Code::from_number(status.code() as i32);
                let message = status.message().to_owned();
                Refusal::new(operation, code, message, status.details()).into()
            }
        }
    }
}

/// One HTTP/2 connection. tonic's own channel adds a worker task, a buffer and a
/// reconnecting layer, which a process of one call has no use for.
#[derive(Clone)]
pub(crate) struct Link(SendRequest<Body>);

impl Link {
    async fn open(socket: &Path) -> Result<Self, HookError> {
        let stream =
            UnixStream::connect(socket).await.map_err(|e| unreachable(socket, reason(&e)))?;
        let (sender, connection) = http2::handshake(TokioExecutor::new(), TokioIo::new(stream))
            .await
            .map_err(|e| unreachable(socket, Broken(e).to_string()))?;
        // Its error also reaches the calls on it, which report it.
        tokio::spawn(async move { drop(connection.await) });
        Ok(Self(sender))
    }
}

fn unreachable(socket: &Path, reason: String) -> HookError {
    HookError::Unreachable { socket: name(socket), reason }
}

/// A path as errors show it.
fn name(socket: &Path) -> String {
    socket.display().to_string()
}

fn reason(error: &io::Error) -> String {
    let known = error.raw_os_error().and_then(refused_because);
    known.map_or_else(|| error.to_string(), Into::into)
}

/// A broken connection. It hides its cause from tonic, which would make up a status
/// code that looks like netd's own, and tells it in its text.
#[derive(Debug)]
pub(crate) struct Broken(hyper::Error);

impl std::fmt::Display for Broken {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}", self.0)?;
        let mut cause = std::error::Error::source(&self.0);
        while let Some(error) = cause {
            write!(f, ": {error}")?;
            cause = error.source();
        }
        Ok(())
    }
}

impl std::error::Error for Broken {}

type Answered = MapErr<Incoming, fn(hyper::Error) -> Broken>;

impl tower::Service<http::Request<Body>> for Link {
    type Response = http::Response<Answered>;
    type Error = Broken;
    type Future = Pin<Box<dyn Future<Output = Result<Self::Response, Broken>> + Send>>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Broken>> {
        self.0.poll_ready(cx).map_err(Broken)
    }

    fn call(&mut self, mut request: http::Request<Body>) -> Self::Future {
        // HTTP/2 needs an authority; a Unix socket has none.
        let path = request.uri().path().to_owned();
        if let Ok(uri) = format!("http://localhost{path}").parse() {
            *request.uri_mut() = uri;
        }
        let answer = self.0.send_request(request);
        Box::pin(async move {
            let broken: fn(hyper::Error) -> Broken = Broken;
            Ok(answer.await.map_err(Broken)?.map(|body| body.map_err(broken)))
        })
    }
}
