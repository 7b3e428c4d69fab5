//! What a hook sends: bytes and descriptors in, calls out, no I/O.

use std::collections::VecDeque;

use netd_api::{
    hook::{NETNS_IS_DESCRIPTOR, NETNS_KEY},
    ttrpc::{self, Item, Request},
};
use prost::Message as _;

/// Descriptors that came since the last request was whole.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) enum Descriptors<D> {
    #[default]
    None,
    One(D),
    /// The kernel could not hand it over: netd is out of descriptors.
    Lost,
    TooMany,
}

impl<D> Descriptors<D> {
    /// Adds those that came later.
    pub(crate) fn add(&mut self, more: Self) {
        *self = match (std::mem::take(self), more) {
            (Self::None, more) => more,
            (found, Self::None) => found,
            _ => Self::TooMany,
        };
    }
}

/// A request as it came.
#[derive(Debug, PartialEq)]
pub(crate) enum Received<D> {
    /// A call, and the sandbox's network namespace if it brought that along.
    Call { stream: u32, request: Request, netns: Option<D> },
    /// What can't be a call; why. The connection can go on.
    Bad { stream: u32, problem: Problem },
}

/// What is wrong with a request.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Problem {
    /// Not protobuf, or not ttrpc's.
    #[error("the request is no ttrpc request: {0}")]
    Undecodable(prost::DecodeError),
    /// Said to come with a descriptor that did not come.
    #[error("the network namespace's descriptor is announced and did not come")]
    NoDescriptor,
    /// A descriptor that the request does not speak of.
    #[error("a descriptor came that the request's metadata do not announce")]
    Unannounced,
    /// One that was sent and could not be taken.
    #[error(
        "netd is out of file descriptors and could not take the network namespace's; try again"
    )]
    Lost,
    /// More than one.
    #[error("more than one descriptor came; exactly one names the network namespace")]
    TooManyDescriptors,
}

/// The peer does not speak ttrpc, or not as a client: the connection can't be used any longer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Broken {
    /// A frame of a type that a client does not send.
    #[error("a frame of type {kind}; a hook sends requests (type 1)")]
    NotARequest { kind: u8 },
    /// More than ttrpc allows.
    #[error("a request of {length} bytes; at most {} are taken", ttrpc::MAX_PAYLOAD)]
    TooLong { stream: u32, length: u32 },
}

/// Puts requests together.
#[derive(Debug)]
pub(crate) struct Requests<D> {
    decoder: ttrpc::Decoder,
    descriptors: Descriptors<D>,
    ready: VecDeque<Received<D>>,
    broken: Option<Broken>,
}

impl<D> Requests<D> {
    /// Nothing has come yet.
    pub(crate) fn new() -> Self {
        Self {
            decoder: ttrpc::Decoder::default(),
            descriptors: Descriptors::None,
            ready: VecDeque::new(),
            broken: None,
        }
    }

    /// Takes what one read gave.
    pub(crate) fn push(&mut self, bytes: &[u8], descriptors: Descriptors<D>) {
        self.descriptors.add(descriptors);
        let Self { decoder, descriptors, ready, broken } = self;
        decoder.push(bytes, |item| match received(item, descriptors) {
            _ if broken.is_some() => {}
            Ok(request) => ready.push_back(request),
            Err(error) => *broken = Some(error),
        });
        // Nothing is waited for that would not be taken.
        let unfinished = decoder.unfinished().filter(|head| head.kind != ttrpc::REQUEST);
        if let (None, Some(head)) = (&broken, unfinished) {
            *broken = Some(Broken::NotARequest { kind: head.kind });
        }
    }

    /// The next whole request.
    ///
    /// # Errors
    /// [`Broken`], after all that was whole before.
    pub(crate) fn next(&mut self) -> Result<Option<Received<D>>, Broken> {
        match (self.ready.pop_front(), self.broken) {
            (None, Some(broken)) => Err(broken),
            (next, _) => Ok(next),
        }
    }
}

fn received<D>(item: Item, descriptors: &mut Descriptors<D>) -> Result<Received<D>, Broken> {
    let (head, payload) = match item {
        Item::Message(head, _) | Item::TooLong(head) if head.kind != ttrpc::REQUEST => {
            return Err(Broken::NotARequest { kind: head.kind });
        }
        Item::TooLong(head) => {
            return Err(Broken::TooLong { stream: head.stream, length: head.length });
        }
        Item::Message(head, payload) => (head, payload),
    };
    let stream = head.stream;
    let descriptors = std::mem::take(descriptors);
    let request = match Request::decode(payload.as_slice()) {
        Ok(request) => request,
        Err(e) => return Ok(Received::Bad { stream, problem: Problem::Undecodable(e) }),
    };
    let mut metadata = request.metadata.iter();
    let announced = metadata.any(|m| m.key == NETNS_KEY && m.value == NETNS_IS_DESCRIPTOR);
    let problem = match (announced, descriptors) {
        (false, Descriptors::None) => {
            return Ok(Received::Call { stream, request, netns: None });
        }
        (true, Descriptors::One(netns)) => {
            return Ok(Received::Call { stream, request, netns: Some(netns) });
        }
        (true, Descriptors::None) => Problem::NoDescriptor,
        (false, Descriptors::One(_)) => Problem::Unannounced,
        (_, Descriptors::Lost) => Problem::Lost,
        (_, Descriptors::TooMany) => Problem::TooManyDescriptors,
    };
    Ok(Received::Bad { stream, problem })
}

#[cfg(test)]
#[path = "requests_tests.rs"]
mod tests;
