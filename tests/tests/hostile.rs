//! Wrong, missing, huge and hostile input: a clear error, and nothing half-made.

use std::{fs, time::Duration};

use anyhow::{Context as _, Result, bail, ensure};
use netd_api::v1::{AttachRequest, CreateNetworkRequest, Driver, Network, Pool, PortMapping};
use serde_json::json;
use testbed::{Bed, Daemon, DaemonConfig, Host, Sandbox, block_on, case, inventory, paths};
use tonic::Code;

struct Node {
    netd: Daemon,
    sandbox: Sandbox,
    before: String,
    host: Host,
}

impl Node {
    fn start(bed: &Bed) -> Result<Self> {
        let host = bed.host("node")?;
        let netd = Daemon::start(&host, &DaemonConfig::default())?;
        let sandbox = Sandbox::bare(&host, "victim")?;
        let before = inventory::of(&host)?;
        Ok(Self { netd, sandbox, before, host })
    }

    fn good(&self) -> AttachRequest {
        AttachRequest {
            sandbox_id: self.sandbox.id.clone(),
            netns_path: self.sandbox.net.path().display().to_string(),
            ..Default::default()
        }
    }

    fn attach(&self, request: AttachRequest) -> Result<(), tonic::Status> {
        let service = self.netd.endpoint_service();
        let mut service = service.map_err(|error| tonic::Status::unknown(error.to_string()))?;
        block_on(service.attach(request)).map(drop)
    }

    /// The request is refused with one of `codes`, and what is wrong is named.
    fn refuses(&self, name: &str, codes: &[Code], request: AttachRequest) -> Result<()> {
        let Err(status) = self.attach(request) else { bail!("{name}: accepted") };
        ensure!(
            codes.contains(&status.code()),
            "{name}: {:?}: {}",
            status.code(),
            status.message()
        );
        ensure!(status.message().len() > 10, "{name}: says nothing: {}", status.message());
        ensure!(status.message().len() < 4096, "{name}: says too much");
        Ok(())
    }

    fn nothing_was_made(&self) -> Result<()> {
        ensure!(self.netd.endpoints()?.is_empty(), "a record was left");
        ensure!(self.netd.addresses_used()? == 0, "an address was left");
        let difference = inventory::difference(&self.before, &inventory::of(&self.host)?);
        ensure!(difference.is_empty(), "{difference}");
        let links = self.sandbox.net.sh("ip -o link")?;
        ensure!(links.lines().count() == 1, "only lo is in the sandbox: {links}");
        Ok(())
    }
}

#[test]
fn a_path_that_is_no_namespace_or_the_hosts_own_is_refused() -> Result<()> {
    case(|bed| {
        let node = Node::start(bed)?;
        let file = node.host.directory().join("a-file");
        fs::write(&file, "not a namespace")?;
        let host = node.host.net.path().display().to_string();
        let long = format!("/{}", "x".repeat(100_000));
        let paths = [
            ("a file", file.to_str().unwrap_or_default()),
            ("a directory", "/tmp"),
            ("nothing", "/no/such/namespace"),
            ("a relative path", "run/netns/x"),
            ("no path", ""),
            ("the host's own", host.as_str()),
            ("netd's own", "/proc/self/ns/net"),
            ("a mount namespace", "/proc/self/ns/mnt"),
            ("a device that never ends", "/dev/zero"),
            ("a pipe that never opens", "/dev/tty"),
            ("a huge path", long.as_str()),
            ("a NUL byte", "/run/a\0b"),
        ];
        let codes = [Code::InvalidArgument, Code::NotFound, Code::FailedPrecondition];
        for (name, path) in paths {
            let request = AttachRequest { netns_path: path.to_owned(), ..node.good() };
            node.refuses(name, &codes, request)?;
        }
        node.nothing_was_made()?;
        node.attach(node.good()).context("the good one after all the bad ones")
    })
}

#[test]
fn a_fifo_in_place_of_a_namespace_does_not_hang_netd() -> Result<()> {
    case(|bed| {
        let node = Node::start(bed)?;
        let fifo = node.host.directory().join("fifo");
        nix::unistd::mkfifo(&fifo, nix::sys::stat::Mode::S_IRWXU)?;
        let path = fifo.display().to_string();
        let codes = [Code::InvalidArgument, Code::FailedPrecondition];
        node.refuses("a fifo", &codes, AttachRequest { netns_path: path, ..node.good() })?;
        node.nothing_was_made()
    })
}

#[test]
fn wrong_values_in_every_field_of_an_attach_are_refused() -> Result<()> {
    case(|bed| {
        let node = Node::start(bed)?;
        let good = || node.good();
        let many = (0..10_000).map(|i| (format!("label{i}"), "x".to_owned())).collect();
        let port = |host_port, container_port, host_ip: &str| PortMapping {
            host_port,
            container_port,
            protocol: 1,
            host_ip: host_ip.to_owned(),
        };
        let text = str::to_owned;
        let wrong: Vec<(&str, AttachRequest)> = vec![
            ("no sandbox id", AttachRequest { sandbox_id: text(""), ..good() }),
            ("a sandbox id with /", AttachRequest { sandbox_id: text("../../etc"), ..good() }),
            ("a huge sandbox id", AttachRequest { sandbox_id: "x".repeat(100_000), ..good() }),
            ("a long interface", AttachRequest { interface: text("0123456789abcdef"), ..good() }),
            ("an interface with /", AttachRequest { interface: text("a/b"), ..good() }),
            ("an interface `..`", AttachRequest { interface: text(".."), ..good() }),
            ("the interface lo", AttachRequest { interface: text("lo"), ..good() }),
            ("a network with /", AttachRequest { network: text("a/b"), ..good() }),
            ("no address", AttachRequest { addresses: vec![text("10.88.0.300")], ..good() }),
            (
                "two of a family",
                AttachRequest { addresses: vec![text("10.88.0.9"), text("10.88.0.10")], ..good() },
            ),
            (
                "a v4-mapped address",
                AttachRequest { addresses: vec![text("::ffff:10.88.0.9")], ..good() },
            ),
            ("a multicast MAC", AttachRequest { mac: text("01:00:5e:00:00:01"), ..good() }),
            ("half a MAC", AttachRequest { mac: text("02:00:00"), ..good() }),
            ("a tiny MTU", AttachRequest { mtu: 68, ..good() }),
            ("a huge MTU", AttachRequest { mtu: 4_000_000_000, ..good() }),
            ("host port 0", AttachRequest { port_mappings: vec![port(0, 80, "")], ..good() }),
            (
                "host port 70000",
                AttachRequest { port_mappings: vec![port(70_000, 80, "")], ..good() },
            ),
            ("container port 0", AttachRequest { port_mappings: vec![port(80, 0, "")], ..good() }),
            ("a wrong host IP", AttachRequest { port_mappings: vec![port(80, 80, "x")], ..good() }),
            (
                "a port twice",
                AttachRequest { port_mappings: vec![port(80, 80, ""), port(80, 81, "")], ..good() },
            ),
            ("10,000 labels", AttachRequest { labels: many, ..good() }),
        ];
        for (name, request) in wrong {
            node.refuses(name, &[Code::InvalidArgument, Code::AlreadyExists], request)?;
        }
        node.nothing_was_made()
    })
}

#[test]
fn what_is_well_formed_but_not_there_is_refused_with_its_own_code() -> Result<()> {
    case(|bed| {
        let node = Node::start(bed)?;
        let unknown = AttachRequest { network: "nowhere".to_owned(), ..node.good() };
        node.refuses("an unknown network", &[Code::NotFound], unknown)?;
        for (name, address) in [
            ("outside", "172.16.0.9"),
            ("the gateway", "10.88.0.1"),
            ("broadcast", "10.88.255.255"),
        ] {
            let request = AttachRequest { addresses: vec![address.to_owned()], ..node.good() };
            let codes = [
                Code::InvalidArgument,
                Code::OutOfRange,
                Code::FailedPrecondition,
                Code::AlreadyExists,
            ];
            node.refuses(name, &codes, request)?;
        }
        // An interface that is there but not netd's.
        node.sandbox.net.sh("ip link add eth0 type veth peer name other")?;
        let codes = [Code::AlreadyExists, Code::FailedPrecondition];
        node.refuses("an interface of another program's", &codes, node.good())?;
        node.sandbox.net.sh("ip link show eth0 && ip link delete eth0")?;
        node.nothing_was_made()
    })
}

#[test]
fn wrong_networks_are_refused() -> Result<()> {
    case(|bed| {
        let node = Node::start(bed)?;
        let pool = |subnet: &str| Pool { subnet: subnet.to_owned(), ..Default::default() };
        let of = |name: &str, pools: Vec<Pool>| Network {
            name: name.to_owned(),
            driver: Driver::Bridge.into(),
            pools,
            ..Default::default()
        };
        let outside = Pool { gateway: "10.2.0.1".to_owned(), ..pool("10.1.0.0/24") };
        let backwards = Pool {
            range_start: "10.1.0.9".to_owned(),
            range_end: "10.1.0.3".to_owned(),
            ..pool("10.1.0.0/24")
        };
        let wrong = [
            ("no name", of("", vec![pool("10.1.0.0/24")])),
            ("a name with /", of("a/b", vec![pool("10.1.0.0/24")])),
            ("a long name", of(&"x".repeat(64), vec![pool("10.1.0.0/24")])),
            ("no pool", of("blue", vec![])),
            ("no subnet", of("blue", vec![pool("")])),
            ("host bits", of("blue", vec![pool("10.1.0.5/24")])),
            ("a /31", of("blue", vec![pool("10.1.0.0/31")])),
            ("a v4-mapped v6", of("blue", vec![pool("::ffff:10.1.0.0/120")])),
            ("loopback", of("blue", vec![pool("127.0.0.0/8")])),
            ("multicast", of("blue", vec![pool("224.0.0.0/8")])),
            ("everything", of("blue", vec![pool("0.0.0.0/0")])),
            ("a gateway outside", of("blue", vec![outside])),
            ("a range backwards", of("blue", vec![backwards])),
            ("pools that overlap", of("blue", vec![pool("10.1.0.0/16"), pool("10.1.2.0/24")])),
            ("overlap with another", of("blue", vec![pool("10.88.3.0/24")])),
            (
                "a long bridge",
                Network {
                    bridge: "0123456789abcdef".to_owned(),
                    ..of("blue", vec![pool("10.1.0.0/24")])
                },
            ),
        ];
        let mut service = node.netd.network_service()?;
        for (name, network) in wrong {
            let request = CreateNetworkRequest { network: Some(network), force: false };
            let Err(status) = block_on(service.create_network(request)) else {
                bail!("{name}: accepted")
            };
            let codes = [Code::InvalidArgument, Code::AlreadyExists, Code::FailedPrecondition];
            ensure!(codes.contains(&status.code()), "{name}: {status:?}");
        }
        let without = CreateNetworkRequest { network: None, force: false };
        ensure!(block_on(service.create_network(without)).is_err(), "no network at all");
        ensure!(node.netd.networks()?.len() == 1, "a network was left");
        node.nothing_was_made()
    })
}

#[test]
fn the_hook_refuses_bad_input_with_the_codes_of_cni() -> Result<()> {
    case(|bed| {
        let node = Node::start(bed)?;
        let call = node.sandbox.call("ADD");
        let with = |name: &str, value: &str| {
            let mut call = call.clone();
            let found = call.variables.iter_mut().find(|(variable, _)| variable == name);
            if let Some((_, old)) = found {
                *old = value.to_owned();
            }
            call
        };
        let stdin = |text: &[u8]| {
            let mut call = call.clone();
            call.stdin = text.to_vec();
            call
        };
        let config = |key: &str, value: serde_json::Value| {
            let mut config = node.sandbox.config.clone();
            config[key] = value;
            stdin(config.to_string().as_bytes())
        };
        let deep = "[".repeat(200_000);
        let cases = [
            ("an old version", config("cniVersion", json!("9.9.9")), 1),
            ("no container", with("CNI_CONTAINERID", ""), 4),
            ("a hostile container", with("CNI_CONTAINERID", "../../x"), 4),
            ("a long interface", with("CNI_IFNAME", "0123456789abcdef"), 4),
            ("no namespace", with("CNI_NETNS", ""), 4),
            ("no JSON", stdin(b"{"), 6),
            ("nothing", stdin(b""), 6),
            ("no UTF-8", stdin(b"\xff\xfe{}"), 6),
            ("deep JSON", stdin(deep.as_bytes()), 6),
            ("a list", stdin(b"[]"), 6),
            ("a number for a name", config("name", json!(5)), 7),
        ];
        for (name, call, code) in cases {
            let answer = call.execute(&node.host)?;
            ensure!(!answer.success, "{name}: accepted");
            // What can't be decoded and what doesn't make sense are near each other.
            let near = [6, 7].contains(&code) && [Some(6), Some(7)].contains(&answer.code());
            ensure!(near || answer.code() == Some(code), "{name}: {answer:?}");
            ensure!(answer.json["msg"].as_str().is_some_and(|msg| msg.len() > 5), "{answer:?}");
        }
        for path in ["/tmp", "/no/such/file", "/proc/self/ns/mnt"] {
            let answer = with("CNI_NETNS", path).execute(&node.host)?;
            ensure!(!answer.success && answer.code().is_some(), "{path}: {answer:?}");
        }
        node.nothing_was_made()
    })
}

#[test]
fn a_dead_netd_is_try_again_later_and_status_says_so() -> Result<()> {
    case(|bed| {
        let mut node = Node::start(bed)?;
        node.netd.kill9()?;
        let add = node.sandbox.call("ADD").execute(&node.host)?;
        ensure!(add.code() == Some(11), "{add:?}");
        let status = node.sandbox.call("STATUS").execute(&node.host)?;
        ensure!(status.code() == Some(50), "{status:?}");
        node.netd.restart()?;
        node.sandbox.call("STATUS").execute(&node.host)?.ok()?;
        node.nothing_was_made()
    })
}

#[test]
fn a_second_netd_on_the_same_socket_gives_way_to_the_first() -> Result<()> {
    case(|bed| {
        let mut node = Node::start(bed)?;
        let mut second = Daemon::launch(&node.host, &DaemonConfig::default())?;
        let ended = second.service().ended(Duration::from_secs(10))?;
        ensure!(!ended.success(), "the second one ended with {ended}");
        node.netd.service().check_alive()?;
        node.sandbox.add(&node.host).context("the first one still serves")?;
        Ok(())
    })
}

#[test]
fn a_read_only_state_directory_is_said_at_start() -> Result<()> {
    case(|bed| {
        let host = bed.host("node")?;
        let state = host.directory().join("netd/state");
        fs::create_dir_all(&state)?;
        let text = state.display();
        host.net.sh(&format!("mount -t tmpfs -o ro tmpfs {text}"))?;
        let mut netd = Daemon::launch(&host, &DaemonConfig::default())?;
        let ended = netd.service().ended(Duration::from_secs(10))?;
        ensure!(!ended.success());
        let said = netd.logged();
        ensure!(said.contains(&state.display().to_string()), "it names the directory: {said}");
        Ok(())
    })
}

#[test]
fn a_full_disk_refuses_attaches_and_keeps_what_is_there() -> Result<()> {
    case(|bed| {
        let host = bed.host("node")?;
        let state = host.directory().join("netd/state");
        fs::create_dir_all(&state)?;
        host.net.sh(&format!("mount -t tmpfs -o size=6m tmpfs {}", state.display()))?;
        let mut netd = Daemon::start(&host, &DaemonConfig::default())?;
        let one = Sandbox::attached(&host, "one")?;
        host.net.sh(&format!("cat /dev/zero > {}/ballast 2>/dev/null || true", state.display()))?;
        // Some still fit into what the store has allocated; sooner or later it is full.
        let mut refused = None;
        let mut attached = 1;
        for number in 0..400 {
            let pod = Sandbox::bare(&host, &format!("pod{number}"))?;
            let mut call = pod.call("ADD");
            let args = call.variables.iter_mut().find(|(name, _)| name == "CNI_ARGS");
            if let Some((_, args)) = args {
                *args = format!("{args};PADDING={}", "x".repeat(2000));
            }
            let answer = call.execute(&host)?;
            if !answer.success {
                ensure!(answer.code().is_some(), "{answer:?}");
                refused = Some(pod);
                break;
            }
            attached += 1;
        }
        netd.service().check_alive()?;
        fs::remove_file(state.join("ballast"))?;
        if let Some(mut pod) = refused {
            pod.add(&host).context("with room again, it is as before")?;
            attached += 1;
        }
        netd.restart()?;
        let endpoints = netd.endpoints()?;
        ensure!(endpoints.len() == attached, "{} of {attached}", endpoints.len());
        ensure!(endpoints.iter().any(|endpoint| endpoint.sandbox_id == one.id));
        Ok(())
    })
}

#[test]
fn a_wrong_configuration_is_reported_with_all_its_errors_at_once() -> Result<()> {
    case(|bed| {
        let host = bed.host("node")?;
        let file = host.directory().join("wrong.toml");
        fs::write(
            &file,
            "unknown = 1\nsocket = \"relative\"\n[[network]]\nname = \"a/b\"\n\
             [[network.pool]]\nsubnet = \"10.1.0.0/31\"\n",
        )?;
        let output = host
            .net
            .command(paths::built("netd")?)
            .args(["serve", "--check-config", "--config"])
            .arg(&file)
            .output()?;
        let said = String::from_utf8_lossy(&output.stderr);
        ensure!(!output.status.success(), "accepted");
        for key in ["unknown", "socket", "network[0].name", "subnet"] {
            ensure!(said.contains(key), "{key} is not in: {said}");
        }
        Ok(())
    })
}
