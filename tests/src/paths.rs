//! Where the bed's parts are.

use std::{
    env,
    path::{Path, PathBuf},
    sync::Mutex,
};

use anyhow::{Context as _, Result, ensure};

/// The repository.
pub fn root() -> &'static Path {
    let tests = Path::new(env!("CARGO_MANIFEST_DIR"));
    tests.parent().unwrap_or(tests)
}

/// What `tests/setup.sh` fetched: `.testbed/NAME`.
pub fn fetched(name: &str) -> Result<PathBuf> {
    let path = root().join(".testbed").join(name);
    ensure!(path.exists(), "{} is not there: run `make setup`", path.display());
    Ok(path)
}

/// Another build's directory, from which [`built`] takes programs instead.
static OTHER_BUILD: Mutex<Option<PathBuf>> = Mutex::new(None);

/// Takes programs from `directory` from now on; `None`: from the test's own build again.
pub fn use_build(directory: Option<&Path>) {
    let mut other = OTHER_BUILD.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
    *other = directory.map(Path::to_owned);
}

/// A binary of this workspace, from the same build as the running test unless [`use_build`] or
/// `NETD_TEST_BUILD` (a directory) named another.
pub fn built(name: &str) -> Result<PathBuf> {
    let other = OTHER_BUILD.lock().unwrap_or_else(std::sync::PoisonError::into_inner).clone();
    let given = || env::var_os("NETD_TEST_BUILD").filter(|given| !given.is_empty());
    if let Some(directory) = other.or_else(|| given().map(PathBuf::from)) {
        let path = directory.join(name);
        ensure!(path.exists(), "{} is not built", path.display());
        return Ok(path);
    }
    let here = env::current_exe().context("path of the test's own executable")?;
    let profile = here
        .ancestors()
        .skip(1)
        .find(|directory| directory.file_name().is_some_and(|name| name != "deps"))
        .context("the test's executable is in no build directory")?;
    let path = profile.join(name);
    ensure!(path.exists(), "{} is not built: run `make build`", path.display());
    Ok(path)
}

/// The newest test program of the same build as the running test's, by the name of its test.
pub fn test_program(name: &str) -> Result<PathBuf> {
    let here = env::current_exe().context("path of the test's own executable")?;
    let directory = here.parent().context("the test's executable is in no directory")?;
    let prefix = format!("{name}-");
    let mut found = vec![];
    for entry in directory.read_dir()? {
        let path = entry?.path();
        let file = path.file_name().unwrap_or_default().to_string_lossy();
        let hash = file.strip_prefix(&prefix);
        if hash.is_some_and(|hash| hash.bytes().all(|byte| byte.is_ascii_hexdigit())) {
            found.push((path.metadata()?.modified()?, path));
        }
    }
    let newest = found.into_iter().max().map(|(_, path)| path);
    newest.with_context(|| format!("test {name} is not built: run `cargo test --workspace`"))
}

/// The CNI plugin that `netd-hook install` puts in place.
pub fn plugin() -> Result<PathBuf> {
    built("netd-cni").or_else(|_| built("netd-hook"))
}
