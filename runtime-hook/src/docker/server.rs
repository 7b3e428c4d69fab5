//! HTTP: which method, its document, the answer or `{"Err": "..."}`.

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
use serde_json::{Value, json};
use tokio::{
    net::{UnixListener, UnixStream},
    sync::Semaphore,
    time::timeout,
};

use super::{Netd, endpoint, ipam, network};
use crate::error::HookError;

/// Longest document, bytes; the largest of dockerd's are a few kilobytes.
const MOST: usize = 1 << 20;
/// Connections at a time; dockerd has one for each call under way, and keeps two.
const CONNECTIONS: usize = 256;
/// How long a connection beyond the first half of them waits for a call. The others wait
/// for ever: a call that dockerd begins on a connection that is just being closed it makes
/// again without its document.
const IDLE: Duration = Duration::from_secs(60);
/// How long a document may take to arrive.
const SLOWEST: Duration = Duration::from_secs(30);
/// Longest error text, characters: it is for a person.
const MOST_TEXT: usize = 2000;
const CONTENT: &str = "application/vnd.docker.plugins.v1.2+json";

/// Why a call failed, in words that `docker` shows to its user.
#[derive(Debug)]
pub struct Failure {
    status: StatusCode,
    text: String,
}

impl Failure {
    /// The caller's document can't be right: which field, its value, and the rule.
    pub fn field(field: &str, problem: impl std::fmt::Display) -> Self {
        Self { status: StatusCode::BAD_REQUEST, text: format!("{field}: {problem}") }
    }
}

impl From<HookError> for Failure {
    fn from(error: HookError) -> Self {
        Self { status: StatusCode::INTERNAL_SERVER_ERROR, text: error.to_string() }
    }
}

/// What a method comes to.
pub type Answer = Result<Value, Failure>;

/// Serves dockerd for ever. A connection that can't be taken, breaks or says nothing holds
/// up no other.
pub async fn serve(listener: UnixListener, netd: Netd) -> Infallible {
    const PAUSE: Duration = Duration::from_millis(100);
    let netd = Arc::new(netd);
    let places = Arc::new(Semaphore::new(CONNECTIONS));
    loop {
        // Others wait in the listener's queue. Nobody closes the semaphore.
        let place = places.clone().acquire_owned().await.ok();
        match listener.accept().await {
            Ok((stream, _)) => {
                let idle = (places.available_permits() < CONNECTIONS / 2).then_some(IDLE);
                let netd = netd.clone();
                tokio::spawn(async move {
                    converse(stream, netd, idle).await;
                    drop(place);
                });
            }
            Err(error) => {
                tracing::warn!(%error, "a connection could not be taken");
                tokio::time::sleep(PAUSE).await;
            }
        }
    }
}

/// Answers one connection's calls to its end. What broke it, dockerd knows best.
async fn converse(stream: UnixStream, netd: Arc<Netd>, idle: Option<Duration>) {
    let service = service_fn(move |request| call(netd.clone(), request));
    let mut http = http1::Builder::new();
    // Who has said all that he has to say still gets his answer.
    http.timer(TokioTimer::new()).header_read_timeout(idle).half_close(true);
    if let Err(error) = http.serve_connection(TokioIo::new(stream), service).await {
        tracing::debug!(%error, "a connection ended early");
    }
}

async fn call(
    netd: Arc<Netd>,
    request: Request<Incoming>,
) -> Result<Response<Full<Bytes>>, Infallible> {
    let path = request.uri().path().to_owned();
    let method = path.trim_start_matches('/').to_owned();
    let answer = match body_of(request).await {
        // Goes on to its end even if dockerd goes away.
        Ok(body) => {
            let work = async move { answer(&netd, &method, &body).await };
            tokio::spawn(work).await.unwrap_or_else(|died| {
                let status = StatusCode::INTERNAL_SERVER_ERROR;
                Err(Failure { status, text: died.to_string() })
            })
        }
        Err(refused) => Err(refused),
    };
    let (status, document) = match answer {
        Ok(document) => (StatusCode::OK, document),
        Err(Failure { status, text }) => {
            let text: String = text.chars().take(MOST_TEXT).collect();
            tracing::warn!(method = %shown(&path), error = text, "refused");
            (status, json!({ "Err": text }))
        }
    };
    let mut response = Response::new(Full::new(Bytes::from(document.to_string())));
    *response.status_mut() = status;
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(CONTENT));
    Ok(response)
}

async fn body_of(request: Request<Incoming>) -> Result<Bytes, Failure> {
    let whole = timeout(SLOWEST, Limited::new(request.into_body(), MOST).collect());
    let (status, text) = match whole.await {
        Ok(Ok(body)) => return Ok(body.to_bytes()),
        Ok(Err(error)) if error.is::<LengthLimitError>() => {
            (StatusCode::PAYLOAD_TOO_LARGE, format!("the document has more than {MOST} bytes"))
        }
        Ok(Err(error)) => (StatusCode::BAD_REQUEST, format!("the document can't be read: {error}")),
        Err(_) => {
            let seconds = SLOWEST.as_secs();
            (StatusCode::REQUEST_TIMEOUT, format!("the document took more than {seconds} s"))
        }
    };
    Err(Failure { status, text })
}

async fn answer(netd: &Netd, method: &str, body: &[u8]) -> Answer {
    match method {
        "Plugin.Activate" => Ok(json!({"Implements": ["NetworkDriver", "IpamDriver"]})),
        // Networks are of this host: no swarm allocates them.
        "NetworkDriver.GetCapabilities" => {
            Ok(json!({"Scope": "local", "ConnectivityScope": "global"}))
        }
        "NetworkDriver.AllocateNetwork" => network::allocate(read(body)?),
        "NetworkDriver.CreateNetwork" => network::create(netd, read(body)?).await,
        "NetworkDriver.DeleteNetwork" => network::delete(netd, read(body)?).await,
        "NetworkDriver.CreateEndpoint" => endpoint::create(netd, read(body)?).await,
        "NetworkDriver.EndpointOperInfo" => endpoint::info(netd, read(body)?).await,
        "NetworkDriver.DeleteEndpoint" => endpoint::delete(netd, read(body)?).await,
        "NetworkDriver.Join" => endpoint::join(netd, read(body)?).await,
        "NetworkDriver.Leave" => endpoint::leave(netd, read(body)?).await,
        "NetworkDriver.ProgramExternalConnectivity" => endpoint::publish(netd, read(body)?).await,
        "NetworkDriver.RevokeExternalConnectivity" => endpoint::revoke(netd, read(body)?).await,
        // What another host's daemon says of swarm; and what was not allocated is free.
        "NetworkDriver.DiscoverNew"
        | "NetworkDriver.DiscoverDelete"
        | "NetworkDriver.FreeNetwork"
        | "IpamDriver.ReleasePool" => read::<serde_json::Map<_, _>>(body).map(|_| json!({})),
        "IpamDriver.GetCapabilities" => {
            Ok(json!({"RequiresMACAddress": false, "RequiresRequestReplay": false}))
        }
        "IpamDriver.GetDefaultAddressSpaces" => Ok(json!({
            "LocalDefaultAddressSpace": ipam::SPACE, "GlobalDefaultAddressSpace": ipam::SPACE,
        })),
        "IpamDriver.RequestPool" => ipam::request_pool(netd, read(body)?).await,
        "IpamDriver.RequestAddress" => ipam::request_address(netd, read(body)?).await,
        "IpamDriver.ReleaseAddress" => ipam::release_address(netd, read(body)?).await,
        _ => Err(Failure {
            status: StatusCode::NOT_FOUND,
            text: format!("{}: there is no such method", shown(method)),
        }),
    }
}

fn read<T: DeserializeOwned>(body: &[u8]) -> Result<T, Failure> {
    serde_json::from_slice(body).map_err(|e| Failure::field("document", shown(&e.to_string())))
}

/// How much of a value is shown back: it can be a megabyte.
pub fn shown(value: &str) -> String {
    const BYTES: usize = 200;
    let text: String = value.chars().take(BYTES).flat_map(char::escape_default).collect();
    if value.chars().nth(BYTES).is_some() { text + "..." } else { text }
}
