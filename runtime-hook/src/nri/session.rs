//! One connection to the runtime, from the registration to its end.
//!
//! Reading never waits for a handler: the reader only sorts messages, and a worker handles the
//! requests one by one, in order. When the runtime closes the connection, the current request
//! is still finished, because the runtime treats a plugin that it lost as one that succeeded.

use std::{io, time::Duration};

use prost::Message;
use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, ReadHalf, WriteHalf},
    sync::{
        mpsc::{self, error::TrySendError},
        oneshot,
    },
    time::{Instant, timeout},
};
use tonic::Code;

use super::{
    codec::{mux, ttrpc},
    messages::{RUNTIME_SERVICE, RegisterPluginRequest, Request, Response, Status},
    plugin::{Plugin, invalid},
};

/// The runtime closes the connection of a plugin that has not registered after 5 s.
const REGISTER_TIMEOUT: Duration = Duration::from_secs(5);
/// A runtime that reads no replies for so long is considered dead.
const WRITE_TIMEOUT: Duration = Duration::from_secs(10);
/// Runtimes wait for a reply before the next request. Further requests are refused, to bound
/// memory.
const MAX_QUEUED_REQUESTS: usize = 16;
const MAX_QUEUED_REPLIES: usize = 64;
const READ_BUFFER_BYTES: usize = 64 << 10;

/// Why a connection ended, unless the runtime closed it.
#[derive(Debug, thiserror::Error)]
pub enum SessionError {
    /// Opening or reading the connection failed.
    #[error("connection to the runtime: {0}")]
    Io(#[from] io::Error),
    /// The runtime sent a frame that is too long for NRI.
    #[error(transparent)]
    Frame(#[from] mux::OversizeFrame),
    /// The runtime refused the registration.
    #[error("the runtime refused to register the plugin: {0}")]
    Refused(String),
    /// The runtime did not answer the registration in time.
    #[error("the runtime did not answer the registration within {} s", REGISTER_TIMEOUT.as_secs())]
    RegisterTimeout,
    /// The runtime closed the connection before it answered the registration.
    #[error("the runtime closed the connection before it answered the registration")]
    RegisterClosed,
    /// Requests arrive faster than their refusals can be sent.
    #[error("the runtime sends requests without reading the replies")]
    Flooded,
}

/// A request that waits for the worker.
struct QueuedRequest {
    stream: u32,
    request: Request,
    arrived: Instant,
}

/// Registers the plugin and serves until the connection ends. `Ok` means that the runtime closed
/// it or sent Shutdown.
///
/// # Errors
/// See [`SessionError`].
pub(super) async fn serve<S: AsyncRead + AsyncWrite>(
    stream: S,
    register: RegisterPluginRequest,
    plugin: &mut Plugin,
) -> Result<(), SessionError> {
    let (read, write) = tokio::io::split(stream);
    let (calls, queue) = mpsc::channel(MAX_QUEUED_REQUESTS);
    let (replies, outgoing) = mpsc::channel(MAX_QUEUED_REPLIES);
    let (registered, registration) = oneshot::channel();
    let reader = FrameReader { calls, replies: replies.clone(), registered: Some(registered) };
    let work = async {
        // Configure can arrive before the registration is answered: serve at once.
        let serving = work(queue, replies.clone(), plugin);
        let ended =
            tokio::try_join!(serving, register_plugin(replies.clone(), registration, register));
        drop(replies);
        ended.map(drop)
    };
    let (read, worked, ()) = tokio::join!(reader.run(read), work, write_out(write, outgoing));
    read.and(worked)
}

/// Reads the connection: requests go to the worker, the answer to the registration to
/// [`register_plugin`].
struct FrameReader {
    calls: mpsc::Sender<QueuedRequest>,
    replies: mpsc::Sender<Vec<u8>>,
    registered: Option<oneshot::Sender<Response>>,
}

impl FrameReader {
    /// Runs until the stream ends or the worker has stopped.
    async fn run<R: AsyncRead>(mut self, mut from: ReadHalf<R>) -> Result<(), SessionError> {
        let mut buffer = vec![0; READ_BUFFER_BYTES];
        let mut frames = mux::Decoder::default();
        let (mut served, mut called) = (ttrpc::Decoder::default(), ttrpc::Decoder::default());
        loop {
            let n = tokio::select! {
                n = from.read(&mut buffer) => n?,
                () = self.calls.closed() => return Ok(()),
            };
            if n == 0 {
                return Ok(());
            }
            let (mut requests, mut responses) = (Vec::new(), Vec::new());
            frames.push(&buffer[..n], |conn, bytes| match conn {
                mux::PLUGIN_CONN => served.push(bytes, |item| requests.push(item)),
                mux::RUNTIME_CONN => called.push(bytes, |item| responses.push(item)),
                _ => tracing::debug!(conn, "ignored bytes on unknown mux connection {conn}"),
            })?;
            requests.into_iter().try_for_each(|item| self.request(item))?;
            responses.into_iter().for_each(|item| self.response(item));
        }
    }

    fn request(&self, item: ttrpc::Item) -> Result<(), SessionError> {
        let (stream, problem) = match item {
            ttrpc::Item::Message(head, payload) if head.kind == ttrpc::REQUEST => {
                match Request::decode(payload.as_slice()) {
                    Ok(request) => return self.enqueue(head.stream, request),
                    Err(e) => (head.stream, invalid(format!("can't decode a ttrpc request: {e}"))),
                }
            }
            ttrpc::Item::TooLong(head) if head.kind == ttrpc::REQUEST => {
                let max = ttrpc::MAX_PAYLOAD;
                let text = format!("the request has {} bytes, more than {max}", head.length);
                (head.stream, exhausted(text))
            }
            _ => return Ok(()),
        };
        let error = &problem.message;
        tracing::warn!(stream, %error, "refused a request of the runtime: {error}");
        self.refuse(stream, problem)
    }

    fn enqueue(&self, stream: u32, request: Request) -> Result<(), SessionError> {
        match self.calls.try_send(QueuedRequest { stream, request, arrived: Instant::now() }) {
            Err(TrySendError::Full(_)) => self.refuse(
                stream,
                exhausted(format!("{MAX_QUEUED_REQUESTS} requests are already waiting")),
            ),
            // The receiver is closed when the session is about to end.
            Ok(()) | Err(TrySendError::Closed(_)) => Ok(()),
        }
    }

    fn refuse(&self, stream: u32, problem: Status) -> Result<(), SessionError> {
        match self.replies.try_send(encode_reply(stream, Err(problem))) {
            Err(TrySendError::Full(_)) => Err(SessionError::Flooded),
            Ok(()) | Err(TrySendError::Closed(_)) => Ok(()),
        }
    }

    /// The registration is the only call that this side makes.
    fn response(&mut self, item: ttrpc::Item) {
        if let ttrpc::Item::Message(head, payload) = item
            && (head.kind, head.stream) == (ttrpc::RESPONSE, REGISTER_STREAM)
            && let Some(registered) = self.registered.take()
        {
            let response = Response::decode(payload.as_slice()).unwrap_or_else(|e| Response {
                status: Some(invalid(format!("can't decode its answer: {e}"))),
                payload: Vec::new(),
            });
            // The receiver is gone after REGISTER_TIMEOUT.
            let _too_late = registered.send(response);
        }
    }
}

/// ttrpc clients number their calls 1, 3, 5, ...
const REGISTER_STREAM: u32 = 1;

async fn register_plugin(
    out: mpsc::Sender<Vec<u8>>,
    registration: oneshot::Receiver<Response>,
    register: RegisterPluginRequest,
) -> Result<(), SessionError> {
    let request = Request {
        service: RUNTIME_SERVICE.to_owned(),
        method: "RegisterPlugin".to_owned(),
        payload: register.encode_to_vec(),
        timeout_nano: REGISTER_TIMEOUT.as_nanos() as i64,
        ..Request::default()
    };
    let message = ttrpc::encode(REGISTER_STREAM, ttrpc::REQUEST, &request.encode_to_vec());
    out.send(framed(mux::RUNTIME_CONN, &message))
        .await
        .map_err(|_| SessionError::RegisterClosed)?;
    let answer =
        timeout(REGISTER_TIMEOUT, registration).await.map_err(|_| SessionError::RegisterTimeout)?;
    let status = answer.map_err(|_| SessionError::RegisterClosed)?.status;
    match status.filter(|s| s.code != Code::Ok as i32) {
        Some(status) => Err(SessionError::Refused(status.message)),
        None => {
            let (name, idx) = (register.plugin_name, register.plugin_idx);
            tracing::info!(name, idx, "registered with the runtime as plugin {idx}-{name}");
            Ok(())
        }
    }
}

async fn work(
    mut queue: mpsc::Receiver<QueuedRequest>,
    out: mpsc::Sender<Vec<u8>>,
    plugin: &mut Plugin,
) -> Result<(), SessionError> {
    while let Some(QueuedRequest { stream, request, arrived }) = queue.recv().await {
        let reply = plugin.call(&request, arrived).await;
        let (method, took, ok) = (&request.method, arrived.elapsed(), reply.result.is_ok());
        tracing::debug!(method, ?took, ok, "answered the runtime's {method}");
        // Queued requests are handled even after the writer has stopped.
        let _unsent = out.send(encode_reply(stream, reply.result)).await;
        if reply.close {
            break;
        }
    }
    Ok(())
}

/// Writes replies until all senders are gone. If the runtime does not read them, it stops
/// early, and the reader then sees the connection end.
async fn write_out<W: AsyncWrite>(mut to: WriteHalf<W>, mut out: mpsc::Receiver<Vec<u8>>) {
    while let Some(bytes) = out.recv().await {
        match timeout(WRITE_TIMEOUT, to.write_all(&bytes)).await {
            Ok(Ok(())) => continue,
            Ok(Err(e)) => tracing::debug!(error = %e, "can't write to the runtime: {e}"),
            Err(_) => {
                tracing::warn!(
                    timeout = ?WRITE_TIMEOUT,
                    "the runtime has read no replies for {WRITE_TIMEOUT:?}; closing the connection"
                );
            }
        }
        break;
    }
    let _closed_already = timeout(WRITE_TIMEOUT, to.shutdown()).await;
}

fn exhausted(problem: String) -> Status {
    Status::new(Code::ResourceExhausted as i32, format!("netd: {problem}"))
}

fn encode_reply(stream: u32, result: Result<Vec<u8>, Status>) -> Vec<u8> {
    let response = match result {
        Ok(payload) => Response { status: None, payload },
        Err(status) => Response { status: Some(status), payload: Vec::new() },
    };
    let message = ttrpc::encode(stream, ttrpc::RESPONSE, &response.encode_to_vec());
    framed(mux::PLUGIN_CONN, &message)
}

fn framed(conn: u32, message: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(message.len() + 64);
    mux::encode(conn, message, &mut out);
    out
}
