//! The OCI hook (OCI runtime spec 1.2, "Hooks"): networks for containers that no CRI
//! runtime made: `ctr run`, podman, nerdctl.
//!
//! At `createRuntime` (or `prestart`) it attaches the container to its networks, as
//! eth0, eth1, ...; at `poststop` it detaches it from all. The container's id is the
//! sandbox id. The namespace is `/proc/PID/ns/net`, which this hook opens while the runtime
//! waits for it, and hands to netd as a descriptor: the runtime may be in PID and mount
//! namespaces of its own.
//! A container that joins an existing namespace, or the host's, is left alone: whoever
//! made the namespace sees to its network. `netd.io/network` overrides that for a
//! joined one.

use std::{
    io,
    os::fd::{AsFd, OwnedFd},
    process::ExitCode,
    time::Duration,
};

use netd_api::{
    annotations::OF_PODS,
    v1::{AttachRequest, DetachRequest},
};
use netd_cni::rpc::{Netd, open_netns};

use crate::{
    cni::config::{DEFAULT_NETWORK, DEFAULT_TIMEOUT, MAX_TIMEOUT},
    error::{HookError, shown},
    input::document,
    json::Reader,
};
use annotations::Wishes;
use bundle::Netns;
use state::{OciState, Stage};

pub mod annotations;
pub mod bundle;
pub mod state;

/// Options of `netd-hook oci`.
#[derive(Debug, clap::Args)]
#[command(after_help = "Annotations of the container:
  netd.io/network  networks, separated by commas; instead of --network
  netd.io/ip       addresses in the first network, separated by commas
  netd.io/default-route  the interface with the default routes, eth1 for example
  netd.io/mac      MAC address of eth0
  netd.io/ports    [HOST-IP:]HOST-PORT:PORT[/PROTOCOL], separated by commas")]
pub struct Args {
    /// Network to attach to; several give eth0, eth1, ...
    #[arg(long, value_name = "NAME", default_value = DEFAULT_NETWORK)]
    pub network: Vec<String>,
    /// netd's socket; the hooks' socket beside it is used
    #[arg(long, value_name = "PATH", default_value = netd_api::DEFAULT_SOCKET)]
    pub socket: String,
    /// Seconds that netd has for each call
    #[arg(long, value_name = "SECONDS", default_value_t = DEFAULT_TIMEOUT,
          value_parser = clap::value_parser!(u64).range(1..=MAX_TIMEOUT))]
    pub timeout: u64,
}

/// The hook: state in on stdin; errors go to stderr, with exit status 1.
pub fn main(args: &Args, issued_at: u64) -> ExitCode {
    let outcome = run(args, io::stdin(), issued_at);
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("netd-hook: {error}");
            if !error.details().is_empty() {
                eprintln!("netd-hook: {}", error.details());
            }
            ExitCode::FAILURE
        }
    }
}

/// Does what the state asks for.
///
/// # Errors
/// Those of reading the state and the bundle, and of netd.
pub fn run(args: &Args, stdin: impl AsFd, issued_at: u64) -> Result<(), HookError> {
    let bytes = document(stdin, "the container's state on stdin")?;
    let state = OciState::parse(&bytes)?;
    let mut reader = Reader::new();
    let wishes = Wishes::read(&state.annotations, &mut reader);
    let stopping = state.stage == Stage::Stopping;
    if !stopping {
        reader.finish()?;
    }
    let netns = match bundle::netns(&state.bundle) {
        Ok(netns) => netns,
        // A bundle may be gone by then; a detach of nothing succeeds.
        Err(_) if stopping => Netns::Own,
        Err(error) => return Err(error),
    };
    if netns == Netns::Own && !stopping {
        check_own(&state)?;
    }
    let path = match netns {
        Netns::Host => return Ok(()),
        Netns::Joined(_) if wishes.networks.is_empty() => return Ok(()),
        Netns::Joined(path) => path,
        Netns::Own => format!("/proc/{}/ns/net", state.pid),
    };
    if stopping {
        let all = DetachRequest { sandbox_id: state.id, issued_at, ..DetachRequest::default() };
        return netd(args)?.detach(&all).map(drop);
    }
    let opened = open_netns(&path, |problem| HookError::field("pid", problem))?;
    let requests = requests(state, wishes, &args.network, path, issued_at)?;
    attach(&mut netd(args)?, requests, &opened)
}

/// A container with a namespace of its own has no NRI front that would read a pod's annotations.
fn check_own(state: &OciState) -> Result<(), HookError> {
    let key = OF_PODS.iter().find(|key| state.annotations.contains_key(**key));
    key.map_or(Ok(()), |key| {
        let field = format!("annotations.\"{key}\"");
        let problem = format!("is for pods; a container's networks are {}", annotations::NETWORK);
        Err(HookError::field(field, problem))
    })
}

fn netd(args: &Args) -> Result<Netd, HookError> {
    Netd::connect(&args.socket, Duration::from_secs(args.timeout))
}

/// One request a network. What an annotation says about addresses, MAC and ports is
/// for the first, which also has the default routes unless an annotation names another.
fn requests(
    state: OciState,
    wishes: Wishes,
    networks: &[String],
    netns: String,
    issued_at: u64,
) -> Result<Vec<AttachRequest>, HookError> {
    let networks =
        if wishes.networks.is_empty() { networks.to_vec() } else { wishes.networks.clone() };
    let leads_out = wishes.default_route.clone().unwrap_or_else(|| "eth0".to_owned());
    if !(0..networks.len()).any(|i| leads_out == format!("eth{i}")) {
        let text = format!("{} is none of the {} interfaces", shown(&leads_out), networks.len());
        return Err(HookError::field(annotations::field(annotations::DEFAULT_ROUTE), text));
    }
    let request = |(i, network)| AttachRequest {
        sandbox_id: state.id.clone(),
        netns_path: netns.clone(),
        interface: format!("eth{i}"),
        network,
        pod: Some(wishes.pod.clone()),
        annotations: state.annotations.clone(),
        no_default_route: leads_out != format!("eth{i}"),
        default_route: i > 0 && leads_out == format!("eth{i}"),
        issued_at,
        source: "oci".to_owned(),
        ..AttachRequest::default()
    };
    let mut requests: Vec<AttachRequest> = networks.into_iter().enumerate().map(request).collect();
    if let Some(first) = requests.first_mut() {
        first.addresses = wishes.ips;
        first.mac = wishes.mac;
        first.port_mappings = wishes.ports;
    }
    Ok(requests)
}

/// Attaches to all or to none: a runtime does not run poststop for a container whose
/// createRuntime failed.
fn attach(netd: &mut Netd, requests: Vec<AttachRequest>, netns: &OwnedFd) -> Result<(), HookError> {
    for (done, request) in requests.into_iter().enumerate() {
        let undo = DetachRequest {
            sandbox_id: request.sandbox_id.clone(),
            issued_at: request.issued_at,
            ..DetachRequest::default()
        };
        let Err(error) = netd.attach(&request, netns) else { continue };
        // A refused attach made nothing; of any other failure it is not known.
        if (done > 0 || !matches!(error, HookError::Refused(_)))
            && let Err(second) = netd.detach(&undo)
        {
            eprintln!("netd-hook: can't undo: {second}");
        }
        return Err(error);
    }
    Ok(())
}
