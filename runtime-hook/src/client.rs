//! The gRPC client of the fronts that run as services: one connection over netd's Unix socket,
//! and a timeout for every call. The fronts that are executed for a
//! call or two use [`netd_cni::rpc`].

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
use netd_cni::rpc::refused_because;
use tokio::{net::UnixStream, sync::Mutex, time};
use tonic::{Request, Response, Status, body::Body, codegen::http};

use crate::{
    error::HookError,
    status::{Code, Refusal},
};

/// Calls netd, several at a time. It does not repeat a call.
pub(crate) struct UnixClient {
    socket: PathBuf,
    timeout: Duration,
    connection: Mutex<Option<Http2Connection>>,
}

impl UnixClient {
    /// Connects with the first call. `timeout` is the limit of each call.
    pub(crate) fn lazy(socket: &Path, timeout: Duration) -> Self {
        Self { socket: socket.to_owned(), timeout, connection: Mutex::new(None) }
    }

    /// Makes a call. netd learns the timeout from the `grpc-timeout` header.
    pub(crate) async fn call<Q, A, F, M>(
        &self,
        operation: &'static str,
        message: Q,
        method: M,
    ) -> Result<A, HookError>
    where
        M: FnOnce(Http2Connection, Request<Q>) -> F,
        F: Future<Output = Result<Response<A>, Status>>,
    {
        let call = async {
            let connection = self.connection().await?;
            let mut request = Request::new(message);
            request.set_timeout(self.timeout);
            match method(connection, request).await {
                Ok(answer) => Ok(answer.into_inner()),
                Err(status) => Err(self.call_error(operation, &status)),
            }
        };
        time::timeout(self.timeout, call).await.unwrap_or_else(|_| {
            let socket = shown(&self.socket);
            Err(HookError::Deadline { socket, operation, after: self.timeout })
        })
    }

    /// The open connection, or a new one if netd closed it (for example because it restarted).
    async fn connection(&self) -> Result<Http2Connection, HookError> {
        let mut slot = self.connection.lock().await;
        if let Some(open) = slot.as_ref().filter(|open| !open.0.is_closed()) {
            return Ok(open.clone());
        }
        let opened = Http2Connection::open(&self.socket).await?;
        *slot = Some(opened.clone());
        Ok(opened)
    }

    fn call_error(&self, operation: &'static str, status: &Status) -> HookError {
        // Only a status that tonic made from a connection error has a source.
        match std::error::Error::source(status) {
            Some(cause) => {
                let socket = shown(&self.socket);
                HookError::Lost { socket, operation, reason: cause.to_string() }
            }
            None => {
                let code = Code::from_number(status.code() as i32);
                let message = status.message().to_owned();
                Refusal::new(operation, code, message, status.details()).into()
            }
        }
    }
}

/// One HTTP/2 connection. tonic's own channel reconnects behind the caller's back, and its
/// errors do not say whether the call may have reached netd.
#[derive(Clone)]
pub(crate) struct Http2Connection(SendRequest<Body>);

impl Http2Connection {
    async fn open(socket: &Path) -> Result<Self, HookError> {
        let stream =
            UnixStream::connect(socket).await.map_err(|e| unreachable(socket, reason(&e)))?;
        let (sender, connection) = http2::handshake(TokioExecutor::new(), TokioIo::new(stream))
            .await
            .map_err(|e| unreachable(socket, ConnectionError(e).to_string()))?;
        // Calls on the connection report its error.
        tokio::spawn(async move { drop(connection.await) });
        Ok(Self(sender))
    }
}

fn unreachable(socket: &Path, reason: String) -> HookError {
    HookError::Unreachable { socket: shown(socket), reason }
}

fn shown(socket: &Path) -> String {
    socket.display().to_string()
}

fn reason(error: &io::Error) -> String {
    let known = error.raw_os_error().and_then(refused_because);
    known.map_or_else(|| error.to_string(), Into::into)
}

/// Why a connection failed, with all causes in its text. It has no `source`, because tonic would
/// derive from it a status code that looks like one of netd's.
#[derive(Debug)]
pub(crate) struct ConnectionError(hyper::Error);

impl std::fmt::Display for ConnectionError {
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

impl std::error::Error for ConnectionError {}

type ResponseBody = MapErr<Incoming, fn(hyper::Error) -> ConnectionError>;

impl tower::Service<http::Request<Body>> for Http2Connection {
    type Response = http::Response<ResponseBody>;
    type Error = ConnectionError;
    type Future = Pin<Box<dyn Future<Output = Result<Self::Response, ConnectionError>> + Send>>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), ConnectionError>> {
        self.0.poll_ready(cx).map_err(ConnectionError)
    }

    fn call(&mut self, mut request: http::Request<Body>) -> Self::Future {
        // HTTP/2 requires an authority, which a Unix socket does not have.
        let path = request.uri().path().to_owned();
        if let Ok(uri) = format!("http://localhost{path}").parse() {
            *request.uri_mut() = uri;
        }
        let answer = self.0.send_request(request);
        Box::pin(async move {
            let broken: fn(hyper::Error) -> ConnectionError = ConnectionError;
            Ok(answer.await.map_err(ConnectionError)?.map(|body| body.map_err(broken)))
        })
    }
}
