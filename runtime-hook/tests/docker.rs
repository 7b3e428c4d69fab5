//! The Docker front: its HTTP with clients that behave unlike dockerd, and its calls of netd.
#![allow(clippy::unwrap_used)]

#[path = "common/grpc.rs"]
mod common;

use std::{
    path::{Path, PathBuf},
    time::Duration,
};

use common::{Asked, Netd, Script};
use netd_api::v1::{DetachRequest, JoinRequest, LeaveRequest, PublishRequest};
use runtime_hook::docker::{NetdClient, server};
use serde_json::{Value, json};
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
    /// Without a netd.
    fn start() -> Self {
        Self::of(Path::new("/nonexistent/netd.sock"))
    }

    fn of(netd: &Path) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let socket = directory.path().join("front.sock");
        let listener = UnixListener::bind(&socket).unwrap();
        let netd = NetdClient::new(netd);
        tokio::spawn(server::serve(listener, netd));
        Self { socket, _directory: directory }
    }

    /// Makes a call that must succeed; its document.
    async fn call(&self, method: &str, document: &Value) -> Value {
        let body = document.to_string();
        let length = body.len();
        let head =
            format!("POST /{method} HTTP/1.1\r\nHost: x\r\nContent-Length: {length}\r\n\r\n");
        let mut stream = self.connect().await;
        stream.write_all((head + &body).as_bytes()).await.unwrap();
        let text = answer(&mut stream).await;
        let (head, body) = text.split_once("\r\n\r\n").unwrap();
        assert!(head.starts_with("HTTP/1.1 200 "), "{method}: {text}");
        serde_json::from_str(body).unwrap()
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
    // Closing a connection with unread bytes resets it after the answer.
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
async fn a_half_closed_connection_still_gets_its_answer() {
    let front = Front::start();
    let mut stream = front.connect().await;
    stream.write_all(ACTIVATE.as_bytes()).await.unwrap();
    stream.shutdown().await.unwrap();
    assert!(rest(&mut stream).await.contains("NetworkDriver"));
}

#[tokio::test]
async fn long_documents_and_malformed_http_are_refused() {
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
        // The server may refuse the request before it has read all of it.
        let _ = stream.write_all(text.as_bytes()).await;
        let _ = stream.shutdown().await;
        let text = rest(&mut stream).await;
        assert!(text.starts_with(&format!("HTTP/1.1 {status} ")), "not {status}: {text:.300}");
    }
}

#[tokio::test(start_paused = true)]
async fn silent_and_incomplete_calls_time_out_while_there_are_many_connections() {
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

/// Beyond the limit a connection waits until others are closed.
#[tokio::test]
async fn silent_connections_delay_others_only_until_they_are_closed() {
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

#[tokio::test]
async fn each_call_about_an_endpoint_is_one_call_of_netd_that_carries_the_source() {
    let netd = Netd::ready();
    let front = Front::of(&netd.socket());
    let call = json!({"EndpointID": "e1", "SandboxKey": "/run/netns/x"});
    for method in ["Join", "ProgramExternalConnectivity", "RevokeExternalConnectivity", "Leave"] {
        front.call(&format!("NetworkDriver.{method}"), &call).await;
    }
    front.call("NetworkDriver.DeleteEndpoint", &call).await;
    let (endpoint_id, source) = ("e1".to_owned(), "docker".to_owned());
    let publish = |leads_out| {
        let (endpoint_id, source) = (endpoint_id.clone(), source.clone());
        Asked::Publish(PublishRequest { endpoint_id, source, leads_out, ..Default::default() })
    };
    let expected = [
        Asked::Join(JoinRequest {
            endpoint_id: endpoint_id.clone(),
            netns_path: "/run/netns/x".into(),
            source: source.clone(),
        }),
        publish(true),
        publish(false),
        Asked::Leave(LeaveRequest { endpoint_id: endpoint_id.clone(), source: source.clone() }),
        Asked::Detach(DetachRequest { sandbox_id: endpoint_id, source, ..Default::default() }),
    ];
    assert_eq!(netd.asked(), expected);
}

#[tokio::test]
async fn busy_ports_of_a_range_are_skipped_whatever_the_message_says() {
    let netd = Netd::start(Script { busy_ports: vec![9000, 9001, 9100], ..Script::default() });
    let front = Front::of(&netd.socket());
    let call = json!({"EndpointID": "e1", "Options": {"com.docker.network.portmap": [
        {"Proto": 6, "Port": 80, "HostPort": 9000, "HostPortEnd": 9003},
        {"Proto": 6, "Port": 81, "HostPort": 9100, "HostPortEnd": 9103},
    ]}});
    front.call("NetworkDriver.ProgramExternalConnectivity", &call).await;
    let tried: Vec<Vec<u32>> = netd
        .asked()
        .iter()
        .map(|asked| match asked {
            Asked::Publish(p) => p.port_mappings.iter().map(|m| m.host_port).collect(),
            other => panic!("{other:?}"),
        })
        .collect();
    assert_eq!(tried, [[9000, 9100], [9001, 9100], [9002, 9100], [9002, 9101]]);
}
