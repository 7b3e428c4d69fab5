//! Whether an endpoint's pod is still there: what its namespace's path leads to, and what the
//! kernel says.

use std::{
    collections::HashSet,
    io,
    sync::Arc,
    time::{Duration, Instant},
};

use super::{core::Node, error::Result};
use netd_dataplane::{DataplaneError, Netns};
use netd_domain::{Endpoint, IfName};

/// How long the kernel may take to remove a namespace that nobody uses; tens of milliseconds as a
/// rule.
const TEARDOWN_TIME: Duration = Duration::from_secs(1);
/// Between two looks.
const LOOK_INTERVAL: Duration = Duration::from_millis(20);

impl Node {
    /// Whether an endpoint's pod lives, whatever its path leads to: the host's end of its pair
    /// is there as long as the namespace is that the other end is in.
    pub(super) async fn lives(&self, endpoint: &Endpoint) -> Result<bool> {
        Ok(self.living_links().await?.contains(&endpoint.wiring.host_ifname))
    }

    /// As [`Node::lives`], but of a pod that seems to be gone: the kernel takes a namespace apart
    /// some time after the last process and file that used it.
    pub(super) async fn still_lives(&self, endpoint: &Endpoint) -> Result<bool> {
        let give_up = Instant::now() + TEARDOWN_TIME;
        while self.lives(endpoint).await? {
            if Instant::now() >= give_up {
                return Ok(true);
            }
            tokio::time::sleep(LOOK_INTERVAL).await;
        }
        Ok(false)
    }

    /// The host's ends of all pairs whose other end is in another namespace.
    pub(super) async fn living_links(&self) -> Result<HashSet<IfName>> {
        let links = self.dataplane.host_links().await?.into_iter();
        Ok(links.filter(|link| link.lives && !link.detached).map(|link| link.ifname).collect())
    }
}

/// The endpoint's namespace, if its path still leads to the one that it was attached in.
///
/// # Errors
/// It can't be found out: out of descriptors, for example.
pub(super) fn own_netns(endpoint: &Endpoint) -> Result<Option<Arc<Netns>>> {
    let Some(path) = endpoint.netns_path.as_deref() else { return Ok(None) };
    match Netns::open(path) {
        Ok(netns) if endpoint.netns.is_some_and(|own| own.is_same(&netns.id())) => {
            Ok(Some(Arc::new(netns)))
        }
        // A path that leads to netd's own namespace leads to another one than the endpoint's.
        Ok(_)
        | Err(
            DataplaneError::NetnsGone { .. }
            | DataplaneError::NotANetns { .. }
            | DataplaneError::HostNetns { .. },
        ) => Ok(None),
        Err(error) => {
            tracing::warn!(endpoint = %endpoint.key, %error, "the network namespace of {} can't be opened: {error}", endpoint.key);
            Err(error.into())
        }
    }
}

/// Whether the path certainly leads to the endpoint's namespace no longer: it does not exist,
/// or is another namespace. An error (out of descriptors, no permission) does not prove that.
/// The namespace may live all the same: see [`Node::lives`].
pub(super) fn path_is_stale(endpoint: &Endpoint) -> bool {
    use std::os::unix::fs::MetadataExt as _;
    let Some(path) = &endpoint.netns_path else { return true };
    // Without an identity the runtime has not moved the link yet, so the namespace is not
    // known.
    let found = std::fs::metadata(path);
    let Some(own) = endpoint.netns else { return found.is_err_and(|e| says_missing(&e)) };
    match found {
        Ok(m) if (own.dev, own.inode) != (m.dev(), m.ino()) => true,
        // The inode may have come back; the cookie tells.
        Ok(_) if own.cookie.is_some() => {
            Netns::open(path).is_ok_and(|netns| !own.is_same(&netns.id()))
        }
        Ok(_) => false,
        Err(e) => says_missing(&e),
    }
}

/// Whether the error proves that there is nothing at the path.
fn says_missing(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory)
}
