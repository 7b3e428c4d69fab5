//! Starts the daemon: builds every part from the configuration and connects them.

mod api_thread;
mod cluster;
mod error;
mod gauges;
mod listener;
mod netns_lock;
mod notify;

use std::{
    sync::{Arc, OnceLock},
    time::Duration,
};

use tokio::{net::TcpListener, sync::watch};
use tonic::service::RoutesBuilder;

use crate::api::{self, Api, Capability, DaemonInfo};
use crate::config::Config;
use crate::metrics::{Metrics, serve_metrics};
use crate::node::{self, Node};
pub(crate) use error::ServeError;
use listener::Listeners;
use netd_dataplane::{Dataplane, FirewallSettings, Settings, kernel_release};
use netd_store::{
    Store,
    embedded::{EmbeddedOptions, EmbeddedStore},
};

/// How long running calls may take after SIGTERM or SIGINT.
const DRAIN_TIMEOUT: Duration = Duration::from_secs(5);

/// Runs the daemon until SIGTERM or SIGINT. Pods keep their network when it ends.
///
/// # Errors
/// Only problems that waiting does not solve: a socket or a state directory in use, a
/// damaged store, missing privileges. Problems of single networks or pods are reported by
/// `netd status` and do not end netd.
pub(crate) async fn serve(config: Config) -> Result<(), ServeError> {
    let started_at = node::now_unix();
    let stop = stop_signal()?;
    // Before anything is read or changed: two netds must not run on one node. The store has
    // a lock of its own, for two that share a directory and no network namespace.
    tokio::spawn(netns_lock::take()?.hold_forever());
    let store = open_store(&config).await?;
    let listeners = listener::open(&config)?;
    let metrics = Arc::new(Metrics::new());
    let settings = Settings {
        underlay: config.underlay.clone(),
        firewall: FirewallSettings {
            hostport_mark: config.hostport_mark,
            kube_proxy_mark: config.kube_proxy_mark,
            memory: Some(config.run_dir.join("firewall.json")),
            ..FirewallSettings::default()
        },
        ..Settings::default()
    };
    let (dataplane, drift) = Dataplane::start(settings)?;
    let node = Node::new(config.clone(), store, dataplane, metrics.clone());
    let startup = node.start(drift).await?;
    cluster::start(&config, &node).await?;
    tracing::info!(
        endpoints = startup.endpoints,
        detaching = startup.detaching,
        quarantined = startup.quarantined,
        strays = startup.strays,
        "started"
    );
    serve_observers(&node, &metrics, stop.clone()).await?;
    let capabilities = Arc::default();
    let kernel = kernel_release().unwrap_or_else(|_| "unknown".to_owned());
    let info = DaemonInfo { kernel, capabilities, started_at };
    probe_kernel(info.capabilities.clone());
    let api = Api::new(node.clone(), info, stop.clone());
    let deadline = stopped(stop.clone());
    tokio::select! {
        served = api_thread::run(move || serve_api(api, node, listeners, stop)) => served,
        // Ends calls that take longer than that, and idle connections.
        () = async { deadline.await; tokio::time::sleep(DRAIN_TIMEOUT).await } => Ok(()),
    }
}

async fn open_store(config: &Config) -> Result<Arc<dyn Store>, ServeError> {
    for path in [&config.state_dir, &config.run_dir] {
        std::fs::create_dir_all(path)
            .map_err(|source| ServeError::Directory { path: path.clone(), source })?;
    }
    let options = EmbeddedOptions::of_this_boot(&config.state_dir, &config.run_dir)?;
    Ok(EmbeddedStore::open(options)?)
}

/// The metrics' HTTP server, and the gauges it shows.
async fn serve_observers(
    node: &Arc<Node>,
    metrics: &Arc<Metrics>,
    stop: watch::Receiver<bool>,
) -> Result<(), ServeError> {
    let Some(address) = node.config().metrics_listen else { return Ok(()) };
    let listener = TcpListener::bind(address)
        .await
        .map_err(|source| ServeError::Metrics { address, source })?;
    let watched = node.clone();
    let ready = Arc::new(move || watched.health().ready());
    tokio::spawn(serve_metrics(listener, metrics.clone(), ready, stopped(stop.clone())));
    tokio::spawn(gauges::follow(node.clone()));
    Ok(())
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
    let notifier = tokio::spawn(notify::follow(node.health().watch(), stop.clone()));
    let grpc = tonic::transport::Server::builder()
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

/// A channel whose value becomes true on SIGTERM or SIGINT.
fn stop_signal() -> Result<watch::Receiver<bool>, ServeError> {
    use tokio::signal::unix::{SignalKind, signal};
    let mut terminate = signal(SignalKind::terminate()).map_err(ServeError::Signals)?;
    let mut interrupt = signal(SignalKind::interrupt()).map_err(ServeError::Signals)?;
    let (sender, receiver) = watch::channel(false);
    tokio::spawn(async move {
        tokio::select! {
            _ = terminate.recv() => {}
            _ = interrupt.recv() => {}
        }
        tracing::info!("stopping; pods keep their network");
        sender.send_replace(true);
        // The sender must outlive every receiver: a closed channel would look like a stop.
        std::future::pending::<()>().await;
    });
    Ok(receiver)
}

async fn stopped(mut stop: watch::Receiver<bool>) {
    // An error means that the sender was dropped, which happens only with the runtime.
    let _ = stop.wait_for(|stop| *stop).await;
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
