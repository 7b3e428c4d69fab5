//! `ErrorInfo.metadata` of a refusal: what a program needs to know about it, so that no client
//! reads the message. The keys of each reason are listed in netd/v1/endpoint.proto.

use std::{collections::HashMap, net::IpAddr};

use crate::node::Error;
use netd_dataplane::DataplaneError;
use netd_domain::{
    EndpointKey, HostPort,
    ipam::{Family, IpamError},
};
use netd_store::StoreError;

/// The metadata of an error; `field` is the request's field that is wrong.
pub(super) fn of(error: &Error, field: Option<&str>) -> HashMap<String, String> {
    let mut metadata = Metadata::default();
    metadata.add_optional("field", field);
    metadata.add_optional("hint", hint(error));
    metadata.describe(error);
    metadata.0
}

#[derive(Default)]
struct Metadata(HashMap<String, String>);

impl Metadata {
    fn add(&mut self, key: &str, value: impl ToString) {
        self.0.insert(key.to_owned(), value.to_string());
    }

    fn add_optional(&mut self, key: &str, value: Option<impl ToString>) {
        if let Some(value) = value {
            self.add(key, value);
        }
    }

    fn describe(&mut self, error: &Error) {
        match error {
            Error::PortTaken { port, holder } => self.host_port(port, Some(holder)),
            Error::PortListened(listener) => self.host_port(&listener.port, None),
            Error::NoNetwork(network)
            | Error::NoSubnet { network, .. }
            | Error::OverlayNetwork(network) => self.add("network", network),
            Error::NetworkInUse { name, endpoints } => {
                self.add("network", name);
                self.add("endpoints", endpoints);
            }
            Error::NoSandbox(sandbox) => self.add("sandbox_id", sandbox),
            Error::NoEndpoint(key)
            | Error::Detached(key)
            | Error::StillDetaching(key)
            | Error::NotMoved(key)
            | Error::NotPlaced(key)
            | Error::Elsewhere { key, .. }
            | Error::WrongNetns { key, .. }
            | Error::Different { key, .. }
            | Error::Differs { key, .. } => self.add("endpoint", key),
            Error::HostNameTaken { ifname, other } => {
                self.add("host_interface", ifname);
                self.add("holder", other);
            }
            Error::NotAllowed(refused) => {
                self.add("network", &refused.network);
                self.add("pod_namespace", &refused.namespace);
            }
            Error::Ipam { network, source } => {
                self.add("network", network);
                self.ipam(source);
            }
            Error::External { subnet, source } => {
                self.add("subnet", subnet);
                self.ipam(source);
            }
            Error::AddressForeign { network, ip, holder } => {
                self.add("network", network);
                self.address(*ip);
                self.add("holder", holder);
            }
            Error::Dataplane(error) => self.dataplane(error),
            Error::Invalid(_)
            | Error::NetworkExists(_)
            | Error::Docker0(_)
            | Error::HostNetwork(_)
            | Error::NoOverlay
            | Error::NoEtcd
            | Error::Removal(_)
            | Error::Store(_)
            | Error::Compacted(_)
            | Error::Internal(_) => {}
        }
    }

    fn host_port(&mut self, port: &HostPort, holder: Option<&EndpointKey>) {
        self.add("host_port", port.port);
        self.add("protocol", port.protocol);
        self.add_optional("host_ip", port.ip);
        self.add_optional("holder", holder);
    }

    fn ipam(&mut self, error: &IpamError) {
        match error {
            IpamError::PoolFull { family, .. } => self.add("family", family),
            IpamError::Taken { ip }
            | IpamError::NotInPool { ip, .. }
            | IpamError::IsGateway { ip, .. }
            | IpamError::Reserved { ip, .. }
            | IpamError::NoSuchFamily { ip, .. } => self.address(*ip),
            IpamError::DuplicateFamily { second, .. } => self.address(*second),
        }
    }

    fn address(&mut self, ip: IpAddr) {
        self.add("address", ip);
        self.add("family", Family::of(ip));
    }

    fn dataplane(&mut self, error: &DataplaneError) {
        match error {
            DataplaneError::PortTaken { port } => self.host_port(port, None),
            DataplaneError::NetnsGone { path, .. }
            | DataplaneError::NotANetns { path, .. }
            | DataplaneError::HostNetns { path } => self.add("netns_path", path.display()),
            DataplaneError::InterfaceExists { ifname, .. } => self.add("interface", ifname),
            DataplaneError::BridgeFull { bridge } => self.add("bridge", bridge),
            DataplaneError::Busy { thread, .. } => self.add("thread", thread),
            DataplaneError::Kernel { .. }
            | DataplaneError::Unsupported { .. }
            | DataplaneError::Exhausted { .. }
            | DataplaneError::Io { .. } => {}
        }
    }
}

/// What a person can do about the error, where the message does not say it.
fn hint(error: &Error) -> Option<&'static str> {
    match error {
        Error::NoEndpoint(_) | Error::NoSandbox(_) => {
            Some("`netd endpoint list` shows all endpoints")
        }
        Error::NetworkExists(_) => Some("`netd network list` shows all networks"),
        Error::WrongNetns { .. } => {
            Some("detach the endpoint and attach it in the namespace that the sandbox has now")
        }
        Error::Differs { .. } => Some(
            "on the host netd repairs this within a second, see `netd status`; inside the pod it does not, see `netd endpoint inspect`",
        ),
        Error::Detached(_) => Some("attach again if the sandbox still exists"),
        Error::HostNameTaken { .. } => Some("detach that endpoint, or use another sandbox id"),
        Error::PortTaken { .. } | Error::Dataplane(DataplaneError::PortTaken { .. }) => {
            Some("use another host port, or detach the endpoint that holds it")
        }
        Error::Dataplane(DataplaneError::NetnsGone { .. }) => {
            Some("the sandbox may have ended; create its namespace before attaching it")
        }
        Error::Dataplane(DataplaneError::NotANetns { .. }) => {
            Some("give the path of a network namespace, e.g. /run/netns/NAME or /proc/PID/ns/net")
        }
        Error::Dataplane(DataplaneError::InterfaceExists { .. }) => {
            Some("remove or rename that interface, or ask for another name")
        }
        Error::Dataplane(DataplaneError::Kernel { .. } | DataplaneError::Io { .. }) => {
            Some("`netd doctor` looks for causes, and `journalctl -u netd` shows netd's log")
        }
        Error::Store(StoreError::Unavailable(_) | StoreError::Failed { .. }) => {
            Some("nothing was changed; `netd status` shows when the store works again")
        }
        Error::Internal(_) => {
            Some("this is a fault of netd; `journalctl -u netd` shows the details")
        }
        _ => None,
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use netd_domain::Protocol;

    fn port(ip: Option<IpAddr>) -> HostPort {
        HostPort { port: 8080, protocol: Protocol::Udp, ip }
    }

    #[test]
    fn a_busy_host_port_is_named_with_its_field_and_holder() {
        let (ip, holder) = (Some([192, 0, 2, 1].into()), "s1/eth0".to_owned());
        let key = EndpointKey { sandbox: "s1".parse().unwrap(), ifname: "eth0".parse().unwrap() };
        let error = Error::PortTaken { port: port(ip), holder: key };
        let metadata = of(&error, Some("port_mappings"));
        let get = |key: &str| metadata.get(key).map(String::as_str);
        assert_eq!(get("field"), Some("port_mappings"));
        assert_eq!((get("host_port"), get("protocol")), (Some("8080"), Some("udp")));
        assert_eq!((get("host_ip"), get("holder")), (Some("192.0.2.1"), Some(holder.as_str())));
        assert!(get("hint").unwrap().contains("another host port"));
    }

    #[test]
    fn what_is_not_known_has_no_key() {
        let error = Error::from(DataplaneError::PortTaken { port: port(None) });
        let metadata = of(&error, None);
        for key in ["field", "host_ip", "holder"] {
            assert!(!metadata.contains_key(key), "{key}: {metadata:?}");
        }
        assert_eq!(metadata["host_port"], "8080");
    }

    #[test]
    fn an_address_that_is_in_use_is_named_with_its_network() {
        let ip = IpAddr::from([10, 1, 0, 9]);
        let error =
            Error::Ipam { network: "blue".parse().unwrap(), source: IpamError::Taken { ip } };
        let metadata = of(&error, Some("addresses"));
        assert_eq!(
            (metadata["network"].as_str(), metadata["address"].as_str()),
            ("blue", "10.1.0.9")
        );
    }
}
