//! A detach of a pod that netd has no record of.

use std::net::IpAddr;

use super::host_local::{self, Reservation};
use crate::node::{core::Node, error::Result};
use netd_domain::{EndpointKey, IfName, SandboxId, ids::DEFAULT_IFNAME};

impl Node {
    /// Removes the link of a pod that netd did not make, or whose record was lost, and what
    /// host-local has reserved for it. Which link it is follows from the sandbox's id, or from
    /// the address that host-local's file gives to it; another pod's is never touched.
    pub(in crate::node) async fn detach_foreign(
        &self,
        sandbox: &SandboxId,
        ifname: Option<&IfName>,
    ) -> Result<()> {
        let files = self.reserved_for(sandbox, ifname).await;
        if files.is_empty() && self.link_of_lost_record(sandbox, ifname).is_none() {
            return Ok(());
        }
        // A link may have another pod behind it than at the last look.
        self.find_foreign_pods().await?;
        let mut links = self.foreign_links(&files.iter().map(|r| r.ip).collect::<Vec<_>>());
        links.extend(self.link_of_lost_record(sandbox, ifname));
        links.sort();
        links.dedup();
        for link in &links {
            self.dataplane.remove_pod_link(link.clone()).await?;
            tracing::info!(%sandbox, link, "detached {sandbox}, of which netd has no record: removed {link}");
        }
        for Reservation { file, .. } in files {
            let removed = tokio::fs::remove_file(&file).await;
            match removed {
                Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                    tracing::warn!(%sandbox, file = %file.display(), %error, "host-local's file {} can't be removed: {error}", file.display());
                }
                _ => {
                    tracing::info!(%sandbox, file = %file.display(), "removed host-local's {}", file.display())
                }
            }
        }
        self.find_foreign_pods().await.map(drop)
    }

    async fn reserved_for(&self, sandbox: &SandboxId, ifname: Option<&IfName>) -> Vec<Reservation> {
        let Some(directory) = self.config.host_local_dir.clone() else { return Vec::new() };
        let read = move || host_local::reservations(&directory);
        let all = tokio::task::spawn_blocking(read).await.unwrap_or_default();
        let same = |own: &str| ifname.is_none_or(|asked| asked.as_str() == own);
        let own = |r: &Reservation| {
            r.container == sandbox.as_str() && r.ifname.as_deref().is_none_or(same)
        };
        all.into_iter().filter(own).collect()
    }

    /// The links behind which these addresses were seen.
    fn foreign_links(&self, ips: &[IpAddr]) -> Vec<String> {
        let held = self.state.foreign_addresses().into_iter();
        held.filter(|a| ips.contains(&a.ip)).filter_map(|a| a.holder.link).collect()
    }

    /// The link that netd made for the sandbox, if it is one of those without a record.
    fn link_of_lost_record(&self, sandbox: &SandboxId, ifname: Option<&IfName>) -> Option<String> {
        let ifname = ifname.cloned().or_else(|| DEFAULT_IFNAME.parse().ok())?;
        let host = EndpointKey { sandbox: sandbox.clone(), ifname }.host_ifname();
        let held = self.state.foreign_addresses();
        held.into_iter().filter_map(|a| a.holder.link).find(|link| link == host.as_str())
    }
}
