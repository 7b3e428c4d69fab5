//! The entry point of the fuzz target: feeds bytes of the runtime to both decoders and to every
//! message.

use prost::Message as _;

use super::{
    codec::{mux, ttrpc},
    messages::{
        ConfigureRequest, PodRequest, PodSandbox, Request, Response, StateChangeEvent,
        SynchronizeRequest,
    },
    networks, pods,
};

/// Decodes the bytes as a connection, as the stream of one mux connection, and as each message.
pub fn fuzz(bytes: &[u8]) {
    let mut decoder = ttrpc::Decoder::default();
    // A refused frame ends the connection.
    let _ = mux::Decoder::default().push(bytes, |_, data| decoder.push(data, item));
    ttrpc::Decoder::default().push(bytes, item);
    message(bytes);
}

fn item(item: ttrpc::Item) {
    let ttrpc::Item::Message(_, payload) = item else { return };
    if let Ok(request) = Request::decode(payload.as_slice()) {
        message(&request.payload);
    }
    if let Ok(response) = Response::decode(payload.as_slice()) {
        message(&response.payload);
    }
}

fn message(bytes: &[u8]) {
    let _ = ConfigureRequest::decode(bytes);
    let one = PodRequest::decode(bytes).ok().and_then(|request| request.pod);
    let changed = StateChangeEvent::decode(bytes).ok().and_then(|event| event.pod);
    let all = SynchronizeRequest::decode(bytes).map(|request| request.pods).unwrap_or_default();
    one.iter().chain(&changed).chain(&all).for_each(pod);
}

fn pod(pod: &PodSandbox) {
    let _ = (pod.netns(), pods::sandbox(pod));
    for value in pod.annotations.values() {
        let _ = networks::parse(value);
    }
}
