//! At netd's socket is a process that is not netd, or around the plugin a world that is not
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
use netd_api::ttrpc::{self, Response, Status};
use prost::Message as _;
use serde_json::{Value, json};

const ENV: [(&str, &str); 4] = [
    ("CNI_COMMAND", "ADD"),
    ("CNI_CONTAINERID", "abc"),
    ("CNI_NETNS", common::NETNS),
    ("CNI_IFNAME", "eth0"),
];
type Behaviour = fn(&mut UnixStream) -> io::Result<()>;

/// The frame of an answer to the plugin's first call.
fn answer(status: Option<Status>, payload: &[u8]) -> Vec<u8> {
    let response = Response { status, payload: payload.to_vec() };
    ttrpc::encode(1, ttrpc::RESPONSE, &response.encode_to_vec())
}

fn head(length: u32, stream: u32, kind: u8) -> Vec<u8> {
    [&length.to_be_bytes()[..], &stream.to_be_bytes(), &[kind, 0]].concat()
}

fn config(socket: &Path) -> Value {
    json!({"cniVersion": "1.1.0", "name": "n", "socket": socket, "timeout": 1})
}

/// The error of each plugin's ADD, for which it took not much more than its second and
/// some megabytes.
fn against(behave: Behaviour) -> Vec<Value> {
    let dir = tempfile::tempdir().unwrap();
    let socket = dir.path().join("hook.sock");
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
        assert!(text.contains("hook.sock did not answer Attach within 1s"), "{text}");
    }
}

/// Reads the call, at least its beginning.
fn called(peer: &mut UnixStream) -> io::Result<()> {
    peer.read(&mut [0; 4096]).map(drop)
}

fn until_closed(peer: &mut UnixStream) -> io::Result<()> {
    io::copy(peer, &mut io::sink()).map(drop)
}

fn answers(peer: &mut UnixStream, bytes: &[u8]) -> io::Result<()> {
    called(peer)?;
    peer.write_all(bytes)?;
    until_closed(peer)
}

const CLOSED: [&str; 2] = ["netd closed the connection", "was reset"];
const NOT_TTRPC: [&str; 1] = ["its answer is not ttrpc"];

#[test]
fn it_closes() {
    lost(|_| Ok(()), &CLOSED);
    lost(|peer| peer.read_exact(&mut [0; 24]), &CLOSED);
    lost(called, &CLOSED);
    // In the middle of a head, and of a message.
    let mid_head: Behaviour = |peer| {
        called(peer)?;
        peer.write_all(&head(100, 1, ttrpc::RESPONSE)[..7])
    };
    lost(mid_head, &CLOSED);
    let mid_answer: Behaviour = |peer| {
        called(peer)?;
        peer.write_all(&[head(100, 1, ttrpc::RESPONSE), vec![0; 99]].concat())
    };
    lost(mid_answer, &CLOSED);
}

#[test]
fn it_speaks_something_else() {
    lost(
        |peer| answers(peer, b"HTTP/1.1 400 Bad Request\r\ncontent-length: 0\r\n\r\n"),
        &NOT_TTRPC,
    );
    // As a gRPC server does.
    lost(|peer| answers(peer, &[0, 0, 0, 4, 0, 0, 0, 0, 0, 0]), &NOT_TTRPC);
    // Also without a look at what was asked.
    lost(|peer| peer.write_all(&[0xa5; 1 << 20]), &NOT_TTRPC);
    lost(|peer| peer.write_all("GET / ".repeat(200_000).as_bytes()), &NOT_TTRPC);
}

#[test]
fn it_answers_another_call_or_calls_itself() {
    lost(|peer| answers(peer, &ttrpc::encode(3, ttrpc::RESPONSE, b"")), &NOT_TTRPC);
    lost(|peer| answers(peer, &ttrpc::encode(0, ttrpc::RESPONSE, b"")), &NOT_TTRPC);
    lost(|peer| answers(peer, &ttrpc::encode(1, ttrpc::REQUEST, b"")), &NOT_TTRPC);
    lost(|peer| answers(peer, &ttrpc::encode(1, 3, b"")), &NOT_TTRPC);
}

#[test]
fn it_says_nothing() {
    late(until_closed);
}

/// More than the socket holds, so the call itself is never sent whole.
#[test]
fn it_does_not_read() {
    let dir = tempfile::tempdir().unwrap();
    let socket = dir.path().join("hook.sock");
    let listener = UnixListener::bind(&socket).unwrap();
    let mut config = config(&socket);
    config["runtimeConfig"] =
        json!({"io.kubernetes.cri.pod-annotations": {"k": "v".repeat(3_000_000)}});
    for program in plugins() {
        let start = Instant::now();
        let output = execute(&program, &[], &ENV, config.to_string().as_bytes());
        assert_eq!(code(&output), 11, "{output:?}");
        let said = json(&output)["msg"].as_str().unwrap().to_owned();
        assert!(said.contains("did not answer Attach within 1s"), "{said}");
        assert!(start.elapsed() < Duration::from_millis(2500), "{:?}", start.elapsed());
    }
    drop(listener);
}

#[test]
fn it_never_comes_to_an_end() {
    late(|peer| {
        called(peer)?;
        peer.write_all(&head(4 << 20, 1, ttrpc::RESPONSE))?;
        peer.set_read_timeout(Some(Duration::from_millis(5)))?;
        while !matches!(peer.read(&mut [0; 64]), Ok(0)) {
            peer.write_all(b"x")?;
        }
        Ok(())
    });
    late(|peer| {
        called(peer)?;
        peer.write_all(&[0, 0, 0])?;
        until_closed(peer)
    });
}

#[test]
fn it_floods() {
    // Whole answers, the first of which counts; here it is none of this call's.
    lost(
        |peer| {
            loop {
                peer.write_all(&ttrpc::encode(3, ttrpc::RESPONSE, b"").repeat(1000))?;
            }
        },
        &NOT_TTRPC,
    );
    let too_long: Behaviour = |peer| {
        called(peer)?;
        peer.write_all(&head((4 << 20) + 1, 1, ttrpc::RESPONSE))?;
        loop {
            peer.write_all(&[0; 4096])?;
        }
    };
    lost(too_long, &["answer has more than 4194304 bytes"]);
    let longest: Behaviour = |peer| {
        called(peer)?;
        peer.write_all(&head(4 << 20, 1, ttrpc::RESPONSE))?;
        peer.write_all(&vec![0xff; 4 << 20])?;
        until_closed(peer)
    };
    unusable(longest, "is no ttrpc response: ");
}

fn unusable(behave: Behaviour, what: &str) {
    for error in against(behave) {
        assert_eq!(error["code"], 103, "{error}");
        let text = error["msg"].as_str().unwrap();
        let begin = format!("netd's answer is unusable: the answer to Attach {what}");
        assert!(text.starts_with(&begin), "{text}");
        assert!(error["details"].as_str().unwrap().contains("same version"), "{error}");
    }
}

#[test]
fn it_answers_what_is_no_answer() {
    unusable(
        |peer| answers(peer, &ttrpc::encode(1, ttrpc::RESPONSE, &[0xff; 20])),
        "is no ttrpc response: ",
    );
    unusable(|peer| answers(peer, &answer(None, &[0xff; 20])), "can't be decoded: ");
    // A success that says nothing.
    unusable(|peer| answers(peer, &answer(None, b"")), "holds no endpoint");
    unusable(|peer| answers(peer, &ttrpc::encode(1, ttrpc::RESPONSE, b"")), "holds no endpoint");
}

fn refusal() -> Vec<u8> {
    let text = "the pool is full: 10.0.0.0/30, 100% \u{20ac}";
    answer(Some(Status::new(8, text)), b"")
}

#[test]
fn a_refusal_counts_however_it_is_sent() {
    let behaviours: [Behaviour; 4] = [
        |peer| answers(peer, &refusal()),
        // Nobody reads what was asked.
        |peer| peer.write_all(&refusal()),
        // What follows is not wanted.
        |peer| answers(peer, &[refusal(), vec![0xff; 100]].concat()),
        |peer| {
            called(peer)?;
            for byte in refusal() {
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
