//! The suite's own tests that depend on the kernel, run in the machine: there they meet modules,
//! other releases' nft and iproute2, and what this machine's kernel may not have (ipip, the
//! kernel's WireGuard).

use std::{
    fmt::Write as _,
    time::{Duration, Instant},
};

use anyhow::{Result, ensure};
use testbed::{
    Machine,
    machine::{Half, Size},
    package::Architecture,
    paths,
};

use super::on_each;

/// Of one test program, under emulation.
const LIMIT: Duration = Duration::from_secs(1500);

/// A test program and the tests of it, by parts of their names; all if none is given.
type Part = (&'static str, &'static [&'static str]);

const DATAPLANE: [Part; 2] = [("netd_dataplane", &[]), ("kernel", &[])];
/// The first one keeps a module out, which later ones load. Of each backend one test: a cluster
/// takes a minute here.
const OVERLAY: [Part; 2] = [
    ("overlay", &["wireguard::"]),
    (
        "overlay",
        &[
            "backends::wireguard_with_both_and_options",
            "backends::ipip",
            "backends::vxlan_with_both",
            "backends::vxlan_with_routed",
            "backends::host_gw_with_both",
            "backends::udp_with_both",
            "both_families_over_vxlan_over_ipv6",
        ],
    ),
];
/// With containerd 1.7 and 2.1, and what pods ask for.
const PODS: [Part; 4] = [
    ("cri", &[]),
    ("hostports", &[]),
    ("drift", &[]),
    ("network", &["bandwidth::", "families::", "sctp::", "mtu::"]),
];
/// dockerd 20.10 and 28.5.
const DOCKER: [Part; 1] = [("docker", &["networks::", "ports::", "order::"])];

fn on_every_kernel(parts: &[Part]) -> Result<()> {
    on_each(Half::Long, Size::LARGE, |machine| run(machine, parts))
}

fn run(machine: &mut Machine, parts: &[Part]) -> Result<()> {
    if machine.architecture() != Architecture::Amd64 {
        println!("skipped: the suite is built for this test bed's processor only");
        return Ok(());
    }
    machine.mount_tree()?;
    let mut failed = String::new();
    for (name, tests) in parts {
        let program = paths::test_program(name)?;
        let script = format!(
            "ulimit -n 65536; mkdir -p /t; modprobe -a br_netfilter nf_conntrack
             nft list ruleset >/dev/null; cd {}/tests; uname -r
             export TMPDIR=/t NETD_TEST_PATIENCE=10 NETD_TEST_OWN_MACHINE=1 RUST_BACKTRACE=0
             timeout {} {} --test-threads 2 {} || echo FAILED",
            paths::root().display(),
            LIMIT.as_secs(),
            program.display(),
            tests.join(" "),
        );
        let start = Instant::now();
        let printed = machine.run(&script, LIMIT * 2)?;
        println!("{name}: {:.0} s\n{printed}", start.elapsed().as_secs_f32());
        let nothing = printed.contains("running 0 tests") || printed.contains("skipped:");
        if nothing || printed.trim_end().ends_with("FAILED") {
            writeln!(failed, "{name}")?;
        }
    }
    ensure!(failed.is_empty(), "failed in the machine:\n{failed}");
    Ok(())
}

#[test]
fn the_dataplane_works_on_the_releases_kernel() -> Result<()> {
    on_every_kernel(&DATAPLANE)
}

#[test]
fn every_backend_works_on_the_releases_kernel() -> Result<()> {
    on_every_kernel(&OVERLAY)
}

#[test]
fn pods_of_containerd_work_on_the_releases_kernel() -> Result<()> {
    on_every_kernel(&PODS)
}

#[test]
fn dockerd_works_on_the_releases_kernel() -> Result<()> {
    on_every_kernel(&DOCKER)
}
