//! For fuzzing: hostile bytes on stdin, whatever the command.

use netd_api::v1::{Address, Endpoint};
use serde_json::Value;

use super::{
    args, capabilities, check,
    config::{Config, PrevResult, check_socket},
    gc, object, result, run,
    version::SpecVersion,
};
use crate::json::Reader;

const COMMANDS: [&str; 6] = ["ADD", "DEL", "CHECK", "STATUS", "GC", "VERSION"];
/// Nobody listens here: what passes every check must not reach a netd of this machine.
const NO_NETD: &str = "/proc/no-netd.sock";

/// The first byte chooses the command (`'0'` ADD, `'1'` DEL, ...); the rest is stdin.
pub fn fuzz(input: &[u8]) {
    let Some((choice, stdin)) = input.split_first() else { return };
    let command = COMMANDS[usize::from(*choice) % COMMANDS.len()];
    let lookup = |name: &str| {
        let value = match name {
            "CNI_COMMAND" => command,
            "CNI_CONTAINERID" => "fuzz",
            "CNI_NETNS" => "/proc/self/ns/net",
            "CNI_IFNAME" => "eth0",
            _ => return None,
        };
        Some(value.as_bytes().to_vec())
    };
    let parsed = serde_json::from_slice::<Value>(stdin).ok();
    let rewritten = parsed.clone().map(without_netd).map(|v| v.to_string());
    let stdin = rewritten.as_ref().map_or(stdin, String::as_bytes);
    // A config that passes ends in "no netd at that socket", which is an error too.
    if let Err(failure) = run(&lookup, || Ok(stdin.to_vec()), 1) {
        let _ = failure.render();
    }
    if let Some(value) = parsed {
        answers(&value);
    }
}

fn without_netd(mut value: Value) -> Value {
    let right = |v: &Value| v.as_str().is_some_and(|s| check_socket(s).is_ok());
    if let Some(fields) = value.as_object_mut()
        && fields.get("socket").is_none_or(|v| v.is_null() || right(v))
    {
        fields.insert("socket".into(), NO_NETD.into());
    }
    value
}

/// What follows after netd's answer.
fn answers(value: &Value) {
    let Ok(root) = object(value) else { return };
    let Ok(version) = SpecVersion::of(value) else { return };
    let mut reader = Reader::new();
    let config = Config::read(&root, version, &mut reader);
    if let Ok(cni_args) = args::parse(&config.name) {
        capabilities::Wishes::read(&root, &cni_args, &mut reader);
    }
    gc::request(&root, &config.name, &config.network, &mut reader);
    if let Some(prev) = PrevResult::read(&root, version, &mut reader) {
        check::differences(&endpoint(), &prev);
        result::render(&endpoint(), "/nonexistent", Some(prev), version);
    }
}

fn endpoint() -> Endpoint {
    let address =
        |address: &str, gateway: &str| Address { address: address.into(), gateway: gateway.into() };
    Endpoint {
        interface: "eth0".into(),
        host_interface: "nd0123456789ab".into(),
        bridge: "cni0".into(),
        mac: "0a:58:0a:58:00:05".into(),
        mtu: 1500,
        addresses: vec![
            address("10.88.0.5/16", "10.88.0.1"),
            address("fd00:88::5/64", "fd00:88::1"),
        ],
        ..Endpoint::default()
    }
}
