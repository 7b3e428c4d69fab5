//! The Debian packages, made by `make deb` of the programs that the suite has built.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context as _, Result, ensure};

use crate::paths;

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

/// Packages in one directory.
pub struct Packages {
    pub directory: PathBuf,
    pub first: PathBuf,
    /// A higher version, with another default configuration.
    pub next: PathBuf,
    /// See [`small_package`].
    pub small: PathBuf,
}

/// Makes all of them in `directory`, which is emptied first.
pub fn make(directory: &Path) -> Result<Packages> {
    let (first, next) = two_versions(directory, Architecture::Amd64)?;
    let small = small_package(paths::root(), &directory.join("small"))?;
    Ok(Packages { directory: directory.to_owned(), first, next, small })
}

/// For which processor a package is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Architecture {
    /// Of the programs that the suite has built.
    Amd64,
    /// Of those that `make build-arm64` has built.
    Arm64,
}

impl Architecture {
    /// Debian's name.
    fn name(self) -> &'static str {
        match self {
            Self::Amd64 => "amd64",
            Self::Arm64 => "arm64",
        }
    }

    fn strip(self) -> &'static str {
        match self {
            Self::Amd64 => "strip",
            Self::Arm64 => "aarch64-linux-gnu-strip",
        }
    }

    fn built(self, name: &str) -> Result<PathBuf> {
        if self == Self::Amd64 {
            return paths::built(name);
        }
        let path = paths::root().join("target/aarch64-unknown-linux-musl/debug").join(name);
        ensure!(path.exists(), "{} is not built: run `make build-arm64`", path.display());
        Ok(path)
    }
}

/// A package of this tree, and one of a higher version with another default configuration.
pub fn two_versions(directory: &Path, of: Architecture) -> Result<(PathBuf, PathBuf)> {
    if directory.exists() {
        fs::remove_dir_all(directory)?;
    }
    let all = ["netd", "netd-hook", "netd-cni", "netd-tunnel"].map(|name| (name, name));
    let programs = programs(&directory.join("programs"), &all, of)?;
    let tree = copy_of_source(&directory.join("next"))?;
    let config = tree.join("deploy/netd.toml");
    let text = fs::read_to_string(&config)?;
    fs::write(&config, format!("# A key more.\n{text}"))?;
    // Programs of a debug build are large: compressed they would take seconds more.
    let make = |tree, version| deb(tree, &programs, directory, version, "none", of);
    let (first, next) = (make(paths::root(), "1.0-1")?, make(&tree, "1.1-1")?);
    fs::remove_dir_all(programs)?;
    fs::remove_dir_all(tree)?;
    Ok((first, next))
}

/// BUILT of `make deb`: each program under its name, stripped as by the release profile, which
/// makes hundreds of MB less to pack.
fn programs(directory: &Path, programs: &[(&str, &str)], of: Architecture) -> Result<PathBuf> {
    fs::create_dir_all(directory)?;
    for (name, program) in programs {
        let program = match Path::new(program) {
            path if path.is_absolute() => path.to_owned(),
            _ => of.built(program)?,
        };
        run(Command::new(of.strip()).arg("-o").arg(directory.join(name)).arg(program))?;
    }
    run(Command::new(paths::built("netd-manual")?).arg(directory.join("share")))?;
    Ok(directory.to_owned())
}

/// A package for which the programs' size is all the same, of `tree`: small ones are quicker
/// packed and looked through. The two that are static in a release are static here.
pub fn small_package(tree: &Path, to: &Path) -> Result<PathBuf> {
    let (small, fixed) = ("/bin/true", "netd-cni");
    let all = [("netd", small), ("netd-tunnel", small), ("netd-hook", fixed), ("netd-cni", fixed)];
    let amd64 = Architecture::Amd64;
    deb(tree, &programs(&to.join("programs"), &all, amd64)?, to, "1.0-1", "xz", amd64)
}

/// The source at another path.
pub fn copy_of_source(to: &Path) -> Result<PathBuf> {
    fs::create_dir_all(to)?;
    let files = SOURCE.map(|name| paths::root().join(name));
    run(Command::new("cp").arg("-r").args(files).arg(to))?;
    Ok(to.to_owned())
}

/// `make deb` in `tree`, with the programs that are there already; the package's path.
fn deb(
    tree: &Path,
    programs: &Path,
    to: &Path,
    version: &str,
    compressor: &str,
    of: Architecture,
) -> Result<PathBuf> {
    let mut make = Command::new("make");
    make.args(["-s", "-C"]).arg(tree).arg("deb").env_remove("MAKEFLAGS");
    make.arg(format!("BUILT={}", programs.display())).arg(format!("DEB_DIR={}", to.display()));
    make.arg(format!("DEB_ARCH={}", of.name()))
        .arg(format!("DEB_VERSION={version}"))
        .env("SOURCE_DATE_EPOCH", "1764460800");
    make.env("DPKG_DEB_COMPRESSOR_TYPE", compressor);
    let said = run(&mut make)?;
    let path = said.lines().last().map(PathBuf::from).context("make deb named no package")?;
    ensure!(path.exists(), "{} is not there:\n{said}", path.display());
    Ok(path)
}

/// What a program printed; an error has all that it said.
pub fn run(command: &mut Command) -> Result<String> {
    let output = command.output().with_context(|| format!("{command:?}"))?;
    let printed = String::from_utf8_lossy(&output.stdout).into_owned();
    let messages = String::from_utf8_lossy(&output.stderr);
    ensure!(output.status.success(), "{command:?}: {}\n{printed}{messages}", output.status);
    Ok(printed)
}
