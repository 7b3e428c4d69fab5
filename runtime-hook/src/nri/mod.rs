//! The NRI front: a plugin that containerd (1.7 and later) and CRI-O call when a pod's
//! sandbox starts, stops and is removed.
//!
//! It works beside the CNI front, which creates the pod's eth0. The plugin refuses pods whose
//! eth0 netd did not attach, passes the pods' labels and annotations to netd, and attaches the
//! additional networks of annotation [`networks::ANNOTATION`]. On connecting it sends netd the
//! runtime's whole set of pods for garbage collection. It stores nothing itself.
//!
//! [`codec`] is the framing, [`session`] one connection, [`plugin`] the requests; [`pods`] and
//! [`sync`] do the work.

use std::{
    io,
    os::{fd::FromRawFd as _, unix::net::UnixStream as StdStream},
    process::ExitCode,
    sync::Arc,
    time::Duration,
};

use netd_domain::Backoff;
use sd_notify::NotifyState;
use tokio::net::UnixStream;

pub mod codec;
#[doc(hidden)]
pub mod fuzzing;
pub mod messages;
pub mod netd;
pub mod networks;
mod options;
mod plugin;
mod pods;
mod session;
mod sync;

use messages::RegisterPluginRequest;
use netd::Netd;
use netd::UnixNetd;
pub use options::{OptionError, Options, Policy, preinstalled};
use plugin::Plugin;
pub use session::SessionError;

use crate::service;

const REDIAL_BACKOFF: Backoff = Backoff::new(Duration::from_millis(100), Duration::from_secs(10));

/// Why the front ended. An external plugin does not end when the runtime is unreachable.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// An option has a value that the runtime would refuse.
    #[error(transparent)]
    Option(#[from] OptionError),
    /// The only connection of a pre-installed plugin failed.
    #[error(transparent)]
    Session(#[from] SessionError),
}

/// Serves the runtime. An external plugin redials forever when the connection is lost; a
/// pre-installed one returns when its only connection ends.
///
/// # Errors
/// See [`Error`].
pub async fn run(options: Options) -> Result<(), Error> {
    let netd = UnixNetd::new(options.netd_socket.clone());
    run_with(options, Arc::new(netd)).await
}

/// [`run`] with another implementation of [`Netd`].
///
/// # Errors
/// See [`Error`].
pub async fn run_with(options: Options, netd: Arc<dyn Netd>) -> Result<(), Error> {
    options.check()?;
    if let Some(fd) = options.fd {
        let mut plugin = Plugin::new(netd, options.policy.clone());
        let stream = inherited(fd).map_err(SessionError::Io)?;
        return Ok(session::serve(stream, registration(&options), &mut plugin).await?);
    }
    // The runtime may start after this service, so readiness does not wait for it.
    notify(NotifyState::Ready);
    let mut backoff = REDIAL_BACKOFF;
    let mut last_problem = String::new();
    loop {
        let mut plugin = Plugin::new(Arc::clone(&netd), options.policy.clone());
        let ended = connect(&options, &mut plugin).await;
        let problem = match ended {
            Ok(()) => "the runtime closed the connection".to_owned(),
            Err(e) => e.to_string(),
        };
        if plugin.synchronized() {
            backoff.reset();
        }
        let delay = backoff.next_delay(fastrand::f64());
        // The same problem is logged once: the runtime may be stopped for a day.
        if plugin.synchronized() || problem != last_problem {
            tracing::warn!(problem, ?delay, "not connected to the runtime: {problem}; redialling");
        }
        notify(NotifyState::Status(&format!("{problem}; redialling")));
        last_problem = problem;
        tokio::time::sleep(delay).await;
    }
}

/// Serves until SIGTERM: as a pre-installed plugin if the runtime's environment variables say
/// so, else with `options`.
pub fn main(options: Option<Options>) -> ExitCode {
    service::main("nri", async {
        let Some(options) = preinstalled().or(options) else {
            return Err("it was started neither by a runtime nor with options".to_owned());
        };
        tokio::select! {
            ended = run(options) => ended.map_err(|e| e.to_string()),
            () = service::terminated() => Ok(()),
        }
    })
}

async fn connect(options: &Options, plugin: &mut Plugin) -> Result<(), SessionError> {
    let stream = UnixStream::connect(&options.socket).await.map_err(|e| {
        let path = options.socket.display();
        let text = format!("can't connect to {path}: {e}; is the runtime up, with NRI enabled?");
        io::Error::new(e.kind(), text)
    })?;
    notify(NotifyState::Status("connected to the runtime"));
    session::serve(stream, registration(options), plugin).await
}

fn registration(options: &Options) -> RegisterPluginRequest {
    RegisterPluginRequest { plugin_name: options.name.clone(), plugin_idx: options.idx.clone() }
}

/// The connection that the runtime opened before it started this plugin.
fn inherited(fd: i32) -> io::Result<UnixStream> {
    // SAFETY: [`Options::check`] saw that it is an open socket; the runtime made it
    // for this plugin, and nothing else in this process uses or closes it.
    let stream = unsafe { StdStream::from_raw_fd(fd) };
    stream.set_nonblocking(true)?;
    UnixStream::from_std(stream)
}

/// Tells systemd, if it started this service.
fn notify(state: NotifyState) {
    let _no_systemd = sd_notify::notify(&[state]);
}
