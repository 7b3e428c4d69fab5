//! Calls to netd by a process that makes a few and ends: gRPC over its Unix socket.
//!
//! A runtime waits for the plugin with every pod, so there is no reactor and nothing is
//! done beside the call: preface, settings, headers and body leave in one write.

use alloc::{borrow::ToOwned as _, format, string::String, vec::Vec};
use core::time::Duration;

use netd_api::v1::{
    AttachRequest, AttachResponse, CheckRequest, CheckResponse, DetachRequest, DetachResponse,
    Endpoint, GetStatusRequest, GetStatusResponse, SynchronizeRequest, SynchronizeResponse,
};
use prost::Message;
use rustix::io::Errno;

use crate::{
    clock::Deadline,
    error::{HookError, system},
};
use connection::Connection;
use wire::{Fault, Wire};

mod answer;
mod connection;
mod frame;
#[doc(hidden)]
pub mod fuzzing;
mod hpack;
mod huffman;
mod wire;

/// A connection to netd.
pub struct Netd {
    socket: String,
    deadline: Duration,
    wire: Wire,
    connection: Connection,
}

/// A method by its path and its name in errors.
struct Method(&'static str, &'static str);

const ATTACH: Method = Method("/netd.v1.EndpointService/Attach", "Attach");
const DETACH: Method = Method("/netd.v1.EndpointService/Detach", "Detach");
const CHECK: Method = Method("/netd.v1.EndpointService/Check", "Check");
const SYNCHRONIZE: Method = Method("/netd.v1.SandboxService/Synchronize", "Synchronize");
const GET_STATUS: Method = Method("/netd.v1.NodeService/GetStatus", "GetStatus");

impl Netd {
    /// Connects to netd's socket; `deadline` is for every call each.
    ///
    /// # Errors
    /// [`HookError::Unreachable`] when nobody listens.
    pub fn connect(socket: &str, deadline: Duration) -> Result<Self, HookError> {
        let wire = Wire::connect(socket).map_err(|error| HookError::Unreachable {
            socket: socket.to_owned(),
            reason: refused_because(error.raw_os_error()).map_or_else(|| system(error), Into::into),
        })?;
        Ok(Self { socket: socket.to_owned(), deadline, wire, connection: Connection::new() })
    }

    /// As [`Netd::connect`], for one call.
    ///
    /// # Errors
    /// As there.
    pub fn for_one_call(socket: &str, deadline: Duration) -> Result<Self, HookError> {
        let mut netd = Self::connect(socket, deadline)?;
        netd.connection.last();
        Ok(netd)
    }

    /// Makes an endpoint, or answers the one there is.
    ///
    /// # Errors
    /// As every call: [`HookError::Refused`], [`HookError::Deadline`],
    /// [`HookError::Lost`], [`HookError::BadAnswer`].
    pub fn attach(&mut self, request: &AttachRequest) -> Result<Endpoint, HookError> {
        let answer: AttachResponse = self.call(&ATTACH, request)?;
        answer.endpoint.ok_or_else(|| no_endpoint(&ATTACH))
    }

    /// Removes endpoints; how many there were.
    ///
    /// # Errors
    /// As every call.
    pub fn detach(&mut self, request: &DetachRequest) -> Result<u32, HookError> {
        let answer: DetachResponse = self.call(&DETACH, request)?;
        Ok(answer.removed)
    }

    /// Compares an endpoint's record with the kernel.
    ///
    /// # Errors
    /// As every call; a difference is a refusal with `FAILED_PRECONDITION`.
    pub fn check(&mut self, request: &CheckRequest) -> Result<Endpoint, HookError> {
        let answer: CheckResponse = self.call(&CHECK, request)?;
        answer.endpoint.ok_or_else(|| no_endpoint(&CHECK))
    }

    /// Tells netd which sandboxes a runtime knows.
    ///
    /// # Errors
    /// As every call.
    pub fn synchronize(
        &mut self,
        request: &SynchronizeRequest,
    ) -> Result<SynchronizeResponse, HookError> {
        self.call(&SYNCHRONIZE, request)
    }

    /// Whether netd says that it can do its work.
    ///
    /// # Errors
    /// [`HookError::NotReady`] with each component that is not, and as every call.
    pub fn ready(&mut self) -> Result<(), HookError> {
        let status: GetStatusResponse = self.call(&GET_STATUS, &GetStatusRequest {})?;
        if status.ready {
            return Ok(());
        }
        let waiting = status.components.iter().filter(|c| !c.ready);
        let mut problems: Vec<String> =
            waiting.map(|c| format!("{}: {}", c.name, c.reason)).collect();
        if problems.is_empty() {
            problems.push("it does not say why".into());
        }
        Err(HookError::NotReady(problems))
    }

    fn call<A: Message + Default>(
        &mut self,
        method: &Method,
        request: &impl Message,
    ) -> Result<A, HookError> {
        let until = Deadline::after(self.deadline);
        self.connection.request(&headers(method, self.deadline), framed(request));
        let answer = self.exchange(method, until)?;
        let message = match answer::message(&answer, method.1) {
            // netd knows the time too, and may say so first.
            Err(HookError::Refused(_)) if until.left().is_none() => return Err(self.late(method)),
            other => other?,
        };
        A::decode(message).map_err(|e| {
            HookError::BadAnswer(format!("the answer to {} can't be decoded: {e}", method.1))
        })
    }

    fn exchange(
        &mut self,
        method: &Method,
        until: Deadline,
    ) -> Result<connection::Answer, HookError> {
        loop {
            // First what came behind the last answer: a window may have to grow.
            let answer = self.connection.read();
            if let Some(answer) = answer.map_err(|broken| self.lost(method, broken.0))? {
                return Ok(answer);
            }
            match self.wire.send(&self.connection.output, until) {
                // What netd said before it closed is still to be read.
                Ok(()) | Err(Fault::System(Errno::PIPE | Errno::CONNRESET)) => {}
                Err(fault) => return Err(self.failed(method, fault)),
            }
            self.connection.output.clear();
            let received = self.wire.receive(&mut self.connection.input, until);
            if received.map_err(|fault| self.failed(method, fault))? == 0 {
                return Err(self.lost(method, "netd closed the connection".into()));
            }
        }
    }

    fn failed(&self, method: &Method, fault: Fault) -> HookError {
        match fault {
            Fault::Late => self.late(method),
            Fault::System(error) => self.lost(method, system(error)),
        }
    }

    fn late(&self, method: &Method) -> HookError {
        let socket = self.socket.clone();
        HookError::Deadline { socket, operation: method.1, after: self.deadline }
    }

    fn lost(&self, method: &Method, reason: String) -> HookError {
        HookError::Lost { socket: self.socket.clone(), operation: method.1, reason }
    }
}

/// HTTP/2 needs an authority; a Unix socket has none.
fn headers(method: &Method, deadline: Duration) -> Vec<u8> {
    let mut block = Vec::with_capacity(160);
    hpack::put_indexed(&mut block, hpack::METHOD_POST);
    hpack::put_indexed(&mut block, hpack::SCHEME_HTTP);
    hpack::put_named(&mut block, hpack::PATH, method.0);
    hpack::put_named(&mut block, hpack::AUTHORITY, "localhost");
    hpack::put_named(&mut block, hpack::CONTENT_TYPE, "application/grpc");
    hpack::put_literal(&mut block, "te", "trailers");
    // At most eight digits.
    let millis = deadline.as_millis().clamp(1, 99_999_999);
    hpack::put_literal(&mut block, "grpc-timeout", &format!("{millis}m"));
    block
}

/// A message as it is sent: not compressed, its length, itself.
fn framed(message: &impl Message) -> Vec<u8> {
    let length = message.encoded_len();
    let mut body = Vec::with_capacity(5 + length);
    body.push(0);
    body.extend_from_slice(&(length as u32).to_be_bytes());
    // Its only error is a lack of room, of which a Vec has none.
    let _ = message.encode(&mut body);
    body
}

fn no_endpoint(method: &Method) -> HookError {
    HookError::BadAnswer(format!("the answer to {} holds no endpoint", method.1))
}

/// What the number of an error means when netd's socket is connected to; `None`: nothing in
/// particular.
pub fn refused_because(os_error: i32) -> Option<&'static str> {
    match Errno::from_raw_os_error(os_error) {
        Errno::NOENT => Some("there is no such socket"),
        Errno::CONNREFUSED => Some("nobody listens on it"),
        Errno::ACCESS | Errno::PERM => Some("permission denied; root or netd's group may"),
        Errno::AGAIN => Some("its queue of connections is full"),
        _ => None,
    }
}
