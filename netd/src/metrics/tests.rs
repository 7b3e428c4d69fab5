#![allow(clippy::unwrap_used)]

use std::sync::{
    Arc,
    atomic::{AtomicBool, Ordering},
};

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
    sync::oneshot,
};

use super::*;

#[test]
fn what_is_recorded_is_exposed() {
    let m = Metrics::new();
    m.step(Verb::Attach, Step::Kernel, Duration::from_micros(300));
    m.operation(Verb::Attach, tonic::Code::ResourceExhausted);
    m.set_endpoints("attached", 3);
    m.set_pool(&"default".parse().unwrap(), "fd00::/64".parse().unwrap(), u64::MAX, 7);
    m.drift_repaired("link", 2);
    m.collected(4);
    m.set_reaper_queue(5);
    m.store_commit(Duration::from_micros(60));
    let text = m.exposition();
    for line in [
        "netd_operation_step_seconds_bucket{le=\"0.0004\",verb=\"attach\",step=\"kernel\"} 1",
        "netd_operations_total{verb=\"attach\",code=\"RESOURCE_EXHAUSTED\"} 1",
        "netd_endpoints{state=\"attached\"} 3",
        "netd_pool_addresses_used{network=\"default\",subnet=\"fd00::/64\"} 7.0",
        "netd_drift_repaired_total{kind=\"link\"} 2",
        "netd_gc_collected_total 4",
        "netd_reaper_queue 5",
        "netd_store_commit_seconds_count 1",
        "# EOF",
    ] {
        assert!(text.contains(line), "{line} is not in\n{text}");
    }
    assert_eq!((m.drift("link"), m.drift("route"), m.collected_total()), (2, 0, 4));
}

#[test]
fn a_deleted_networks_pools_are_forgotten() {
    let m = Metrics::new();
    let (net, subnet) = ("blue".parse().unwrap(), "10.1.0.0/16".parse().unwrap());
    m.set_pool(&net, subnet, 10, 1);
    m.remove_pool(&net, subnet);
    assert!(!m.exposition().contains("blue"));
}

async fn ask(address: std::net::SocketAddr, request: &[u8]) -> String {
    let mut stream = TcpStream::connect(address).await.unwrap();
    stream.write_all(request).await.unwrap();
    let mut answer = vec![];
    // A reset is an answer too: the server hung up on garbage.
    let _ = stream.read_to_end(&mut answer).await;
    String::from_utf8_lossy(&answer).into_owned()
}

#[tokio::test]
async fn the_server_answers_refuses_garbage_and_stops() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let up = Arc::new(AtomicBool::new(false));
    let seen = up.clone();
    let ready = move || {
        if seen.load(Ordering::Relaxed) { Ok(()) } else { Err("store: not open yet".to_owned()) }
    };
    let hangs = Arc::new(AtomicBool::new(false));
    let seen = hangs.clone();
    let alive = move || {
        if seen.load(Ordering::Relaxed) { Err("a thread has hung".to_owned()) } else { Ok(()) }
    };
    let probes = Probes { ready: Arc::new(ready), alive: Arc::new(alive) };
    let (stop, stopped) = oneshot::channel::<()>();
    let server = tokio::spawn(serve_metrics(listener, Arc::new(Metrics::new()), probes, async {
        let _ = stopped.await;
    }));
    let get = |path: &str| format!("GET {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n");

    let answer = ask(address, get("/readyz").as_bytes()).await;
    assert!(answer.starts_with("HTTP/1.1 503") && answer.contains("store: not open"), "{answer}");
    up.store(true, Ordering::Relaxed);
    assert!(ask(address, get("/readyz").as_bytes()).await.starts_with("HTTP/1.1 200"));
    assert!(ask(address, get("/healthz").as_bytes()).await.starts_with("HTTP/1.1 200"));
    hangs.store(true, Ordering::Relaxed);
    let answer = ask(address, get("/healthz").as_bytes()).await;
    assert!(answer.starts_with("HTTP/1.1 503") && answer.contains("has hung"), "{answer}");
    assert!(ask(address, get("/x").as_bytes()).await.starts_with("HTTP/1.1 404"));
    let post = b"POST /metrics HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n";
    assert!(ask(address, post).await.starts_with("HTTP/1.1 405"));
    assert!(!ask(address, b"\x00\xff\x16\x03\x01 garbage\r\n\r\n").await.contains(" 200 "));
    let huge = format!("GET / HTTP/1.1\r\nX: {}\r\n\r\n", "a".repeat(1 << 20));
    assert!(!ask(address, huge.as_bytes()).await.contains(" 200 "));

    let answer = ask(address, get("/metrics").as_bytes()).await;
    assert!(answer.contains("openmetrics-text") && answer.ends_with("# EOF\n"), "{answer}");
    stop.send(()).unwrap();
    server.await.unwrap();
}
