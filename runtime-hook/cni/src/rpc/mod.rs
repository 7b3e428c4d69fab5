//! Calls to netd by a process that makes a few and ends: ttrpc over the hooks' socket, with
//! the sandbox's network namespace as a descriptor. See `netd/src/api/hook` for the other
//! end.
//!
//! A runtime waits for the plugin with every pod, so there is no reactor: a call is one
//! write, one read, and the deadline of both.

use std::time::Duration;

use netd_api::{
    hook::{NETNS_IS_DESCRIPTOR, NETNS_KEY, socket_beside},
    ttrpc::{self, KeyValue, Request},
    v1::{
        AttachRequest, AttachResponse, CheckRequest, CheckResponse, DetachRequest, DetachResponse,
        Endpoint, GetStatusRequest, GetStatusResponse, SynchronizeRequest, SynchronizeResponse,
    },
};
use prost::Message;
use rustix::{
    fd::{AsFd as _, BorrowedFd, OwnedFd},
    io::Errno,
};

use crate::{
    clock::Deadline,
    error::{HookError, system},
};
use answer::ResponseReader;
pub use netns::open_netns;
use unix_stream::{Fault, UnixStream};

mod answer;
#[doc(hidden)]
pub mod fuzzing;
mod netns;
mod unix_stream;

/// A connection to netd.
pub struct Netd {
    socket: String,
    deadline: Duration,
    stream: UnixStream,
    /// Of the last call; a client's are odd.
    last: u32,
}

/// A method by its service and its name.
struct Method(&'static str, &'static str);

const ATTACH: Method = Method("netd.v1.EndpointService", "Attach");
const DETACH: Method = Method("netd.v1.EndpointService", "Detach");
const CHECK: Method = Method("netd.v1.EndpointService", "Check");
const SYNCHRONIZE: Method = Method("netd.v1.SandboxService", "Synchronize");
const GET_STATUS: Method = Method("netd.v1.NodeService", "GetStatus");

impl Netd {
    /// Connects to the hooks' socket of netd. `socket` is that, or netd's gRPC socket, which
    /// is in the same directory; `deadline` is for every call each.
    ///
    /// # Errors
    /// [`HookError::Unreachable`] when nobody listens.
    pub fn connect(socket: &str, deadline: Duration) -> Result<Self, HookError> {
        let socket = socket_beside(socket);
        match UnixStream::connect(&socket) {
            Ok(stream) => Ok(Self { socket, deadline, stream, last: 0 }),
            Err(error) => {
                let known = refused_because(error.raw_os_error());
                let reason = known.map_or_else(|| system(error), Into::into);
                Err(HookError::Unreachable { socket, reason })
            }
        }
    }

    /// Makes an endpoint in the namespace `netns`, or answers the one there is.
    ///
    /// # Errors
    /// As every call: [`HookError::Refused`], [`HookError::Deadline`],
    /// [`HookError::Lost`], [`HookError::BadAnswer`].
    pub fn attach(
        &mut self,
        request: &AttachRequest,
        netns: &OwnedFd,
    ) -> Result<Endpoint, HookError> {
        let answer: AttachResponse = self.call(&ATTACH, request, Some(netns.as_fd()))?;
        answer.endpoint.ok_or_else(|| no_endpoint(&ATTACH))
    }

    /// Removes endpoints; how many there were.
    ///
    /// # Errors
    /// As every call.
    pub fn detach(&mut self, request: &DetachRequest) -> Result<u32, HookError> {
        let answer: DetachResponse = self.call(&DETACH, request, None)?;
        Ok(answer.removed)
    }

    /// Compares an endpoint's record with the kernel, and its namespace with `netns`.
    ///
    /// # Errors
    /// As every call; a difference is a refusal with `FAILED_PRECONDITION`.
    pub fn check(
        &mut self,
        request: &CheckRequest,
        netns: &OwnedFd,
    ) -> Result<Endpoint, HookError> {
        let answer: CheckResponse = self.call(&CHECK, request, Some(netns.as_fd()))?;
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
        self.call(&SYNCHRONIZE, request, None)
    }

    /// Whether netd says that it can do its work, and attach to `network` if that is not empty.
    ///
    /// # Errors
    /// [`HookError::NotReady`] with each component that is not, and as every call.
    pub fn ready(&mut self, network: &str) -> Result<(), HookError> {
        let request = GetStatusRequest { network: network.to_owned() };
        let status: GetStatusResponse = self.call(&GET_STATUS, &request, None)?;
        if status.ready {
            return Ok(());
        }
        let waiting = || status.components.iter().filter(|c| !c.ready);
        let mut problems: Vec<String> =
            waiting().map(|c| format!("{}: {}", c.name, c.reason)).collect();
        if problems.is_empty() {
            problems.push("it does not say why".into());
        }
        let limits_pods = waiting().any(|component| concerns_pods(&component.name, network));
        Err(HookError::NotReady { problems, limits_pods })
    }

    fn call<A: Message + Default>(
        &mut self,
        method: &Method,
        request: &impl Message,
        netns: Option<BorrowedFd<'_>>,
    ) -> Result<A, HookError> {
        let until = Deadline::after(self.deadline);
        self.last = if self.last == 0 { 1 } else { self.last.wrapping_add(2) };
        let frame = self.frame(method, request, netns.is_some())?;
        match self.stream.send(&frame, netns, until) {
            // What netd said before it closed is still to be read.
            Ok(()) | Err(Fault::System(Errno::PIPE | Errno::CONNRESET)) => {}
            Err(fault) => return Err(self.failed(method, fault)),
        }
        let answer = self.answer(method, until)?;
        let message = match answer::message(&answer, method.1) {
            // netd knows the time too, and may say so first.
            Err(HookError::Refused(_)) if until.left().is_none() => return Err(self.late(method)),
            other => other?,
        };
        A::decode(message.as_slice()).map_err(|e| {
            HookError::BadAnswer(format!("the answer to {} can't be decoded: {e}", method.1))
        })
    }

    fn frame(
        &self,
        method: &Method,
        request: &impl Message,
        with_netns: bool,
    ) -> Result<Vec<u8>, HookError> {
        let netns = KeyValue { key: NETNS_KEY.into(), value: NETNS_IS_DESCRIPTOR.into() };
        let request = Request {
            service: method.0.into(),
            method: method.1.into(),
            payload: request.encode_to_vec(),
            timeout_nano: i64::try_from(self.deadline.as_nanos()).unwrap_or(i64::MAX),
            metadata: if with_netns { vec![netns] } else { Vec::new() },
        };
        let payload = request.encode_to_vec();
        if payload.len() > ttrpc::MAX_PAYLOAD {
            let (length, most) = (payload.len(), ttrpc::MAX_PAYLOAD);
            let problem = format!("gives a request of {length} bytes; netd takes {most}");
            return Err(HookError::field("(document)", problem));
        }
        Ok(ttrpc::encode(self.last, ttrpc::REQUEST, &payload))
    }

    fn answer(&self, method: &Method, until: Deadline) -> Result<Vec<u8>, HookError> {
        let mut answer = ResponseReader::to(self.last);
        let mut bytes = Vec::new();
        loop {
            bytes.clear();
            let received = self.stream.receive(&mut bytes, until);
            if received.map_err(|fault| self.failed(method, fault))? == 0 {
                return Err(self.lost(method, "netd closed the connection".into()));
            }
            let whole = answer.read(&bytes);
            if let Some(whole) = whole.map_err(|broken| self.lost(method, broken.to_string()))? {
                return Ok(whole);
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

/// Whether pods that run may be out of reach while this component of netd is not ready.
fn concerns_pods(component: &str, network: &str) -> bool {
    ["firewall", "dataplane", "overlay"].contains(&component)
        || component.strip_prefix("network/") == Some(network)
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
