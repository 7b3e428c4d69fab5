//! Arguments of `netd endpoint attach`. Only their shape is judged here; names and
//! addresses are netd's to judge.

use clap::Args;
use netd_api::v1::{AttachRequest, Bandwidth, PodIdentity, PortMapping, Protocol};

use crate::client::ClientArgs;

#[derive(Debug, Args)]
pub(crate) struct AttachArgs {
    /// The sandbox's id
    sandbox: String,
    /// Path of the network namespace: /run/netns/NAME, /proc/PID/ns/net
    netns: String,
    /// The interface's name inside the sandbox
    #[arg(long, default_value = "eth0")]
    interface: String,
    /// The network
    #[arg(long, default_value = "default")]
    network: String,
    /// An address to have, at most one a family
    #[arg(long = "address", value_name = "IP")]
    addresses: Vec<String>,
    /// A MAC address to have
    #[arg(long, default_value = "", hide_default_value = true)]
    mac: String,
    /// In bytes [default: the network's]
    #[arg(long, default_value_t = 0, hide_default_value = true)]
    mtu: u32,
    /// A host port: [IP:]HOST_PORT:PORT[/tcp|/udp|/sctp]; an IPv6 address in brackets
    #[arg(short = 'p', long = "publish", value_parser = port, value_name = "PORTS")]
    ports: Vec<PortMapping>,
    /// Who the pod is
    #[arg(long, value_parser = pod, value_name = "NAMESPACE/NAME")]
    pod: Option<PodIdentity>,
    /// The pod's uid
    #[arg(long, default_value = "", hide_default_value = true)]
    pod_uid: String,
    /// A label
    #[arg(long = "label", value_parser = label, value_name = "KEY=VALUE")]
    labels: Vec<(String, String)>,
    /// No default route through this endpoint
    #[arg(long)]
    no_default_route: bool,
    /// A default route through this endpoint, before those of the sandbox's others
    #[arg(long, conflicts_with = "no_default_route")]
    default_route: bool,
    /// Limit to the pod: bits a second and burst in bits
    #[arg(long, value_parser = limit, value_name = "RATE,BURST")]
    ingress: Option<(u64, u64)>,
    /// Limit from the pod: bits a second and burst in bits
    #[arg(long, value_parser = limit, value_name = "RATE,BURST")]
    egress: Option<(u64, u64)>,
    #[command(flatten)]
    pub(super) client: ClientArgs,
}

impl AttachArgs {
    pub(super) fn request(self) -> AttachRequest {
        let mut pod = self.pod.unwrap_or_default();
        pod.uid = self.pod_uid;
        let (ingress, egress) = (self.ingress.unwrap_or_default(), self.egress.unwrap_or_default());
        AttachRequest {
            sandbox_id: self.sandbox,
            netns_path: self.netns,
            interface: self.interface,
            network: self.network,
            pod: Some(pod),
            labels: self.labels.into_iter().collect(),
            addresses: self.addresses,
            mac: self.mac,
            mtu: self.mtu,
            port_mappings: self.ports,
            bandwidth: Some(Bandwidth {
                ingress_rate: ingress.0,
                ingress_burst: ingress.1,
                egress_rate: egress.0,
                egress_burst: egress.1,
            }),
            no_default_route: self.no_default_route,
            default_route: self.default_route,
            source: "cli".to_owned(),
            ..Default::default()
        }
    }
}

fn port(text: &str) -> Result<PortMapping, String> {
    let (ports, protocol) = text.split_once('/').unwrap_or((text, "tcp"));
    let protocol = match protocol {
        "tcp" => Protocol::Tcp,
        "udp" => Protocol::Udp,
        "sctp" => Protocol::Sctp,
        other => return Err(format!("\"{other}\" is none of tcp, udp, sctp")),
    };
    let number = |s: &str| {
        let port = s.parse::<u16>().ok().filter(|p| *p > 0);
        port.map(u32::from).ok_or_else(|| format!("\"{s}\" is no port, 1 to 65535"))
    };
    let (rest, container) = ports.rsplit_once(':').ok_or("two ports are needed: HOST_PORT:PORT")?;
    let (ip, host) = rest.rsplit_once(':').unwrap_or(("", rest));
    let host_ip = ip.strip_prefix('[').and_then(|ip| ip.strip_suffix(']')).unwrap_or(ip);
    Ok(PortMapping {
        host_port: number(host)?,
        container_port: number(container)?,
        protocol: protocol.into(),
        host_ip: host_ip.to_owned(),
    })
}

fn pod(text: &str) -> Result<PodIdentity, String> {
    let (namespace, name) = text.split_once('/').ok_or("a pod is NAMESPACE/NAME")?;
    Ok(PodIdentity { namespace: namespace.to_owned(), name: name.to_owned(), uid: String::new() })
}

fn label(text: &str) -> Result<(String, String), String> {
    let (key, value) = text.split_once('=').ok_or("a label is KEY=VALUE")?;
    Ok((key.to_owned(), value.to_owned()))
}

fn limit(text: &str) -> Result<(u64, u64), String> {
    let parsed = text.split_once(',').and_then(|(r, b)| Some((r.parse().ok()?, b.parse().ok()?)));
    parsed.ok_or_else(|| "a limit is RATE,BURST: 10000000,1000000".to_owned())
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn host_ports_are_read_with_and_without_an_address() {
        let p = port("[fd00::1]:8080:80/udp").unwrap();
        assert_eq!((p.host_ip.as_str(), p.host_port, p.container_port), ("fd00::1", 8080, 80));
        assert_eq!(p.protocol(), Protocol::Udp);
        assert_eq!(port("192.0.2.1:1:2").unwrap().host_ip, "192.0.2.1");
        assert_eq!(port("1:2").unwrap().protocol(), Protocol::Tcp);
        for bad in ["", "80", "0:80", "80:65536", "80:80/icmp", "a:b"] {
            assert!(port(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn pods_labels_and_limits_have_their_shape() {
        assert_eq!(pod("ns/web").unwrap().name, "web");
        assert_eq!(label("a=b=c").unwrap(), ("a".into(), "b=c".into()));
        assert_eq!(limit("10,5").unwrap(), (10, 5));
        assert!(pod("web").is_err() && label("a").is_err() && limit("10").is_err());
    }
}
