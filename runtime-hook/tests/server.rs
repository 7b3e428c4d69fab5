//! At netd's socket is somebody who is not netd, or around the plugin a world that is not
//! as usual. The plugin ends in time, with an error that can be acted upon.
#![allow(clippy::unwrap_used)]

mod common;

use std::{
    io::{self, Read as _, Write as _},
    os::unix::net::{UnixListener, UnixStream},
    path::Path,
    process::{Command, Output, Stdio},
    thread,
    time::{Duration, Instant},
};

use common::{Netd, code, execute, json, plugins};
use serde_json::{Value, json};

const ENV: [(&str, &str); 4] = [
    ("CNI_COMMAND", "ADD"),
    ("CNI_CONTAINERID", "abc"),
    ("CNI_NETNS", common::NETNS),
    ("CNI_IFNAME", "eth0"),
];
/// `:status: 200`.
const OK: &[u8] = b"\x88";
const SETTINGS: &[u8] = &[0, 0, 0, 4, 0, 0, 0, 0, 0];
/// END_STREAM and END_HEADERS.
const LAST: u8 = 0x5;

type Behaviour = fn(&mut UnixStream) -> io::Result<()>;

fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let length = (payload.len() as u32).to_be_bytes();
    [&length[1..], &[kind, flags], &stream.to_be_bytes(), payload].concat()
}

fn field(name: &str, value: &str) -> Vec<u8> {
    let text = |t: &str| [&[t.len() as u8], t.as_bytes()].concat();
    [&[0][..], &text(name), &text(value)].concat()
}

fn config(socket: &Path) -> Value {
    json!({"cniVersion": "1.1.0", "name": "n", "socket": socket, "timeout": 1})
}

/// The error of each plugin's ADD, for which it took not much more than its second and
/// some megabytes.
fn against(behave: Behaviour) -> Vec<Value> {
    let dir = tempfile::tempdir().unwrap();
    let socket = dir.path().join("netd.sock");
    let listener = UnixListener::bind(&socket).unwrap();
    let each = plugins().into_iter().map(|program| {
        let listener = listener.try_clone().unwrap();
        let server = thread::spawn(move || {
            let (mut peer, _) = listener.accept().unwrap();
            peer.set_read_timeout(Some(Duration::from_secs(5))).unwrap();
            // It ends when the plugin does.
            drop(behave(&mut peer));
        });
        let most = if program.ends_with("netd-cni") { 16 << 10 } else { 256 << 10 };
        let limited = format!("ulimit -v {most} && exec {}", program.display());
        let start = Instant::now();
        let stdin = config(&socket).to_string();
        let output = execute(Path::new("/bin/sh"), &["-c", &limited], &ENV, stdin.as_bytes());
        assert!(start.elapsed() < Duration::from_millis(2500), "{:?} {output:?}", start.elapsed());
        server.join().unwrap();
        let number = code(&output);
        let error = json(&output);
        assert!([11, 103].contains(&number), "{error}");
        let words = error.to_string();
        assert!(words.contains("Attach") && words.len() < 1_000, "{words}");
        assert!(output.stderr.is_empty(), "{output:?}");
        error
    });
    each.collect()
}

/// Whether each lost the connection, for one of these reasons.
fn lost(behave: Behaviour, reasons: &[&str]) {
    for error in against(behave) {
        let text = error["msg"].as_str().unwrap();
        assert_eq!(error["code"], 11, "{error}");
        assert!(text.contains("lost the connection to netd at /"), "{text}");
        assert!(reasons.iter().any(|reason| text.contains(reason)), "{reasons:?}: {text}");
        assert!(error["details"].as_str().unwrap().contains("systemctl status netd"), "{error}");
    }
}

/// Whether each gave up when its time was over, and says so.
fn late(behave: Behaviour) {
    for error in against(behave) {
        assert_eq!(error["code"], 11, "{error}");
        let text = error["msg"].as_str().unwrap();
        assert!(text.contains("netd.sock did not answer Attach within 1s"), "{text}");
    }
}

/// Reads the call, at least its beginning.
fn called(peer: &mut UnixStream) -> io::Result<()> {
    peer.read(&mut [0; 4096]).map(drop)
}

fn until_closed(peer: &mut UnixStream) -> io::Result<()> {
    io::copy(peer, &mut io::sink()).map(drop)
}

fn answer(peer: &mut UnixStream, frames: &[Vec<u8>]) -> io::Result<()> {
    called(peer)?;
    peer.write_all(&[SETTINGS, &frames.concat()].concat())?;
    until_closed(peer)
}

#[test]
fn it_closes() {
    let reasons = ["netd closed the connection", "was reset"];
    lost(|_| Ok(()), &reasons);
    lost(|peer| peer.read_exact(&mut [0; 24]), &reasons);
    let mid_answer: Behaviour = |peer| {
        called(peer)?;
        peer.write_all(&[SETTINGS, &frame(1, 0x4, 1, OK), &[0, 0, 100, 0]].concat())
    };
    lost(mid_answer, &reasons);
    let good_bye: Behaviour = |peer| {
        called(peer)?;
        peer.write_all(&[SETTINGS, &frame(7, 0, 0, &[0, 0, 0, 0, 0, 0, 0, 11])].concat())
    };
    lost(good_bye, &["netd closes the connection: ENHANCE_YOUR_CALM"]);
    let good_bye_later: Behaviour = |peer| {
        called(peer)?;
        peer.write_all(&[SETTINGS, &frame(7, 0, 0, &[0x7f, 255, 255, 255, 0, 0, 0, 0])].concat())
    };
    lost(good_bye_later, &reasons);
}

#[test]
fn it_speaks_something_else() {
    lost(
        |peer| {
            called(peer)?;
            peer.write_all(b"HTTP/1.1 400 Bad Request\r\ncontent-length: 0\r\n\r\n")?;
            until_closed(peer)
        },
        &["its answer is not HTTP/2"],
    );
    // Also without a look at what was asked.
    let reasons = ["its answer is not HTTP/2"];
    lost(|peer| peer.write_all(&[0xa5; 1 << 20]), &reasons);
    lost(|peer| peer.write_all("GET / ".repeat(200_000).as_bytes()), &reasons);
}

#[test]
fn it_says_nothing() {
    late(until_closed);
}

#[test]
fn it_never_comes_to_an_end() {
    late(|peer| {
        called(peer)?;
        peer.write_all(&[SETTINGS, &[0, 0x40, 0, 0, 0, 0, 0, 0, 1]].concat())?;
        peer.set_read_timeout(Some(Duration::from_millis(5)))?;
        while !matches!(peer.read(&mut [0; 64]), Ok(0)) {
            peer.write_all(b"x")?;
        }
        Ok(())
    });
    late(|peer| {
        called(peer)?;
        let begun = [SETTINGS, &frame(1, 0, 1, OK)].concat();
        peer.write_all(&begun)?;
        loop {
            peer.write_all(&frame(9, 0, 1, b"").repeat(100))?;
        }
    });
}

#[test]
fn it_floods() {
    const PINGS: usize = 1_000;
    // It does not read the answers.
    late(|peer| {
        loop {
            peer.write_all(&[SETTINGS, &frame(6, 0, 0, b"12345678").repeat(PINGS)].concat())?;
        }
    });
    // It reads them.
    late(|peer| {
        let mut reader = peer.try_clone()?;
        thread::spawn(move || until_closed(&mut reader));
        loop {
            peer.write_all(&[SETTINGS, &frame(6, 0, 0, b"12345678").repeat(PINGS)].concat())?;
        }
    });
    let blocks: Behaviour = |peer| {
        called(peer)?;
        peer.write_all(SETTINGS)?;
        loop {
            peer.write_all(&frame(1, 0x4, 1, &[0x88; 1_000]))?;
        }
    };
    lost(blocks, &["headers have more than 65536 bytes"]);
    let padding: Behaviour = |peer| {
        called(peer)?;
        peer.write_all(&[SETTINGS, &frame(1, 0x4, 1, OK)].concat())?;
        loop {
            peer.write_all(&frame(0, 0x8, 1, &[&[255][..], &[0; 255]].concat()).repeat(16))?;
        }
    };
    lost(padding, &["answer has more than 4194304 bytes"]);
}

#[test]
fn it_answers_what_is_no_answer() {
    let unusable = |behave, what: &str| {
        for error in against(behave) {
            assert_eq!(error["code"], 103, "{error}");
            let text = error["msg"].as_str().unwrap();
            assert_eq!(text, format!("netd's answer is unusable: the answer to Attach {what}"));
            assert!(error["details"].as_str().unwrap().contains("same version"), "{error}");
        }
    };
    unusable(|peer| answer(peer, &[frame(1, LAST, 1, OK)]), "has no grpc-status");
    unusable(
        |peer| {
            let trailers = frame(1, LAST, 1, &field("grpc-status", "0"));
            answer(peer, &[frame(1, 0x4, 1, OK), frame(0, 0, 1, b"\x01\0\0\0\x01a"), trailers])
        },
        "is compressed",
    );
    for error in against(|peer| answer(peer, &[frame(1, LAST, 1, &field(":status", "502"))])) {
        assert_eq!(
            (&error["code"], &error["msg"]),
            (&json!(11), &json!("netd refused Attach: HTTP status 502"))
        );
    }
}

fn refusal() -> Vec<u8> {
    let text = field("grpc-message", "the pool is full: 10.0.0.0%2F30, 100%25 %E2%82%AC");
    frame(1, LAST, 1, &[OK, &field("grpc-status", "8"), &text].concat())
}

#[test]
fn a_refusal_counts_however_it_is_sent() {
    let behaviours: [Behaviour; 4] = [
        |peer| answer(peer, &[refusal()]),
        // Nobody reads what was asked.
        |peer| peer.write_all(&[SETTINGS, &refusal()].concat()),
        // The rest of the body is not wanted; the connection is not to be used again.
        |peer| answer(peer, &[refusal(), frame(3, 0, 1, &[0; 4]), frame(7, 0, 0, &[0; 8])]),
        |peer| {
            called(peer)?;
            for byte in [SETTINGS, &refusal()].concat() {
                peer.write_all(&[byte])?;
            }
            until_closed(peer)
        },
    ];
    for behave in behaviours {
        for error in against(behave) {
            assert_eq!(
                (&error["code"], &error["details"]),
                (&json!(11), &json!("ResourceExhausted"))
            );
            let text = "netd refused Attach: the pool is full: 10.0.0.0/30, 100% \u{20ac}";
            assert_eq!(error["msg"], text);
        }
    }
}

/// Runs each with a shell's redirections.
fn redirected(netd: &Netd, how: &str) -> Vec<(bool, Output)> {
    let run = |program: std::path::PathBuf| {
        let line = format!("exec {} {how}", program.display());
        let stdin = config(&netd.socket()).to_string();
        let output = execute(Path::new("/bin/sh"), &["-c", &line], &ENV, stdin.as_bytes());
        (program.ends_with("netd-cni"), output)
    };
    plugins().into_iter().map(run).collect()
}

#[test]
fn a_stream_is_closed() {
    let netd = Netd::ready();
    for (bare, output) in redirected(&netd, "<&-") {
        // Where there is std it opens /dev/null instead.
        assert_eq!(code(&output), if bare { 5 } else { 6 }, "{output:?}");
        assert!(json(&output)["msg"].as_str().unwrap().contains("the configuration on stdin"));
    }
    assert!(netd.asked().is_empty());
    for (_, output) in redirected(&netd, "2>&-") {
        assert!(output.status.success() && json(&output)["ips"].is_array(), "{output:?}");
    }
    let asked = netd.asked().len();
    for (bare, output) in redirected(&netd, ">&-") {
        assert_eq!(output.status.code(), Some(i32::from(bare)), "{output:?}");
        let said = String::from_utf8(output.stderr).unwrap();
        assert_eq!(said.contains("can't write the result to stdout: it is closed"), bare, "{said}");
    }
    // Only the one that could not see it asked.
    assert_eq!(netd.asked().len(), asked + 1);
    for (_, output) in redirected(&netd, "<&- >&- 2>&-") {
        assert_eq!(output.status.code(), Some(1), "{output:?}");
    }
}

#[test]
fn nobody_reads_the_result() {
    let netd = Netd::ready();
    for program in plugins() {
        let (reader, writer) = io::pipe().unwrap();
        drop(reader);
        let mut child = Command::new(&program)
            .env_clear()
            .envs(ENV)
            .stdin(Stdio::piped())
            .stdout(writer)
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let stdin = config(&netd.socket()).to_string();
        child.stdin.take().unwrap().write_all(stdin.as_bytes()).unwrap();
        let output = child.wait_with_output().unwrap();
        assert_eq!(output.status.code(), Some(1), "{program:?} {output:?}");
        let said = String::from_utf8(output.stderr).unwrap();
        assert!(said.contains("can't write the result to stdout: "), "{said}");
    }
}

#[test]
fn input_and_environment_are_large() {
    let netd = Netd::ready();
    let mut config = config(&netd.socket());
    config["timeout"] = json!(30);
    for (size, expected) in [(3_900_000, None), (5 << 20, Some(6))] {
        config["runtimeConfig"] =
            json!({"io.kubernetes.cri.pod-annotations": {"k": "v".repeat(size)}});
        for program in plugins() {
            let output = execute(&program, &[], &ENV, config.to_string().as_bytes());
            match expected {
                Some(expected) => assert_eq!(code(&output), expected, "{program:?}"),
                None => assert!(output.status.success(), "{program:?}: {output:?}"),
            }
        }
    }
    config["runtimeConfig"] = json!({});
    let names: Vec<String> = (0..2_000).map(|n| format!("CNI_COMMAND{n}")).collect();
    let env: Vec<(&str, &str)> =
        names.iter().map(|name| (name.as_str(), "DEL")).chain(ENV).collect();
    for program in plugins() {
        let output = execute(&program, &[], &env, config.to_string().as_bytes());
        assert!(output.status.success() && json(&output)["ips"].is_array(), "{output:?}");
    }
}
