//! Pods that come and go, by the plugin alone and by a runtime.

use std::{
    collections::HashMap,
    net::IpAddr,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, bail, ensure};
use serde_json::Value;
use testbed::{
    Host, Random, Sandbox,
    cri::{self, Cri},
    hook::{self, Call},
    net::probe,
    wait,
};

use crate::{faults::Faults, progress::Progress};

/// A runtime would go on for ever; here, who needs longer has failed.
const PATIENCE: Duration = Duration::from_secs(120);
/// A plugin's call is answered within it, whatever the state of the node.
const ANSWERED_WITHIN: Duration = Duration::from_secs(60);
/// Pods that one namespace serves, one after the other.
const PODS_A_NAMESPACE: u64 = 10;

/// What all workers know of each other.
pub(crate) struct Pods {
    progress: Arc<Progress>,
    random: Random,
    /// Addresses of pods that are up, and whose they are.
    alive: Mutex<HashMap<IpAddr, String>>,
}

impl Pods {
    pub(crate) fn new(progress: &Arc<Progress>) -> Self {
        Self { progress: progress.clone(), random: Random::new(), alive: Mutex::default() }
    }

    pub(crate) fn progress(&self) -> &Progress {
        &self.progress
    }

    fn alive(&self) -> MutexGuard<'_, HashMap<IpAddr, String>> {
        self.alive.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The addresses belong to `id` from now on.
    fn came(&self, id: &str, ips: &[IpAddr]) -> Result<()> {
        ensure!(ips.len() == 2, "{id} came up without two addresses: {ips:?}");
        for ip in ips {
            if let Some(other) = self.alive().insert(*ip, id.to_owned()) {
                bail!("{ip} of {id} is {other}'s too");
            }
        }
        Ok(())
    }

    /// The addresses may be given out again from now on.
    fn goes(&self, ips: &[IpAddr]) {
        let mut alive = self.alive();
        for ip in ips {
            alive.remove(ip);
        }
    }

    /// Asks until it works. An outer error of `call` is a fault, an inner one a refusal.
    fn insist<T>(&self, what: &str, mut call: impl FnMut() -> Result<Result<T>>) -> Result<T> {
        let start = Instant::now();
        loop {
            let refusal = match call().with_context(|| what.to_owned())? {
                Ok(done) => return Ok(done),
                Err(refusal) => refusal,
            };
            self.progress.count(|totals| totals.refused += 1);
            ensure!(start.elapsed() < PATIENCE, "{what}: not within {PATIENCE:?}: {refusal:#}");
            wait::pause(Duration::from_millis(10) + self.random.moment(40));
        }
    }

    /// Calls the plugin until it works; answers what it printed.
    fn by_plugin(&self, host: &Host, call: &Call) -> Result<Value> {
        self.insist(&call.command, || {
            let start = Instant::now();
            let answer = call.execute(host)?;
            let took = start.elapsed();
            let millis = u64::try_from(took.as_millis())?;
            self.progress.count(|totals| totals.slowest = totals.slowest.max(millis));
            ensure!(took < ANSWERED_WITHIN, "it took {took:?}: {answer:?}");
            ensure!(answer.success || answer.code().is_some(), "no code: {answer:?}");
            Ok(answer.ok())
        })
    }

    /// StopPodSandbox and RemovePodSandbox, until both work.
    pub(crate) fn end(&self, cri: &Cri, id: &str) -> Result<()> {
        let end = || answered(cri.stop(id).and_then(|()| cri.remove(id)));
        self.insist(&format!("the end of {id}"), end)
    }
}

/// A failure of the runtime's is a refusal, silence is a fault.
fn answered<T>(outcome: Result<T>) -> Result<Result<T>> {
    outcome.as_ref().err().map_or(Ok(()), cri::check_answered)?;
    Ok(outcome)
}

/// Pods whose runtime is this thread.
pub(crate) fn by_plugin(pods: &Pods, host: &Host, number: usize) -> Result<()> {
    let mut made: u64 = 0;
    while pods.progress.goes_on() {
        let mut sandbox = Sandbox::bare(host, &format!("w{number}"))?;
        for _ in 0..PODS_A_NAMESPACE {
            sandbox.id = format!("w{number}-{made}");
            made += 1;
            one_pod(pods, host, &mut sandbox).with_context(|| sandbox.id.clone())?;
            pods.progress.count(|totals| totals.pods += 1);
            if !pods.progress.goes_on() {
                break;
            }
        }
    }
    Ok(())
}

fn one_pod(pods: &Pods, host: &Host, sandbox: &mut Sandbox) -> Result<()> {
    if pods.random.once_in(50) {
        cut_off(pods, host, sandbox)?;
        // The runtime does not know how far it came: it takes the pod away.
        return pods.by_plugin(host, &sandbox.call("DEL")).map(drop);
    }
    sandbox.ips = hook::addresses(&pods.by_plugin(host, &sandbox.call("ADD"))?);
    pods.came(&sandbox.id, &sandbox.ips)?;
    if pods.random.once_in(20) {
        let ping = || probe::ping(&host.net, sandbox.v4()?);
        wait::until(Duration::from_secs(5), "a pod that is up answers", ping)?;
    }
    pods.goes(&sandbox.ips);
    pods.by_plugin(host, &sandbox.call("DEL")).map(drop)
}

/// The plugin is killed in the middle of an ADD, as with its runtime.
fn cut_off(pods: &Pods, host: &Host, sandbox: &Sandbox) -> Result<()> {
    let mut child = sandbox.call("ADD").spawn(host)?;
    wait::pause(pods.random.moment(8));
    child.kill()?;
    child.wait()?;
    pods.progress.count(|totals| totals.cut_off += 1);
    Ok(())
}

/// Pods of a real runtime.
pub(crate) fn by_runtime(pods: &Pods, cri: &Cri, faults: &Faults) -> Result<()> {
    let mut made: u64 = 0;
    while pods.progress.goes_on() {
        made += 1;
        let name = format!("pod{made}");
        let pod = pods.insist(&name, || {
            let _making = faults.making();
            answered(cri.run_pod(cri::pod(&name)))
        })?;
        pods.came(&pod.id, &pod.ips)?;
        pods.goes(&pod.ips);
        pods.end(cri, &pod.id)?;
        pods.progress.count(|totals| {
            totals.pods += 1;
            totals.by_runtime += 1;
        });
    }
    Ok(())
}
