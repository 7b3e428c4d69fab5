//! Calls one after another.

use super::*;

#[test]
fn each_call_has_a_stream_of_its_own() {
    let mut connection = calling(5);
    for stream in [1, 3, 5] {
        let sent = sent(&mut connection);
        let call = sent.iter().filter(|f| f.stream != 0).map(|f| (f.kind, f.stream));
        assert_eq!(call.collect::<Vec<_>>(), [(1, stream), (0, stream)]);
        assert_eq!(receive(&mut connection, &success(stream)), Ok(Some(answer())));
        connection.request(b"\x83", vec![7; 5]);
    }
    // The one before is over.
    assert!(receive(&mut connection, &success(5)).is_err());
}

#[test]
fn a_reset_of_an_earlier_call_is_nothing_new() {
    let mut connection = waiting(5);
    receive(&mut connection, &success(1)).unwrap();
    connection.request(b"\x83", vec![7; 5]);
    let bytes = [frame(3, 0, 1, &[0; 4]), success(3)].concat();
    assert_eq!(receive(&mut connection, &bytes), Ok(Some(answer())));
}

#[test]
fn a_good_bye_to_this_call_counts_though_the_last_one_was_answered() {
    let mut connection = waiting(5);
    receive(&mut connection, &success(1)).unwrap();
    connection.request(b"\x83", vec![7; 5]);
    assert!(receive(&mut connection, &frame(7, 0, 0, &[0, 0, 0, 1, 0, 0, 0, 0])).is_err());
}

#[test]
fn what_came_behind_an_answer_is_read_with_the_next_call() {
    let mut connection = waiting(5);
    let behind = [frame(3, 0, 1, &[0; 4]), window_update(0, 1 << 20), initial_window(1 << 20)];
    let bytes = [success(1), behind.concat()].concat();
    assert_eq!(receive(&mut connection, &bytes), Ok(Some(answer())));
    connection.request(b"\x83", vec![7; 100_000]);
    assert_eq!(connection.read(), Ok(None));
    assert_eq!(body(&sent(&mut connection)), (100_000, true));
}

#[test]
fn the_last_call_says_good_bye_behind_its_body_if_that_is_sent_at_once() {
    for (size, said) in [(5, true), (100_000, false)] {
        let mut connection = Connection::new();
        connection.last();
        connection.request(b"\x83", vec![7; size]);
        let sent = sent(&mut connection);
        let good_bye = [0x7f, 0xff, 0xff, 0xff, 0, 0, 0, 0];
        let last = sent.last().unwrap();
        assert_eq!((last.kind, last.payload == good_bye), (if said { 7 } else { 0 }, said));
        assert!(sent.iter().all(|f| f.kind != 7 || f.stream == 0));
    }
}
