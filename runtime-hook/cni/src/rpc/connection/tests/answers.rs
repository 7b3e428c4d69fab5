//! One call's answer, whole, in parts, early and ill-formed.

use super::*;

#[test]
fn an_answer_in_pieces_of_any_size_is_the_same() {
    let bytes = [
        frame(4, 0, 0, &[]),
        headers(1),
        frame(6, 0, 0, b"12345678"),
        data(1, &MESSAGE[..3]),
        frame(8, 0, 0, &[0, 0, 1, 0]),
        data(1, &MESSAGE[3..]),
        trailers(1),
    ]
    .concat();
    let mut whole = waiting(5);
    assert_eq!(receive(&mut whole, &bytes), Ok(Some(answer())));
    let output = sent(&mut whole);
    for size in 1..bytes.len() {
        let mut connection = waiting(5);
        let mut found = None;
        for piece in bytes.chunks(size) {
            assert_eq!(found, None);
            found = receive(&mut connection, piece).unwrap();
        }
        assert_eq!(found, Some(answer()), "{size}");
        assert_eq!(sent(&mut connection), output, "{size}");
    }
}

#[test]
fn padding_and_priority_are_no_part_of_it() {
    let priority = [0x80, 0, 0, 0, 16];
    let bytes = [
        frame(1, 0x4 | PADDED | PRIORITY, 1, &[&[2][..], &priority, OK, &[0; 2]].concat()),
        frame(0, PADDED, 1, &[&[255][..], MESSAGE, &[0; 255]].concat()),
        frame(0, PADDED, 1, &[0]),
        frame(1, LAST | PRIORITY, 1, &[&priority, TRAILERS].concat()),
    ];
    assert_eq!(told(&bytes.concat()), Ok(Some(answer())));
    // The padding's length leaves no room for the padding.
    assert!(reason(&[headers(1), frame(0, PADDED, 1, &[9, 0])].concat()).contains("padding"));
    assert!(reason(&frame(1, 0x4 | PRIORITY, 1, &priority[..4])).contains("padding"));
}

#[test]
fn a_header_block_may_be_in_many_parts() {
    for at in 0..TRAILERS.len() {
        let (first, second) = TRAILERS.split_at(at);
        let bytes = [
            headers(1),
            data(1, MESSAGE),
            // It ends the stream, but not the headers.
            frame(1, 0x1, 1, first),
            frame(9, 0, 1, &[]),
            frame(9, 0x4, 1, second),
        ];
        assert_eq!(told(&bytes.concat()), Ok(Some(answer())), "{at}");
        assert_eq!(told(&bytes[..4].concat()), Ok(None), "{at}");
    }
}

#[test]
fn nothing_comes_between_the_parts_of_a_header_block() {
    let begun = frame(1, 0, 1, OK);
    let others = [
        data(1, b""),
        headers(1),
        frame(4, 0, 0, &[]),
        frame(6, 0, 0, &[0; 8]),
        window_update(0, 1),
        frame(9, 0x4, 3, &[]),
        frame(0xfa, 0, 0, &[]),
    ];
    for other in others {
        assert!(told(&[begun.clone(), other.clone()].concat()).is_err(), "{other:x?}");
    }
    assert!(told(&frame(9, 0x4, 1, OK)).is_err());
    assert!(told(&[headers(1), frame(9, 0x4, 1, OK)].concat()).is_err());
}

#[test]
fn settings_are_acknowledged_and_pings_answered_once() {
    let mut connection = waiting(5);
    // Of the settings that nobody knows nothing is said (RFC 9113, 6.5.2).
    let settings = frame(4, 0, 0, &[0xff, 0xff, 1, 2, 3, 4, 0, 3, 0, 0, 0, 100]);
    let ping = frame(6, 0, 0, b"12345678");
    let acks = [frame(4, 1, 0, &[]), frame(6, 1, 0, b"abcdefgh")].concat();
    assert_eq!(receive(&mut connection, &[settings, ping, acks].concat()), Ok(None));
    let ack = Sent { kind: 4, flags: 1, stream: 0, payload: vec![] };
    let pong = Sent { kind: 6, flags: 1, stream: 0, payload: b"12345678".to_vec() };
    assert_eq!(sent(&mut connection), [ack, pong]);
    assert!(reason(&frame(4, 0, 0, &[0; 7])).contains("settings of odd length"));
}

#[test]
fn good_bye_counts_for_later_calls_only() {
    let goaway =
        |last: u32, code: u32| frame(7, 0, 0, &[last, code].map(u32::to_be_bytes).concat());
    for last in [1, 3, (1 << 31) - 1] {
        let bytes = [goaway(last, 0), success(1)].concat();
        assert_eq!(told(&bytes), Ok(Some(answer())), "{last}");
    }
    // With words of its own for whoever debugs it.
    let mut spoken = goaway(0, 11);
    spoken[2] += 2;
    spoken.extend(b"no");
    assert!(reason(&spoken).contains("ENHANCE_YOUR_CALM"));
    assert!(reason(&goaway(0, 77)).contains("error 77"));
    assert!(reason(&frame(7, 0, 0, &[0; 3])).contains("too short"));
}

#[test]
fn a_reset_ends_the_call_with_its_reason() {
    assert_eq!(reason(&frame(3, 0, 1, &[0, 0, 0, 7])), "netd ended the call: REFUSED_STREAM");
    assert!(reason(&[headers(1), frame(3, 0, 1, &[0, 0, 0, 2])].concat()).contains("INTERNAL"));
    assert!(reason(&frame(3, 0, 1, &[])).contains("too short"));
}

#[test]
fn an_answer_before_all_is_sent_ends_the_sending() {
    let mut connection = waiting(100_000);
    let refused = frame(1, LAST, 1, &[OK, TRAILERS].concat());
    let found = receive(&mut connection, &refused).unwrap().unwrap();
    assert_eq!((found.fields, found.body), (answer().fields, vec![]));
    let reset = Sent { kind: 3, flags: 0, stream: 1, payload: vec![0; 4] };
    assert_eq!(sent(&mut connection), [reset]);
    let more = [window_update(0, 1 << 20), window_update(1, 1 << 20), initial_window(1 << 20)];
    assert_eq!(receive(&mut connection, &more.concat()), Ok(None));
    assert_eq!(body(&sent(&mut connection)), (0, false));
}

#[test]
fn an_answer_counts_though_the_rest_of_the_body_is_not_wanted() {
    // RFC 9113, 8.1: "Clients MUST NOT discard responses as a result of receiving such a
    // RST_STREAM".
    let refused = frame(1, LAST, 1, &[OK, TRAILERS].concat());
    for behind in [frame(3, 0, 1, &[0; 4]), frame(7, 0, 0, &[0; 8]), b"HTTP/1.1 400".to_vec()] {
        let mut connection = waiting(100_000);
        let found = receive(&mut connection, &[refused.clone(), behind].concat()).unwrap();
        assert_eq!(found.unwrap().fields, answer().fields);
    }
}

#[test]
fn what_is_no_answer_to_this_call_is_an_error() {
    for stream in [0, 2, 3] {
        for bytes in [headers(stream), trailers(stream)] {
            assert!(reason(&bytes).contains("an answer to no question"));
        }
        let bytes = [headers(1), data(stream, MESSAGE)].concat();
        assert!(reason(&bytes).contains("an answer to no question"));
    }
    assert!(reason(&data(1, MESSAGE)).contains("data before headers"));
    assert!(reason(&frame(5, 0x4, 1, &[0, 0, 0, 2, 0x88])).contains("push"));
    assert!(reason(&frame(1, 0x4, 1, b"\xbe")).contains("malformed headers"));
    assert!(reason(b"HTTP/1.1 400 Bad Request\r\n\r\n").contains("not HTTP/2"));
    // Types yet to be invented, and priorities (RFC 9113, 4.1 and 5.3.2), are passed over.
    let unknown = [frame(0xfa, 0xff, 9, b"x"), frame(2, 0, 1, &[0; 5]), frame(16, 0, 0, b"u=1")];
    assert_eq!(told(&[unknown.concat(), success(1)].concat()), Ok(Some(answer())));
}
