//! Which CNI version the node's containerd speaks, and where it looks for plugins.

use std::{
    io::Read as _,
    path::{Path, PathBuf},
    process::{Command, Stdio},
    thread,
    time::{Duration, Instant},
};

use toml::{Table, Value};
use tonic::{Request, Response, Status, client::Grpc, codegen::http::uri::PathAndQuery};
use tonic_prost::ProstCodec;

use crate::client::{Http2Connection, UnixClient};

/// What runtimes that are not known speak, and containerd 1.7.
const OLD: &str = "1.0.0";
/// containerd 2.0 and later: with STATUS, by which it asks netd whether pods can start.
const NEW: &str = "1.1.0";

/// Where CNI plugins are by convention.
pub(super) const DEFAULT_BIN_DIR: &str = "/opt/cni/bin";

/// Limit of each way to find out.
const TIMEOUT: Duration = Duration::from_secs(5);
/// Between two looks whether the program has ended.
const INTERVAL: Duration = Duration::from_millis(20);

/// `containerd.services.version.v1.VersionResponse`.
#[derive(Clone, PartialEq, prost::Message)]
struct VersionResponse {
    #[prost(string, tag = "1")]
    version: String,
}

/// The CNI version for the conflist: by what the containerd behind `socket` says of itself, or,
/// where none answers, by what the program `containerd` says.
pub(super) fn cni_version(socket: &Path, program: &str) -> &'static str {
    let running = asked(socket);
    match running.or_else(|| printed(program, &["--version"])).as_deref().and_then(major) {
        Some(2..) => NEW,
        _ => OLD,
    }
}

/// The major version in "containerd github.com/containerd/containerd/v2 v2.1.4 COMMIT", or in
/// "v2.1.4" or "2.1.4~ds1".
fn major(text: &str) -> Option<u32> {
    let dotted = |word: &&str| {
        let mut parts = word.trim_start_matches('v').split('.');
        parts.next().is_some_and(|part| part.parse::<u32>().is_ok()) && parts.next().is_some()
    };
    let version = text.split_whitespace().find(dotted)?.trim_start_matches('v');
    version.split('.').next()?.parse().ok()
}

/// What the containerd that runs says.
fn asked(socket: &Path) -> Option<String> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().ok()?;
    let containerd = UnixClient::lazy(socket, TIMEOUT);
    let answer = runtime.block_on(containerd.call("Version", (), version)).ok()?;
    Some(answer.version)
}

async fn version(
    connection: Http2Connection,
    request: Request<()>,
) -> Result<Response<VersionResponse>, Status> {
    let path = PathAndQuery::from_static("/containerd.services.version.v1.Version/Version");
    let mut grpc = Grpc::new(connection);
    grpc.ready().await.map_err(|error| Status::unavailable(error.to_string()))?;
    grpc.unary(request, path, ProstCodec::default()).await
}

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
    use std::{fs, os::unix::fs::PermissionsExt as _};

    #[test]
    fn the_version_is_found_in_every_form() {
        for (text, expected) in [
            ("containerd github.com/containerd/containerd/v2 v2.1.4 75cb2b7193e4", Some(2)),
            ("containerd github.com/containerd/containerd 1.7.24~ds1 1.7.24~ds1-6", Some(1)),
            ("v2.0.0-rc.3", Some(2)),
            ("1.6.20", Some(1)),
            ("containerd", None),
            ("", None),
        ] {
            assert_eq!(major(text), expected, "{text}");
        }
    }

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

    #[test]
    fn the_program_is_asked_where_no_containerd_answers_and_nothing_known_is_old() {
        let dir = tempfile::tempdir().unwrap();
        let nobody = dir.path().join("containerd.sock");
        let program = |name: &str, script: &str| {
            let path = dir.path().join(name);
            fs::write(&path, format!("#!/bin/sh\n{script}\n")).unwrap();
            fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).unwrap();
            path.display().to_string()
        };
        let new = program("new", "echo containerd x/v2 v2.1.9 abc");
        let old = program("old", "echo containerd x 1.7.24 abc");
        assert_eq!(cni_version(&nobody, &new), "1.1.0");
        assert_eq!(cni_version(&nobody, &old), "1.0.0");
        assert_eq!(cni_version(&nobody, &program("broken", "exit 1")), "1.0.0");
        assert_eq!(cni_version(&nobody, "/nonexistent/containerd"), "1.0.0");
    }
}
