#![allow(clippy::unwrap_used)]

use netd_api::ttrpc::KeyValue;
use proptest::prelude::*;

use super::*;

fn request(announced: bool) -> Request {
    let descriptor = KeyValue { key: NETNS_KEY.into(), value: NETNS_IS_DESCRIPTOR.into() };
    Request {
        service: "netd.v1.EndpointService".into(),
        method: "Attach".into(),
        payload: b"payload".to_vec(),
        metadata: if announced { vec![descriptor] } else { Vec::new() },
        ..Request::default()
    }
}

fn frame(stream: u32, announced: bool) -> Vec<u8> {
    ttrpc::encode(stream, ttrpc::REQUEST, &request(announced).encode_to_vec())
}

fn call(stream: u32, netns: Option<u32>) -> Received<u32> {
    Received::Call { stream, request: request(netns.is_some()), netns }
}

#[test]
fn a_call_has_the_descriptor_that_came_with_its_first_byte_however_it_is_cut() {
    let bytes = frame(1, true);
    for at in 1..bytes.len() {
        let mut requests = Requests::new();
        requests.push(&bytes[..at], Descriptors::One(7));
        assert_eq!(requests.next(), Ok(None));
        requests.push(&bytes[at..], Descriptors::None);
        assert_eq!(requests.next(), Ok(Some(call(1, Some(7)))));
        // The next call on the connection has one of its own, or none.
        requests.push(&frame(3, false), Descriptors::None);
        assert_eq!(requests.next(), Ok(Some(call(3, None))));
        requests.push(&frame(5, true), Descriptors::One(9));
        assert_eq!(requests.next(), Ok(Some(call(5, Some(9)))));
    }
}

#[test]
fn descriptors_that_do_not_go_with_the_request_are_refused() {
    let cases = [
        (true, Descriptors::None, Problem::NoDescriptor),
        (false, Descriptors::One(7), Problem::Unannounced),
        (true, Descriptors::Lost, Problem::Lost),
        (true, Descriptors::TooMany, Problem::TooManyDescriptors),
        (false, Descriptors::TooMany, Problem::TooManyDescriptors),
    ];
    for (announced, descriptors, problem) in cases {
        let mut requests = Requests::new();
        requests.push(&frame(1, announced), descriptors);
        assert_eq!(requests.next(), Ok(Some(Received::Bad { stream: 1, problem })));
        requests.push(&frame(3, false), Descriptors::None);
        assert_eq!(requests.next(), Ok(Some(call(3, None))), "the connection goes on");
    }
}

#[test]
fn two_descriptors_with_parts_of_one_request_are_too_many() {
    let mut requests = Requests::new();
    let bytes = frame(1, true);
    requests.push(&bytes[..5], Descriptors::One(1));
    requests.push(&bytes[5..], Descriptors::One(2));
    let problem = Problem::TooManyDescriptors;
    assert_eq!(requests.next(), Ok(Some(Received::Bad { stream: 1, problem })));
}

/// As the next request is read with the end of the one before.
#[test]
fn a_descriptor_never_goes_to_an_earlier_call_that_did_not_ask_for_one() {
    let mut requests = Requests::new();
    let both = [frame(1, false), frame(3, true)].concat();
    requests.push(&both, Descriptors::One(7));
    let problem = Problem::Unannounced;
    assert_eq!(requests.next(), Ok(Some(Received::Bad { stream: 1, problem })));
    let problem = Problem::NoDescriptor;
    assert_eq!(requests.next(), Ok(Some(Received::Bad { stream: 3, problem })));
}

#[test]
fn what_is_no_request_ends_the_connection() {
    for kind in [0, ttrpc::RESPONSE, 3, b'T'] {
        let mut requests = Requests::<u32>::new();
        let sent = [frame(1, false), ttrpc::encode(3, kind, b"x")].concat();
        requests.push(&sent, Descriptors::None);
        assert_eq!(requests.next(), Ok(Some(call(1, None))), "what was whole is answered");
        assert_eq!(requests.next(), Err(Broken::NotARequest { kind }));
    }
    let length = ttrpc::MAX_PAYLOAD as u32 + 1;
    let head = [&length.to_be_bytes()[..], &[0, 0, 0, 9, ttrpc::REQUEST, 0]].concat();
    let mut requests = Requests::<u32>::new();
    requests.push(&head, Descriptors::None);
    assert_eq!(requests.next(), Err(Broken::TooLong { stream: 9, length }));
}

#[test]
fn a_payload_that_is_no_protobuf_is_refused_and_the_next_is_read() {
    let mut requests = Requests::<u32>::new();
    let sent = [ttrpc::encode(1, ttrpc::REQUEST, &[0xff; 9]), frame(3, false)].concat();
    requests.push(&sent, Descriptors::None);
    let bad =
        |received| matches!(received, Some(Received::Bad { problem: Problem::Undecodable(_), .. }));
    assert!(bad(requests.next().unwrap()));
    assert_eq!(requests.next(), Ok(Some(call(3, None))));
}

proptest! {
    #[test]
    fn any_bytes_in_any_pieces_never_panic_and_make_nothing_up(
        pieces in prop::collection::vec((prop::collection::vec(any::<u8>(), 0..300), any::<bool>()), 0..20),
    ) {
        let (mut requests, mut held, mut total) = (Requests::new(), 0, 0);
        for (bytes, descriptor) in pieces {
            total += bytes.len();
            let with = if descriptor { Descriptors::One(()) } else { Descriptors::None };
            requests.push(&bytes, with);
            while let Ok(Some(received)) = requests.next() {
                if let Received::Call { request, .. } = received {
                    held += request.payload.len();
                }
            }
        }
        prop_assert!(held <= total);
    }
}
