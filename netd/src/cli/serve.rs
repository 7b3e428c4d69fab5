//! The command `netd serve`: reads the configuration and runs the daemon.

use std::{path::PathBuf, process::ExitCode};

use clap::Args;

use crate::client::path_or_empty;
use crate::config::{Config, Override, load};
use crate::terminal::{Failure, print};

/// Each flag is a key of the configuration file and replaces its value.
#[derive(Debug, Clone, Default, Args)]
pub(crate) struct ConfigArgs {
    /// The configuration file [default: /etc/netd/netd.toml, which may be absent]
    #[arg(long, env = "NETD_CONFIG", value_parser = path_or_empty(), value_name = "FILE")]
    pub config: Option<PathBuf>,
    /// This node's name [default: the machine's]
    #[arg(long, env = "NETD_NODE", value_name = "NAME")]
    node: Option<String>,
    /// The Unix socket of the gRPC API [default: RUN_DIR/netd.sock]
    #[arg(long, env = "NETD_SOCKET", value_name = "PATH")]
    socket: Option<String>,
    /// The group that may use the socket besides root: name or number
    #[arg(long, env = "NETD_SOCKET_GROUP", value_name = "GROUP")]
    socket_group: Option<String>,
    /// Directory of the store [default: /var/lib/netd]
    #[arg(long, env = "NETD_STATE_DIR", value_name = "DIR")]
    state_dir: Option<String>,
    /// Directory of files that need not survive a reboot [default: /run/netd]
    #[arg(long, env = "NETD_RUN_DIR", value_name = "DIR")]
    run_dir: Option<String>,
    /// Metrics and health over HTTP, or "off" [default: 127.0.0.1:9479]
    #[arg(long, env = "NETD_METRICS_LISTEN", value_name = "ADDRESS:PORT")]
    metrics_listen: Option<String>,
    /// auto, text, json or journald [default: auto]
    #[arg(long, env = "NETD_LOG_FORMAT", value_name = "FORMAT")]
    log_format: Option<String>,
    /// A level, or target=level,... [default: info]
    #[arg(long, env = "NETD_LOG", value_name = "FILTER")]
    log: Option<String>,
    /// How long an endpoint that no runtime knows is kept [default: 5m]
    #[arg(long, env = "NETD_GC_GRACE", value_name = "TIME")]
    gc_grace: Option<String>,
    /// Time between two searches for endpoints that no runtime knows [default: 1m]
    #[arg(long, env = "NETD_GC_INTERVAL", value_name = "TIME")]
    gc_interval: Option<String>,
    /// Permit a gc.grace below four minutes; for tests
    #[arg(long, env = "NETD_GC_UNSAFE_SHORT_GRACE", value_name = "BOOL", num_args = 0..=1, default_missing_value = "true")]
    gc_unsafe_short_grace: Option<String>,
    /// Where CNI's host-local keeps the addresses that it gave out, or "off" [default:
    /// /var/lib/cni/networks]
    #[arg(long, env = "NETD_HOST_LOCAL_DIR", value_name = "DIR")]
    host_local_dir: Option<String>,
    /// How long a removed endpoint's tombstone is kept [default: 10m]
    #[arg(long, env = "NETD_TOMBSTONE_TTL", value_name = "TIME")]
    tombstone_ttl: Option<String>,
    /// Packet mark of host port traffic [default: 0x2000]
    #[arg(long, env = "NETD_HOSTPORT_MARK", value_name = "MARK")]
    hostport_mark: Option<String>,
    /// kube-proxy's masquerade mark [default: 0x4000]
    #[arg(long, env = "NETD_KUBE_PROXY_MARK", value_name = "MARK")]
    kube_proxy_mark: Option<String>,
    /// The interface whose MTU the networks follow [default: the default route's]
    #[arg(long, env = "NETD_UNDERLAY", value_name = "INTERFACE")]
    underlay: Option<String>,
    /// Hints to the kernel that make attaches faster: auto, true or false [default: auto]
    #[arg(long, env = "NETD_KERNEL_HINTS", value_name = "WHEN")]
    kernel_hints: Option<String>,
    /// etcd's URLs, separated by commas; they make the node part of a cluster
    #[arg(long, env = "NETD_ETCD_ENDPOINTS", value_name = "URLS")]
    etcd_endpoints: Option<String>,
    /// The prefix of flannel's keys in etcd [default: /coreos.com/network]
    #[arg(long, env = "NETD_ETCD_PREFIX", value_name = "PREFIX")]
    etcd_prefix: Option<String>,
    /// Authorities that sign etcd's certificates [default: the system's]
    #[arg(long, env = "NETD_ETCD_CA_FILE", value_name = "FILE")]
    etcd_ca_file: Option<String>,
    /// This node's certificate for etcd
    #[arg(long, env = "NETD_ETCD_CERT_FILE", value_name = "FILE")]
    etcd_cert_file: Option<String>,
    /// The certificate's key
    #[arg(long, env = "NETD_ETCD_KEY_FILE", value_name = "FILE")]
    etcd_key_file: Option<String>,
    /// etcd's user
    #[arg(long, env = "NETD_ETCD_USERNAME", value_name = "NAME")]
    etcd_username: Option<String>,
    /// File whose first line is the user's password
    #[arg(long, env = "NETD_ETCD_PASSWORD_FILE", value_name = "FILE")]
    etcd_password_file: Option<String>,
    /// Take the cluster's nodes from the Kubernetes API [default: false]
    #[arg(long, env = "NETD_KUBERNETES_ENABLED", value_name = "BOOL")]
    kubernetes_enabled: Option<String>,
    /// How to reach the API [default: by the pod's service account]
    #[arg(long, env = "NETD_KUBERNETES_KUBECONFIG", value_name = "FILE")]
    kubernetes_kubeconfig: Option<String>,
    /// Another address of the API than that one
    #[arg(long, env = "NETD_KUBERNETES_API_URL", value_name = "URL")]
    kubernetes_api_url: Option<String>,
    /// flannel's network configuration [default: /etc/kube-flannel/net-conf.json]
    #[arg(long, env = "NETD_KUBERNETES_NET_CONF", value_name = "FILE")]
    kubernetes_net_conf: Option<String>,
    /// Before the names of flannel's annotations [default: flannel.alpha.coreos.com]
    #[arg(long, env = "NETD_KUBERNETES_ANNOTATION_PREFIX", value_name = "PREFIX")]
    kubernetes_annotation_prefix: Option<String>,
    /// Write the Node's condition NetworkUnavailable [default: true]
    #[arg(long, env = "NETD_KUBERNETES_NETWORK_CONDITION", value_name = "BOOL")]
    kubernetes_network_condition: Option<String>,
    /// The IPv4 address that other nodes send to [default: the underlay's first]
    #[arg(long, env = "NETD_PUBLIC_IP", value_name = "IPV4")]
    public_ip: Option<String>,
    /// The IPv6 address that other nodes send to
    #[arg(long, env = "NETD_PUBLIC_IPV6", value_name = "IPV6")]
    public_ipv6: Option<String>,
    /// The subnets to lease, separated by commas, or "node": the podCIDRs of this machine's Node
    /// [default: netd chooses them]
    #[arg(long, env = "NETD_POD_CIDR", value_name = "SUBNETS")]
    pod_cidr: Option<String>,
    /// How long the node's leases last when it no longer renews them [default: 24h]
    #[arg(long, env = "NETD_LEASE_TTL", value_name = "TIME")]
    lease_ttl: Option<String>,
    /// flannel's environment file, or "off" [default: /run/flannel/subnet.env]
    #[arg(long, env = "NETD_SUBNET_FILE", value_name = "FILE")]
    subnet_file: Option<String>,
    /// netd-tunnel's Unix socket [default: RUN_DIR/tunnel.sock]
    #[arg(long, env = "NETD_TUNNEL_SOCKET", value_name = "PATH")]
    tunnel_socket: Option<String>,
}

/// Arguments of `netd serve`.
#[derive(Debug, Clone, Default, Args)]
pub(crate) struct ServeArgs {
    #[command(flatten)]
    config: ConfigArgs,
    /// Check the configuration, print "ok" or all errors, and exit
    #[arg(long)]
    check_config: bool,
}

impl ConfigArgs {
    pub(crate) fn load(&self) -> Result<Config, Failure> {
        // An empty path counts as not given, like every empty value.
        let file = self.config.as_deref().filter(|path| !path.as_os_str().is_empty());
        load(file, self.overrides()).map_err(Failure::Invalid)
    }

    /// The values of flags and environment. An empty value counts as not given: a unit's
    /// environment file leaves a variable out in this way.
    fn overrides(&self) -> Vec<Override> {
        let given = [
            ("node", "NODE", &self.node),
            ("socket", "SOCKET", &self.socket),
            ("socket_group", "SOCKET_GROUP", &self.socket_group),
            ("state_dir", "STATE_DIR", &self.state_dir),
            ("run_dir", "RUN_DIR", &self.run_dir),
            ("metrics_listen", "METRICS_LISTEN", &self.metrics_listen),
            ("log.format", "LOG_FORMAT", &self.log_format),
            ("log.filter", "LOG", &self.log),
            ("gc.grace", "GC_GRACE", &self.gc_grace),
            ("gc.interval", "GC_INTERVAL", &self.gc_interval),
            ("gc.unsafe_short_grace", "GC_UNSAFE_SHORT_GRACE", &self.gc_unsafe_short_grace),
            ("host_local_dir", "HOST_LOCAL_DIR", &self.host_local_dir),
            ("tombstone_ttl", "TOMBSTONE_TTL", &self.tombstone_ttl),
            ("hostport_mark", "HOSTPORT_MARK", &self.hostport_mark),
            ("kube_proxy_mark", "KUBE_PROXY_MARK", &self.kube_proxy_mark),
            ("underlay", "UNDERLAY", &self.underlay),
            ("kernel_hints", "KERNEL_HINTS", &self.kernel_hints),
            ("etcd.endpoints", "ETCD_ENDPOINTS", &self.etcd_endpoints),
            ("etcd.prefix", "ETCD_PREFIX", &self.etcd_prefix),
            ("etcd.ca_file", "ETCD_CA_FILE", &self.etcd_ca_file),
            ("etcd.cert_file", "ETCD_CERT_FILE", &self.etcd_cert_file),
            ("etcd.key_file", "ETCD_KEY_FILE", &self.etcd_key_file),
            ("etcd.username", "ETCD_USERNAME", &self.etcd_username),
            ("etcd.password_file", "ETCD_PASSWORD_FILE", &self.etcd_password_file),
            ("kubernetes.enabled", "KUBERNETES_ENABLED", &self.kubernetes_enabled),
            ("kubernetes.kubeconfig", "KUBERNETES_KUBECONFIG", &self.kubernetes_kubeconfig),
            ("kubernetes.api_url", "KUBERNETES_API_URL", &self.kubernetes_api_url),
            ("kubernetes.net_conf", "KUBERNETES_NET_CONF", &self.kubernetes_net_conf),
            (
                "kubernetes.annotation_prefix",
                "KUBERNETES_ANNOTATION_PREFIX",
                &self.kubernetes_annotation_prefix,
            ),
            (
                "kubernetes.network_condition",
                "KUBERNETES_NETWORK_CONDITION",
                &self.kubernetes_network_condition,
            ),
            ("overlay.public_ip", "PUBLIC_IP", &self.public_ip),
            ("overlay.public_ipv6", "PUBLIC_IPV6", &self.public_ipv6),
            ("overlay.pod_cidr", "POD_CIDR", &self.pod_cidr),
            ("overlay.lease_ttl", "LEASE_TTL", &self.lease_ttl),
            ("overlay.subnet_file", "SUBNET_FILE", &self.subnet_file),
            ("overlay.tunnel_socket", "TUNNEL_SOCKET", &self.tunnel_socket),
        ];
        let set = given.into_iter().filter_map(|(path, variable, value)| {
            let value = value.as_ref().filter(|v| !v.is_empty())?.clone();
            let flag = variable.to_lowercase().replace('_', "-");
            Some(Override { path, origin: format!("--{flag} or NETD_{variable}"), value })
        });
        set.collect()
    }
}

pub(super) fn run(args: ServeArgs) -> Result<ExitCode, Failure> {
    let config = args.config.load()?;
    if args.check_config {
        print("ok\n")?;
        return Ok(ExitCode::SUCCESS);
    }
    crate::logging::init(&config.log).map_err(|e| Failure::Other(e.to_string()))?;
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build();
    let runtime = runtime.map_err(|e| Failure::Other(format!("can't start: {e}")))?;
    let ended = runtime.block_on(crate::app::serve(config));
    // A thread that hangs in a file or in the kernel must not keep netd from ending; a write
    // that is under way has this long.
    runtime.shutdown_timeout(std::time::Duration::from_secs(1));
    match ended {
        Ok(()) => Ok(ExitCode::SUCCESS),
        Err(error) => {
            tracing::error!(%error, "netd ends: {error}");
            Err(Failure::Other(error.to_string()))
        }
    }
}
