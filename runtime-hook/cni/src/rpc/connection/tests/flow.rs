//! Flow control (RFC 9113, sections 5.2 and 6.9).

use super::*;

/// Of a body of 100,000 bytes this many wait for a larger window.
const REST: usize = 100_000 - 65_535;

#[test]
fn the_preface_is_first_then_settings_then_the_call() {
    let mut connection = calling(5);
    assert!(connection.output.starts_with(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"));
    let sent = sent(&mut connection);
    let kinds: Vec<_> = sent.iter().map(|f| (f.kind, f.flags, f.stream)).collect();
    assert_eq!(kinds, [(4, 0, 0), (8, 0, 0), (1, 0x4, 1), (0, 0x1, 1)]);
    assert_eq!(sent[0].payload.len() % 6, 0);
    let settings: Vec<&[u8]> = sent[0].payload.chunks(6).collect();
    for setting in [&[0, 1, 0, 0, 0, 0][..], &[0, 2, 0, 0, 0, 0]] {
        assert!(settings.contains(&setting), "no table, no pushes: {settings:?}");
    }
    assert_eq!((&sent[2].payload[..], &sent[3].payload[..]), (&b"\x83"[..], &[7; 5][..]));
}

#[test]
fn a_body_as_large_as_the_window_is_sent_at_once_and_a_larger_one_waits() {
    assert_eq!(body(&sent(&mut calling(65_535))), (65_535, true));
    let mut connection = calling(100_000);
    assert_eq!(body(&sent(&mut connection)), (65_535, false));
    // Both windows have to have room.
    assert_eq!(receive(&mut connection, &window_update(0, 1 << 20)), Ok(None));
    assert_eq!(body(&sent(&mut connection)), (0, false));
    assert_eq!(receive(&mut connection, &window_update(1, 10)), Ok(None));
    assert_eq!(body(&sent(&mut connection)), (10, false));
    assert_eq!(receive(&mut connection, &window_update(1, 1 << 20)), Ok(None));
    assert_eq!(body(&sent(&mut connection)), (REST - 10, true));
    assert_eq!(receive(&mut connection, &window_update(1, 1 << 20)), Ok(None));
    assert_eq!(sent(&mut connection), []);
}

#[test]
fn the_connection_s_window_is_one_for_all_calls() {
    let mut connection = waiting(60_000);
    assert_eq!(receive(&mut connection, &success(1)), Ok(Some(answer())));
    connection.request(b"\x83", vec![7; 60_000]);
    assert_eq!(body(&sent(&mut connection)), (5_535, false));
    // An increment for a stream of the past is nobody's.
    assert_eq!(receive(&mut connection, &window_update(1, 50_000)), Ok(None));
    assert_eq!(body(&sent(&mut connection)), (0, false));
    assert_eq!(receive(&mut connection, &window_update(0, 54_465)), Ok(None));
    assert_eq!(body(&sent(&mut connection)), (54_465, true));
}

#[test]
fn a_larger_initial_window_is_the_stream_s_only() {
    let mut connection = waiting(100_000);
    assert_eq!(receive(&mut connection, &initial_window(200_000)), Ok(None));
    assert_eq!(body(&sent(&mut connection)), (0, false));
    assert_eq!(receive(&mut connection, &window_update(0, 1 << 20)), Ok(None));
    assert_eq!(body(&sent(&mut connection)), (REST, true));
}

#[test]
fn a_smaller_initial_window_can_be_negative() {
    let mut connection = waiting(100_000);
    let smaller = [initial_window(16_384), window_update(0, 1 << 20)].concat();
    assert_eq!(receive(&mut connection, &smaller), Ok(None));
    // 16,384 of which 65,535 are used.
    assert_eq!(receive(&mut connection, &window_update(1, 49_151)), Ok(None));
    assert_eq!(body(&sent(&mut connection)), (0, false));
    assert_eq!(receive(&mut connection, &window_update(1, 1)), Ok(None));
    assert_eq!(body(&sent(&mut connection)), (1, false));
    assert_eq!(receive(&mut connection, &initial_window(65_535)), Ok(None));
    assert_eq!(body(&sent(&mut connection)), (REST - 1, true));
}

#[test]
fn the_initial_window_is_that_of_later_calls_too() {
    let mut connection = waiting(5);
    receive(&mut connection, &[initial_window(100), success(1)].concat()).unwrap();
    connection.request(b"\x83", vec![7; 101]);
    assert_eq!(body(&sent(&mut connection)), (100, false));
    let window = i64::from(i32::MAX);
    assert_eq!(receive(&mut connection, &initial_window(window as u32)), Ok(None));
    assert_eq!(body(&sent(&mut connection)), (1, true));
}

#[test]
fn a_window_beyond_31_bits_is_an_error() {
    let most = (1 << 31) - 1;
    for stream in [0, 1] {
        let mut connection = waiting(65_535);
        assert_eq!(receive(&mut connection, &window_update(stream, most)), Ok(None));
        let error = receive(&mut connection, &window_update(stream, 1)).unwrap_err();
        assert!(error.0.contains("window is too large"), "{error:?}");
    }
    assert!(told(&initial_window(most)).is_ok());
    assert!(told(&initial_window(1 << 31)).is_err());
    // RFC 9113, 6.9.2: also where a setting makes it so.
    let by_both = [window_update(1, 10), initial_window(most)].concat();
    assert!(told(&by_both).unwrap_err().0.contains("window is too large"));
    assert!(told(&frame(8, 0, 0, &[0, 0, 1])).is_err());
}

#[test]
fn what_was_received_is_given_back_with_the_next_call() {
    let mut connection = waiting(5);
    // Padding counts (RFC 9113, 6.9.1): a byte for its length, three of it.
    let padded = frame(0, PADDED, 1, &[&[3][..], MESSAGE, &[0; 3]].concat());
    receive(&mut connection, &[headers(1), padded, trailers(1)].concat()).unwrap();
    connection.request(b"\x83", vec![7; 5]);
    let sent = sent(&mut connection);
    assert_eq!((sent[0].kind, sent[0].stream, &sent[0].payload[..]), (8, 0, &[0, 0, 0, 11][..]));
    assert_eq!((sent[1].kind, sent[1].stream), (1, 3));
}
