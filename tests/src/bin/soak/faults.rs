//! What happens to a node meanwhile.

use std::{
    fs,
    sync::{Arc, PoisonError, RwLock, RwLockReadGuard},
    time::Duration,
};

use anyhow::{Context as _, Result};
use testbed::{Containerd, Daemon, EtcdCluster, Host, Random, wait};

use crate::progress::Progress;

/// Kills of netd to each fault of another kind.
const KILLS_A_FAULT: u64 = 10;

/// The disturbers.
pub(crate) struct Faults {
    progress: Arc<Progress>,
    random: Random,
    /// Held for reading while the runtime makes a pod, for writing while it restarts: a
    /// containerd that dies in the middle of making one forgets the namespace for good.
    making: RwLock<()>,
}

impl Faults {
    pub(crate) fn new(progress: &Arc<Progress>) -> Self {
        Self { progress: progress.clone(), random: Random::new(), making: RwLock::default() }
    }

    /// Keeps the runtime from being restarted.
    pub(crate) fn making(&self) -> RwLockReadGuard<'_, ()> {
        self.making.read().unwrap_or_else(PoisonError::into_inner)
    }

    /// Kills netd, spread over all pods; now and then while it is just starting.
    pub(crate) fn kill(&self, netd: &mut Daemon) -> Result<()> {
        let progress = &self.progress;
        while progress.goes_on() {
            let totals = progress.totals();
            let due = (totals.kills + 1) * progress.wanted_pods / (progress.wanted_kills + 1);
            // Those that are left when there are enough pods follow each other at once.
            if totals.pods < due.min(progress.wanted_pods) || totals.kills >= progress.wanted_kills
            {
                wait::pause(Duration::from_millis(5));
                continue;
            }
            wait::pause(self.random.moment(20));
            netd.kill9()?;
            progress.count(|totals| totals.kills += 1);
            wait::pause(self.random.moment(50));
            netd.respawn()?;
            if !self.random.once_in(4) {
                wait::pause(self.random.moment(300));
            }
        }
        Ok(())
    }

    /// Everything else, one at a time; netd may be killed in each.
    pub(crate) fn others(
        &self,
        etcd: &mut EtcdCluster,
        host: &Host,
        containerd: &mut Containerd,
    ) -> Result<()> {
        while self.progress.goes_on() {
            let totals = self.progress.totals();
            let done: u64 = totals.faults.values().sum();
            if totals.kills < (done + 1) * KILLS_A_FAULT {
                wait::pause(Duration::from_millis(20));
                continue;
            }
            let name = match done % 5 {
                0 => self.flush(host)?,
                1 => self.fill(host)?,
                2 => self.lose(etcd)?,
                3 => self.freeze(etcd)?,
                _ => self.restart(containerd)?,
            };
            self.progress.count(|totals| *totals.faults.entry(name.to_owned()).or_default() += 1);
        }
        Ok(())
    }

    fn flush(&self, host: &Host) -> Result<&'static str> {
        host.net.sh("nft flush ruleset")?;
        Ok("nft flush ruleset")
    }

    fn fill(&self, host: &Host) -> Result<&'static str> {
        let ballast = host.directory().join("netd/state/ballast");
        host.net.sh(&format!("cat /dev/zero > {} 2>/dev/null || true", ballast.display()))?;
        wait::pause(self.random.moment(1500));
        fs::remove_file(&ballast).with_context(|| ballast.display().to_string())?;
        Ok("full disk")
    }

    fn lose(&self, etcd: &mut EtcdCluster) -> Result<&'static str> {
        etcd.kill(0)?;
        wait::pause(self.random.moment(3000));
        etcd.start_member(0)?;
        Ok("etcd killed")
    }

    fn freeze(&self, etcd: &mut EtcdCluster) -> Result<&'static str> {
        etcd.pause(0)?;
        wait::pause(self.random.moment(3000));
        etcd.resume(0)?;
        Ok("etcd frozen")
    }

    fn restart(&self, containerd: &mut Containerd) -> Result<&'static str> {
        let _nobody = self.making.write().unwrap_or_else(PoisonError::into_inner);
        containerd.restart()?;
        Ok("containerd restarted")
    }
}
