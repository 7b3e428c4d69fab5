//! The command `netd docker-opts`: makes dockerd's options from the node's lease, so that
//! docker0 gets the node's subnet. It has the arguments and the output of flannel's
//! `mk-docker-opts.sh`, and adds the IPv6 options, which that script does not have.

use std::{
    collections::BTreeMap,
    env, fs,
    io::{self, Write as _},
    os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _},
    path::{Path, PathBuf},
    process::ExitCode,
    time::Duration,
};

use clap::Args;
use ipnet::IpNet;
use netd_api::v1::{ListNetworksRequest, Network, network_service_client::NetworkServiceClient};

use crate::client::{connect, socket_path};
use crate::terminal::{Failure, printable};
use netd_api::DEFAULT_SOCKET;
use netd_domain::network::overlap;

#[derive(Debug, Args)]
pub(crate) struct DockerOptsArgs {
    /// The node's lease, as flannel writes it
    #[arg(
        short = 'f',
        long = "lease-file",
        default_value = "/run/flannel/subnet.env",
        value_name = "FILE"
    )]
    lease: PathBuf,
    /// The file to write, for dockerd's EnvironmentFile=
    #[arg(
        short = 'd',
        long = "docker-file",
        default_value = "/run/docker_opts.env",
        value_name = "FILE"
    )]
    docker: PathBuf,
    /// Write each option as a variable; without -i and -c, write both forms
    #[arg(short = 'i', long)]
    individual: bool,
    /// Write all options together as one variable
    #[arg(short = 'c', long)]
    combined: bool,
    /// Leave --ip-masq out
    #[arg(short = 'm', long)]
    no_ip_masq: bool,
    /// Name of the variable with all options
    #[arg(short = 'k', long, default_value = "DOCKER_OPTS", value_name = "NAME")]
    key: String,
    /// Prefix of the names of the variables with one option each
    #[arg(short = 'p', long, default_value = "DOCKER_OPT_", value_name = "NAME")]
    prefix: String,
    /// netd's socket, to ask whether a network has the subnet; not asked when netd does
    /// not run
    #[arg(long, env = "NETD_SOCKET", default_value = DEFAULT_SOCKET, value_parser = socket_path(), value_name = "PATH")]
    socket: PathBuf,
}

/// One of dockerd's options.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Opt {
    /// The variable's name without the prefix.
    name: &'static str,
    text: String,
}

pub(super) async fn run(args: DockerOptsArgs) -> Result<ExitCode, Failure> {
    for (flag, name) in [("-k", &args.key), ("-p", &args.prefix)] {
        let right = |b: u8| b.is_ascii_alphanumeric() || b == b'_';
        if name.is_empty()
            || name.starts_with(|c: char| c.is_ascii_digit())
            || !name.bytes().all(right)
        {
            let text = format!("{flag} {}: not a name of a variable", printable(name));
            return Err(Failure::Other(text));
        }
    }
    let text = options(&args).await.inspect_err(|_| remove_options(&args.docker))?;
    let about = |e: io::Error| Failure::Other(format!("{}: {e}", args.docker.display()));
    replace(&args.docker, &text).map_err(about)?;
    Ok(ExitCode::SUCCESS)
}

/// The text of the options' file, if docker0 may have the lease.
async fn options(args: &DockerOptsArgs) -> Result<String, Failure> {
    let about = |e: io::Error| Failure::Other(format!("{}: {e}", args.lease.display()));
    let text = fs::read_to_string(&args.lease).map_err(about)?;
    let wrong = |e: String| Failure::Other(format!("{}: {e}", args.lease.display()));
    let lease = Lease::read(&text).map_err(wrong)?;
    refuse_second_owner(&args.socket, &lease).await?;
    let before = env::var(&args.key).unwrap_or_default();
    Ok(file(args, &lease.options(!args.no_ip_masq), &before))
}

/// Removes the options' file: dockerd must not start with the options of an earlier subnet,
/// which another node or network may have by now.
fn remove_options(path: &Path) {
    if fs::symlink_metadata(path).is_ok_and(|there| there.is_file()) {
        // The caller reports why there are no options, which matters more.
        drop(fs::remove_file(path));
    }
}

/// The variables of a lease file that are used.
#[derive(Debug, Default, PartialEq, Eq)]
struct Lease {
    v4: Option<IpNet>,
    v6: Option<IpNet>,
    mtu: Option<u32>,
    masquerade: Option<bool>,
}

impl Lease {
    /// Reads `NAME=value` lines; values may be quoted. Unknown names are ignored.
    fn read(text: &str) -> Result<Self, String> {
        let mut variables = BTreeMap::new();
        for line in text.lines().map(str::trim).filter(|l| !l.is_empty() && !l.starts_with('#')) {
            let (name, value) = line
                .split_once('=')
                .ok_or_else(|| format!("\"{}\" is not NAME=value", printable(line)))?;
            variables.insert(name.trim(), value.trim().trim_matches(['"', '\'']));
        }
        let wanted = |name: &str| variables.get(name).copied().filter(|value| !value.is_empty());
        let wrong = |name: &str, value: &str, right: &str| {
            format!("{name}: \"{}\" is not {right}", printable(value))
        };
        let net = |name: &str, v4: bool| match wanted(name) {
            None => Ok(None),
            Some(value) => {
                let net = value.parse::<IpNet>().ok().filter(|n| n.addr().is_ipv4() == v4);
                let right = if v4 { "an IPv4 subnet" } else { "an IPv6 subnet" };
                net.map(Some).ok_or_else(|| wrong(name, value, right))
            }
        };
        let lease = Self {
            v4: net("FLANNEL_SUBNET", true)?,
            v6: net("FLANNEL_IPV6_SUBNET", false)?,
            mtu: match wanted("FLANNEL_MTU") {
                None => None,
                Some(value) => {
                    let mtu = value.parse().ok().filter(|mtu| (68..=65535).contains(mtu));
                    Some(mtu.ok_or_else(|| wrong("FLANNEL_MTU", value, "68 to 65535"))?)
                }
            },
            masquerade: match wanted("FLANNEL_IPMASQ") {
                None => None,
                Some("true") => Some(true),
                Some("false") => Some(false),
                Some(value) => return Err(wrong("FLANNEL_IPMASQ", value, "true or false")),
            },
        };
        match (lease.v4, lease.v6) {
            (None, None) => Err("neither FLANNEL_SUBNET nor FLANNEL_IPV6_SUBNET is there".into()),
            _ => Ok(lease),
        }
    }

    /// Ordered by the variables' names, as in the script's output.
    fn options(&self, ip_masq: bool) -> Vec<Opt> {
        let mut all = Vec::new();
        let mut push = |name, text| all.push(Opt { name, text });
        if let Some(v4) = self.v4 {
            push("BIP", format!("--bip={v4}"));
        }
        if let Some(v6) = self.v6 {
            push("FIXED_CIDR_V6", format!("--fixed-cidr-v6={}", v6.trunc()));
        }
        // If the node masquerades, Docker must not do it again.
        if let Some(masquerade) = self.masquerade.filter(|_| ip_masq) {
            push("IPMASQ", format!("--ip-masq={}", !masquerade));
        }
        if self.v6.is_some() {
            push("IPV6", "--ipv6".to_owned());
        }
        if let Some(mtu) = self.mtu {
            push("MTU", format!("--mtu={mtu}"));
        }
        all
    }
}

/// `before`: the current value of the variable with all options; it is kept.
fn file(args: &DockerOptsArgs, options: &[Opt], before: &str) -> String {
    let both = !args.individual && !args.combined;
    let mut text = String::new();
    if args.individual || both {
        for option in options {
            text += &format!("{}{}=\"{}\"\n", args.prefix, option.name, option.text);
        }
    }
    if args.combined || both {
        let before = Some(before).filter(|before| !before.is_empty());
        let words = before.into_iter().chain(options.iter().map(|option| option.text.as_str()));
        let words: Vec<&str> = words.collect();
        text += &format!("{}=\"{}\"\n", args.key, words.join(" "));
    }
    text
}

/// Fails if netd gives out the lease's addresses to pods: Docker would give the same ones to
/// containers, because neither asks the other.
async fn refuse_second_owner(socket: &Path, lease: &Lease) -> Result<(), Failure> {
    const CALL_TIMEOUT: Duration = Duration::from_secs(5);
    let Ok(channel) = connect(socket, CALL_TIMEOUT).await else { return Ok(()) };
    let mut client = NetworkServiceClient::new(channel);
    let networks = client.list_networks(ListNetworksRequest {}).await?.into_inner().networks;
    let mut networks = networks.iter().filter_map(|status| status.network.as_ref());
    match networks.find_map(|network| refusal(network, lease)) {
        Some(text) => Err(Failure::Other(text)),
        None => Ok(()),
    }
}

/// Why docker0 can't have the lease's subnets; `None`: this network does not need them.
fn refusal(network: &Network, lease: &Lease) -> Option<String> {
    let net = |text: &String| text.parse::<IpNet>().ok();
    let docker0: Vec<_> = network.docker0.iter().filter_map(net).collect();
    let pools: Vec<_> = network.pools.iter().filter_map(|pool| net(&pool.subnet)).collect();
    let cluster: Vec<_> = network.cluster.iter().filter_map(net).collect();
    let leased = [lease.v4, lease.v6].into_iter().flatten().map(|net| net.trunc());
    for net in leased.filter(|net| !docker0.contains(net)) {
        if let Some(pool) = pools.iter().find(|pool| overlap(&net, pool)) {
            return Some(owned(network, pool, &net));
        }
        if cluster.iter().any(|range| overlap(&net, range)) {
            return Some(format!(
                "{net} is not docker0's: it is of the cluster's range of netd's network \"{}\"; \
                 {LEASE_FOR_DOCKER0}",
                network.name
            ));
        }
    }
    None
}

/// How an administrator gives docker0 a subnet of a node whose leases netd holds.
const LEASE_FOR_DOCKER0: &str = "to leave a subnet of this node to docker0, set overlay.docker0 = true in netd's \
    configuration, and see `netd status`";

fn owned(network: &Network, pool: &IpNet, net: &IpNet) -> String {
    let name = &network.name;
    let or = if network.cluster.is_empty() { "or delete it from netd" } else { LEASE_FOR_DOCKER0 };
    format!(
        "{net} is netd's: its network \"{name}\" gives out {pool}, and docker0 would give out \
         the same addresses; use that network from Docker (docker network create -d netd \
         --ipam-driver netd --ipam-opt netd.network={name} -o netd.network={name} --subnet {pool} NAME), \
         {or}"
    )
}

/// Replaces a file in one step, so that a reader finds the old text or the new one. A pipe
/// or a terminal (`/dev/stdout`) is written to: a rename would put a file in its place.
fn replace(path: &Path, text: &str) -> io::Result<()> {
    if fs::metadata(path).is_ok_and(|there| !there.is_file()) {
        return fs::OpenOptions::new().write(true).open(path)?.write_all(text.as_bytes());
    }
    let directory = path.parent().filter(|p| !p.as_os_str().is_empty());
    if let Some(directory) = directory {
        fs::DirBuilder::new().recursive(true).mode(0o755).create(directory)?;
    }
    let mut unfinished = path.as_os_str().to_owned();
    unfinished.push(format!(".{}", std::process::id()));
    let unfinished = PathBuf::from(unfinished);
    let mut options = fs::OpenOptions::new();
    options.write(true).create(true).truncate(true).mode(0o644);
    let written = options
        .open(&unfinished)
        .and_then(|mut file| file.write_all(text.as_bytes()))
        .and_then(|()| fs::rename(&unfinished, path));
    if written.is_err() {
        // The first error is reported.
        drop(fs::remove_file(&unfinished));
    }
    written
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use clap::Parser;
    use netd_api::v1::Pool;
    use std::os::fd::AsRawFd;

    #[derive(Parser)]
    struct Line {
        #[command(flatten)]
        args: DockerOptsArgs,
    }

    fn args(words: &[&str]) -> DockerOptsArgs {
        Line::try_parse_from(["x"].iter().chain(words)).unwrap().args
    }

    const LEASE: &str = "FLANNEL_NETWORK=10.244.0.0/16\nFLANNEL_SUBNET=10.244.7.1/24\n\
        FLANNEL_IPV6_NETWORK=fd00:244::/48\nFLANNEL_IPV6_SUBNET=fd00:244:0:7::1/64\n\
        FLANNEL_MTU=1450\nFLANNEL_IPMASQ=true\n";

    fn made(words: &[&str], lease: &str, before: &str) -> String {
        let args = args(words);
        file(&args, &Lease::read(lease).unwrap().options(!args.no_ip_masq), before)
    }

    #[test]
    fn both_ways_are_written_unless_one_is_asked_for() {
        let lines = "DOCKER_OPT_BIP=\"--bip=10.244.7.1/24\"\n\
            DOCKER_OPT_FIXED_CIDR_V6=\"--fixed-cidr-v6=fd00:244:0:7::/64\"\n\
            DOCKER_OPT_IPMASQ=\"--ip-masq=false\"\nDOCKER_OPT_IPV6=\"--ipv6\"\n\
            DOCKER_OPT_MTU=\"--mtu=1450\"\n";
        let all = "--bip=10.244.7.1/24 --fixed-cidr-v6=fd00:244:0:7::/64 --ip-masq=false --ipv6 \
            --mtu=1450";
        assert_eq!(made(&[], LEASE, ""), format!("{lines}DOCKER_OPTS=\"{all}\"\n"));
        assert_eq!(made(&["-i"], LEASE, ""), lines);
        assert_eq!(made(&["-c", "-k", "NET"], LEASE, ""), format!("NET=\"{all}\"\n"));
        assert_eq!(made(&["-c"], LEASE, "-D"), format!("DOCKER_OPTS=\"-D {all}\"\n"));
    }

    #[test]
    fn a_lease_of_ipv4_alone_gives_what_the_script_gives() {
        let lease = "FLANNEL_SUBNET=172.30.46.1/24\nFLANNEL_MTU=1450\nFLANNEL_IPMASQ=false\n";
        let want = "DOCKER_OPT_BIP=\"--bip=172.30.46.1/24\"\nDOCKER_OPT_IPMASQ=\"--ip-masq=true\"\n\
            DOCKER_OPT_MTU=\"--mtu=1450\"\n";
        assert_eq!(made(&["-i"], lease, ""), want);
        assert_eq!(made(&["-i", "-m", "-p", "X_"], lease, "").lines().count(), 2);
    }

    #[test]
    fn a_wrong_lease_is_refused_by_its_variable() {
        for (text, word) in [
            ("", "FLANNEL_SUBNET"),
            ("FLANNEL_SUBNET=10.0.0.1", "FLANNEL_SUBNET"),
            ("FLANNEL_SUBNET=fd00::1/64", "an IPv4 subnet"),
            ("FLANNEL_SUBNET=\"10.0.0.1/24\"\nFLANNEL_MTU=x", "FLANNEL_MTU"),
            ("FLANNEL_SUBNET=10.0.0.1/24\nFLANNEL_IPMASQ=yes", "FLANNEL_IPMASQ"),
            ("FLANNEL_SUBNET=10.0.0.1/24; rm -rf /", "FLANNEL_SUBNET"),
            ("nonsense", "NAME=value"),
        ] {
            let error = Lease::read(text).unwrap_err();
            assert!(error.contains(word), "{text}: {error}");
        }
    }

    #[tokio::test]
    async fn the_file_is_replaced_as_a_whole() {
        let dir = tempfile::tempdir().unwrap();
        let path = |name: &str| dir.path().join(name).display().to_string();
        let (lease, docker) = (path("subnet.env"), path("run/docker"));
        fs::write(&lease, LEASE).unwrap();
        let words = ["-f", &lease, "-d", &docker, "-c", "--socket", &path("none.sock")];
        run(args(&words)).await.unwrap();
        run(args(&words)).await.unwrap();
        assert!(fs::read_to_string(&docker).unwrap().starts_with("DOCKER_OPTS=\"--bip="));
        assert_eq!(fs::read_dir(dir.path().join("run")).unwrap().count(), 1);
        fs::write(&lease, "FLANNEL_SUBNET=nonsense").unwrap();
        assert!(run(args(&words)).await.is_err());
        assert!(!fs::exists(&docker).unwrap(), "options of before are in force");
        fs::write(&lease, LEASE).unwrap();
        let bad = ["-f", &lease, "-d", &docker, "-k", "A;B", "--socket", &path("none.sock")];
        assert!(run(args(&bad)).await.is_err());
    }

    #[test]
    fn a_pipe_is_written_to_and_stays_one() {
        let (read, write) = nix::unistd::pipe().unwrap();
        let path = PathBuf::from(format!("/proc/self/fd/{}", write.as_raw_fd()));
        replace(&path, "X=1\n").unwrap();
        drop(write);
        assert_eq!(io::read_to_string(fs::File::from(read)).unwrap(), "X=1\n");
    }

    #[test]
    fn what_is_not_docker0s_is_refused_and_its_owner_named() {
        let lease = Lease::read(LEASE).unwrap();
        let texts = |all: &[&str]| all.iter().map(|text| (*text).to_owned()).collect();
        let network = |pools: &[&str], cluster: &[&str], docker0: &[&str]| Network {
            name: "default".into(),
            pools: pools
                .iter()
                .map(|subnet| Pool { subnet: (*subnet).into(), ..Pool::default() })
                .collect(),
            cluster: texts(cluster),
            docker0: texts(docker0),
            ..Network::default()
        };
        let (range, own) = (["10.244.0.0/16"], ["10.244.7.0/24", "fd00:244:0:7::/64"]);
        let said = |network: Network| refusal(&network, &lease).unwrap_or_default();
        // A network of this node alone; the cluster's.
        assert!(said(network(&["10.244.0.0/16"], &[], &[])).contains("delete it"));
        let pool = said(network(&["10.244.7.0/24"], &range, &[]));
        assert!(
            pool.contains("netd.network=default") && pool.contains("overlay.docker0"),
            "{pool}"
        );
        let none = said(network(&[], &range, &[]));
        assert!(none.contains("10.244.7.0/24") && none.contains("overlay.docker0"), "{none}");
        // docker0's, and another program's.
        assert_eq!(said(network(&["10.244.9.0/24"], &range, &own)), "");
        assert_eq!(said(network(&["10.88.0.0/16"], &[], &[])), "");
        // The file is older than the node's lease.
        assert!(said(network(&[], &range, &["10.244.8.0/24"])).contains("10.244.7.0/24"));
    }
}
