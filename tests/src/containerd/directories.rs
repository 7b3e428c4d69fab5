//! Where a host's containerd looks for CNI.

use std::path::PathBuf;

use crate::host::Host;

/// Of its conflists.
pub(crate) fn cni_config(host: &Host) -> PathBuf {
    host.directory().join("containerd/cni")
}

/// Of its plugins.
pub(crate) fn cni_plugins(host: &Host) -> PathBuf {
    host.directory().join("containerd/bin")
}
