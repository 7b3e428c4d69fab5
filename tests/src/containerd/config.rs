//! containerd's configuration, for both versions of its format.

use std::path::Path;

use super::version::Version;
use crate::image::PAUSE;

/// Everything below `directory`; no systemd cgroups, as systemd is not PID 1
/// where the tests run; `restrict_oom_score_adj`, as they may lack CAP_SYS_RESOURCE.
pub(super) fn text(version: Version, directory: &Path) -> String {
    let here = directory.display();
    let (format, runtime, images) = match version {
        Version::V1_7 => (
            2,
            "io.containerd.grpc.v1.cri",
            format!("[plugins.'io.containerd.grpc.v1.cri']\nsandbox_image = '{PAUSE}'"),
        ),
        Version::V2_1 => (
            3,
            "io.containerd.cri.v1.runtime",
            format!(
                "[plugins.'io.containerd.cri.v1.images'.pinned_images]\nsandbox = '{PAUSE}'\n\
                 [plugins.'io.containerd.cri.v1.runtime']"
            ),
        ),
    };
    let bin_dir = match version {
        Version::V1_7 => format!("bin_dir = '{here}/bin'"),
        Version::V2_1 => format!("bin_dirs = ['{here}/bin']"),
    };
    format!(
        "version = {format}
root = '{here}/root'
state = '{here}/state'
disabled_plugins = [
  'io.containerd.snapshotter.v1.aufs', 'io.containerd.snapshotter.v1.btrfs',
  'io.containerd.snapshotter.v1.blockfile', 'io.containerd.snapshotter.v1.devmapper',
  'io.containerd.snapshotter.v1.erofs', 'io.containerd.snapshotter.v1.zfs',
  'io.containerd.internal.v1.tracing', 'io.containerd.tracing.processor.v1.otlp',
]
[grpc]
address = '{here}/containerd.sock'
[ttrpc]
address = '{here}/containerd.sock.ttrpc'
{images}
restrict_oom_score_adj = true
disable_apparmor = true
enable_selinux = false
netns_mounts_under_state_dir = true
[plugins.'{runtime}'.cni]
{bin_dir}
conf_dir = '{here}/cni'
[plugins.'{runtime}'.containerd]
default_runtime_name = 'runc'
[plugins.'{runtime}'.containerd.runtimes.runc]
runtime_type = 'io.containerd.runc.v2'
[plugins.'{runtime}'.containerd.runtimes.runc.options]
BinaryName = '/usr/sbin/runc'
SystemdCgroup = false
[plugins.'io.containerd.nri.v1.nri']
disable = false
socket_path = '{here}/nri.sock'
plugin_path = '{here}/nri-plugins'
plugin_config_path = '{here}/nri-config'
"
    )
}
