//! Many pods up and down while netd is killed and containerd restarted: nothing
//! leaks, no address is given out twice, every call ends with an answer.
//!
//! `NETD_CHURN_PODS` (500) and `NETD_CHURN_KILLS` (100) scale it.

use std::{
    collections::HashMap,
    net::IpAddr,
    sync::{
        Mutex, MutexGuard, PoisonError, RwLock,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, bail, ensure};
use testbed::{
    Containerd, Daemon, DaemonConfig, Random, Stack, Version, case,
    cri::{self, Cri, Pod},
    joined,
    net::probe,
    scale, wait,
};

const WORKERS: usize = 8;
const RUNTIME_RESTARTS: usize = 5;
/// kubelet would go on for ever; a test that does has failed.
const PATIENCE: Duration = Duration::from_secs(90);

/// What the threads share.
struct Churn {
    wanted_pods: usize,
    wanted_kills: usize,
    next: AtomicUsize,
    done: AtomicUsize,
    kills: AtomicUsize,
    refused: AtomicUsize,
    /// Addresses of pods that are up, and whose they are.
    alive: Mutex<HashMap<IpAddr, String>>,
    /// Held for reading while a pod is made, for writing while containerd restarts: a
    /// runtime that dies in the middle of making one forgets the namespace for good.
    making: RwLock<()>,
    over: AtomicBool,
    random: Random,
}

impl Churn {
    fn new() -> Result<Self> {
        Ok(Self {
            wanted_pods: scale("NETD_CHURN_PODS", 500)?,
            wanted_kills: scale("NETD_CHURN_KILLS", 100)?,
            next: AtomicUsize::new(0),
            done: AtomicUsize::new(0),
            kills: AtomicUsize::new(0),
            refused: AtomicUsize::new(0),
            alive: Mutex::default(),
            making: RwLock::default(),
            over: AtomicBool::new(false),
            random: Random::new(),
        })
    }

    /// Pods are made until there were enough of them and enough kills.
    fn more(&self) -> Option<usize> {
        let number = self.next.fetch_add(1, Ordering::Relaxed);
        let enough =
            number >= self.wanted_pods && self.kills.load(Ordering::Relaxed) >= self.wanted_kills;
        (!enough && !self.over.load(Ordering::Relaxed)).then_some(number)
    }

    fn alive(&self) -> MutexGuard<'_, HashMap<IpAddr, String>> {
        self.alive.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Up, a look at it, down.
    fn one_pod(&self, cri: &Cri, node: &testbed::Namespace, number: usize) -> Result<()> {
        let pod = self.up(cri, number)?;
        for ip in &pod.ips {
            if let Some(other) = self.alive().insert(*ip, pod.id.clone()) {
                bail!("{ip} of {} is {other}'s too", pod.id);
            }
        }
        // Whether netd lives at the moment makes no difference to a pod.
        let ping = || probe::ping(node, pod.v4()?);
        wait::until(Duration::from_secs(3), "a pod that is up answers", ping)?;
        wait::pause(self.random.moment(200));
        for ip in &pod.ips {
            self.alive().remove(ip);
        }
        self.down(cri, &pod.id)
    }

    /// As kubelet: another sandbox after each failure, each failure an error with words.
    fn up(&self, cri: &Cri, number: usize) -> Result<Pod> {
        let start = Instant::now();
        loop {
            let made = {
                let _making = self.making.read().unwrap_or_else(PoisonError::into_inner);
                cri.run_pod(cri::pod(&format!("pod{number}")))
            };
            match made {
                Ok(pod) => {
                    ensure!(pod.ips.len() == 2, "success without addresses: {:?}", pod.ips);
                    return Ok(pod);
                }
                Err(error) => self.check_answered(&error)?,
            }
            ensure!(start.elapsed() < PATIENCE, "pod{number} did not come up");
            wait::pause(Duration::from_millis(50) + self.random.moment(100));
        }
    }

    fn down(&self, cri: &Cri, id: &str) -> Result<()> {
        let start = Instant::now();
        loop {
            match cri.stop(id).and_then(|()| cri.remove(id)) {
                Ok(()) => return Ok(()),
                Err(error) => self.check_answered(&error)?,
            }
            ensure!(start.elapsed() < PATIENCE, "{id} did not go");
            wait::pause(Duration::from_millis(50) + self.random.moment(100));
        }
    }

    /// A failure is fine, a call without an answer is not.
    fn check_answered(&self, error: &anyhow::Error) -> Result<()> {
        self.refused.fetch_add(1, Ordering::Relaxed);
        cri::check_answered(error)
    }

    fn worker(&self, cri: &Cri, node: &testbed::Namespace) -> Result<()> {
        while let Some(number) = self.more() {
            self.one_pod(cri, node, number).with_context(|| format!("pod {number}"))?;
            self.done.fetch_add(1, Ordering::Relaxed);
        }
        Ok(())
    }

    /// Kills netd at random moments, now and then while it is just starting.
    fn killer(&self, netd: &mut Daemon) -> Result<()> {
        while !self.over.load(Ordering::Relaxed) {
            let starting = self.random.once_in(4);
            if !starting {
                netd.wait_ready()?;
            }
            wait::pause(self.random.moment(if starting { 60 } else { 500 }));
            netd.kill9()?;
            self.kills.fetch_add(1, Ordering::Relaxed);
            wait::pause(self.random.moment(50));
            netd.respawn()?;
        }
        netd.wait_ready()
    }

    fn restarter(&self, containerd: &mut Containerd) -> Result<()> {
        for restart in 1..=RUNTIME_RESTARTS {
            let due = self.wanted_pods * restart / (RUNTIME_RESTARTS + 1);
            while self.done.load(Ordering::Relaxed) < due {
                if self.over.load(Ordering::Relaxed) {
                    return Ok(());
                }
                wait::pause(Duration::from_millis(20));
            }
            let _nobody = self.making.write().unwrap_or_else(PoisonError::into_inner);
            containerd.restart()?;
        }
        Ok(())
    }
}

#[test]
fn pods_come_and_go_while_netd_is_killed_and_containerd_restarted() -> Result<()> {
    case(|bed| {
        let mut config = DaemonConfig::default();
        // What an ADD and a DEL that both failed left is collected while we watch.
        config.networks += "[gc]\ngrace = \"2s\"\ninterval = \"1s\"\nunsafe_short_grace = true\n";
        let mut stack = Stack::start(bed, Version::V2_1, &config)?;
        let churn = Churn::new()?;
        let cri = stack.cri()?;
        let start = Instant::now();
        let Stack { netd, containerd, host, .. } = &mut stack;
        let (churn, cri, node) = (&churn, &cri, &host.net);
        thread::scope(|scope| {
            let watched = |work: Result<()>| {
                if work.is_err() {
                    churn.over.store(true, Ordering::Relaxed);
                }
                work
            };
            let killer = scope.spawn(move || watched(churn.killer(netd)));
            let restarter = scope.spawn(move || watched(churn.restarter(containerd)));
            let workers: Vec<_> = (0..WORKERS)
                .map(|_| scope.spawn(move || watched(churn.worker(cri, node))))
                .collect();
            let mut outcomes: Vec<Result<()>> = workers.into_iter().map(joined).collect();
            churn.over.store(true, Ordering::Relaxed);
            outcomes.extend([joined(restarter), joined(killer)]);
            outcomes.into_iter().collect::<Result<()>>()
        })?;
        println!(
            "{} pods, {} kills of netd, {RUNTIME_RESTARTS} restarts of containerd, {} calls \
             refused, in {:?}",
            churn.done.load(Ordering::Relaxed),
            churn.kills.load(Ordering::Relaxed),
            churn.refused.load(Ordering::Relaxed),
            start.elapsed(),
        );
        // Those whose RunPodSandbox failed halfway, as kubelet would find them.
        for id in cri.pods()? {
            churn.down(cri, &id)?;
        }
        ensure!(churn.kills.load(Ordering::Relaxed) >= churn.wanted_kills);
        ensure!(churn.done.load(Ordering::Relaxed) >= churn.wanted_pods);
        stack.check_nothing_left()
    })
}
