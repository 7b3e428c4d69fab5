//! A host with netd and nothing else.

use std::time::Duration;

use anyhow::{Result, bail, ensure};
use netd_api::v1::{AttachRequest, DetachRequest};
use testbed::{Bed, Daemon, DaemonConfig, Host, Sandbox, inventory, stack::check_nothing_left};
use tonic::{Code, Status};

/// More than any call here takes.
pub(crate) const LIMIT: Duration = Duration::from_secs(10);

pub(crate) struct Node {
    pub netd: Daemon,
    before: String,
    pub host: Host,
}

impl Node {
    pub(crate) fn start(bed: &Bed) -> Result<Self> {
        Self::start_with(bed, &DaemonConfig::default())
    }

    pub(crate) fn start_with(bed: &Bed, config: &DaemonConfig) -> Result<Self> {
        let host = bed.host("node")?;
        let netd = Daemon::start(&host, config)?;
        let before = inventory::of(&host)?;
        Ok(Self { netd, before, host })
    }

    /// A netd that may have so many files open.
    pub(crate) fn start_limited(bed: &Bed, descriptors: u32) -> Result<Self> {
        let host = bed.host("node")?;
        let limit = ["prlimit".to_owned(), format!("--nofile={descriptors}:{descriptors}")];
        let netd = Daemon::start_by(&host, &DaemonConfig::default(), &limit)?;
        let before = inventory::of(&host)?;
        Ok(Self { netd, before, host })
    }

    pub(crate) fn bare(&self, name: &str) -> Result<Sandbox> {
        Sandbox::bare(&self.host, name)
    }

    pub(crate) fn detach(&self, sandbox: &Sandbox) -> Result<u32> {
        Ok(self.netd.detach(detach(sandbox))?)
    }

    /// Refused with this code and reason, and the message says something.
    pub(crate) fn refuses(
        &self,
        what: &str,
        request: AttachRequest,
        expected: (Code, &str),
    ) -> Result<()> {
        refused(what, self.netd.attach(request), expected)
    }

    pub(crate) fn nothing_left(&self) -> Result<()> {
        check_nothing_left(&self.host, &self.netd, &self.before)
    }
}

/// All endpoints of the sandbox.
pub(crate) fn detach(sandbox: &Sandbox) -> DetachRequest {
    DetachRequest { sandbox_id: sandbox.id.clone(), ..DetachRequest::default() }
}

/// An error unless it was refused with this code and google.rpc reason.
pub(crate) fn refused<T>(
    what: &str,
    outcome: Result<T, Status>,
    (code, reason): (Code, &str),
) -> Result<()> {
    use tonic_types::StatusExt as _;
    let Err(status) = outcome else { bail!("{what}: accepted") };
    ensure!(status.code() == code, "{what}: {status:?}");
    let details = status.get_error_details();
    let said = details.error_info().map(|info| info.reason.clone()).unwrap_or_default();
    ensure!(said == reason, "{what}: reason {said}, not {reason}: {status:?}");
    ensure!(status.message().len() > 10, "{what}: says nothing: {status:?}");
    Ok(())
}

/// A reproducible stream of bytes (xorshift64).
pub(crate) struct Noise(u64);

impl Noise {
    pub(crate) fn bytes(&mut self, count: usize) -> Vec<u8> {
        let mut next = || {
            self.0 ^= self.0 << 13;
            self.0 ^= self.0 >> 7;
            self.0 ^= self.0 << 17;
            self.0.to_le_bytes()
        };
        let mut bytes: Vec<u8> = (0..count.div_ceil(8)).flat_map(|_| next()).collect();
        bytes.truncate(count);
        bytes
    }
}

/// The same bytes in every run.
pub(crate) fn noise() -> Noise {
    Noise(0x9e37_79b9_7f4a_7c15)
}
