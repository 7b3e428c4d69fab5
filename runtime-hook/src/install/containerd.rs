//! Where the node's containerd looks for plugins.

use std::{
    io::Read as _,
    path::{Path, PathBuf},
    process::{Command, Stdio},
    thread,
    time::{Duration, Instant},
};

use toml::{Table, Value};

/// Where CNI plugins are by convention.
pub(super) const DEFAULT_BIN_DIR: &str = "/opt/cni/bin";

/// Limit of the program.
const TIMEOUT: Duration = Duration::from_secs(5);
/// Between two looks whether the program has ended.
const INTERVAL: Duration = Duration::from_millis(20);

/// The directory in which the node's containerd looks for CNI plugins: Debian's containerd has
/// /usr/lib/cni. `None`: there is no containerd, or it does not say.
pub(super) fn plugin_dir(program: &str) -> Option<PathBuf> {
    plugin_dir_in(&printed(program, &["config", "dump"])?.parse().ok()?)
}

fn plugin_dir_in(config: &Table) -> Option<PathBuf> {
    /// From containerd 2.0 on, and before.
    const CRI: [&str; 2] = ["io.containerd.cri.v1.runtime", "io.containerd.grpc.v1.cri"];
    let plugins = config.get("plugins")?.as_table()?;
    let cni = CRI.iter().find_map(|id| plugins.get(*id)?.get("cni"))?;
    let text = |value: &Value| value.as_str().filter(|dir| !dir.is_empty()).map(PathBuf::from);
    let list = cni.get("bin_dirs").and_then(Value::as_array);
    let listed: Vec<PathBuf> = list.into_iter().flatten().filter_map(text).collect();
    let usual = listed.iter().find(|dir| *dir == Path::new(DEFAULT_BIN_DIR));
    usual.or(listed.first()).cloned().or_else(|| text(cni.get("bin_dir")?))
}

/// What the program prints.
fn printed(program: &str, arguments: &[&str]) -> Option<String> {
    /// A pipe's content, which a whole configuration does not fill.
    const MOST: u64 = 64 << 10;
    let mut command = Command::new(program);
    command.args(arguments).stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::null());
    let mut child = command.spawn().ok()?;
    let end = Instant::now() + TIMEOUT;
    while child.try_wait().ok()?.is_none() {
        if Instant::now() >= end {
            drop(child.kill());
            drop(child.wait());
            return None;
        }
        #[allow(clippy::disallowed_methods)] // no async task runs on this thread
        thread::sleep(INTERVAL);
    }
    let mut text = String::new();
    child.stdout.take()?.take(MOST).read_to_string(&mut text).ok()?;
    Some(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn plugins_are_where_containerd_looks_for_them() {
        for (config, expected) in [
            ("", None),
            (
                "[plugins.'io.containerd.grpc.v1.cri'.cni]\nbin_dir = '/usr/lib/cni'",
                Some("/usr/lib/cni"),
            ),
            ("[plugins.'io.containerd.grpc.v1.cri'.cni]\nbin_dir = ''", None),
            ("[plugins.'io.containerd.cri.v1.runtime'.cni]\nbin_dirs = ['/x', '/y']", Some("/x")),
            (
                "[plugins.'io.containerd.cri.v1.runtime'.cni]\nbin_dir = ''\nbin_dirs = ['/x', '/opt/cni/bin']",
                Some("/opt/cni/bin"),
            ),
            ("[plugins.'io.containerd.cri.v1.runtime'.cni]\nbin_dir = 7", None),
        ] {
            let config = config.parse().unwrap();
            assert_eq!(plugin_dir_in(&config), expected.map(PathBuf::from), "{config}");
        }
        assert_eq!(plugin_dir("/nonexistent/containerd"), None);
    }
}
