//! The HTTP server that dockerd calls: it reads the document of a call, runs the method and
//! answers with its document or with `{"Err": "..."}`.

use std::{convert::Infallible, sync::Arc, time::Duration};

use http_body_util::{BodyExt as _, Full, LengthLimitError, Limited};
use hyper::{
    Request, Response, StatusCode,
    body::{Bytes, Incoming},
    header::{CONTENT_TYPE, HeaderValue},
    server::conn::http1,
    service::service_fn,
};
use hyper_util::rt::{TokioIo, TokioTimer};
use serde::de::DeserializeOwned;
use serde_json::json;
use tokio::{
    net::{UnixListener, UnixStream},
    sync::Semaphore,
    time::timeout,
};

use super::{
    endpoint,
    error::{DriverError, DriverResult},
    ipam,
    netd::NetdClient,
    network,
};
use crate::excerpt::escaped;

/// dockerd's largest documents have a few kilobytes.
const MAX_BODY_BYTES: usize = 1 << 20;
/// dockerd has one connection for each call in progress, and keeps two more.
const MAX_CONNECTIONS: usize = 256;
/// How long an idle connection is kept while more than half of [`MAX_CONNECTIONS`] are open.
/// Otherwise it is kept forever: when dockerd begins a call on a connection that is just
/// being closed, it repeats the call without its document.
const IDLE_TIMEOUT: Duration = Duration::from_secs(60);
/// How long a document may take to arrive.
const BODY_TIMEOUT: Duration = Duration::from_secs(30);
/// Error texts are for people.
const MAX_ERROR_CHARS: usize = 2000;
/// Wait after a failed accept (for example EMFILE), so that it does not spin.
const ACCEPT_RETRY_INTERVAL: Duration = Duration::from_millis(100);
const CONTENT: &str = "application/vnd.docker.plugins.v1.2+json";

/// Serves dockerd forever. A connection that fails or stays silent holds up no other.
pub async fn serve(listener: UnixListener, netd: NetdClient) -> Infallible {
    let netd = Arc::new(netd);
    let slots = Arc::new(Semaphore::new(MAX_CONNECTIONS));
    loop {
        // Further connections wait in the listener's backlog. The semaphore is never closed.
        let slot = slots.clone().acquire_owned().await.ok();
        match listener.accept().await {
            Ok((stream, _)) => {
                let crowded = slots.available_permits() < MAX_CONNECTIONS / 2;
                let idle_timeout = crowded.then_some(IDLE_TIMEOUT);
                let netd = netd.clone();
                tokio::spawn(async move {
                    serve_connection(stream, netd, idle_timeout).await;
                    drop(slot);
                });
            }
            Err(error) => {
                tracing::warn!(%error, "can't accept a connection of dockerd: {error}");
                tokio::time::sleep(ACCEPT_RETRY_INTERVAL).await;
            }
        }
    }
}

async fn serve_connection(
    stream: UnixStream,
    netd: Arc<NetdClient>,
    idle_timeout: Option<Duration>,
) {
    let service = service_fn(move |request| handle(netd.clone(), request));
    let mut http = http1::Builder::new();
    // A client that has shut down its sending side still gets its answer.
    http.timer(TokioTimer::new()).header_read_timeout(idle_timeout).half_close(true);
    if let Err(error) = http.serve_connection(TokioIo::new(stream), service).await {
        tracing::debug!(%error, "a connection of dockerd ended early: {error}");
    }
}

async fn handle(
    netd: Arc<NetdClient>,
    request: Request<Incoming>,
) -> Result<Response<Full<Bytes>>, Infallible> {
    let path = request.uri().path().to_owned();
    let method = path.trim_start_matches('/').to_owned();
    let result = match read_body(request).await {
        // A task of its own, so that the call is finished even if dockerd hangs up.
        Ok(body) => {
            let call = async move { dispatch(&netd, &method, &body).await };
            let ended = tokio::spawn(call).await;
            ended.unwrap_or_else(|panic| Err(DriverError::internal(panic.to_string())))
        }
        Err(error) => Err(error),
    };
    let (status, document) = match result {
        Ok(document) => (StatusCode::OK, document),
        Err(DriverError { status, message }) => {
            let error: String = message.chars().take(MAX_ERROR_CHARS).collect();
            let method = escaped(&path);
            tracing::warn!(method, error, "refused dockerd's call {method}: {error}");
            (status, json!({ "Err": error }))
        }
    };
    let mut response = Response::new(Full::new(Bytes::from(document.to_string())));
    *response.status_mut() = status;
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(CONTENT));
    Ok(response)
}

async fn read_body(request: Request<Incoming>) -> Result<Bytes, DriverError> {
    let body = Limited::new(request.into_body(), MAX_BODY_BYTES).collect();
    let (status, message) = match timeout(BODY_TIMEOUT, body).await {
        Ok(Ok(body)) => return Ok(body.to_bytes()),
        Ok(Err(error)) if error.is::<LengthLimitError>() => (
            StatusCode::PAYLOAD_TOO_LARGE,
            format!("the document is longer than {MAX_BODY_BYTES} bytes"),
        ),
        Ok(Err(error)) => (StatusCode::BAD_REQUEST, format!("can't read the document: {error}")),
        Err(_) => {
            let seconds = BODY_TIMEOUT.as_secs();
            (StatusCode::REQUEST_TIMEOUT, format!("the document took longer than {seconds} s"))
        }
    };
    Err(DriverError { status, message })
}

async fn dispatch(netd: &NetdClient, method: &str, body: &[u8]) -> DriverResult {
    match method {
        "Plugin.Activate" => Ok(json!({"Implements": ["NetworkDriver", "IpamDriver"]})),
        // Networks belong to this host, so swarm does not allocate them.
        "NetworkDriver.GetCapabilities" => {
            Ok(json!({"Scope": "local", "ConnectivityScope": "global"}))
        }
        "NetworkDriver.AllocateNetwork" => network::allocate(parse(body)?),
        "NetworkDriver.CreateNetwork" => network::create(netd, parse(body)?).await,
        "NetworkDriver.DeleteNetwork" => network::delete(netd, parse(body)?).await,
        "NetworkDriver.CreateEndpoint" => endpoint::create(netd, parse(body)?).await,
        "NetworkDriver.EndpointOperInfo" => endpoint::info(netd, parse(body)?).await,
        "NetworkDriver.DeleteEndpoint" => endpoint::delete(netd, parse(body)?).await,
        "NetworkDriver.Join" => endpoint::join(netd, parse(body)?).await,
        "NetworkDriver.Leave" => endpoint::leave(netd, parse(body)?).await,
        "NetworkDriver.ProgramExternalConnectivity" => endpoint::publish(netd, parse(body)?).await,
        "NetworkDriver.RevokeExternalConnectivity" => endpoint::revoke(netd, parse(body)?).await,
        // The first two are notices of swarm about other hosts. The others free what this
        // driver has not allocated.
        "NetworkDriver.DiscoverNew"
        | "NetworkDriver.DiscoverDelete"
        | "NetworkDriver.FreeNetwork"
        | "IpamDriver.ReleasePool" => parse::<serde_json::Map<_, _>>(body).map(|_| json!({})),
        "IpamDriver.GetCapabilities" => {
            Ok(json!({"RequiresMACAddress": false, "RequiresRequestReplay": false}))
        }
        "IpamDriver.GetDefaultAddressSpaces" => Ok(json!({
            "LocalDefaultAddressSpace": ipam::ADDRESS_SPACE,
            "GlobalDefaultAddressSpace": ipam::ADDRESS_SPACE,
        })),
        "IpamDriver.RequestPool" => ipam::request_pool(netd, parse(body)?).await,
        "IpamDriver.RequestAddress" => ipam::request_address(netd, parse(body)?).await,
        "IpamDriver.ReleaseAddress" => ipam::release_address(netd, parse(body)?).await,
        _ => Err(DriverError {
            status: StatusCode::NOT_FOUND,
            message: format!("{}: there is no such method", escaped(method)),
        }),
    }
}

fn parse<T: DeserializeOwned>(body: &[u8]) -> Result<T, DriverError> {
    serde_json::from_slice(body)
        .map_err(|e| DriverError::field("document", escaped(&e.to_string())))
}
