//! `/metrics`, `/healthz` and `/readyz` over plain HTTP/1.1.
//!
//! Connections, their time and the size of a request's head are limited. A client that
//! exceeds a limit loses its connection; others notice nothing. Any local user can connect, so
//! a new connection beyond the limit takes the place of the oldest: silent ones keep nobody out.

use std::{collections::VecDeque, convert::Infallible, sync::Arc, time::Duration};

use http_body_util::Full;
use hyper::{
    Method, Request, Response, StatusCode,
    body::{Bytes, Incoming},
    header::{ALLOW, CONTENT_TYPE, HeaderValue},
    server::conn::http1,
    service::service_fn,
};
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::{
    net::{TcpListener, TcpStream},
    task::JoinHandle,
    time::timeout,
};

use super::Metrics;

const MAX_CONNECTIONS: usize = 32;
const MAX_HEAD_BYTES: usize = 16 << 10;
const HEAD_TIMEOUT: Duration = Duration::from_secs(5);
const CONNECTION_TIMEOUT: Duration = Duration::from_secs(60);
const OPENMETRICS: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

/// Says whether something is so, or why it is not.
type Answer = Arc<dyn Fn() -> Result<(), String> + Send + Sync>;

/// What is asked of netd besides its metrics.
#[derive(Clone)]
pub(crate) struct Probes {
    /// Whether it is ready.
    pub(crate) ready: Answer,
    /// Whether it works at all: a restart could help if it does not.
    pub(crate) alive: Answer,
}

type Reply = Response<Full<Bytes>>;

/// Answers on `listener` until `shutdown` completes.
pub(crate) async fn serve_metrics(
    listener: TcpListener,
    metrics: Arc<Metrics>,
    probes: Probes,
    shutdown: impl Future<Output = ()> + Send,
) {
    let mut open: VecDeque<JoinHandle<()>> = VecDeque::new();
    tokio::pin!(shutdown);
    loop {
        let accepted = tokio::select! {
            () = &mut shutdown => return,
            accepted = listener.accept() => accepted,
        };
        match accepted {
            Ok((stream, _)) => {
                make_room(&mut open);
                open.push_back(tokio::spawn(connection(stream, metrics.clone(), probes.clone())));
            }
            Err(error) => {
                // The process may be out of file descriptors: the pause keeps this loop from
                // using a whole processor.
                tracing::warn!(%error, "metrics: cannot accept a connection");
                tokio::time::sleep(Duration::from_millis(200)).await;
            }
        }
    }
}

/// Closes the oldest connections until there is room for one more.
fn make_room(open: &mut VecDeque<JoinHandle<()>>) {
    open.retain(|connection| !connection.is_finished());
    while open.len() >= MAX_CONNECTIONS
        && let Some(oldest) = open.pop_front()
    {
        oldest.abort();
    }
}

async fn connection(stream: TcpStream, metrics: Arc<Metrics>, probes: Probes) {
    let answer = service_fn(move |request: Request<Incoming>| {
        let reply = reply(request.method(), request.uri().path(), &metrics, &probes);
        async move { Ok::<_, Infallible>(reply) }
    });
    let served = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEAD_TIMEOUT)
        .max_buf_size(MAX_HEAD_BYTES)
        .serve_connection(TokioIo::new(stream), answer);
    match timeout(CONNECTION_TIMEOUT, served).await {
        Ok(Ok(())) | Err(_) => {}
        Ok(Err(error)) => tracing::debug!(%error, "metrics: bad request"),
    }
}

fn reply(method: &Method, path: &str, metrics: &Metrics, probes: &Probes) -> Reply {
    if method != Method::GET && method != Method::HEAD {
        let mut refused = text(StatusCode::METHOD_NOT_ALLOWED, "only GET and HEAD\n");
        refused.headers_mut().insert(ALLOW, HeaderValue::from_static("GET, HEAD"));
        return refused;
    }
    match path {
        "/metrics" => {
            let mut reply = text(StatusCode::OK, metrics.exposition());
            reply.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(OPENMETRICS));
            reply
        }
        "/healthz" => said(&probes.alive),
        "/readyz" => said(&probes.ready),
        _ => text(StatusCode::NOT_FOUND, "there are /metrics, /healthz and /readyz\n"),
    }
}

fn said(answer: &Answer) -> Reply {
    match answer() {
        Ok(()) => text(StatusCode::OK, "ok\n"),
        Err(reason) => text(StatusCode::SERVICE_UNAVAILABLE, format!("{reason}\n")),
    }
}

fn text(status: StatusCode, body: impl Into<Bytes>) -> Reply {
    let mut reply = Response::new(Full::new(body.into()));
    *reply.status_mut() = status;
    let plain = HeaderValue::from_static("text/plain; charset=utf-8");
    reply.headers_mut().insert(CONTENT_TYPE, plain);
    reply
}
