//! A root of its own, in which packages are installed: this machine's as it is, with an overlay
//! on top that takes all changes.

use std::{
    collections::BTreeSet,
    fs,
    os::unix::fs::{FileTypeExt as _, PermissionsExt as _},
    path::{Path, PathBuf},
    process::{Command, Output},
    time::Duration,
};

use anyhow::{Context as _, Result, ensure};
use testbed::{Bed, Host, service::Service, wait};

use crate::package::Packages;

const SOON: Duration = Duration::from_secs(10);

/// Mounts everything in a mount namespace of its own, and keeps it: $1 is the bed's directory
/// for it, $2 that of the packages. `tail` names the bed, so that a killed test's is swept.
const MOUNTS: &str = r#"
    mount -t tmpfs -o mode=0755 tmpfs "$1"
    mkdir "$1/upper" "$1/work" "$1/root"
    mount -t overlay -o "lowerdir=/,upperdir=$1/upper,workdir=$1/work" overlay "$1/root"
    mount --rbind /proc "$1/root/proc"
    mount --rbind /dev "$1/root/dev"
    mount -t tmpfs -o mode=0755 tmpfs "$1/root/run"
    mount -t tmpfs -o mode=1777 tmpfs "$1/root/tmp"
    mount --bind "$2" "$1/root/mnt"
    touch "$1/ready"
    exec tail -f "$1/ready"
"#;

/// Stands for systemd's: writes down what it is asked for, and stops the netd of the test.
const SYSTEMCTL: &str = r#"#!/bin/sh
echo "$*" >>/tmp/systemctl.log
case "$*" in
*stop*)
    pid=$(cat /tmp/netd.pid 2>/dev/null) || exit 0
    kill "$pid" && while [ -e "/proc/$pid/exe" ]; do sleep 0.05; done
    ;;
esac
"#;

/// What dpkg itself writes down of every package and does not take back, and [`POLICY`].
const NOT_THE_PACKAGES: [&str; 7] = [
    "var/lib/dpkg/status",
    "var/lib/dpkg/status-old",
    "var/lib/dpkg/available",
    "var/lib/dpkg/lock",
    "var/lib/dpkg/triggers",
    "var/log/dpkg.log",
    POLICY,
];
/// Machines that are containers forbid packages to start services.
const POLICY: &str = "usr/sbin/policy-rc.d";

pub(crate) struct Root {
    pub(crate) host: Host,
    directory: PathBuf,
    keeper: Service,
}

impl Root {
    pub(crate) fn new(bed: &Bed, packages: &Packages) -> Result<Self> {
        let host = bed.host("node")?;
        let directory = host.directory().join("root");
        fs::create_dir_all(&directory)?;
        let mut keeper = host.net.command("unshare");
        keeper.args(["--mount", "--propagation", "private", "sh", "-ec", MOUNTS, "sh"]);
        keeper.arg(&directory).arg(&packages.directory);
        let keeper = Service::start("root", keeper, &host.directory().join("root.log"))?;
        let mut this = Self { host, directory, keeper };
        let ready = this.seen("ready");
        wait::until(SOON, "the root", || {
            this.keeper.check_alive()?;
            ensure!(ready.exists(), "not mounted yet");
            Ok(())
        })?;
        Ok(this)
    }

    /// A path below the directory that the mount namespace has at the bed's place.
    fn seen(&self, path: &str) -> PathBuf {
        let inside = self.directory.strip_prefix("/").unwrap_or(&self.directory);
        Path::new("/proc").join(self.keeper.pid().to_string()).join("root").join(inside).join(path)
    }

    /// A file of the root, as the test can open it.
    pub(crate) fn path(&self, path: &str) -> PathBuf {
        self.seen("root").join(path)
    }

    /// A program of the root, in the root.
    pub(crate) fn command(&self, program: &str) -> Command {
        let mut command = Command::new("nsenter");
        command.arg(format!("--target={}", self.keeper.pid())).args(["--mount", "--net", "--"]);
        command.arg("chroot").arg(self.directory.join("root")).arg(program).env_clear();
        command.env("PATH", "/tmp/bin:/usr/sbin:/usr/bin:/sbin:/bin");
        command.env("DEBIAN_FRONTEND", "noninteractive").env("LC_ALL", "C").env("HOME", "/root");
        command
    }

    pub(crate) fn sh(&self, script: &str) -> Result<String> {
        crate::package::run(self.command("sh").args(["-ec", script]))
    }

    /// `dpkg`, which may fail.
    pub(crate) fn try_dpkg(&self, arguments: &[&str]) -> Result<Output> {
        let mut dpkg = self.command("dpkg");
        // Triggers are other packages' (man-db reads all manual pages again).
        dpkg.args(["--no-triggers", "--force-unsafe-io", "--force-confold"]).args(arguments);
        Ok(dpkg.output()?)
    }

    pub(crate) fn dpkg(&self, arguments: &[&str]) -> Result<String> {
        let output = self.try_dpkg(arguments)?;
        let said = [output.stdout, output.stderr].concat();
        let said = String::from_utf8_lossy(&said).into_owned();
        ensure!(output.status.success(), "dpkg {arguments:?}: {said}");
        Ok(said)
    }

    pub(crate) fn install(&self, package: &Path) -> Result<String> {
        let name = package.file_name().and_then(|name| name.to_str()).context("a name")?;
        self.dpkg(&["--install", &format!("/mnt/{name}")])
    }

    /// From now on the root looks as if systemd ran in it.
    pub(crate) fn play_systemd(&self) -> Result<()> {
        let script = self.path("tmp/bin/systemctl");
        fs::create_dir_all(self.path("tmp/bin"))?;
        fs::create_dir_all(self.path("run/systemd/system"))?;
        fs::write(&script, SYSTEMCTL)?;
        fs::write(self.path(POLICY), "#!/bin/sh\nexit 0\n")?;
        for program in [script, self.path(POLICY)] {
            fs::set_permissions(program, fs::Permissions::from_mode(0o755))?;
        }
        Ok(())
    }

    /// What systemctl was asked for since the last look.
    pub(crate) fn asked(&self) -> Result<Vec<String>> {
        let log = self.path("tmp/systemctl.log");
        let text = fs::read_to_string(&log).unwrap_or_default();
        fs::write(log, "")?;
        Ok(text.lines().map(str::to_owned).collect())
    }

    /// The package's netd, ready.
    pub(crate) fn start_netd(&self) -> Result<Service> {
        let mut command = self.command("/usr/bin/netd");
        command.arg("serve");
        let log = self.host.directory().join("netd.log");
        let mut netd = Service::start("netd", command, &log)?;
        fs::write(self.path("tmp/netd.pid"), netd.pid().to_string())?;
        wait::until(SOON, "netd", || {
            netd.check_alive()?;
            self.sh("netd status")
        })?;
        Ok(netd)
    }

    /// A process in a network namespace of its own, which `netd endpoint attach` has given eth0.
    pub(crate) fn start_pod(&self) -> Result<Service> {
        let mut command = self.host.net.command("unshare");
        command.args(["--net", "tail", "-f"]).arg(self.host.directory().join("root.log"));
        let pod = Service::start("pod", command, &self.host.directory().join("pod.log"))?;
        let namespace = format!("/proc/{}/ns/net", pod.pid());
        wait::until(SOON, "the pod's namespace", || {
            use std::os::unix::fs::MetadataExt as _;
            let own = fs::metadata(&namespace)?.ino();
            let others = [self.host.net.inode()?, fs::metadata("/proc/self/ns/net")?.ino()];
            ensure!(!others.contains(&own), "not made yet");
            Ok(())
        })?;
        self.sh(&format!("netd endpoint attach pod {namespace}"))?;
        Ok(pod)
    }

    /// Endpoints' devices and bridges of the host.
    pub(crate) fn links(&self) -> Result<Vec<String>> {
        let links = self.host.net.sh("ip -o link show")?;
        let names = links.lines().filter_map(|line| line.split([':', '@']).nth(1));
        let mut names: Vec<_> = names.map(|name| name.trim().to_owned()).collect();
        names.retain(|name| name != "lo" && name != "eth0");
        Ok(names)
    }

    /// How the root differs from the machine: paths that are new, gone or changed.
    pub(crate) fn differences(&self) -> Result<BTreeSet<String>> {
        let upper = self.seen("upper");
        let mut found = BTreeSet::new();
        let mut left = vec![upper.clone()];
        while let Some(directory) = left.pop() {
            for entry in fs::read_dir(directory)? {
                let path = entry?.path();
                let name = path.strip_prefix(&upper)?.to_owned();
                if NOT_THE_PACKAGES.iter().any(|known| name.starts_with(known)) {
                    continue;
                }
                let metadata = fs::symlink_metadata(&path)?;
                if differs(&path, &Path::new("/").join(&name))? {
                    found.insert(format!("/{}", name.display()));
                } else if metadata.is_dir() {
                    left.push(path);
                }
            }
        }
        for entry in fs::read_dir(self.path("run"))? {
            let name = entry?.file_name();
            if name != "systemd" {
                found.insert(format!("/run/{}", name.display()));
            }
        }
        Ok(found)
    }
}

/// Whether an entry of the overlay's upper directory is more than a copy of the machine's.
fn differs(upper: &Path, lower: &Path) -> Result<bool> {
    let ours = fs::symlink_metadata(upper)?;
    let Ok(theirs) = fs::symlink_metadata(lower) else {
        // overlayfs notes with a device 0/0 what is gone: this is gone again.
        return Ok(!ours.file_type().is_char_device());
    };
    if ours.file_type() != theirs.file_type() || ours.permissions() != theirs.permissions() {
        return Ok(true);
    }
    Ok(ours.is_file() && fs::read(upper)? != fs::read(lower)?)
}
