//! Kubernetes' programs: of `KUBE_BIN`, or as tests/kubernetes/setup.sh built them.

use std::{
    env, fs,
    path::{Path, PathBuf},
    process::Command,
    sync::OnceLock,
};

use anyhow::{Context as _, Result, ensure};
use serde_json::Value;

/// Where a program is.
pub(super) fn path(name: &str) -> Result<PathBuf> {
    match env::var_os("KUBE_BIN").filter(|given| !given.is_empty()) {
        Some(given) => there(Path::new(&given).join(name)),
        None => cached(name),
    }
}

fn cached(name: &str) -> Result<PathBuf> {
    let home = env::var_os("HOME").map(|home| Path::new(&home).join(".cache"));
    let cache = env::var_os("XDG_CACHE_HOME").map(PathBuf::from).or(home);
    there(cache.context("HOME is not set")?.join("netd-testbed/kubernetes/bin").join(name))
}

fn there(path: PathBuf) -> Result<PathBuf> {
    ensure!(fs::exists(&path)?, "{} is not there: run `make setup-kubernetes`", path.display());
    Ok(path)
}

/// A chart (with the namespace, and files of values) or a manifest as JSON objects. What renders
/// them comes with the Kubernetes that tests/kubernetes/setup.sh builds.
pub fn render(arguments: &[&Path]) -> Result<Vec<Value>> {
    let program = cached("render").context("`env -u KUBE_BIN make setup-kubernetes` makes it")?;
    let output = Command::new(program).args(arguments).output()?;
    ensure!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    Ok(serde_json::from_slice(&output.stdout)?)
}

/// `Kubernetes v1.20.2`.
pub(super) fn version() -> Result<String> {
    static VERSION: OnceLock<String> = OnceLock::new();
    if let Some(known) = VERSION.get() {
        return Ok(known.clone());
    }
    let output = Command::new(path("kubelet")?).arg("--version").output()?;
    let text = String::from_utf8_lossy(&output.stdout).trim().to_owned();
    Ok(VERSION.get_or_init(|| text).clone())
}

/// The minor version: 20 of `Kubernetes v1.20.2`.
pub(super) fn minor() -> Result<u32> {
    let text = version()?;
    let minor = text.split('.').nth(1).and_then(|part| part.parse().ok());
    minor.with_context(|| format!("no version in {text:?}"))
}

/// What lets a program know both families; since 1.23 they do without a word.
pub(super) fn dual_stack() -> Result<Option<&'static str>> {
    Ok((minor()? < 23).then_some("--feature-gates=IPv6DualStack=true"))
}

/// Where pods' addresses are, as deploy/kubernetes/netd.yaml has it; `dual`: of both families.
pub(super) fn cluster_cidr(dual: bool) -> &'static str {
    match dual {
        false => "--cluster-cidr=10.244.0.0/16",
        true => "--cluster-cidr=10.244.0.0/16,fd00:10:244::/56",
    }
}
