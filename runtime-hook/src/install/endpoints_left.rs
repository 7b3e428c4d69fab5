//! Which pods still have a network that the plugin made: their DEL needs it.

use std::{fs, path::Path, time::Duration};

use netd_api::v1::{
    Endpoint, EndpointState, ListEndpointsRequest, endpoint_service_client::EndpointServiceClient,
};
use netd_domain::IfName;

use crate::{client::UnixClient, error::HookError};

/// Limit of each call of netd.
const TIMEOUT: Duration = Duration::from_secs(5);
/// What a CNI configuration's endpoints have as their source; see [`crate::cni::gc::source`].
const SOURCE: &str = "cni/";

/// Endpoints that the plugin made, by netd's list; where netd does not run, its devices on this
/// host, whoever asked for them.
///
/// # Errors
/// netd answers, but not with its list.
pub(super) fn endpoints_left(socket: &str) -> Result<Vec<String>, HookError> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let runtime = runtime.map_err(|e| HookError::io("can't start the async runtime", e))?;
    match runtime.block_on(listed(socket)) {
        Ok(endpoints) => Ok(endpoints),
        Err(HookError::Unreachable { .. }) => devices(),
        Err(error) => Err(error),
    }
}

async fn listed(socket: &str) -> Result<Vec<String>, HookError> {
    let netd = UnixClient::lazy(Path::new(socket), TIMEOUT);
    let mut request = ListEndpointsRequest::default();
    let mut found = Vec::new();
    loop {
        let list = |connection, request| async move {
            EndpointServiceClient::new(connection).list_endpoints(request).await
        };
        let page = netd.call("ListEndpoints", request.clone(), list).await?;
        // netd ends what is being detached by itself.
        let of_plugin = page
            .endpoints
            .iter()
            .filter(|e| e.source.starts_with(SOURCE) && e.state() != EndpointState::Detaching);
        found.extend(of_plugin.map(name));
        if page.next_page_token.is_empty() || page.next_page_token == request.page_token {
            return Ok(found);
        }
        request.page_token = page.next_page_token;
    }
}

fn name(endpoint: &Endpoint) -> String {
    let key = format!("{}/{}", endpoint.sandbox_id, endpoint.interface);
    match &endpoint.pod {
        Some(pod) if !pod.name.is_empty() => format!("{}/{} ({key})", pod.namespace, pod.name),
        _ => key,
    }
}

/// The host's sides of endpoints in this process's network namespace.
fn devices() -> Result<Vec<String>, HookError> {
    const PATH: &str = "/proc/self/net/dev";
    let text = fs::read_to_string(PATH);
    let text = text.map_err(|e| HookError::io(format!("can't read {PATH}"), e))?;
    let names = text.lines().filter_map(|line| Some(line.split_once(':')?.0.trim()));
    let of_endpoint = |name: &&str| {
        let parsed = name.parse::<IfName>();
        name.starts_with("nd") && parsed.is_ok_and(|name| name.is_endpoint_device())
    };
    Ok(names.filter(of_endpoint).map(|name| format!("device {name}")).collect())
}
