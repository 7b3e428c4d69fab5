//! DEL: works with whatever identifies the sandbox.

use std::time::Duration;

use netd_api::v1::DetachRequest;
use serde_json::Value;

use super::{
    config,
    env::{self, Command, Lookup},
    version::SpecVersion,
};
use crate::{error::HookError, json::JsonNode, rpc::Netd, status::Code};

/// Reads nothing but what it needs: what made an ADD fail, or has been broken since, must not
/// make the DEL fail. `stdin` is `None` if it can't be read. An error is to be reported in the
/// version that is answered.
pub(super) fn del(
    lookup: Lookup<'_>,
    stdin: Option<Vec<u8>>,
    issued_at: u64,
) -> (SpecVersion, Result<(), HookError>) {
    let config: Option<Value> = stdin.and_then(|bytes| serde_json::from_slice(&bytes).ok());
    let version = config.as_ref().and_then(|config| SpecVersion::of(config).ok());
    let version = version.unwrap_or(SpecVersion::NEWEST);
    let (socket, timeout) = config::connection(config.as_ref().map(JsonNode::root).as_ref());
    (version, detach(lookup, &socket, timeout, issued_at))
}

fn detach(
    lookup: Lookup<'_>,
    socket: &str,
    timeout: Duration,
    issued_at: u64,
) -> Result<(), HookError> {
    let attachment = env::attachment(lookup, Command::Del)?;
    let request = DetachRequest {
        sandbox_id: attachment.container_id,
        interface: attachment.ifname,
        issued_at,
        ..DetachRequest::default()
    };
    match Netd::connect(socket, timeout)?.detach(&request) {
        Err(HookError::Refused(refusal)) if refusal.code == Code::NotFound => Ok(()),
        // Anything else is reported, so that the runtime tries again and nothing leaks.
        other => other.map(drop),
    }
}
