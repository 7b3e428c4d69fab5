//! The NRI front: a plugin that containerd (1.7 and later) and CRI-O call when a
//! pod's sandbox runs, stops and goes.
//!
//! It is the second front beside CNI, which makes the pod's eth0. The plugin
//! refuses pods whose eth0 netd did not attach, tells netd the pods' labels and
//! annotations, attaches the additional networks of annotation
//! [`networks::ANNOTATION`], and on connecting hands netd the runtime's whole set
//! of pods for its garbage collection. It holds no state of its own.
//!
//! [`codec`] is the wire, [`session`] one connection, [`plugin`] the requests,
//! [`pods`] and [`sync`] what they do.

use std::{
    os::{fd::FromRawFd as _, unix::net::UnixStream as StdStream},
    process::ExitCode,
    sync::Arc,
};

use sd_notify::NotifyState;
use tokio::net::UnixStream;

mod backoff;
pub mod codec;
#[doc(hidden)]
pub mod fuzzing;
pub mod messages;
pub mod netd;
pub mod networks;
mod options;
pub mod plugin;
pub mod pods;
pub mod session;
pub mod sync;

use backoff::Backoff;
use messages::RegisterPluginRequest;
use netd::Netd;
use netd::UnixNetd;
pub use options::{Options, Policy, preinstalled};
use plugin::Plugin;
use session::SessionError;

/// Why the front gave up. A runtime that is away is no reason.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// An option that can't work.
    #[error("{option}: {value:?}: {rule}")]
    Option {
        /// The flag or the variable.
        option: &'static str,
        /// Its value.
        value: String,
        /// What is right.
        rule: String,
    },
    /// The one connection of a pre-installed plugin ended badly.
    #[error(transparent)]
    Session(#[from] SessionError),
}

/// Serves the runtime: for ever as an external plugin, redialling whenever the
/// connection is lost; for one connection as a pre-installed one.
///
/// # Errors
/// See [`Error`].
pub async fn run(options: Options) -> Result<(), Error> {
    let netd = UnixNetd::new(options.netd_socket.clone());
    run_with(options, Arc::new(netd)).await
}

/// [`run`] with any netd.
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
    // Ready to serve a runtime as soon as there is one: it may start after us.
    notify(NotifyState::Ready);
    let mut backoff = Backoff::default();
    let mut last_problem = String::new();
    loop {
        let mut plugin = Plugin::new(Arc::clone(&netd), options.policy.clone());
        let ended = connect(&options, &mut plugin).await;
        let problem = match ended {
            Ok(()) => "the connection ended".to_owned(),
            Err(e) => e.to_string(),
        };
        if plugin.synchronized() {
            backoff = Backoff::default();
        }
        let delay = backoff.next();
        // A runtime that is off for a day must not fill the log.
        if plugin.synchronized() || problem != last_problem {
            tracing::warn!(problem, ?delay, "not connected to the runtime; trying again");
        }
        notify(NotifyState::Status(&format!("{problem}; trying again")));
        last_problem = problem;
        tokio::time::sleep(delay).await;
    }
}

/// The front as a process: pre-installed by the runtime if its environment says so,
/// else with `options`.
pub fn main(options: Option<Options>) -> ExitCode {
    tracing_subscriber::fmt()
        .with_max_level(tracing::Level::INFO)
        .with_writer(std::io::stderr)
        .with_ansi(false)
        .init();
    let Some(options) = preinstalled().or(options) else {
        eprintln!("netd-hook nri: neither options nor a runtime that started it");
        return ExitCode::FAILURE;
    };
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let ended = runtime.map_err(|e| e.to_string()).and_then(|runtime| {
        let served = async {
            tokio::select! {
                ended = run(options) => ended.map_err(|e| e.to_string()),
                () = terminated() => Ok(()),
            }
        };
        runtime.block_on(served)
    });
    match ended {
        Ok(()) => ExitCode::SUCCESS,
        Err(problem) => {
            eprintln!("netd-hook nri: {problem}");
            ExitCode::FAILURE
        }
    }
}

/// Told to stop; without a handler the default, to die, is as good.
async fn terminated() {
    use tokio::signal::unix::{SignalKind, signal};
    match signal(SignalKind::terminate()) {
        Ok(mut signal) => {
            signal.recv().await;
        }
        Err(_) => std::future::pending().await,
    }
}

async fn connect(options: &Options, plugin: &mut Plugin) -> Result<(), SessionError> {
    let stream = UnixStream::connect(&options.socket).await.map_err(|e| {
        let path = options.socket.display();
        std::io::Error::new(e.kind(), format!("{path}: {e}; is the runtime up, with NRI enabled?"))
    })?;
    notify(NotifyState::Status("connected to the runtime"));
    session::serve(stream, registration(options), plugin).await
}

fn registration(options: &Options) -> RegisterPluginRequest {
    RegisterPluginRequest { plugin_name: options.name.clone(), plugin_idx: options.idx.clone() }
}

/// The connection that the runtime left open for us.
fn inherited(fd: i32) -> std::io::Result<UnixStream> {
    // SAFETY: [`Options::check`] saw that it is an open socket; the runtime made it
    // for this plugin, and nothing else in this process uses or closes it.
    let stream = unsafe { StdStream::from_raw_fd(fd) };
    stream.set_nonblocking(true)?;
    UnixStream::from_std(stream)
}

/// Tells systemd, if it listens; a failure is nobody's concern.
fn notify(state: NotifyState) {
    let _unheard = sd_notify::notify(&[state]);
}
