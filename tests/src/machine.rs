//! A Debian machine of its own in QEMU: the release's kernel, a real systemd as PID 1. The
//! disks are made by `tests/machines/setup.sh`; docs/machines.md says how to run and enter one.
//!
//! Host and machine talk over a directory that both have (9p): the host puts scripts there, and
//! an agent in the machine runs them.

use std::{
    collections::BTreeSet,
    env, fs,
    path::{Path, PathBuf},
    process::Command,
    time::Duration,
};

use anyhow::{Context as _, Result, bail, ensure};

use crate::{Bed, package::Architecture, paths, service::Service, wait};

/// Of a boot under emulation, on a machine that builds something else besides.
const BOOT_LIMIT: Duration = Duration::from_secs(300);
const END_LIMIT: Duration = Duration::from_secs(120);

/// What a machine has.
#[derive(Clone, Copy, Debug)]
pub struct Size {
    /// In MiB.
    pub memory: u32,
    pub processors: u32,
}

impl Size {
    pub const USUAL: Self = Self { memory: 2048, processors: 2 };
    /// What netd has to do with.
    pub const SMALL: Self = Self { memory: 512, processors: 1 };
    /// For the suite's own clusters, containerds and dockerds.
    pub const LARGE: Self = Self { memory: 5120, processors: 2 };
}

/// Switched off, by SIGKILL, when dropped.
#[derive(Debug)]
pub struct Machine {
    directory: PathBuf,
    size: Size,
    qemu: Service,
    calls: u32,
    boots: u32,
}

/// The halves of the tests on machines.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Half {
    /// Part of `make test`.
    Short,
    /// Part of `make test-machines` only, as the short half is too.
    Long,
}

/// The releases to test on: those that `NETD_MACHINES` names for both halves and
/// `NETD_MACHINES_SHORT` for the short one. None, with a line that says so, where they name none.
pub fn releases(half: Half) -> Vec<String> {
    let short =
        if half == Half::Short { env::var("NETD_MACHINES_SHORT") } else { Ok(String::new()) };
    let named = [env::var("NETD_MACHINES"), short].map(Result::unwrap_or_default).join(" ");
    let named: BTreeSet<String> = named.split_whitespace().map(str::to_owned).collect();
    if named.is_empty() {
        println!("skipped: no release is named for it; `make test-machines` names some");
    }
    named.into_iter().collect()
}

fn image(release: &str) -> Result<PathBuf> {
    let cache = match env::var_os("XDG_CACHE_HOME") {
        Some(cache) => PathBuf::from(cache),
        None => PathBuf::from(env::var_os("HOME").context("no HOME")?).join(".cache"),
    };
    let image = cache.join("netd-testbed/machines").join(release);
    ensure!(image.join("recipe").exists(), "no machine: run tests/machines/setup.sh {release}");
    Ok(image)
}

impl Machine {
    /// Boots a fresh copy of a release's disk.
    pub fn boot(bed: &Bed, release: &str, size: Size) -> Result<Self> {
        let directory = bed.directory().join(release);
        let image = image(release)?;
        fs::create_dir_all(directory.join("share"))?;
        let copied = Command::new("cp")
            .args(["--reflink=auto", "--sparse=always"])
            .arg(image.join("disk.img"))
            .arg(directory.join("disk.img"))
            .status()?;
        ensure!(copied.success(), "copying the disk of {release}: {copied}");
        std::os::unix::fs::symlink(image, directory.join("image"))?;
        let qemu = start(&directory, size)?;
        let mut machine = Self { directory, size, qemu, calls: 0, boots: 0 };
        machine.wait_for_agent()?;
        Ok(machine)
    }

    /// Of its processor.
    pub fn architecture(&self) -> Architecture {
        match self.directory.to_string_lossy().ends_with("-arm64") {
            true => Architecture::Arm64,
            false => Architecture::Amd64,
        }
    }

    /// A directory that the machine has as /share.
    pub fn share(&self) -> PathBuf {
        self.directory.join("share")
    }

    /// What the machine printed on its console.
    fn console(&self) -> String {
        let bytes = fs::read(self.qemu.log()).unwrap_or_default();
        String::from_utf8_lossy(&bytes).into_owned()
    }

    /// Runs a script by `sh -e`; what it printed. An error has that too.
    pub fn run(&mut self, script: &str, limit: Duration) -> Result<String> {
        let call = self.begin(script)?;
        let (printed, status) = self.finish(call, limit)?;
        ensure!(status == 0, "exit status {status} of:\n{script}\n--- printed:\n{printed}");
        Ok(printed)
    }

    /// Gives the machine the source tree, where the host has it and read-only: with the programs
    /// that are built and what `make setup` fetched.
    pub fn mount_tree(&mut self) -> Result<()> {
        let options = "trans=virtio,version=9p2000.L,msize=512000,cache=loose,ro";
        let root = paths::root().display();
        let script = format!("mkdir -p {root}; mount -t 9p -o {options} tree {root}");
        self.run(&script, END_LIMIT).map(drop)
    }

    /// Moves all that the machine is to `place`, for `tests/machines/enter`.
    pub fn keep(mut self, place: &Path) -> Result<()> {
        self.qemu.kill9()?;
        if place.exists() {
            fs::remove_dir_all(place)?;
        }
        fs::create_dir_all(place.parent().context("no parent")?)?;
        let moved = Command::new("mv").arg(&self.directory).arg(place).status()?;
        ensure!(moved.success(), "moving it to {}: {moved}", place.display());
        Ok(())
    }

    /// Restarts it as an administrator would.
    pub fn reboot(&mut self) -> Result<()> {
        self.begin("systemctl reboot --no-block")?;
        self.qemu.ended(END_LIMIT).context("the machine does not go down")?;
        self.start_again()
    }

    /// Cuts the power, and switches it on again. What was not written to the disk is lost.
    pub fn cut_power(&mut self) -> Result<()> {
        self.qemu.kill9()?;
        self.start_again()
    }

    fn start_again(&mut self) -> Result<()> {
        self.qemu = start(&self.directory, self.size)?;
        self.wait_for_agent()
    }

    fn wait_for_agent(&mut self) -> Result<()> {
        let booted = self.share().join("boot");
        let (up, took) = wait::until(BOOT_LIMIT, "the machine's agent", || {
            wait::pause(Duration::from_millis(100));
            match self.qemu.check_alive() {
                Err(ended) => Ok(Err(ended)),
                Ok(()) if booted.exists() => Ok(Ok(())),
                Ok(()) => bail!("it still boots; its console:\n{}", last_lines(&self.console())),
            }
        })?;
        self.boots += 1;
        println!("boot {} took {:.0} s", self.boots, took.as_secs_f32());
        up
    }

    fn begin(&mut self, script: &str) -> Result<u32> {
        self.calls += 1;
        let unfinished = self.share().join(format!("{}.new", self.calls));
        fs::write(&unfinished, format!("set -e\n{script}\n"))?;
        fs::rename(unfinished, self.share().join(format!("in/{}.sh", self.calls)))?;
        Ok(self.calls)
    }

    fn finish(&mut self, call: u32, limit: Duration) -> Result<(String, i32)> {
        let out = self.share().join("out");
        let (printed, status) = (out.join(format!("{call}.out")), out.join(format!("{call}.rc")));
        let (status, _) = wait::until(limit, "a script in the machine", || {
            wait::pause(Duration::from_millis(50));
            self.qemu.check_alive()?;
            let text = fs::read_to_string(&status);
            text.with_context(|| last_lines(&fs::read_to_string(&printed).unwrap_or_default()))
        })?;
        let bytes = fs::read(&printed)?;
        Ok((String::from_utf8_lossy(&bytes).into_owned(), status.trim().parse()?))
    }
}

fn last_lines(text: &str) -> String {
    let lines: Vec<&str> = text.lines().rev().take(15).collect();
    lines.into_iter().rev().collect::<Vec<_>>().join("\n")
}

/// Switches the machine on, with nothing to do for its agent.
fn start(directory: &Path, size: Size) -> Result<Service> {
    let share = directory.join("share");
    for part in ["in", "out", "running"] {
        let part = share.join(part);
        if part.exists() {
            fs::remove_dir_all(&part)?;
        }
        fs::create_dir(&part)?;
    }
    let booted = share.join("boot");
    if booted.exists() {
        fs::remove_file(booted)?;
    }
    let mut qemu = Command::new(paths::root().join("tests/machines/qemu"));
    qemu.arg(directory.join("image")).arg(directory);
    qemu.env("NETD_MACHINE_MEMORY", size.memory.to_string());
    qemu.env("NETD_MACHINE_CPUS", size.processors.to_string());
    Service::start("qemu", qemu, &directory.join("console.log"))
}
