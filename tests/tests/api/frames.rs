//! Peers that send anything but honest gRPC: netd goes on serving the others.

use std::{
    io::{Read as _, Write as _},
    os::unix::net::UnixStream,
    time::Duration,
};

use anyhow::{Result, ensure};
use netd_api::v1::AttachRequest;
use testbed::case;
use tonic::Code;

use crate::node::{Node, noise};

pub(crate) const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
pub(crate) const SETTINGS: &[u8] = &[0, 0, 0, 4, 0, 0, 0, 0, 0];

impl Node {
    fn dial(&self) -> Result<UnixStream> {
        let stream = UnixStream::connect(self.netd.socket())?;
        stream.set_write_timeout(Some(Duration::from_secs(2)))?;
        stream.set_read_timeout(Some(Duration::from_millis(200)))?;
        Ok(stream)
    }

    fn serves(&mut self) -> Result<()> {
        self.netd.service().check_alive()?;
        ensure!(self.netd.status()?.ready);
        let pod = self.bare("check")?;
        self.netd.attach(pod.request())?;
        self.detach(&pod)?;
        self.nothing_left()
    }
}

pub(crate) fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let length = u32::try_from(payload.len()).unwrap_or(u32::MAX).to_be_bytes();
    let mut frame = length[1..].to_vec();
    frame.extend([kind, flags]);
    frame.extend(stream.to_be_bytes());
    frame.extend(payload);
    frame
}

#[test]
fn noise_in_place_of_http_does_not_disturb() -> Result<()> {
    case(|bed| {
        let mut node = Node::start(bed)?;
        let mut noise = noise();
        for round in 0..200 {
            let mut stream = node.dial()?;
            // Half of them begin as HTTP/2 does.
            if round % 2 == 0 {
                stream.write_all(&[PREFACE, SETTINGS].concat())?;
            }
            // netd may hang up before all is written.
            let _ = stream.write_all(&noise.bytes(1 + round * 17));
        }
        node.serves()
    })
}

#[test]
fn frames_that_lie_or_stop_halfway_do_not_disturb() -> Result<()> {
    case(|bed| {
        let mut node = Node::start(bed)?;
        let cases: Vec<Vec<u8>> = vec![
            vec![0xff, 0xff, 0xff, 0, 0, 0, 0, 0, 1],
            frame(1, 4, 0, b"headers on stream 0"),
            frame(0, 1, 1, b"data on an idle stream"),
            frame(9, 4, 1, b"a continuation of nothing"),
            frame(4, 0, 0, b"12345"),
            frame(8, 0, 0, &[0, 0, 0, 0]),
            frame(6, 0, 0, b"short"),
            frame(5, 4, 1, b"a push from a client"),
            frame(1, 5, 1, &[0xff; 64]),
            frame(200, 0, 1, b"an unknown kind"),
            // Headers that never end.
            frame(1, 0, 1, &[0x82]),
            // Half a frame.
            vec![0, 1, 0, 0],
        ];
        let mut held = Vec::new();
        for case in &cases {
            let mut stream = node.dial()?;
            stream.write_all(&[PREFACE, SETTINGS, case].concat())?;
            held.push(stream);
        }
        node.serves()?;
        for mut stream in held {
            let mut answer = [0; 512];
            let _ = stream.read(&mut answer);
        }
        node.serves()
    })
}

#[test]
fn a_message_of_five_mebibytes_is_refused_with_a_clear_code() -> Result<()> {
    case(|bed| {
        let mut node = Node::start(bed)?;
        let pod = node.bare("pod")?;
        let huge = [("k".to_owned(), "x".repeat(5 << 20))].into();
        let outcome = node.netd.attach(AttachRequest { annotations: huge, ..pod.request() });
        let code = outcome.err().map(|status| status.code());
        let right = [Code::OutOfRange, Code::ResourceExhausted, Code::InvalidArgument];
        ensure!(code.is_some_and(|code| right.contains(&code)), "{code:?}");
        node.serves()
    })
}

#[test]
fn a_thousand_connections_that_say_nothing_do_not_lock_anybody_out() -> Result<()> {
    case(|bed| {
        let mut node = Node::start(bed)?;
        let mut idle = Vec::new();
        for number in 0..1000 {
            let mut stream = node.dial()?;
            if number % 2 == 0 {
                stream.write_all(&[PREFACE, SETTINGS].concat())?;
            }
            idle.push(stream);
        }
        node.serves()?;
        drop(idle);
        node.serves()
    })
}

/// A call of the health service, `:authority` as a literal that is remembered.
fn check_of(authority: &[u8]) -> Vec<u8> {
    let text = |text: &[u8]| [&[text.len() as u8], text].concat();
    let mut block = vec![0x83, 0x86, 0x44];
    block.extend(text(b"/grpc.health.v1.Health/Check"));
    block.push(0x41);
    block.extend(text(authority));
    block.push(0x5f);
    block.extend(text(b"application/grpc"));
    block.push(0x40);
    block.extend([text(b"te"), text(b"trailers")].concat());
    block
}

/// Kinds of the frames that come for a stream, until it ends.
fn kinds(stream: &mut UnixStream, number: u32) -> Result<Vec<u8>> {
    stream.set_read_timeout(Some(Duration::from_secs(5)))?;
    let mut kinds = Vec::new();
    loop {
        let mut head = [0; 9];
        stream.read_exact(&mut head)?;
        let [a, b, c, kind, flags, w, x, y, z] = head;
        let mut payload = vec![0; u32::from_be_bytes([0, a, b, c]) as usize];
        stream.read_exact(&mut payload)?;
        if u32::from_be_bytes([w, x, y, z]) != number {
            continue;
        }
        kinds.push(kind);
        // The end of the stream, or RST_STREAM.
        if (kind <= 1 && flags & 1 == 1) || kind == 3 {
            return Ok(kinds);
        }
    }
}

/// So do Python's, Java's and older Go's clients over a Unix socket.
#[test]
fn a_client_that_names_the_sockets_path_as_authority_is_served() -> Result<()> {
    case(|bed| {
        let node = Node::start(bed)?;
        let socket = node.netd.socket().display().to_string();
        for authority in [socket.as_str(), "%2Frun%2Fnetd.sock", "localhost"] {
            let mut stream = node.dial()?;
            let empty = [0; 5];
            stream.write_all(&[PREFACE, SETTINGS].concat())?;
            // The second time, all literals come from the table: the last is 62.
            let again = [0x83, 0x86, 0xc1, 0xc0, 0xbf, 0xbe];
            for (number, block) in [(1, check_of(authority.as_bytes())), (3, again.to_vec())] {
                stream.write_all(&frame(1, 4, number, &block))?;
                stream.write_all(&frame(0, 1, number, &empty))?;
                let kinds = kinds(&mut stream, number)?;
                ensure!(kinds.contains(&0), "{authority}, call {number}: {kinds:?}");
            }
        }
        Ok(())
    })
}
