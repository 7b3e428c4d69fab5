//! Network namespaces that last as long as the value.

use std::{
    fs::{self, File},
    panic,
    path::{Path, PathBuf},
    process::Command,
    thread,
};

use anyhow::{Context as _, Result, bail};
use nix::{
    mount::{MntFlags, MsFlags, mount, umount2},
    sched::{CloneFlags, unshare},
};

/// A network namespace, kept by a bind mount at its path.
#[derive(Debug)]
pub struct Namespace {
    path: PathBuf,
    /// False for namespaces that another program made.
    ours: bool,
}

impl Namespace {
    /// Makes a namespace at `path`, with `lo` up.
    pub fn create(path: impl Into<PathBuf>) -> Result<Self> {
        let path = path.into();
        if let Some(parent) = path.parent() {
            fs::create_dir_all(parent)?;
        }
        File::create(&path).with_context(|| format!("create {}", path.display()))?;
        let target = path.clone();
        // The thread ends with its namespace; only the mount keeps it.
        thread::spawn(move || -> Result<()> {
            unshare(CloneFlags::CLONE_NEWNET).context("unshare(CLONE_NEWNET): be root")?;
            let own = "/proc/thread-self/ns/net";
            mount(Some(own), &target, None::<&str>, MsFlags::MS_BIND, None::<&str>)
                .with_context(|| format!("bind a namespace to {}", target.display()))
        })
        .join()
        .unwrap_or_else(|cause| panic::resume_unwind(cause))?;
        let namespace = Self { path, ours: true };
        namespace.sh("ip link set lo up")?;
        Ok(namespace)
    }

    /// A namespace that another program made, such as a runtime.
    pub fn of(path: impl Into<PathBuf>) -> Self {
        Self { path: path.into(), ours: false }
    }

    /// For `nsenter --net=` and CNI_NETNS.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Identifies the namespace in the kernel.
    pub fn inode(&self) -> Result<u64> {
        use std::os::unix::fs::MetadataExt as _;
        Ok(fs::metadata(&self.path)?.ino())
    }

    /// Runs `work` on a thread of its own inside the namespace. Sockets that it
    /// makes belong there for good.
    #[allow(clippy::disallowed_methods)] // the test bed's one place to enter a namespace
    pub fn run<T: Send>(&self, work: impl FnOnce() -> Result<T> + Send) -> Result<T> {
        let file = File::open(&self.path)
            .with_context(|| format!("open namespace {}", self.path.display()))?;
        thread::scope(|scope| {
            scope
                .spawn(|| {
                    nix::sched::setns(&file, CloneFlags::CLONE_NEWNET)
                        .with_context(|| format!("enter {}", self.path.display()))?;
                    work()
                })
                .join()
                .unwrap_or_else(|cause| panic::resume_unwind(cause))
        })
    }

    /// A command that will run inside. `nsenter`, as `ip netns exec` would hide
    /// mounts made later from it.
    pub fn command(&self, program: impl AsRef<std::ffi::OsStr>) -> Command {
        let mut command = Command::new("nsenter");
        command.arg(format!("--net={}", self.path.display())).arg("--").arg(program);
        command.env("PATH", "/usr/sbin:/usr/bin:/sbin:/bin");
        command
    }

    /// Runs a shell script inside and answers what it printed; an error has its messages.
    pub fn sh(&self, script: &str) -> Result<String> {
        let output = self.command("sh").args(["-ec", script]).output().context("run nsenter")?;
        let printed = String::from_utf8_lossy(&output.stdout).into_owned();
        if !output.status.success() {
            let messages = String::from_utf8_lossy(&output.stderr);
            bail!("`{script}` in {}: {}\n{printed}{messages}", self.path.display(), output.status);
        }
        Ok(printed)
    }
}

impl Drop for Namespace {
    fn drop(&mut self) {
        if self.ours {
            // Nothing to do about an error here; the bed sweeps what is left.
            let _ = umount2(&self.path, MntFlags::MNT_DETACH);
            let _ = fs::remove_file(&self.path);
        }
    }
}
