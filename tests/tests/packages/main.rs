//! The Debian package: what is in it, and what it does to a node when it is installed,
//! upgraded, removed and purged. Each test has a root of its own.

mod root;

use std::{
    fs, os::unix::fs::PermissionsExt as _, path::Path, process::Command, sync::OnceLock,
    time::Duration,
};

use anyhow::{Result, anyhow, ensure};
use root::Root;
use sha2::{Digest as _, Sha256};
use testbed::{
    case,
    package::{self, Packages, copy_of_source, run, small_package},
    paths, wait,
};

const SOON: Duration = Duration::from_secs(10);
const UNITS: [&str; 7] = [
    "netd-docker.service",
    "netd-hook.service",
    "netd-nri.service",
    "netd-ttrpc.socket",
    "netd-tunnel.service",
    "netd.service",
    "netd.socket",
];

/// Made once for all tests.
fn packages() -> Result<&'static Packages> {
    static PACKAGES: OnceLock<Result<Packages>> = OnceLock::new();
    let directory = Path::new(env!("CARGO_TARGET_TMPDIR")).join("packages");
    let made = PACKAGES.get_or_init(|| package::make(&directory));
    made.as_ref().map_err(|error| anyhow!("{error:#}"))
}

fn on_root(test: impl FnOnce(&Root) -> Result<()>) -> Result<()> {
    let packages = packages()?;
    case(|bed| test(&Root::new(bed, packages)?))
}

fn said(output: &std::process::Output) -> String {
    String::from_utf8_lossy(&[output.stdout.clone(), output.stderr.clone()].concat()).into_owned()
}

#[test]
fn two_builds_at_two_paths_give_one_hash() -> Result<()> {
    let one = &packages()?.small;
    case(|bed| {
        let tree = copy_of_source(&bed.directory().join("elsewhere"))?;
        let other = small_package(&tree, &bed.directory().join("other"))?;
        let hash = |path: &Path| -> Result<_> { Ok(Sha256::digest(fs::read(path)?)) };
        ensure!(hash(one)? == hash(&other)?, "compare them with diffoscope");
        Ok(())
    })
}

#[test]
fn lintian_finds_no_error_and_no_warning() -> Result<()> {
    let mut lintian = Command::new("lintian");
    lintian.args(["--allow-root", "--fail-on", "error,warning", "--tag-display-limit", "0"]);
    // A plain `cargo build` links netd-cni otherwise than `make build`.
    lintian.args(["--suppress-tags", "mismatched-override"]);
    run(lintian.arg(&packages()?.small)).map(drop)
}

#[test]
fn the_package_says_what_netd_executes_and_which_files_are_the_users() -> Result<()> {
    let first = &packages()?.first;
    let field = |name: &str| run(Command::new("dpkg-deb").arg("--field").arg(first).arg(name));
    let depends = field("Depends")?;
    for program in ["nftables", "iproute2", "libc6"] {
        ensure!(depends.contains(program), "{program}: {depends}");
    }
    let control = |file: &str| run(Command::new("dpkg-deb").arg("--info").arg(first).arg(file));
    ensure!(control("conffiles")?.trim() == "/etc/netd/netd.toml");
    // Both processors' packages come of these files.
    let source = fs::read_to_string(paths::root().join("deploy/debian/control"))?;
    ensure!(source.contains("Architecture: amd64 arm64\n"), "{source}");
    Ok(())
}

#[test]
fn installing_puts_all_in_place_and_starts_and_enables_nothing() -> Result<()> {
    on_root(|root| {
        root.play_systemd()?;
        root.install(&packages()?.first)?;
        let asked = root.asked()?;
        ensure!(asked.iter().all(|call| call.contains("daemon-reload")), "{asked:?}");
        for unit in UNITS {
            let text = fs::read_to_string(root.path("lib/systemd/system").join(unit))?;
            ensure!(!text.contains("/usr/local"), "{unit} names another prefix");
        }
        let wants = root.sh("find /etc/systemd/system -name 'netd*'")?;
        ensure!(wants.is_empty(), "{wants}");
        for (path, mode) in [
            ("usr/bin/netd", 0o755),
            ("usr/bin/netd-cni", 0o755),
            ("usr/libexec/netd/uninstall", 0o755),
            ("etc/netd/netd.toml", 0o644),
            ("usr/share/man/man8/netd-hook.8.gz", 0o644),
            ("usr/share/bash-completion/completions/netd", 0o644),
            ("usr/share/zsh/vendor-completions/_netd", 0o644),
            ("usr/share/netd/docker/docker.service.d/netd.conf", 0o644),
            ("usr/lib/systemd/network/00-netd.network", 0o644),
            ("usr/lib/NetworkManager/conf.d/90-netd.conf", 0o644),
            ("usr/share/doc/netd/docs/packages.md", 0o644),
        ] {
            let found = fs::metadata(root.path(path))?.permissions().mode() & 0o7777;
            ensure!(found == mode, "{path}: {found:o}");
        }
        root.sh("netd serve --check-config && netd-hook version && netd-tunnel --version")?;
        Ok(())
    })
}

#[test]
fn an_upgrade_keeps_the_configuration_the_sockets_and_what_runs() -> Result<()> {
    on_root(|root| {
        root.play_systemd()?;
        root.install(&packages()?.first)?;
        let mut netd = root.start_netd()?;
        let _pod = root.start_pod()?;
        let links = root.links()?;
        ensure!(links.iter().any(|name| name.starts_with("nd")), "{links:?}");
        let config = root.path("etc/netd/netd.toml");
        fs::write(&config, "# mine\n")?;
        root.asked()?;
        root.install(&packages()?.next)?;
        ensure!(fs::read_to_string(&config)? == "# mine\n");
        let offered = fs::read_to_string(config.with_extension("toml.dpkg-dist"))?;
        ensure!(offered.starts_with("# A key more."), "{offered}");
        let restarts: Vec<_> = ["netd-tunnel", "netd", "netd-hook", "netd-nri", "netd-docker"]
            .map(|unit| format!("try-restart {unit}.service"))
            .into();
        let (reloads, others): (Vec<_>, Vec<_>) =
            root.asked()?.into_iter().partition(|call| call.contains("daemon-reload"));
        ensure!(!reloads.is_empty() && others == restarts, "{others:?}");
        netd.check_alive()?;
        ensure!(root.links()? == links, "the pod's links are touched");
        root.sh("nft list table inet netd && netd endpoint inspect pod")?;
        Ok(())
    })
}

#[test]
fn purging_is_refused_while_endpoints_exist_and_leaves_nothing_without() -> Result<()> {
    on_root(|root| {
        root.play_systemd()?;
        root.install(&packages()?.first)?;
        let mut netd = root.start_netd()?;
        root.sh("netd network create blue --pool 10.77.0.0/24
             echo NETD_LOG=debug >/etc/default/netd
             netd-hook install
             cd /etc/systemd/system; mkdir -p multi-user.target.wants docker.service.wants
             for name in netd netd-docker; do
               ln -s /lib/systemd/system/$name.service multi-user.target.wants/
             done
             ln -s /lib/systemd/system/netd-docker.service docker.service.wants/")?;
        let _pod = root.start_pod()?;
        let refused = root.try_dpkg(&["--purge", "netd"])?;
        let words = said(&refused);
        ensure!(!refused.status.success(), "{words}");
        ensure!(words.contains("1 endpoints exist") && words.contains("FORCE=1"), "{words}");
        netd.check_alive()?;
        let status = root.sh("dpkg-query -W -f '${db:Status-Status}' netd; netd status")?;
        ensure!(status.starts_with("installed"), "{status}");
        root.sh("test -e /opt/cni/bin/netd-hook && nft list table inet netd")?;

        root.sh("netd endpoint detach pod")?;
        wait::until(SOON, "the pod's device", || {
            let links = root.links()?;
            ensure!(!links.iter().any(|name| name.starts_with("nd")), "{links:?}");
            Ok(())
        })?;
        root.dpkg(&["--purge", "netd"])?;
        let left = root.differences()?;
        ensure!(left.is_empty(), "{left:#?}");
        ensure!(root.links()?.is_empty(), "{:?}", root.links()?);
        let tables = root.host.net.sh("nft list tables")?;
        ensure!(!tables.contains("netd"), "{tables}");
        ensure!(netd.check_alive().is_err(), "netd runs without its program");
        Ok(())
    })
}

#[test]
fn force_purges_though_endpoints_exist() -> Result<()> {
    on_root(|root| {
        root.play_systemd()?;
        root.install(&packages()?.first)?;
        let _netd = root.start_netd()?;
        let _pod = root.start_pod()?;
        root.sh("FORCE=1 dpkg --no-triggers --force-unsafe-io --purge netd")?;
        let left = root.differences()?;
        ensure!(left.is_empty(), "{left:#?}");
        Ok(())
    })
}

#[test]
fn a_removal_cleans_the_kernel_after_a_stopped_netd_and_keeps_its_networks() -> Result<()> {
    on_root(|root| {
        root.play_systemd()?;
        root.install(&packages()?.first)?;
        let mut netd = root.start_netd()?;
        root.sh("netd network create blue --pool 10.77.0.0/24")?;
        netd.stop(SOON)?;
        // As the overlay leaves it, beside another program's.
        root.host.net.sh(
            "ip link add flannel.1 type vxlan id 1 dstport 8472 dev eth0; ip link set flannel.1 alias 'netd overlay vxlan' up
             ip link add other type bridge; ip link set other up
             ip route add 10.5.1.0/24 dev eth0 proto 110 metric 100
             ip route add 10.5.2.0/24 dev eth0 proto static",
        )?;
        ensure!(root.links()?.len() > 3, "{:?}", root.links()?);
        root.dpkg(&["--remove", "netd"])?;
        ensure!(root.links()? == ["other"], "{:?}", root.links()?);
        let routes = root.host.net.sh("ip route")?;
        ensure!(!routes.contains("10.5.1.0/24") && routes.contains("10.5.2.0/24"), "{routes}");
        ensure!(!root.path("run/netd").exists() && !root.path("usr/bin/netd").exists());
        root.install(&packages()?.first)?;
        let _netd = root.start_netd()?;
        root.sh("netd network inspect blue").map(drop)
    })
}

/// An image that is built on a node has the node's devices and tables in sight.
#[test]
fn a_root_in_which_netd_never_ran_leaves_the_kernel_alone() -> Result<()> {
    on_root(|root| {
        root.host.net.sh("ip link add nd0123456789ab type bridge; nft add table inet netd")?;
        root.install(&packages()?.first)?;
        root.dpkg(&["--purge", "netd"])?;
        ensure!(root.links()? == ["nd0123456789ab"]);
        root.host.net.sh("nft list table inet netd")?;
        let left = root.differences()?;
        ensure!(left.is_empty(), "{left:#?}");
        Ok(())
    })
}
