//! The Debian packages, made by `make deb` of the programs that the suite has built.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
    sync::OnceLock,
};

use anyhow::{Context as _, Result, anyhow, ensure};
use testbed::paths;

/// What `make deb` reads of the source tree.
const SOURCE: [&str; 8] = [
    "Makefile",
    "Cargo.toml",
    "Cargo.lock",
    "README.md",
    "SECURITY.md",
    "CHANGELOG.md",
    "deploy",
    "docs",
];

/// Two packages in one directory.
pub(crate) struct Packages {
    pub directory: PathBuf,
    /// Programs and papers that they are made of: BUILT of `make deb`.
    pub programs: PathBuf,
    pub first: PathBuf,
    /// A higher version, with another default configuration.
    pub next: PathBuf,
}

/// Made once for all tests of this executable.
pub(crate) fn packages() -> Result<&'static Packages> {
    static PACKAGES: OnceLock<Result<Packages>> = OnceLock::new();
    PACKAGES.get_or_init(make).as_ref().map_err(|error| anyhow!("{error:#}"))
}

fn make() -> Result<Packages> {
    let directory = Path::new(env!("CARGO_TARGET_TMPDIR")).join("packages");
    if directory.exists() {
        fs::remove_dir_all(&directory)?;
    }
    let programs = directory.join("programs");
    fs::create_dir_all(&programs)?;
    for name in ["netd", "netd-hook", "netd-cni", "netd-tunnel"] {
        // As the release profile does; hundreds of MB less to pack.
        run(Command::new("strip").arg("-o").arg(programs.join(name)).arg(paths::built(name)?))?;
    }
    run(Command::new(paths::built("netd-manual")?).arg(programs.join("share")))?;
    let tree = copy_of_source(&directory.join("next"))?;
    let config = tree.join("deploy/netd.toml");
    let text = fs::read_to_string(&config)?;
    fs::write(&config, format!("# A key more.\n{text}"))?;
    let first = deb(paths::root(), &programs, &directory, "1.0-1")?;
    let next = deb(&tree, &programs, &directory, "1.1-1")?;
    Ok(Packages { directory, programs, first, next })
}

/// The source at another path.
pub(crate) fn copy_of_source(to: &Path) -> Result<PathBuf> {
    fs::create_dir_all(to)?;
    let files = SOURCE.map(|name| paths::root().join(name));
    run(Command::new("cp").arg("-r").args(files).arg(to))?;
    Ok(to.to_owned())
}

/// `make deb` in `tree`, with the programs that are there already; the package's path.
pub(crate) fn deb(tree: &Path, programs: &Path, to: &Path, version: &str) -> Result<PathBuf> {
    let mut make = Command::new("make");
    make.args(["-s", "-C"]).arg(tree).arg("deb").env_remove("MAKEFLAGS");
    make.arg(format!("BUILT={}", programs.display())).arg(format!("DEB_DIR={}", to.display()));
    make.arg(format!("DEB_VERSION={version}")).env("SOURCE_DATE_EPOCH", "1764460800");
    // Of the compressors the quickest.
    make.env("DPKG_DEB_COMPRESSOR_TYPE", "gzip").env("DPKG_DEB_COMPRESSOR_LEVEL", "1");
    let said = run(&mut make)?;
    let path = said.lines().last().map(PathBuf::from).context("make deb named no package")?;
    ensure!(path.exists(), "{} is not there:\n{said}", path.display());
    Ok(path)
}

/// What a program printed; an error has all that it said.
pub(crate) fn run(command: &mut Command) -> Result<String> {
    let output = command.output().with_context(|| format!("{command:?}"))?;
    let printed = String::from_utf8_lossy(&output.stdout).into_owned();
    let messages = String::from_utf8_lossy(&output.stderr);
    ensure!(output.status.success(), "{command:?}: {}\n{printed}{messages}", output.status);
    Ok(printed)
}
