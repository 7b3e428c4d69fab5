//! What dockerd says and is told (libnetwork's `drivers/remote/api` and
//! `ipams/remote/api`; docs/remote.md and docs/ipam.md there). Fields that are missing or
//! null are empty, fields that are not known are left alone: dockerd adds some now and then.

use std::collections::BTreeMap;

use serde::{Deserialize, Deserializer, Serialize};
use serde_json::{Map, Value};

/// Go writes an empty map or list as null.
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
pub struct CreateNetwork {
    #[serde(rename = "NetworkID")]
    pub network_id: String,
    #[serde(default, deserialize_with = "or_empty")]
    pub options: Map<String, Value>,
    #[serde(default, rename = "IPv4Data", deserialize_with = "or_empty")]
    pub v4: Vec<IpamData>,
    #[serde(default, rename = "IPv6Data", deserialize_with = "or_empty")]
    pub v6: Vec<IpamData>,
}

/// One pool of a network.
#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub struct IpamData {
    #[serde(deserialize_with = "or_empty")]
    pub address_space: String,
    #[serde(deserialize_with = "or_empty")]
    pub pool: String,
    #[serde(deserialize_with = "or_empty")]
    pub gateway: String,
    #[serde(deserialize_with = "or_empty")]
    pub aux_addresses: BTreeMap<String, String>,
}

/// NetworkDriver.DeleteNetwork
#[derive(Debug, Deserialize)]
pub struct DeleteNetwork {
    #[serde(rename = "NetworkID")]
    pub network_id: String,
}

/// NetworkDriver.AllocateNetwork
#[derive(Debug, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct AllocateNetwork {
    #[serde(default, deserialize_with = "or_empty")]
    pub options: BTreeMap<String, String>,
}

/// NetworkDriver.CreateEndpoint
#[derive(Debug, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct CreateEndpoint {
    #[serde(rename = "NetworkID")]
    pub network_id: String,
    #[serde(rename = "EndpointID")]
    pub endpoint_id: String,
    #[serde(default, deserialize_with = "or_empty")]
    pub interface: Interface,
}

/// What of an interface dockerd has chosen; in the answer, what it has not.
#[derive(Debug, Default, Deserialize, Serialize)]
#[serde(rename_all = "PascalCase", default)]
pub struct Interface {
    #[serde(deserialize_with = "or_empty", skip_serializing_if = "String::is_empty")]
    pub address: String,
    #[serde(
        rename = "AddressIPv6",
        deserialize_with = "or_empty",
        skip_serializing_if = "String::is_empty"
    )]
    pub address_v6: String,
    #[serde(deserialize_with = "or_empty", skip_serializing_if = "String::is_empty")]
    pub mac_address: String,
}

/// A call about one endpoint: EndpointOperInfo, DeleteEndpoint, Leave,
/// RevokeExternalConnectivity; with options: ProgramExternalConnectivity.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct OfEndpoint {
    #[serde(rename = "EndpointID")]
    pub endpoint_id: String,
    #[serde(default, deserialize_with = "or_empty")]
    pub options: Map<String, Value>,
}

/// NetworkDriver.Join
#[derive(Debug, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct Join {
    #[serde(rename = "EndpointID")]
    pub endpoint_id: String,
    pub sandbox_key: String,
}

/// The answer to Join.
#[derive(Debug, Serialize)]
#[serde(rename_all = "PascalCase")]
pub struct Joined {
    pub interface_name: InterfaceName,
    pub gateway: String,
    #[serde(rename = "GatewayIPv6")]
    pub gateway_v6: String,
    pub static_routes: Vec<StaticRoute>,
    /// Else libnetwork would give the sandbox a way out of its own (docker_gwbridge).
    pub disable_gateway_service: bool,
}

/// Which interface to move, and the beginning of its name in the sandbox.
#[derive(Debug, Serialize)]
#[serde(rename_all = "PascalCase")]
pub struct InterfaceName {
    pub src_name: String,
    pub dst_prefix: &'static str,
}

/// A route in the sandbox.
#[derive(Debug, Serialize)]
#[serde(rename_all = "PascalCase")]
pub struct StaticRoute {
    pub destination: String,
    /// 0: by the next hop; 1: on the link.
    pub route_type: u8,
    pub next_hop: String,
}

/// IpamDriver.RequestPool
#[derive(Debug, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct RequestPool {
    #[serde(default, deserialize_with = "or_empty")]
    pub pool: String,
    #[serde(default, deserialize_with = "or_empty")]
    pub sub_pool: String,
    #[serde(default, deserialize_with = "or_empty")]
    pub options: BTreeMap<String, String>,
    #[serde(default)]
    pub v6: bool,
}

/// IpamDriver.RequestAddress
#[derive(Debug, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct RequestAddress {
    #[serde(rename = "PoolID")]
    pub pool_id: String,
    #[serde(default, deserialize_with = "or_empty")]
    pub address: String,
    #[serde(default, deserialize_with = "or_empty")]
    pub options: BTreeMap<String, String>,
}

/// IpamDriver.ReleaseAddress
#[derive(Debug, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct ReleaseAddress {
    pub address: String,
}
