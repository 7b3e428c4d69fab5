//! The units and the install target, as they are shipped.
#![allow(clippy::unwrap_used)]

use std::{
    fs,
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
    process::Command,
};

fn deploy() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..")
}

#[test]
fn systemd_finds_nothing_wrong_with_the_units() {
    let dir = tempfile::tempdir().unwrap();
    let mut units = vec![];
    for entry in fs::read_dir(deploy().join("systemd")).unwrap() {
        let path = entry.unwrap().path();
        // The programs are not installed where the test runs.
        let text = fs::read_to_string(&path).unwrap();
        let text = text.replace("/usr/local/bin/netd-hook", "/bin/true");
        let text = text.replace("/usr/local/bin/netd-tunnel", "/bin/true");
        let copy = dir.path().join(path.file_name().unwrap());
        fs::write(&copy, text.replace("/usr/local/bin/netd", "/bin/true")).unwrap();
        units.push(copy);
    }
    assert_eq!(units.len(), 7);
    let verified = Command::new("systemd-analyze").arg("verify").args(&units).output().unwrap();
    let said = String::from_utf8_lossy(&verified.stderr).into_owned();
    // Complaints about other units of the machine name other files.
    let about_ours: Vec<_> = said.lines().filter(|l| l.contains("netd")).collect();
    assert!(verified.status.success() && about_ours.is_empty(), "{said}");
}

/// What `make build-release` would have left, and a root to install it into.
struct Installation {
    dir: tempfile::TempDir,
}

impl Installation {
    fn new() -> Installation {
        let this = Installation { dir: tempfile::tempdir().unwrap() };
        let built = this.dir.path().join("built");
        fs::create_dir_all(&built).unwrap();
        for program in ["netd", "netd-hook", "netd-cni", "netd-tunnel"] {
            fs::copy("/bin/true", built.join(program)).unwrap();
        }
        let mut manual = Command::new(env!("CARGO_BIN_EXE_netd-manual"));
        assert!(manual.arg(built.join("share")).status().unwrap().success());
        this
    }

    fn root(&self) -> PathBuf {
        self.dir.path().join("root")
    }

    /// Runs one target under `umask`.
    fn make(&self, target: &str, prefix: &str, umask: &str) {
        let done = Command::new("sh")
            .arg("-c")
            .arg(format!("umask {umask}; exec \"$@\""))
            .args(["sh", "make", "-s", "-f"])
            .arg(deploy().join("install.mk"))
            .arg(target)
            .arg(format!("BUILT={}", self.dir.path().join("built").display()))
            .arg(format!("DESTDIR={}", self.root().display()))
            .arg(format!("PREFIX={prefix}"))
            .output()
            .unwrap();
        assert!(done.status.success(), "{}", String::from_utf8_lossy(&done.stderr));
    }

    /// Everything below the root.
    fn entries(&self) -> Vec<PathBuf> {
        let (mut found, mut left) = (vec![], vec![self.root()]);
        while let Some(dir) = left.pop() {
            for entry in fs::read_dir(dir).unwrap() {
                let path = entry.unwrap().path();
                if path.is_dir() {
                    left.push(path.clone());
                }
                found.push(path);
            }
        }
        found
    }
}

#[test]
fn install_puts_all_in_place_and_keeps_an_existing_configuration() {
    let installation = Installation::new();
    let root = installation.root();
    installation.make("install", "/usr", "022");
    let config = root.join("etc/netd/netd.toml");
    fs::write(&config, "node = \"mine\"\n").unwrap();
    installation.make("install", "/usr", "022");
    assert_eq!(fs::read_to_string(&config).unwrap(), "node = \"mine\"\n");
    let unit = fs::read_to_string(root.join("etc/systemd/system/netd.service")).unwrap();
    assert!(unit.contains("ExecStart=/usr/bin/netd serve"), "{unit}");
    // There is none for other processors.
    assert_eq!(root.join("usr/bin/netd-cni").exists(), cfg!(target_arch = "x86_64"));
    let completions = root.join("usr/share/bash-completion/completions/netd");
    assert!(fs::read_to_string(completions).unwrap().contains("_netd"));
    let page = fs::read_to_string(root.join("usr/share/man/man8/netd-serve.8")).unwrap();
    assert!(page.starts_with(".ie") && page.contains(".TH NETD-SERVE 8"), "{page}");
    installation.make("uninstall", "/usr", "022");
    assert!(config.exists());
    assert_eq!(fs::read_dir(root.join("usr/bin")).unwrap().count(), 0);
}

#[test]
fn modes_do_not_depend_on_the_umask() {
    let installation = Installation::new();
    installation.make("install", "/usr/local", "077");
    let entries = installation.entries();
    assert!(entries.len() > 50, "{entries:?}");
    for path in entries {
        let mode = fs::metadata(&path).unwrap().permissions().mode() & 0o7777;
        let program = path.parent().unwrap().ends_with("bin");
        let wanted = if path.is_dir() || program { 0o755 } else { 0o644 };
        assert_eq!(mode, wanted, "{}: {mode:o}", path.display());
    }
}

#[test]
fn no_installed_file_names_another_prefix() {
    let installation = Installation::new();
    installation.make("install", "/usr", "022");
    let drop_in = "usr/share/netd/docker/docker.service.d/netd.conf";
    let drop_in = fs::read_to_string(installation.root().join(drop_in)).unwrap();
    assert!(drop_in.contains("ExecStartPre=-/usr/bin/netd docker-opts"), "{drop_in}");
    for path in installation.entries().iter().filter(|path| path.is_file()) {
        let text = fs::read(path).unwrap();
        let named = text.windows(10).any(|window| window == b"/usr/local");
        assert!(!named, "{} names /usr/local", path.display());
    }
}

#[test]
fn uninstall_leaves_the_configuration_and_no_other_file() {
    let installation = Installation::new();
    for prefix in ["/usr", "/usr/local"] {
        installation.make("install", prefix, "022");
        installation.make("uninstall", prefix, "022");
    }
    let left: Vec<_> = installation.entries().into_iter().filter(|path| path.is_file()).collect();
    assert_eq!(left, [installation.root().join("etc/netd/netd.toml")]);
}
