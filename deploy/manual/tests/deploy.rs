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

fn unit(name: &str) -> String {
    fs::read_to_string(deploy().join("systemd").join(name)).unwrap()
}

/// All values of a key, each word for itself.
fn values(unit: &str, key: &str) -> Vec<String> {
    let lines = unit.lines().filter_map(|line| line.strip_prefix(key)?.strip_prefix('='));
    lines.flat_map(str::split_whitespace).map(str::to_owned).collect()
}

/// systemd gives a unit up for good when the first start of one that it requires fails.
#[test]
fn no_unit_requires_another() {
    for entry in fs::read_dir(deploy().join("systemd")).unwrap() {
        let path = entry.unwrap().path();
        let text = fs::read_to_string(&path).unwrap();
        for key in ["Requires", "Requisite", "BindsTo"] {
            assert!(values(&text, key).is_empty(), "{}: {key}=", path.display());
        }
    }
    let hook = unit("netd-hook.service");
    for key in ["Wants", "After"] {
        assert!(values(&hook, key).contains(&"netd.service".to_owned()), "{key}");
    }
    // It is tried again until netd is ready, however often that takes.
    assert_eq!(values(&hook, "Restart"), ["on-failure"]);
    assert_eq!(values(&hook, "StartLimitIntervalSec"), ["0"]);
}

/// Without them netd would make sockets of its own, and calls during its restart would fail.
#[test]
fn netd_starts_its_sockets() {
    let netd = unit("netd.service");
    for socket in ["netd.socket", "netd-ttrpc.socket"] {
        for key in ["Wants", "After", "Sockets"] {
            assert!(values(&netd, key).contains(&socket.to_owned()), "{key}={socket}");
        }
        assert_eq!(values(&unit(socket), "RemoveOnStop"), ["no"]);
    }
    // netd-ttrpc.socket has another name than the service.
    assert_eq!(values(&unit("netd-ttrpc.socket"), "Service"), ["netd.service"]);
}

/// What the unit executes before the plugin, in a root of its own: /run/docker is dockerd's,
/// and a directory that is there keeps its mode.
#[test]
fn the_docker_unit_leaves_docker_s_directory_to_root() {
    let unit = unit("netd-docker.service");
    assert!(values(&unit, "RuntimeDirectory").is_empty(), "it would be made 0755");
    let commands: Vec<_> = unit
        .lines()
        .filter_map(|line| line.strip_prefix("ExecStartPre=+"))
        .map(str::to_owned)
        .collect();
    assert!(!commands.is_empty());
    for (before, expected) in [(None, 0o711), (Some(0o700), 0o700), (Some(0o711), 0o711)] {
        let root = tempfile::tempdir().unwrap();
        let run = root.path().join("run");
        fs::create_dir(&run).unwrap();
        if let Some(mode) = before {
            fs::create_dir(run.join("docker")).unwrap();
            fs::set_permissions(run.join("docker"), fs::Permissions::from_mode(mode)).unwrap();
        }
        for umask in ["000", "077"] {
            for command in &commands {
                let here = command.replace("/run/", &format!("{}/", run.display()));
                let script = format!("umask {umask}; {here}");
                assert!(Command::new("sh").args(["-ec", &script]).status().unwrap().success());
            }
        }
        let mode = |path: &str| fs::metadata(run.join(path)).unwrap().permissions().mode() & 0o7777;
        assert_eq!((mode("docker"), mode("docker/plugins")), (expected, 0o755));
    }
}

#[test]
fn every_service_that_stays_has_a_bound_on_its_memory() {
    for name in ["netd", "netd-tunnel", "netd-nri", "netd-docker"] {
        assert_eq!(values(&unit(&format!("{name}.service")), "MemoryMax").len(), 1, "{name}");
    }
}
