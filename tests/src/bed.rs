//! One bed a test: a directory and an underlay network that hosts are plugged into.

use std::{
    env, fs,
    panic::{AssertUnwindSafe, catch_unwind, resume_unwind},
    path::{Path, PathBuf},
    process,
    sync::{
        Mutex, Once, PoisonError,
        atomic::{AtomicUsize, Ordering},
    },
};

use anyhow::{Context as _, Result};

use crate::{
    host::{Host, Segment},
    leftovers,
    namespace::Namespace,
};

/// Everything that one test makes. Take it away by dropping it.
#[derive(Debug)]
pub struct Bed {
    directory: PathBuf,
    underlay: Namespace,
    hosts: AtomicUsize,
}

/// Runs a test on a bed of its own; shows its logs if it fails.
pub fn case(test: impl FnOnce(&Bed) -> Result<()>) -> Result<()> {
    let bed = Bed::new()?;
    let outcome = catch_unwind(AssertUnwindSafe(|| test(&bed)));
    if !matches!(outcome, Ok(Ok(()))) {
        bed.show_logs();
    }
    drop(bed);
    outcome.unwrap_or_else(|cause| resume_unwind(cause))
}

impl Bed {
    /// Below the temporary directory; Unix socket paths have to stay short.
    pub fn new() -> Result<Self> {
        static SWEEP: Once = Once::new();
        SWEEP.call_once(leftovers::sweep_dead);
        static COUNTER: AtomicUsize = AtomicUsize::new(0);
        let counter = COUNTER.fetch_add(1, Ordering::Relaxed);
        let name = format!("{}{}-{counter}", leftovers::PREFIX, process::id());
        let directory = env::temp_dir().join(name);
        fs::create_dir_all(&directory).with_context(|| directory.display().to_string())?;
        let underlay = Namespace::create(directory.join("ns/underlay"))?;
        // A router that still looks for duplicates of its own addresses asks for no other's.
        underlay.sh("sysctl -qw net.ipv6.conf.default.accept_dad=0
             ip link add under type bridge; ip link set under up
             ip address add 192.0.2.1/24 dev under
             ip address add 2001:db8::1/64 dev under nodad")?;
        Ok(Self { directory, underlay, hosts: AtomicUsize::new(10) })
    }

    /// Where everything of this bed is.
    pub fn directory(&self) -> &Path {
        &self.directory
    }

    /// The network between the hosts: 192.0.2.0/24 and 2001:db8::/64.
    pub fn underlay(&self) -> &Namespace {
        &self.underlay
    }

    /// Plugs in another host: a node, or a client outside.
    pub fn host(&self, name: &str) -> Result<Host> {
        self.plug(name, Segment::NEAR)
    }

    /// Plugs in a host on a second link, 198.51.100.0/24 and 2001:db8:1::/64, to which
    /// the underlay routes.
    pub(crate) fn far_host(&self, name: &str) -> Result<Host> {
        static MAKING: Mutex<()> = Mutex::new(());
        let making = MAKING.lock().unwrap_or_else(PoisonError::into_inner);
        self.underlay.sh("ip link show dev far >/dev/null 2>&1 && exit 0
             sysctl -qw net.ipv4.ip_forward=1 net.ipv6.conf.all.forwarding=1
             ip link add far type bridge; ip link set far up
             ip address add 198.51.100.1/24 dev far
             ip address add 2001:db8:1::1/64 dev far nodad")?;
        drop(making);
        self.plug(name, Segment::FAR)
    }

    fn plug(&self, name: &str, segment: Segment) -> Result<Host> {
        let number = self.hosts.fetch_add(1, Ordering::Relaxed);
        Host::plug(&self.directory.join(name), &self.underlay, name, number, segment)
    }

    /// Prints the end of every log that the test's processes wrote.
    pub(crate) fn show_logs(&self) {
        for log in logs(&self.directory) {
            let text = fs::read(&log).unwrap_or_default();
            let text = String::from_utf8_lossy(&text);
            // A test that waits connects a hundred times a second.
            let lines: Vec<&str> =
                text.lines().filter(|line| !line.contains(r#""message":"connection""#)).collect();
            eprintln!("--- the end of {}", log.display());
            for line in lines.iter().skip(lines.len().saturating_sub(60)) {
                eprintln!("{line}");
            }
        }
    }
}

/// Services write `HOST/NAME.log`, one level below the bed.
fn logs(directory: &Path) -> Vec<PathBuf> {
    let entries = |path: &Path| -> Vec<PathBuf> {
        let read = fs::read_dir(path).into_iter().flatten();
        read.filter_map(|entry| entry.ok().map(|entry| entry.path())).collect()
    };
    let mut found: Vec<PathBuf> =
        entries(directory).iter().flat_map(|host| entries(host)).collect();
    found.retain(|path| path.extension().is_some_and(|extension| extension == "log"));
    found.sort();
    found
}

impl Drop for Bed {
    fn drop(&mut self) {
        if env::var_os("NETD_TEST_KEEP").is_some_and(|keep| !keep.is_empty()) {
            eprintln!("kept for you to look at: {}", self.directory.display());
            return;
        }
        leftovers::remove(&self.directory);
    }
}
