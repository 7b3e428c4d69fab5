//! Starts the daemon: builds every part from the configuration and connects them.

mod api_thread;
mod cluster;
mod error;
mod gauges;
mod join;
mod kubernetes;
mod listener;
mod netns_lock;
mod node_subnets;
mod notify;
mod observers;
mod pods;
mod start;
mod stop;

use std::{
    sync::{Arc, OnceLock},
    time::Duration,
};

use tokio::sync::watch;
use tonic::service::RoutesBuilder;

use crate::api::{self, Api, Capability, DaemonInfo};
use crate::config::Config;
use crate::node::Node;
pub(crate) use error::ServeError;
use listener::Listeners;
use netd_dataplane::kernel_release;
use start::Started;
use stop::{stop_signal, stopped};

/// How long running calls may take after SIGTERM or SIGINT.
const DRAIN_TIMEOUT: Duration = Duration::from_secs(5);

/// A client that does not answer HTTP/2's pings is gone, or hangs: its connection is closed.
const PING_INTERVAL: Duration = Duration::from_secs(20);
const PING_TIMEOUT: Duration = Duration::from_secs(10);
/// Calls and watches of one connection at a time.
const MAX_STREAMS: u32 = 128;
/// Bytes that netd takes from one connection before a call has asked for them.
const CONNECTION_WINDOW: u32 = 256 << 10;
/// Of one call; clients send some hundred.
const MAX_HEADER_BYTES: u32 = 16 << 10;

/// Runs the daemon until SIGTERM or SIGINT. Pods keep their network when it ends.
///
/// # Errors
/// Only problems that waiting does not solve: a socket or a state directory in use, a
/// damaged store, missing privileges. Problems of single networks or pods are reported by
/// `netd status` and do not end netd.
pub(crate) async fn serve(config: Config) -> Result<(), ServeError> {
    let stop = stop_signal()?;
    let Some(started) = start::until_stopped(config, stop.clone()).await? else {
        notify::stopping().await;
        return Ok(());
    };
    let Started { node, listeners, metrics, started_at } = started;
    observers::start(&node, &metrics, &stop);
    let capabilities = Arc::default();
    let kernel = kernel_release().unwrap_or_else(|_| "unknown".to_owned());
    let info = DaemonInfo { kernel, capabilities, started_at };
    probe_kernel(info.capabilities.clone());
    let api = Api::new(node.clone(), info, stop.clone());
    let (deadline, watched) = (stopped(stop.clone()), node.clone());
    tokio::select! {
        why = watched.health().broken() => Err(ServeError::Broken(why)),
        served = api_thread::run(move || serve_api(api, node, listeners, stop)) => served,
        // Ends calls that take longer than that, and idle connections.
        () = async { deadline.await; tokio::time::sleep(DRAIN_TIMEOUT).await } => Ok(()),
    }
}

async fn serve_api(
    api: Api,
    node: Arc<Node>,
    listeners: Listeners,
    stop: watch::Receiver<bool>,
) -> Result<(), ServeError> {
    let hooks = api::hook::serve(api.clone(), listeners.hooks, stop.clone());
    let connections = api::accept(listeners.grpc);
    let connections = connections.map_err(|e| ServeError::Grpc(format!("its socket: {e}")))?;
    let mut routes = RoutesBuilder::default();
    api.add_to(&mut routes).map_err(|status| ServeError::Grpc(status.to_string()))?;
    let (reporter, health) = tonic_health::server::health_reporter();
    routes.add_service(health);
    let mut ready = node.health().watch();
    // The reporter begins with "serving", so it is corrected before the first connection.
    tell_health(&reporter, &mut ready).await;
    tokio::spawn(async move {
        while ready.changed().await.is_ok() {
            tell_health(&reporter, &mut ready).await;
        }
    });
    // On the API's thread, so that systemd's watchdog notices when calls get no answer.
    let notifier = tokio::spawn(notify::follow(node, stop.clone()));
    let grpc = tonic::transport::Server::builder()
        .http2_keepalive_interval(Some(PING_INTERVAL))
        .http2_keepalive_timeout(Some(PING_TIMEOUT))
        .max_concurrent_streams(MAX_STREAMS)
        .initial_connection_window_size(CONNECTION_WINDOW)
        .http2_max_header_list_size(MAX_HEADER_BYTES)
        .layer(api::CallLimits::new())
        .add_routes(routes.routes())
        .serve_with_incoming_shutdown(connections, stopped(stop.clone()));
    let grpc = async { grpc.await.map_err(|e| ServeError::Grpc(e.to_string())) };
    let hooks = async { hooks.await.map_err(ServeError::Hooks) };
    let served = tokio::try_join!(grpc, hooks);
    if *stop.borrow() {
        // With nothing to drain, netd could end before it has told systemd that it stops.
        let _ = notifier.await;
    }
    served.map(drop)
}

async fn tell_health(
    reporter: &tonic_health::server::HealthReporter,
    ready: &mut watch::Receiver<bool>,
) {
    let status = match *ready.borrow_and_update() {
        true => tonic_health::ServingStatus::Serving,
        false => tonic_health::ServingStatus::NotServing,
    };
    for service in ["", "netd.v1"].into_iter().chain(api::SERVICES) {
        reporter.set_service_status(service, status).await;
    }
}

/// Tries the kernel's features in the background: the start does not wait for it.
fn probe_kernel(found: Arc<OnceLock<Vec<Capability>>>) {
    tokio::task::spawn_blocking(move || {
        let all = crate::kernel_features::capabilities().into_iter();
        let all = all.map(|(name, available, detail)| Capability {
            name: name.to_owned(),
            available,
            detail,
        });
        // It can't be set already: only this task sets it.
        let _ = found.set(all.collect());
    });
}
