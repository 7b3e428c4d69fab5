//! Looks for pods that netd has no record of: at start, before any address is given out,
//! and again and again after that.

use std::{
    cell::LazyCell,
    collections::HashSet,
    sync::{Arc, atomic::Ordering},
    time::Duration,
};

use super::{decide, host_local};
use crate::node::{
    core::Node,
    error::{Error, Result},
    queue::Target,
    state::ForeignAddress,
};
use netd_dataplane::PodLink;
use netd_domain::IfName;

/// How often netd looks while such pods are there: so long is an address not given out that
/// one of them had.
const INTERVAL: Duration = Duration::from_secs(5);
/// Where the status says what is held.
const COMPONENT: &str = "foreign-pods";
const TWICE: &str = "addresses-in-use-twice";
/// So many addresses are named there.
const MAX_SHOWN: usize = 16;

impl Node {
    /// Looks at the configured interval, and more often while there is something, until netd
    /// ends.
    pub(in crate::node) async fn watch_foreign_pods(self: Arc<Self>) {
        loop {
            let some = !self.state.foreign_addresses().is_empty();
            let interval = self.config.gc.interval;
            let wait = if some { interval.min(INTERVAL) } else { interval };
            tokio::select! {
                () = tokio::time::sleep(wait) => {}
                // Addresses that were none of a pool's may be by now.
                () = self.pools_changed.notified() => {}
            }
            if let Err(error) = self.find_foreign_pods().await {
                tracing::warn!(%error, "pods that netd has no record of can't be looked for: {error}; trying again");
            }
        }
    }

    /// Compares the kernel and host-local's files with the records: what is in use and not
    /// recorded is held, what is gone is freed, and links of netd's behind which nobody lives
    /// are removed. Returns how many of those.
    pub(in crate::node) async fn find_foreign_pods(&self) -> Result<usize> {
        let links = self.unrecorded_links().await?;
        let directory = self.config.host_local_dir.clone();
        let grace = self.config.gc.grace;
        let read = move || {
            let files = directory.as_deref().map(host_local::reservations).unwrap_or_default();
            // Listed once, and only if a file's pod does not show otherwise.
            let results = LazyCell::new(|| {
                directory.as_deref().map(host_local::kept_results).unwrap_or_default()
            });
            let lives =
                |r: &host_local::Reservation| host_local::sandbox_lives(&results, &r.container);
            let used = decide::in_use(&links, &files, grace, lives);
            (links, used)
        };
        let (links, used) = tokio::task::spawn_blocking(read)
            .await
            .map_err(|e| Error::Internal(format!("reading host-local's files: {e}")))?;
        let network = |ip: std::net::IpAddr| self.state.network_of(&ip.into());
        let mut pods: Vec<_> =
            links.iter().filter_map(|link| decide::wiring(link, network)).collect();
        pods.sort_by(|a, b| a.host_ifname.as_str().cmp(b.host_ifname.as_str()));
        let (changes, rules) = self.state.set_foreign(used, pods);
        for (ip, holder) in &changes.held {
            tracing::info!(%ip, holder, "holding {ip}: a pod that netd has no record of has it ({holder})");
        }
        for (ip, holder) in &changes.freed {
            tracing::info!(%ip, holder, "{ip} is free: the pod that had it is gone ({holder})");
        }
        if rules && self.started.load(Ordering::Relaxed) {
            self.queue.soon(Target::Firewall);
        }
        let held = self.state.foreign_addresses();
        for (part, problem) in [(COMPONENT, describe(&held)), (TWICE, describe_twice(&held))] {
            match problem {
                Some(text) => self.health.advise(part, text),
                None => self.health.forget(part),
            }
        }
        self.remove_strays().await
    }

    /// The links into pods that no record mentions.
    async fn unrecorded_links(&self) -> Result<Vec<PodLink>> {
        let bridges = self.state.networks().into_iter();
        let bridges = bridges.filter_map(|n| n.wiring.bridge.as_ref().map(|b| b.name.clone()));
        let known = self.recorded_links();
        let mut links = self.dataplane.pod_links(bridges.collect(), known).await?;
        // Attached while the kernel was asked.
        let known = self.recorded_links();
        links.retain(|link| link.ours.as_ref().is_none_or(|name| !known.contains(name)));
        Ok(links)
    }

    /// The host's links of all records, of refused ones too.
    fn recorded_links(&self) -> HashSet<IfName> {
        let recorded = self.state.endpoints();
        let recorded = recorded.iter().map(|(e, _)| e.wiring.host_ifname.clone());
        recorded.chain(self.refused_links.lock().iter().cloned()).collect()
    }

    /// Removes netd's links that no record mentions and behind which nobody lives: an attach
    /// was interrupted and rolled back, or what limited a pod is left of it. Links of refused
    /// records are left alone. Once netd has started, a pair that leads nowhere is another
    /// program's: netd's own go with their namespaces.
    async fn remove_strays(&self) -> Result<usize> {
        let before = self.recorded_links();
        let links = self.dataplane.host_links().await?;
        let mut known = self.recorded_links();
        known.extend(before);
        let mut removed = 0;
        let started = self.started.load(Ordering::Relaxed);
        let strays = links.iter().filter(|l| !l.detached && !l.lives && !known.contains(&l.ifname));
        let strays = strays.filter(|l| !(started && l.is_pair));
        for link in strays {
            match self.dataplane.remove_stray(&link.ifname).await {
                Ok(()) => {
                    tracing::warn!(link = %link.ifname, "removed link {}: no record mentions it, and it leads nowhere", link.ifname);
                    removed += 1;
                }
                Err(error) => tracing::warn!(link = %link.ifname, %error,
                    "link {}, which no record mentions, can't be removed: {error}", link.ifname),
            }
        }
        if !started && links.iter().any(|l| l.detached) {
            self.dataplane.delete_detached().await?;
        }
        Ok(removed)
    }
}

/// What the status says; `None`: nothing is held.
fn describe(held: &[ForeignAddress]) -> Option<String> {
    held.first()?;
    let named = held
        .iter()
        .take(MAX_SHOWN)
        .map(|a| format!("{} of network {} ({})", a.ip, a.network, a.holder));
    let named = named.collect::<Vec<_>>().join(", ");
    let more = held.len().saturating_sub(MAX_SHOWN);
    let more = if more > 0 { format!(", and {more} more") } else { String::new() };
    let count = held.len();
    Some(format!(
        "netd has no record of the pods that have {count} of its addresses; they are not given \
         out, and are free once these pods are deleted: {named}{more}"
    ))
}

fn describe_twice(held: &[ForeignAddress]) -> Option<String> {
    let also =
        |a: &ForeignAddress| Some(format!("{} is also endpoint {}'s", a.ip, a.endpoint.as_ref()?));
    let twice: Vec<String> = held.iter().filter_map(also).collect();
    twice.first()?;
    Some(format!("{}; delete one of the two pods", twice.join(", ")))
}
