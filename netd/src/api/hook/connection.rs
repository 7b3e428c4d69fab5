//! One hook's connection: its requests, one after the other, and their answers.

use std::{io, os::fd::OwnedFd, time::Duration};

use netd_api::ttrpc::{self, Response};
use prost::Message as _;
use tokio::{io::AsyncWriteExt as _, net::UnixStream, sync::watch, time::timeout};
use tonic::{Code, Status};

use super::{
    call::{self, answer_of},
    limits::{FRAME_TIMEOUT, MAX_CALL_TIME},
    requests::{Broken, Received, Requests},
    socket::receive,
};
use crate::api::{Api, transport::peer_cred::Peer};

/// Bytes read at once; a request has some hundred.
const CHUNK: usize = 8192;

/// Why a connection ends that the peer did not end.
#[derive(Debug, thiserror::Error)]
enum Failure {
    #[error(transparent)]
    System(#[from] io::Error),
    #[error(transparent)]
    Broken(#[from] Broken),
    #[error("no whole request came within {FRAME_TIMEOUT:?}")]
    Idle,
    #[error("the answer was not taken within {FRAME_TIMEOUT:?}")]
    NotRead,
}

/// Answers requests until the peer, a fault, or `stop` ends it.
pub(crate) async fn serve(api: &Api, stream: UnixStream, peer: Peer, stop: watch::Receiver<bool>) {
    let mut connection = Connection { stream, requests: Requests::new() };
    let ended = connection.run(api, peer, stop).await;
    if let Err(Failure::Broken(Broken::TooLong { stream, length })) = &ended {
        let text = Broken::TooLong { stream: *stream, length: *length }.to_string();
        let refusal = answer_of(Err(Status::resource_exhausted(text)));
        // The connection is about to be closed anyway.
        let _ = connection.send(*stream, &refusal).await;
    }
    if let Err(failure) = ended {
        tracing::debug!(uid = peer.uid(), %failure, "a hook's connection was closed");
    }
}

struct Connection {
    stream: UnixStream,
    requests: Requests<OwnedFd>,
}

impl Connection {
    async fn run(
        &mut self,
        api: &Api,
        peer: Peer,
        mut stop: watch::Receiver<bool>,
    ) -> Result<(), Failure> {
        loop {
            let next = tokio::select! {
                next = timeout(FRAME_TIMEOUT, self.next()) => next.map_err(|_| Failure::Idle)??,
                _ = stop.wait_for(|stop| *stop) => return Ok(()),
            };
            let Some(received) = next else { return Ok(()) };
            let (stream, response) = match received {
                Received::Call { stream, request, netns } => {
                    let given = time_of(request.timeout_nano);
                    let work = call::make(api, peer, request, netns);
                    let late = |_| {
                        let text = format!("netd did not finish the call within {given:?}");
                        answer_of(Err(Status::new(Code::DeadlineExceeded, text)))
                    };
                    (stream, timeout(given, work).await.unwrap_or_else(late))
                }
                Received::Bad { stream, problem } => (stream, answer_of(Err(problem.into()))),
            };
            self.send(stream, &response).await?;
        }
    }

    /// The next request; `None`: the peer has closed.
    async fn next(&mut self) -> Result<Option<Received<OwnedFd>>, Failure> {
        loop {
            if let Some(received) = self.requests.next()? {
                return Ok(Some(received));
            }
            let mut bytes = [0; CHUNK];
            let (read, descriptors) = receive(&self.stream, &mut bytes).await?;
            if read == 0 {
                return Ok(None);
            }
            self.requests.push(&bytes[..read], descriptors);
        }
    }

    async fn send(&mut self, stream: u32, response: &Response) -> Result<(), Failure> {
        let mut encoded = response.encode_to_vec();
        if encoded.len() > ttrpc::MAX_PAYLOAD {
            let text = format!("the answer has {} bytes, more than ttrpc takes", encoded.len());
            encoded = answer_of(Err(Status::out_of_range(text))).encode_to_vec();
        }
        let frame = ttrpc::encode(stream, ttrpc::RESPONSE, &encoded);
        let sent = timeout(FRAME_TIMEOUT, self.stream.write_all(&frame)).await;
        Ok(sent.map_err(|_| Failure::NotRead)??)
    }
}

/// How long a call may take that asks for so many nanoseconds.
fn time_of(timeout_nano: i64) -> Duration {
    match u64::try_from(timeout_nano) {
        Ok(nanos @ 1..) => Duration::from_nanos(nanos).min(MAX_CALL_TIME),
        _ => MAX_CALL_TIME,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_call_has_the_time_that_is_asked_for_within_netd_s_own() {
        assert_eq!(time_of(5), Duration::from_nanos(5));
        for unlimited in [0, -1, i64::MIN, i64::MAX] {
            assert_eq!(time_of(unlimited), MAX_CALL_TIME);
        }
    }
}
