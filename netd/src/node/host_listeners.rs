//! Host ports on which a process of the host listens too: its clients reach the pod.

use std::{sync::Arc, time::Duration};

use super::{
    core::Node,
    error::{Error, Result},
    state::KernelStatus,
};
use netd_dataplane::HostListener;
use netd_domain::{Endpoint, HostPort, PortMapping, Wiring};

/// Between two looks at the host's sockets. No event tells that a process listens.
const LOOK_INTERVAL: Duration = Duration::from_secs(60);

impl Node {
    /// Refuses new host ports on which a process listens. `old`: ports that the endpoint has
    /// already.
    ///
    /// # Errors
    /// [`Error::PortListened`] of the first one.
    pub(super) async fn refuse_listened(
        &self,
        wiring: &Arc<Wiring>,
        old: &[PortMapping],
    ) -> Result<()> {
        if wiring.port_mappings.is_empty() {
            return Ok(());
        }
        let had = |listener: &HostListener| {
            let HostPort { port, protocol, .. } = listener.port;
            old.iter().any(|mapping| (mapping.host_port, mapping.protocol) == (port, protocol))
        };
        let found = self.listeners(wiring).await;
        let new = found.into_iter().find(|listener| !had(listener));
        new.map_or(Ok(()), |listener| Err(Error::PortListened(listener)))
    }

    /// What is wrong with the host ports of an endpoint, in words.
    pub async fn host_port_conflicts(&self, endpoint: &Endpoint) -> Vec<String> {
        if endpoint.wiring.port_mappings.is_empty() {
            return Vec::new();
        }
        self.listeners(&endpoint.wiring).await.iter().map(in_words).collect()
    }

    /// That the sockets can't be listed keeps no pod from its host ports.
    async fn listeners(&self, wiring: &Arc<Wiring>) -> Vec<HostListener> {
        self.dataplane.host_listeners(wiring.clone()).await.unwrap_or_else(|error| {
            tracing::warn!(%error, "{error}; conflicts of host ports go unnoticed");
            Vec::new()
        })
    }

    /// Tells in the log and the status which running pods have a host port on which a process
    /// began to listen, until netd ends.
    pub(super) async fn look_for_listeners_forever(self: Arc<Self>) {
        let mut told: Vec<String> = Vec::new();
        loop {
            let mut now = Vec::new();
            for (endpoint, status) in self.state.endpoints() {
                if status != KernelStatus::Attached {
                    continue;
                }
                let conflicts = self.host_port_conflicts(&endpoint).await;
                if !conflicts.is_empty() {
                    let part = format!("host-ports/{}", endpoint.key);
                    self.health.advise(&part, conflicts.join("; "));
                    now.push(part);
                }
            }
            told.iter().filter(|part| !now.contains(part)).for_each(|p| self.health.forget(p));
            told = now;
            tokio::time::sleep(LOOK_INTERVAL).await;
        }
    }
}

fn in_words(listener: &HostListener) -> String {
    format!(
        "a process of user {} listens on {}, but its clients reach the pod by host port {}",
        listener.uid, listener.address, listener.port
    )
}
