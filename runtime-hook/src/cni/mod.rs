//! The CNI plugin (CNI spec 0.3.0 to 1.1.0): one command, one call to netd.

use std::{
    env::var_os,
    io::{self, Read, Write},
    process::ExitCode,
    time::Duration,
};

use netd_api::v1::{AttachRequest, CheckRequest, DetachRequest};
use serde_json::{Value, json};
use tonic::Code;

use crate::{
    client::once,
    error::HookError,
    json::{Node, Reader, parse, slurp},
};
use config::{Config, PrevResult};
use env::{Command, Lookup};
use version::SpecVersion;

pub mod args;
pub mod capabilities;
pub mod check;
pub mod config;
pub mod env;
#[doc(hidden)]
pub mod fuzzing;
pub mod gc;
pub mod result;
pub mod version;

/// Most of the time that STATUS takes: runtimes ask often and wait for the answer.
const STATUS_TIMEOUT: Duration = Duration::from_secs(5);

/// Name and versions in one line.
pub fn about() -> String {
    let versions = SpecVersion::names().join(", ");
    format!("netd-hook {}: CNI plugin of netd, spec {versions}", env!("CARGO_PKG_VERSION"))
}

/// The plugin: environment and stdin in, result or error on stdout, exit status 1 on
/// error. `issued_at` is when the process began, see [`crate::clock`].
pub fn main(issued_at: u64) -> ExitCode {
    let (answer, status) = match run(&|name| var_os(name), io::stdin().lock(), issued_at) {
        Ok(None) => return ExitCode::SUCCESS,
        Ok(Some(answer)) => (answer, ExitCode::SUCCESS),
        Err(failure) => (failure.render(), ExitCode::FAILURE),
    };
    let mut line = answer.to_string();
    line.push('\n');
    match io::stdout().lock().write_all(line.as_bytes()) {
        Ok(()) => status,
        Err(e) => {
            eprintln!("netd-hook: can't write the result to stdout: {e}");
            ExitCode::FAILURE
        }
    }
}

/// An error, and the version in which to report it.
#[derive(Debug)]
pub struct Failure {
    version: SpecVersion,
    error: HookError,
}

impl Failure {
    /// The error as JSON (CNI spec 1.1.0, section 5, "Error").
    pub fn render(&self) -> Value {
        json!({
            "cniVersion": self.version.as_str(),
            "code": self.error.cni_code(),
            "msg": self.error.to_string(),
            "details": self.error.details(),
        })
    }
}

/// Runs the command of the environment on the configuration; what to print.
///
/// # Errors
/// [`Failure`], ready to be printed.
pub fn run(lookup: Lookup<'_>, stdin: impl Read, issued_at: u64) -> Result<Option<Value>, Failure> {
    let newest = |error| Failure { version: SpecVersion::NEWEST, error };
    let command = env::command(lookup).map_err(newest)?;
    let bytes = slurp(stdin, "the configuration on stdin").map_err(newest)?;
    // Runtimes of old ask for the versions without saying theirs.
    if command == Command::Version && bytes.trim_ascii().is_empty() {
        return Ok(Some(version::answer(SpecVersion::NEWEST)));
    }
    let value = parse(&bytes, "the configuration on stdin").map_err(newest)?;
    let root = object(&value).map_err(newest)?;
    if command == Command::Version {
        // Asking is how a runtime finds out: its own version need not be spoken.
        let asked = SpecVersion::of(&value).unwrap_or(SpecVersion::NEWEST);
        return Ok(Some(version::answer(asked)));
    }
    let version = SpecVersion::of(&value).map_err(newest)?;
    let outcome = match command {
        Command::Add => add(lookup, &root, version, issued_at).map(Some),
        Command::Del => del(lookup, &root, version, issued_at).map(|()| None),
        Command::Check => check(lookup, &root, version).map(|()| None),
        Command::Status => status(&root, version).map(|()| None),
        Command::Gc => collect(&root, version).map(|()| None),
        Command::Version => Ok(None),
    };
    outcome.map_err(|error| Failure { version, error })
}

fn object(value: &Value) -> Result<Node<'_>, HookError> {
    if value.is_object() {
        return Ok(Node::root(value));
    }
    Err(HookError::Decode("the configuration on stdin is no JSON object".into()))
}

fn add(
    lookup: Lookup<'_>,
    root: &Node<'_>,
    version: SpecVersion,
    issued_at: u64,
) -> Result<Value, HookError> {
    let attachment = env::attachment(lookup, Command::Add)?;
    let cni_args = args::parse(&attachment.args)?;
    let mut reader = Reader::new();
    let config = Config::read(root, version, &mut reader);
    let wishes = capabilities::Wishes::read(root, &cni_args, &mut reader);
    let prev = PrevResult::read(root, version, &mut reader);
    reader.finish()?;
    let request = AttachRequest {
        sandbox_id: attachment.container_id,
        netns_path: attachment.netns.clone(),
        interface: attachment.ifname,
        network: config.network,
        pod: Some(cni_args.pod),
        labels: wishes.labels,
        annotations: wishes.annotations,
        addresses: wishes.ips,
        mac: wishes.mac,
        mtu: 0,
        port_mappings: wishes.ports,
        bandwidth: wishes.bandwidth,
        dns: wishes.dns,
        no_default_route: false,
        issued_at,
        source: gc::source(&config.name),
    };
    let endpoint = once(&config.socket, config.timeout, async |netd| netd.attach(request).await)?;
    Ok(result::render(&endpoint, &attachment.netns, prev, version))
}

/// Reads nothing but what it needs: what made an ADD fail must not make the DEL fail.
fn del(
    lookup: Lookup<'_>,
    root: &Node<'_>,
    version: SpecVersion,
    issued_at: u64,
) -> Result<(), HookError> {
    let attachment = env::attachment(lookup, Command::Del)?;
    let mut reader = Reader::new();
    let config = Config::read(root, version, &mut reader);
    reader.finish()?;
    let request = DetachRequest {
        sandbox_id: attachment.container_id,
        interface: attachment.ifname,
        issued_at,
    };
    let detached = once(&config.socket, config.timeout, async |netd| netd.detach(request).await);
    match detached {
        Err(HookError::Refused(refusal)) if refusal.code == Code::NotFound => Ok(()),
        // Anything else is reported, so that the runtime tries again and nothing leaks.
        other => other.map(drop),
    }
}

fn check(lookup: Lookup<'_>, root: &Node<'_>, version: SpecVersion) -> Result<(), HookError> {
    version.needs("CHECK", SpecVersion::V040)?;
    let attachment = env::attachment(lookup, Command::Check)?;
    let mut reader = Reader::new();
    let config = Config::read(root, version, &mut reader);
    let prev = PrevResult::read(root, version, &mut reader);
    reader.finish()?;
    let prev = PrevResult::required(prev)?;
    let request = CheckRequest {
        sandbox_id: attachment.container_id,
        interface: attachment.ifname,
        netns_path: attachment.netns.clone(),
    };
    let endpoint = once(&config.socket, config.timeout, async |netd| netd.check(request).await)?;
    match check::differences(&endpoint, &attachment.netns, &prev) {
        found if found.is_empty() => Ok(()),
        found => Err(HookError::Mismatch(found)),
    }
}

/// Every reason why netd could not be asked is "not available" to a runtime.
fn status(root: &Node<'_>, version: SpecVersion) -> Result<(), HookError> {
    version.needs("STATUS", SpecVersion::V110)?;
    let mut reader = Reader::new();
    let config = Config::read(root, version, &mut reader);
    reader.finish()?;
    let timeout = config.timeout.min(STATUS_TIMEOUT);
    let ready = once(&config.socket, timeout, async |netd| netd.ready().await);
    ready.map_err(|error| match error {
        HookError::NotReady(_) => error,
        other => HookError::NotReady(vec![format!("{other}; {}", other.details())]),
    })
}

fn collect(root: &Node<'_>, version: SpecVersion) -> Result<(), HookError> {
    version.needs("GC", SpecVersion::V110)?;
    let mut reader = Reader::new();
    let config = Config::read(root, version, &mut reader);
    let request = gc::request(root, &config.name, &config.network, &mut reader);
    reader.finish()?;
    once(&config.socket, config.timeout, async |netd| netd.synchronize(request).await).map(drop)
}
