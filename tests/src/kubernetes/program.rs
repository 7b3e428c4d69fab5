//! Kubernetes' programs: of `KUBE_BIN`, or as tests/kubernetes/setup.sh built them.

use std::{
    env, fs,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context as _, Result, ensure};

/// Where a program is.
pub(super) fn path(name: &str) -> Result<PathBuf> {
    let given = env::var_os("KUBE_BIN").filter(|given| !given.is_empty()).map(PathBuf::from);
    let cache = || {
        let home = env::var_os("HOME").map(|home| Path::new(&home).join(".cache"));
        let cache = env::var_os("XDG_CACHE_HOME").map(PathBuf::from).or(home)?;
        Some(cache.join("netd-testbed/kubernetes/bin"))
    };
    let directory = given.or_else(cache).context("neither KUBE_BIN nor HOME is set")?;
    let path = directory.join(name);
    ensure!(fs::exists(&path)?, "{} is not there: run `make setup-kubernetes`", path.display());
    Ok(path)
}

/// `Kubernetes v1.20.2`.
pub(super) fn version() -> Result<String> {
    let output = Command::new(path("kubelet")?).arg("--version").output()?;
    Ok(String::from_utf8_lossy(&output.stdout).trim().to_owned())
}

/// The minor version: 20 of `Kubernetes v1.20.2`.
pub(super) fn minor() -> Result<u32> {
    let text = version()?;
    let minor = text.split('.').nth(1).and_then(|part| part.parse().ok());
    minor.with_context(|| format!("no version in {text:?}"))
}
