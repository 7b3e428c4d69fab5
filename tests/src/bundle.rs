//! OCI bundles for plain runc: containers that no CRI runtime made.

use std::{
    fs,
    os::unix::fs::{PermissionsExt as _, symlink},
    path::{Path, PathBuf},
    process::Command,
    time::Duration,
};

use anyhow::{Context as _, Result, ensure};
use serde_json::{Value, json};

use crate::{daemon::Daemon, host::Host, paths, service::Service, wait};

/// A bundle whose hooks are netd's. Its container runs a shell script.
#[derive(Debug)]
pub struct Bundle {
    /// `config.json`; tests change it at will before [`Bundle::run`].
    pub config: Value,
    directory: PathBuf,
    root: PathBuf,
    log: PathBuf,
}

impl Bundle {
    /// Makes it below the host's directory; `name` is unique there.
    pub fn new(host: &Host, name: &str, script: &str) -> Result<Self> {
        let directory = host.directory().join(format!("bundle-{name}"));
        rootfs(&directory.join("rootfs"))?;
        let output = Command::new("/usr/sbin/runc").arg("spec").current_dir(&directory).output()?;
        ensure!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        let text = fs::read_to_string(directory.join("config.json"))?;
        let mut config: Value = serde_json::from_str(&text)?;
        config["process"]["terminal"] = json!(false);
        config["process"]["args"] = json!(["/bin/sh", "-c", script]);
        let hook = json!([{
            "path": paths::built("netd-hook")?,
            "args": ["netd-hook", "oci", "--socket", Daemon::socket_of(host), "--timeout", "5"],
        }]);
        config["hooks"] = json!({"createRuntime": hook, "poststop": hook});
        let root = host.directory().join("runc");
        let log = host.directory().join(format!("runc-{name}.log"));
        Ok(Self { config, directory, root, log })
    }

    /// `runc run ID` on the host; it ends with the container.
    pub fn run(&self, host: &Host, id: &str) -> Result<Service> {
        fs::write(self.directory.join("config.json"), self.config.to_string())?;
        let mut command = host.net.command("/usr/sbin/runc");
        command.arg("--root").arg(&self.root).arg("run").arg("--bundle").arg(&self.directory);
        command.arg(id);
        Service::start("runc", command, &self.log)
    }

    /// SIGKILL for the container; `runc run` ends after its poststop hooks.
    pub fn kill(&self, id: &str) -> Result<()> {
        // Its network is there before runc has written down that it is.
        wait::until(Duration::from_secs(5), "runc knows the container", || {
            let output = Command::new("/usr/sbin/runc")
                .arg("--root")
                .arg(&self.root)
                .args(["kill", id, "KILL"])
                .output()
                .context("runc kill")?;
            ensure!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
            Ok(())
        })?;
        Ok(())
    }

    /// What runc and the container printed.
    pub fn printed(&self) -> String {
        fs::read_to_string(&self.log).unwrap_or_default()
    }
}

fn rootfs(root: &Path) -> Result<()> {
    for directory in ["bin", "proc", "sys", "dev", "tmp"] {
        fs::create_dir_all(root.join(directory))?;
    }
    let busybox = root.join("bin/busybox");
    fs::copy(paths::fetched("busybox")?.join("bin/busybox"), &busybox)?;
    fs::set_permissions(&busybox, fs::Permissions::from_mode(0o755))?;
    for applet in ["sh", "sleep", "ip", "cat", "ls"] {
        symlink("busybox", root.join("bin").join(applet))?;
    }
    Ok(())
}
