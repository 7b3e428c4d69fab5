//! The metrics' HTTP server and the gauges that it shows. Pods don't need them: a metrics
//! address that can't be listened on is shown in the status and tried again, and netd serves.

use std::{io, net::SocketAddr, sync::Arc, time::Duration};

use tokio::{net::TcpListener, sync::watch};

use super::notify::MAX_SILENCE;
use super::{gauges, stop::stopped};
use crate::metrics::{Metrics, Probes, serve_metrics};
use crate::node::{Health, Node};
use netd_domain::Backoff;

/// The component in `netd status`.
const COMPONENT: &str = "metrics";
/// Between two attempts to listen: an address may be freed, or appear, later.
const RETRY: Backoff = Backoff::new(Duration::from_millis(250), Duration::from_secs(15));

/// Begins to observe the node, unless the configuration turns it off.
pub(super) fn start(node: &Arc<Node>, metrics: &Arc<Metrics>, stop: &watch::Receiver<bool>) {
    let Some(address) = node.config().metrics_listen else { return };
    tokio::spawn(serve(address, node.clone(), metrics.clone(), stop.clone()));
    tokio::spawn(gauges::follow(node.clone()));
}

/// Listens as soon as it is possible, and serves until `stop` becomes true.
async fn serve(
    address: SocketAddr,
    node: Arc<Node>,
    metrics: Arc<Metrics>,
    stop: watch::Receiver<bool>,
) {
    let listener = tokio::select! {
        listener = listen(address, node.health()) => listener,
        () = stopped(stop.clone()) => return,
    };
    serve_metrics(listener, metrics, probes(node), stopped(stop)).await;
}

fn probes(node: Arc<Node>) -> Probes {
    let of_ready = node.clone();
    let alive = move || match node.health().silence() {
        silence if silence < MAX_SILENCE => Ok(()),
        silence => Err(format!("a thread has hung for {} s", silence.as_secs())),
    };
    Probes { ready: Arc::new(move || of_ready.health().ready()), alive: Arc::new(alive) }
}

async fn listen(address: SocketAddr, health: &Health) -> TcpListener {
    let mut retry = RETRY;
    loop {
        match TcpListener::bind(address).await {
            Ok(listener) => {
                health.good(COMPONENT);
                return listener;
            }
            Err(error) => health.advise(COMPONENT, problem(address, &error)),
        }
        // The whole delay: no other node tries for this address.
        tokio::time::sleep(retry.next_delay(1.0)).await;
    }
}

fn problem(address: SocketAddr, error: &io::Error) -> String {
    let cure = match error.kind() {
        io::ErrorKind::AddrInUse => {
            let port = address.port();
            format!("`ss -ltnp sport = :{port}` shows which process has it: stop that one")
        }
        io::ErrorKind::AddrNotAvailable => "this machine does not have the address now".to_owned(),
        io::ErrorKind::PermissionDenied => "ports below 1024 need CAP_NET_BIND_SERVICE".to_owned(),
        _ => "the system refused it".to_owned(),
    };
    format!(
        "metrics_listen {address}: {error}; {cure}, or set another address, or \"off\"; pods are \
         served without metrics, and netd tries again"
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_problem_names_the_address_and_a_cure() {
        let address = SocketAddr::from(([127, 0, 0, 1], 9479));
        for (errno, cure) in [
            (libc::EADDRINUSE, "sport = :9479"),
            (libc::EADDRNOTAVAIL, "does not have the address"),
            (libc::EACCES, "CAP_NET_BIND_SERVICE"),
            (libc::ENFILE, "the system refused it"),
        ] {
            let text = problem(address, &io::Error::from_raw_os_error(errno));
            assert!(text.contains("127.0.0.1:9479") && text.contains(cure), "{text}");
        }
    }
}
