//! The suite's own tests that depend on the kernel, run in the machine: there they meet modules,
//! other releases' nft and iproute2, and what this machine's kernel may not have (ipip, the
//! kernel's WireGuard).

use std::{
    fmt::Write as _,
    time::{Duration, Instant},
};

use anyhow::{Result, ensure};
use testbed::{Machine, machine::Size, paths};

use super::on_each;

/// Of one test program, under emulation.
const LIMIT: Duration = Duration::from_secs(1500);

/// A test program and the tests of it, by parts of their names; all if none is given.
type Part = (&'static str, &'static [&'static str]);

const DATAPLANE: [Part; 2] = [("netd_dataplane", &[]), ("kernel", &[])];

fn run(machine: &mut Machine, parts: &[Part]) -> Result<()> {
    machine.mount_tree()?;
    let mut failed = String::new();
    for (name, tests) in parts {
        let program = paths::test_program(name)?;
        let script = format!(
            "ulimit -n 65536; mkdir -p /t; modprobe -a br_netfilter nf_conntrack
             nft list ruleset >/dev/null; cd {}/tests; uname -r
             export TMPDIR=/t NETD_TEST_PATIENCE=10 RUST_BACKTRACE=0
             timeout {} {} --test-threads 2 {} || echo FAILED",
            paths::root().display(),
            LIMIT.as_secs(),
            program.display(),
            tests.join(" "),
        );
        let start = Instant::now();
        let printed = machine.run(&script, LIMIT * 2)?;
        println!("{name}: {:.0} s\n{printed}", start.elapsed().as_secs_f32());
        if printed.trim_end().ends_with("FAILED") {
            writeln!(failed, "{name}")?;
        }
    }
    ensure!(failed.is_empty(), "failed in the machine:\n{failed}");
    Ok(())
}

#[test]
fn the_dataplane_works_on_the_releases_kernel() -> Result<()> {
    on_each(Size::LARGE, |machine| run(machine, &DATAPLANE))
}
