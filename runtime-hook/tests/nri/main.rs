//! The NRI front between a fake containerd and a fake netd.
#![allow(clippy::unwrap_used)]

mod containerd;
mod events;
mod netd;
mod protocol;
mod real_socket;

use std::sync::Arc;

use containerd::Listener;
use netd::FakeNetd;
use runtime_hook::nri::{self, Options, Policy};
use tokio::task::JoinHandle;

/// A running front; ends with the test.
struct Front(JoinHandle<Result<(), nri::Error>>);

impl Drop for Front {
    fn drop(&mut self) {
        self.0.abort();
    }
}

fn start(listener: &Listener, netd: &FakeNetd, policy: Policy) -> Front {
    let options = Options { socket: listener.path.clone(), policy, ..Options::default() };
    Front(tokio::spawn(nri::run_with(options, Arc::new(netd.clone()))))
}
