//! The CNI plugin (CNI spec 0.3.0 to 1.1.0): one command, one call to netd.

use std::time::Duration;

use netd_api::v1::{AttachRequest, CheckRequest};
use serde_json::{Value, json};

use crate::{
    error::HookError,
    input::{document, parse},
    json::{JsonNode, Reader},
    rpc::{self, Netd},
};
use config::{Config, PrevResult};
use env::{Command, Lookup};
use rustix::fd::{AsFd, OwnedFd};
use version::SpecVersion;

pub mod address;
pub mod args;
pub mod capabilities;
pub mod check;
pub mod config;
mod del;
pub mod env;
#[doc(hidden)]
pub mod fuzzing;
pub mod gc;
mod keys;
pub mod result;
pub mod version;

/// Most of the time that STATUS takes: runtimes ask often and wait for the answer.
const STATUS_TIMEOUT: Duration = Duration::from_secs(5);

/// Name and versions in one line.
pub fn about() -> String {
    let versions = SpecVersion::names().join(", ");
    format!("{}: CNI plugin of netd, spec {versions}", env!("CARGO_PKG_VERSION"))
}

/// What the plugin has to say and whether it worked.
pub struct Outcome {
    /// For stdout.
    pub line: String,
    /// Whether the exit status is 0.
    pub success: bool,
}

/// The plugin: environment and stdin in, result or error out. `issued_at` is when the
/// process began, see [`crate::clock`].
pub fn answer(lookup: Lookup<'_>, stdin: impl AsFd, issued_at: u64) -> Outcome {
    let read = || document(stdin, "the configuration on stdin");
    let (value, success) = match run(lookup, read, issued_at) {
        Ok(None) => return Outcome { line: String::new(), success: true },
        Ok(Some(value)) => (value, true),
        Err(failure) => (failure.render(), false),
    };
    let mut line = value.to_string();
    line.push('\n');
    Outcome { line, success }
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
pub fn run(
    lookup: Lookup<'_>,
    stdin: impl FnOnce() -> Result<Vec<u8>, HookError>,
    issued_at: u64,
) -> Result<Option<Value>, Failure> {
    let newest = |error| Failure { version: SpecVersion::NEWEST, error };
    let command = env::command(lookup).map_err(newest)?;
    if command == Command::Del {
        let (version, done) = del::del(lookup, stdin().ok(), issued_at);
        return done.map(|()| None).map_err(|error| Failure { version, error });
    }
    let bytes = match stdin() {
        // Runtimes of old ask for the versions without saying theirs.
        Err(_) if command == Command::Version => Vec::new(),
        read => read.map_err(newest)?,
    };
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
        Command::Check => check(lookup, &root, version).map(|()| None),
        Command::Status => status(&root, version).map(|()| None),
        Command::Gc => collect(&root, version).map(|()| None),
        Command::Del | Command::Version => Ok(None),
    };
    outcome.map_err(|error| Failure { version, error })
}

fn netd(config: &Config) -> Result<Netd, HookError> {
    Netd::connect(&config.socket, config.timeout)
}

/// The sandbox's namespace; see [`rpc::open_netns`].
fn netns(attachment: &env::Attachment) -> Result<OwnedFd, HookError> {
    let wrong = |problem| HookError::Environment { variable: "CNI_NETNS", problem };
    rpc::open_netns(&attachment.netns, wrong)
}

fn object(value: &Value) -> Result<JsonNode<'_>, HookError> {
    if value.is_object() {
        return Ok(JsonNode::root(value));
    }
    Err(HookError::Decode("the configuration on stdin is no JSON object".into()))
}

fn add(
    lookup: Lookup<'_>,
    root: &JsonNode<'_>,
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
    let opened = netns(&attachment)?;
    let request = AttachRequest {
        sandbox_id: attachment.container_id,
        netns_path: attachment.netns.clone(),
        interface: attachment.ifname,
        network: config.network.clone(),
        pod: Some(cni_args.pod),
        labels: wishes.labels,
        annotations: wishes.annotations,
        addresses: wishes.ips,
        mac: wishes.mac,
        mtu: 0,
        port_mappings: wishes.ports,
        bandwidth: wishes.bandwidth,
        dns: wishes.dns,
        no_default_route: config.default_route == Some(false),
        default_route: config.default_route == Some(true),
        issued_at,
        source: gc::source(&config.name),
    };
    let attached = netd(&config)?.attach(&request, &opened);
    let endpoint = attached.map_err(|error| {
        let fields = [("addresses", wishes.ips_from_args), ("mac", wishes.mac_from_args)];
        error.blame_cni_args(fields.into_iter().filter(|(_, given)| *given).map(|(field, _)| field))
    })?;
    Ok(result::render(&endpoint, &attachment.netns, prev, version))
}

fn check(lookup: Lookup<'_>, root: &JsonNode<'_>, version: SpecVersion) -> Result<(), HookError> {
    version.needs("CHECK", SpecVersion::V040)?;
    let attachment = env::attachment(lookup, Command::Check)?;
    let mut reader = Reader::new();
    let config = Config::read(root, version, &mut reader);
    let prev = PrevResult::read(root, version, &mut reader);
    reader.finish()?;
    let prev = PrevResult::required(prev)?;
    let opened = netns(&attachment)?;
    let request = CheckRequest {
        sandbox_id: attachment.container_id,
        interface: attachment.ifname,
        netns_path: attachment.netns.clone(),
        network: config.network.clone(),
    };
    let endpoint = netd(&config)?.check(&request, &opened)?;
    match check::differences(&endpoint, &prev) {
        found if found.is_empty() => Ok(()),
        found => Err(HookError::Mismatch(found)),
    }
}

/// Every reason why netd could not be asked is "not available" to a runtime.
fn status(root: &JsonNode<'_>, version: SpecVersion) -> Result<(), HookError> {
    version.needs("STATUS", SpecVersion::V110)?;
    let mut reader = Reader::new();
    let config = Config::read(root, version, &mut reader);
    reader.finish()?;
    let timeout = config.timeout.min(STATUS_TIMEOUT);
    let ready = Netd::connect(&config.socket, timeout);
    let ready = ready.and_then(|mut netd| netd.ready(&config.network));
    ready.map_err(|error| match error {
        HookError::NotReady { .. } => error,
        other => {
            let problems = vec![format!("{other}; {}", other.details())];
            HookError::NotReady { problems, limits_pods: false }
        }
    })
}

fn collect(root: &JsonNode<'_>, version: SpecVersion) -> Result<(), HookError> {
    version.needs("GC", SpecVersion::V110)?;
    let mut reader = Reader::new();
    // As with a DEL: a key that would make an ADD fail keeps nothing from being removed.
    let config = Config::read_known(root, version, &mut reader);
    let request = gc::request(root, &config.name, &config.network, &mut reader);
    reader.finish()?;
    netd(&config)?.synchronize(&request).map(drop)
}
