//! The Docker front's HTTP, as a client that dockerd is not would use it. No netd: what is
//! asked here needs none.
#![allow(clippy::unwrap_used)]

use std::{path::PathBuf, time::Duration};

use runtime_hook::docker::{NetdClient, server};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{UnixListener, UnixStream},
    time::Instant,
};

const ACTIVATE: &str = "POST /Plugin.Activate HTTP/1.1\r\nHost: x\r\nContent-Length: 0\r\n\r\n";

struct Front {
    socket: PathBuf,
    _directory: tempfile::TempDir,
}

impl Front {
    fn start() -> Self {
        let directory = tempfile::tempdir().unwrap();
        let socket = directory.path().join("front.sock");
        let listener = UnixListener::bind(&socket).unwrap();
        let netd = NetdClient::new(&directory.path().join("no-netd.sock"));
        tokio::spawn(server::serve(listener, netd));
        Self { socket, _directory: directory }
    }

    async fn connect(&self) -> UnixStream {
        UnixStream::connect(&self.socket).await.unwrap()
    }
}

/// One answer: its head, and as much of its body as its length says.
async fn answer(stream: &mut UnixStream) -> String {
    let mut all = Vec::new();
    loop {
        let text = String::from_utf8_lossy(&all).into_owned();
        if let Some((head, body)) = text.split_once("\r\n\r\n") {
            let head = head.to_lowercase();
            let length = head.split("content-length: ").nth(1).unwrap().lines().next().unwrap();
            if body.len() >= length.parse().unwrap() {
                return text;
            }
        }
        let read = stream.read_buf(&mut all).await.unwrap();
        assert!(read > 0, "closed after {text:?}");
    }
}

async fn rest(stream: &mut UnixStream) -> String {
    let mut all = Vec::new();
    // What was not read when it is closed resets it, after the answer.
    drop(stream.read_to_end(&mut all).await);
    String::from_utf8_lossy(&all).into_owned()
}

#[tokio::test]
async fn a_connection_takes_one_call_after_another() {
    let front = Front::start();
    let mut stream = front.connect().await;
    for _ in 0..3 {
        stream.write_all(ACTIVATE.as_bytes()).await.unwrap();
        let text = answer(&mut stream).await;
        assert!(text.starts_with("HTTP/1.1 200"), "{text}");
        assert!(text.contains("application/vnd.docker.plugins.v1.2+json"), "{text}");
        assert!(text.contains("IpamDriver"), "{text}");
    }
}

#[tokio::test]
async fn who_has_said_all_still_gets_an_answer() {
    let front = Front::start();
    let mut stream = front.connect().await;
    stream.write_all(ACTIVATE.as_bytes()).await.unwrap();
    stream.shutdown().await.unwrap();
    assert!(rest(&mut stream).await.contains("NetworkDriver"));
}

#[tokio::test]
async fn what_is_too_long_or_no_http_is_refused() {
    let front = Front::start();
    let head = "POST /NetworkDriver.Join HTTP/1.1\r\nHost: x\r\n";
    let chunk = format!("{:x}\r\n{}\r\n", 1 << 19, " ".repeat(1 << 19));
    for (text, status) in [
        (format!("{head}Content-Length: 99999999\r\n\r\n{}", " ".repeat(2 << 20)), "413"),
        (format!("{head}Transfer-Encoding: chunked\r\n\r\n{}", chunk.repeat(4)), "413"),
        (format!("{head}X: {}\r\n\r\n", "x".repeat(1 << 20)), "431"),
        ("\u{1}\u{2}\r\n\r\n".to_owned(), "400"),
        (format!("{head}Content-Length: x\r\n\r\n"), "400"),
        (format!("{head}Content-Length: 1\r\n\r\n{{"), "400"),
    ] {
        let mut stream = front.connect().await;
        // It may be refused before its end.
        let _ = stream.write_all(text.as_bytes()).await;
        let _ = stream.shutdown().await;
        let text = rest(&mut stream).await;
        assert!(text.starts_with(&format!("HTTP/1.1 {status} ")), "not {status}: {text:.300}");
    }
}

#[tokio::test(start_paused = true)]
async fn who_says_nothing_or_not_all_is_left_after_a_while_where_there_are_many() {
    let front = Front::start();
    let start = Instant::now();
    let mut first = front.connect().await;
    let mut many = Vec::new();
    for _ in 0..127 {
        many.push(front.connect().await);
    }
    let mut silent = front.connect().await;
    assert_eq!(rest(&mut silent).await, "");
    let mut half = front.connect().await;
    half.write_all(b"POST /Plugin.Activate HTTP/1.1\r\nHost").await.unwrap();
    assert_eq!(rest(&mut half).await, "");
    let mut slow = front.connect().await;
    slow.write_all(ACTIVATE.replace(": 0", ": 9").as_bytes()).await.unwrap();
    let text = rest(&mut slow).await;
    assert!(text.starts_with("HTTP/1.1 408 ") && text.contains("\"Err\""), "{text}");
    first.write_all(ACTIVATE.as_bytes()).await.unwrap();
    assert!(answer(&mut first).await.contains("NetworkDriver"), "one of few is kept");
    let took = start.elapsed();
    assert!(took > Duration::from_secs(100) && took < Duration::from_secs(200), "{took:?}");
}

/// More than are taken at a time: the last one's turn comes when others have gone.
#[tokio::test]
async fn silent_connections_hold_up_nobody_for_ever() {
    let front = Front::start();
    let mut silent = Vec::new();
    for _ in 0..200 {
        silent.push(front.connect().await);
    }
    let mut last = front.connect().await;
    last.write_all(ACTIVATE.as_bytes()).await.unwrap();
    assert!(answer(&mut last).await.contains("NetworkDriver"));
    for _ in 0..100 {
        silent.push(front.connect().await);
    }
    let mut waits = front.connect().await;
    waits.write_all(ACTIVATE.as_bytes()).await.unwrap();
    let early = tokio::time::timeout(Duration::from_millis(200), answer(&mut waits)).await;
    assert!(early.is_err(), "taken beyond the limit");
    silent.clear();
    assert!(answer(&mut waits).await.contains("NetworkDriver"));
}
