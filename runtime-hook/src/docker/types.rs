//! The JSON documents of libnetwork's remote drivers (its packages `drivers/remote/api` and
//! `ipams/remote/api`; its docs/remote.md and docs/ipam.md). Fields that are missing or null
//! read as empty. Unknown fields are ignored, because releases of dockerd add some.

use std::collections::BTreeMap;

use serde::{Deserialize, Deserializer, Serialize};
use serde_json::{Map, Value};

/// Go encodes an empty map or list as null.
fn or_empty<'de, T, D>(from: D) -> Result<T, D::Error>
where
    T: Default + Deserialize<'de>,
    D: Deserializer<'de>,
{
    Ok(Option::deserialize(from)?.unwrap_or_default())
}

/// NetworkDriver.CreateNetwork
#[derive(Debug, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub(super) struct CreateNetwork {
    #[serde(rename = "NetworkID")]
    pub(super) network_id: String,
    #[serde(default, deserialize_with = "or_empty")]
    pub(super) options: Map<String, Value>,
    #[serde(default, rename = "IPv4Data", deserialize_with = "or_empty")]
    pub(super) v4: Vec<IpamData>,
    #[serde(default, rename = "IPv6Data", deserialize_with = "or_empty")]
    pub(super) v6: Vec<IpamData>,
}

/// One pool of a network.
#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub(super) struct IpamData {
    #[serde(deserialize_with = "or_empty")]
    pub(super) address_space: String,
    #[serde(deserialize_with = "or_empty")]
    pub(super) pool: String,
    #[serde(deserialize_with = "or_empty")]
    pub(super) gateway: String,
    #[serde(deserialize_with = "or_empty")]
    pub(super) aux_addresses: BTreeMap<String, String>,
}

/// NetworkDriver.DeleteNetwork
#[derive(Debug, Deserialize)]
pub(super) struct DeleteNetwork {
    #[serde(rename = "NetworkID")]
    pub(super) network_id: String,
}

/// NetworkDriver.AllocateNetwork
#[derive(Debug, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub(super) struct AllocateNetwork {
    #[serde(default, deserialize_with = "or_empty")]
    pub(super) options: BTreeMap<String, String>,
}

/// NetworkDriver.CreateEndpoint
#[derive(Debug, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub(super) struct CreateEndpoint {
    #[serde(rename = "NetworkID")]
    pub(super) network_id: String,
    #[serde(rename = "EndpointID")]
    pub(super) endpoint_id: String,
    #[serde(default, deserialize_with = "or_empty")]
    pub(super) interface: Interface,
}

/// In a request what dockerd has chosen of the interface, in an answer what netd chose.
#[derive(Debug, Default, Deserialize, Serialize)]
#[serde(rename_all = "PascalCase", default)]
pub(super) struct Interface {
    #[serde(deserialize_with = "or_empty", skip_serializing_if = "String::is_empty")]
    pub(super) address: String,
    #[serde(
        rename = "AddressIPv6",
        deserialize_with = "or_empty",
        skip_serializing_if = "String::is_empty"
    )]
    pub(super) address_v6: String,
    #[serde(deserialize_with = "or_empty", skip_serializing_if = "String::is_empty")]
    pub(super) mac_address: String,
}

/// EndpointOperInfo, DeleteEndpoint, Leave, RevokeExternalConnectivity, and with options
/// ProgramExternalConnectivity.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub(super) struct EndpointCall {
    #[serde(rename = "EndpointID")]
    pub(super) endpoint_id: String,
    #[serde(default, deserialize_with = "or_empty")]
    pub(super) options: Map<String, Value>,
}

/// NetworkDriver.Join
#[derive(Debug, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub(super) struct Join {
    #[serde(rename = "EndpointID")]
    pub(super) endpoint_id: String,
    pub(super) sandbox_key: String,
}

/// The answer to Join.
#[derive(Debug, Serialize)]
#[serde(rename_all = "PascalCase")]
pub(super) struct JoinAnswer {
    pub(super) interface_name: InterfaceName,
    pub(super) gateway: String,
    #[serde(rename = "GatewayIPv6")]
    pub(super) gateway_v6: String,
    pub(super) static_routes: Vec<StaticRoute>,
    /// Keeps libnetwork from connecting the sandbox to its own bridge (docker_gwbridge) when
    /// it gets no gateway here.
    pub(super) disable_gateway_service: bool,
}

/// The interface to move, and the prefix of its name in the sandbox.
#[derive(Debug, Serialize)]
#[serde(rename_all = "PascalCase")]
pub(super) struct InterfaceName {
    pub(super) src_name: String,
    pub(super) dst_prefix: &'static str,
}

/// A route that libnetwork sets in the sandbox.
#[derive(Debug, Serialize)]
#[serde(rename_all = "PascalCase")]
pub(super) struct StaticRoute {
    pub(super) destination: String,
    /// 0: via `next_hop`; 1: on link.
    pub(super) route_type: u8,
    pub(super) next_hop: String,
}

/// IpamDriver.RequestPool
#[derive(Debug, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub(super) struct RequestPool {
    #[serde(default, deserialize_with = "or_empty")]
    pub(super) pool: String,
    #[serde(default, deserialize_with = "or_empty")]
    pub(super) sub_pool: String,
    #[serde(default, deserialize_with = "or_empty")]
    pub(super) options: BTreeMap<String, String>,
    #[serde(default)]
    pub(super) v6: bool,
}

/// IpamDriver.RequestAddress
#[derive(Debug, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub(super) struct RequestAddress {
    #[serde(rename = "PoolID")]
    pub(super) pool_id: String,
    #[serde(default, deserialize_with = "or_empty")]
    pub(super) address: String,
    #[serde(default, deserialize_with = "or_empty")]
    pub(super) options: BTreeMap<String, String>,
}

/// IpamDriver.ReleaseAddress
#[derive(Debug, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub(super) struct ReleaseAddress {
    pub(super) address: String,
}
