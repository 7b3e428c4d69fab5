//! One connection to the runtime, from registering to its end.
//!
//! Reading never waits for a handler: the reader only sorts messages, and a
//! worker takes the requests one by one, so their order is kept. When the runtime
//! goes away the request in hand is still finished: the runtime takes a hook that
//! it lost for one that succeeded.

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

/// The runtime drops a plugin that has not registered after 5 s.
const REGISTER_TIMEOUT: Duration = Duration::from_secs(5);
/// A runtime that does not read its answers for so long is stuck.
const WRITE_TIMEOUT: Duration = Duration::from_secs(10);
/// Runtimes wait for one answer before the next request; more than this many
/// unanswered ones are refused, to bound memory.
const QUEUE: usize = 16;
const ANSWERS: usize = 64;
const READ_BUFFER: usize = 64 << 10;

/// Why a connection ended, other than by the runtime's closing it.
#[derive(Debug, thiserror::Error)]
pub enum SessionError {
    /// Reading failed.
    #[error("connection to the runtime: {0}")]
    Io(#[from] io::Error),
    /// What came is no NRI.
    #[error(transparent)]
    Frame(#[from] mux::OversizeFrame),
    /// The runtime does not want this plugin.
    #[error("the runtime refused to register the plugin: {0}")]
    Refused(String),
    /// No answer to the registration.
    #[error("the runtime did not answer the registration within {} s", REGISTER_TIMEOUT.as_secs())]
    RegisterTimeout,
    /// Closed before the registration was answered.
    #[error("the runtime closed the connection before it answered the registration")]
    RegisterClosed,
    /// Requests come faster than their errors can be sent.
    #[error("the runtime sends requests without reading the answers")]
    Flooded,
}

/// A request with what is needed to answer it.
struct Call {
    stream: u32,
    request: Request,
    arrived: Instant,
}

/// Registers and serves until the connection ends; `Ok` when the runtime closed
/// it or told the plugin to go.
///
/// # Errors
/// See [`SessionError`].
pub async fn serve<S: AsyncRead + AsyncWrite>(
    stream: S,
    register: RegisterPluginRequest,
    plugin: &mut Plugin,
) -> Result<(), SessionError> {
    let (read, write) = tokio::io::split(stream);
    let (calls, queue) = mpsc::channel(QUEUE);
    let (answers, outgoing) = mpsc::channel(ANSWERS);
    let (registered, reply) = oneshot::channel();
    let reader = Reader { calls, answers: answers.clone(), registered: Some(registered) };
    let work = async {
        // Configure can arrive before the registration is answered: serve at once.
        let serving = work(queue, answers.clone(), plugin);
        let joined = tokio::try_join!(serving, enroll(answers.clone(), reply, register));
        drop(answers);
        joined.map(drop)
    };
    let (read, worked, ()) = tokio::join!(reader.run(read), work, write_out(write, outgoing));
    read.and(worked)
}

/// Sorts what comes in.
struct Reader {
    calls: mpsc::Sender<Call>,
    answers: mpsc::Sender<Vec<u8>>,
    registered: Option<oneshot::Sender<Response>>,
}

impl Reader {
    /// Runs until the stream ends or nobody takes the requests any more.
    async fn run<R: AsyncRead>(mut self, mut from: ReadHalf<R>) -> Result<(), SessionError> {
        let mut buffer = vec![0; READ_BUFFER];
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
                _ => tracing::debug!(conn, "bytes on an unknown mux conn ignored"),
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
                    Err(e) => (head.stream, invalid(format!("not a ttrpc request: {e}"))),
                }
            }
            ttrpc::Item::TooLong(head) if head.kind == ttrpc::REQUEST => {
                let most = ttrpc::MAX_PAYLOAD;
                (head.stream, exhausted(format!("{} bytes, at most {most} are taken", head.length)))
            }
            _ => return Ok(()),
        };
        tracing::warn!(stream, error = %problem.message, "bad request");
        self.refuse(stream, problem)
    }

    fn enqueue(&self, stream: u32, request: Request) -> Result<(), SessionError> {
        match self.calls.try_send(Call { stream, request, arrived: Instant::now() }) {
            Err(TrySendError::Full(_)) => {
                self.refuse(stream, exhausted(format!("{QUEUE} requests are waiting already")))
            }
            // Closed: the session is about to end.
            Ok(()) | Err(TrySendError::Closed(_)) => Ok(()),
        }
    }

    fn refuse(&self, stream: u32, problem: Status) -> Result<(), SessionError> {
        match self.answers.try_send(answer(stream, Err(problem))) {
            Err(TrySendError::Full(_)) => Err(SessionError::Flooded),
            Ok(()) | Err(TrySendError::Closed(_)) => Ok(()),
        }
    }

    /// Only one call is ever made: the registration.
    fn response(&mut self, item: ttrpc::Item) {
        if let ttrpc::Item::Message(head, payload) = item
            && (head.kind, head.stream) == (ttrpc::RESPONSE, REGISTER_STREAM)
            && let Some(registered) = self.registered.take()
        {
            let response = Response::decode(payload.as_slice()).unwrap_or_else(|e| Response {
                status: Some(invalid(format!("its answer can't be decoded: {e}"))),
                payload: Vec::new(),
            });
            // The receiver is gone when the time to register is over.
            let _late = registered.send(response);
        }
    }
}

/// Clients number their calls 1, 3, 5, ...
const REGISTER_STREAM: u32 = 1;

async fn enroll(
    out: mpsc::Sender<Vec<u8>>,
    reply: oneshot::Receiver<Response>,
    register: RegisterPluginRequest,
) -> Result<(), SessionError> {
    let request = Request {
        service: RUNTIME_SERVICE.to_owned(),
        method: "RegisterPlugin".to_owned(),
        payload: register.encode_to_vec(),
        timeout_nano: REGISTER_TIMEOUT.as_nanos() as i64,
    };
    let message = ttrpc::encode(REGISTER_STREAM, ttrpc::REQUEST, &request.encode_to_vec());
    out.send(framed(mux::RUNTIME_CONN, &message))
        .await
        .map_err(|_| SessionError::RegisterClosed)?;
    let reply =
        timeout(REGISTER_TIMEOUT, reply).await.map_err(|_| SessionError::RegisterTimeout)?;
    let status = reply.map_err(|_| SessionError::RegisterClosed)?.status;
    match status.filter(|s| s.code != Code::Ok as i32) {
        Some(status) => Err(SessionError::Refused(status.message)),
        None => {
            tracing::info!(name = register.plugin_name, idx = register.plugin_idx, "registered");
            Ok(())
        }
    }
}

async fn work(
    mut queue: mpsc::Receiver<Call>,
    out: mpsc::Sender<Vec<u8>>,
    plugin: &mut Plugin,
) -> Result<(), SessionError> {
    while let Some(Call { stream, request, arrived }) = queue.recv().await {
        let done = plugin.call(&request, arrived).await;
        let took = arrived.elapsed();
        tracing::debug!(method = request.method, ?took, ok = done.result.is_ok(), "answered");
        // After the writer has given up, what is queued is still carried out.
        let _unsent = out.send(answer(stream, done.result)).await;
        if done.close {
            break;
        }
    }
    Ok(())
}

/// Sends until everybody who sends is gone. A runtime that does not take its
/// answers ends it early; the reader then sees the connection end.
async fn write_out<W: AsyncWrite>(mut to: WriteHalf<W>, mut out: mpsc::Receiver<Vec<u8>>) {
    while let Some(bytes) = out.recv().await {
        match timeout(WRITE_TIMEOUT, to.write_all(&bytes)).await {
            Ok(Ok(())) => continue,
            Ok(Err(e)) => tracing::debug!(error = %e, "the runtime is gone"),
            Err(_) => tracing::warn!("the runtime does not read its answers"),
        }
        break;
    }
    let _gone = timeout(WRITE_TIMEOUT, to.shutdown()).await;
}

fn exhausted(problem: String) -> Status {
    Status { code: Code::ResourceExhausted as i32, message: format!("netd: {problem}") }
}

fn answer(stream: u32, result: Result<Vec<u8>, Status>) -> Vec<u8> {
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
