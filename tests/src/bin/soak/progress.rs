//! How far a soak is, kept in a file.

use std::{
    collections::BTreeMap,
    env, fmt, fs,
    io::ErrorKind,
    path::{Path, PathBuf},
    sync::{
        Mutex, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, bail};
use serde::{Deserialize, Serialize};
use testbed::{paths, scale};

/// Between two lines about it, and between two saves.
const REPORT_EVERY: Duration = Duration::from_secs(30);
/// Nothing was done for so long: somebody waits for an answer that does not come.
const STUCK_AFTER: Duration = Duration::from_secs(180);

/// What was done so far, over all runs.
#[derive(Debug, Default, Clone, Serialize, Deserialize)]
pub(crate) struct Totals {
    /// Pods attached and detached.
    pub pods: u64,
    /// Of these, by containerd.
    pub by_runtime: u64,
    /// SIGKILLs of netd.
    pub kills: u64,
    /// Other faults, by name.
    pub faults: BTreeMap<String, u64>,
    /// Calls that were answered with an error, and repeated.
    pub refused: u64,
    /// Plugins that were killed in the middle of an ADD.
    pub cut_off: u64,
    /// The longest that a call of the plugin took, milliseconds.
    pub slowest: u64,
    /// Seconds, of all runs.
    pub seconds: u64,
}

/// What the file holds.
#[derive(Serialize, Deserialize)]
struct Saved {
    wanted_pods: u64,
    wanted_kills: u64,
    #[serde(flatten)]
    totals: Totals,
}

/// Shared by all threads.
#[derive(Debug)]
pub(crate) struct Progress {
    /// Pods to make.
    pub wanted_pods: u64,
    /// SIGKILLs of netd to send.
    pub wanted_kills: u64,
    file: PathBuf,
    totals: Mutex<Totals>,
    before: u64,
    start: Instant,
    limit: Duration,
    over: AtomicBool,
    reported: Mutex<(Instant, u64)>,
}

impl Progress {
    /// Goes on where an earlier run with the same numbers ended.
    pub(crate) fn begin() -> Result<Self> {
        let wanted_pods = scale("NETD_SOAK_PODS", 100_000)?;
        let wanted_kills = scale("NETD_SOAK_KILLS", 1000)?;
        let minutes = scale("NETD_SOAK_MINUTES", 120_u64)?;
        let file = match env::var_os("NETD_SOAK_STATE") {
            Some(file) => file.into(),
            None => paths::root().join(".testbed/soak.json"),
        };
        let totals = load(&file, wanted_pods, wanted_kills)?.unwrap_or_default();
        if totals.pods > 0 {
            println!("going on after: {totals}");
        }
        let (start, done) = (Instant::now(), totals.pods);
        Ok(Self {
            wanted_pods,
            wanted_kills,
            file,
            before: totals.seconds,
            totals: Mutex::new(totals),
            start,
            limit: Duration::from_secs(minutes * 60),
            over: AtomicBool::new(false),
            reported: Mutex::new((start, done)),
        })
    }

    /// Counts something.
    pub(crate) fn count(&self, change: impl FnOnce(&mut Totals)) {
        change(&mut self.lock());
    }

    /// A copy of what was counted.
    pub(crate) fn totals(&self) -> Totals {
        let seconds = self.before + self.start.elapsed().as_secs();
        Totals { seconds, ..self.lock().clone() }
    }

    /// Enough pods and enough kills.
    pub(crate) fn is_done(&self) -> bool {
        let totals = self.lock();
        totals.pods >= self.wanted_pods && totals.kills >= self.wanted_kills
    }

    /// Whether to go on.
    pub(crate) fn goes_on(&self) -> bool {
        !self.over.load(Ordering::Relaxed) && !self.is_done() && self.start.elapsed() < self.limit
    }

    /// Everybody ends what he does and stops.
    pub(crate) fn stop(&self) {
        self.over.store(true, Ordering::Relaxed);
    }

    /// Now and then a line, and a save.
    ///
    /// # Errors
    /// Nothing was done for [`STUCK_AFTER`], which no worker would notice.
    pub(crate) fn report(&self) -> Result<()> {
        let pods = self.lock().pods;
        let mut reported = self.reported.lock().unwrap_or_else(PoisonError::into_inner);
        let (last, before) = *reported;
        if pods == before && last.elapsed() > STUCK_AFTER {
            self.stop();
            bail!("no pod came or went for {STUCK_AFTER:?}");
        }
        if pods != before && last.elapsed() > REPORT_EVERY {
            *reported = (Instant::now(), pods);
            println!("{}", self.totals());
            self.save()?;
        }
        Ok(())
    }

    /// Writes the file.
    pub(crate) fn save(&self) -> Result<()> {
        let Self { wanted_pods, wanted_kills, .. } = *self;
        let saved = Saved { wanted_pods, wanted_kills, totals: self.totals() };
        let text = serde_json::to_string(&saved)?;
        fs::write(&self.file, text).with_context(|| self.file.display().to_string())
    }

    /// Removes the file: the next run is a new one.
    pub(crate) fn forget(&self) {
        let _ = fs::remove_file(&self.file);
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Totals> {
        self.totals.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn load(file: &Path, wanted_pods: u64, wanted_kills: u64) -> Result<Option<Totals>> {
    let text = match fs::read_to_string(file) {
        Ok(text) => text,
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(error).with_context(|| file.display().to_string()),
    };
    let saved: Saved = serde_json::from_str(&text).with_context(|| file.display().to_string())?;
    let same = saved.wanted_pods == wanted_pods && saved.wanted_kills == wanted_kills;
    Ok(same.then_some(saved.totals))
}

impl fmt::Display for Totals {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{} pods ({} by containerd), {} kills of netd, {} plugins cut off",
            self.pods, self.by_runtime, self.kills, self.cut_off
        )?;
        for (name, count) in &self.faults {
            write!(f, ", {count} x {name}")?;
        }
        write!(
            f,
            "; {} calls refused and repeated, the slowest answered after {} ms; {} s",
            self.refused, self.slowest, self.seconds
        )
    }
}
