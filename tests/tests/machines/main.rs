//! netd on whole machines: a Debian release's own kernel, systemd and userland. Slow, because
//! they are emulated: each test boots one machine and does much on it.

mod doctor;
mod life;
mod managers;
mod power;
mod runtimes;
mod small;
mod suite;

use std::{
    fs::OpenOptions,
    io::Write as _,
    path::PathBuf,
    time::{Duration, Instant},
};

use anyhow::{Result, ensure};
use testbed::{
    Bed, Machine, case,
    machine::{self, Half, Size},
    package, paths,
};

/// Of one step, under emulation.
const STEP: Duration = Duration::from_secs(240);

/// The end of the journal, without what the kernel says of each port of a bridge.
const JOURNAL: &str = "journalctl -b --no-pager | grep -v 'promiscuous mode\\|entered .* state' |
    tail -n 150";

/// For all scripts: pods are namespaces that the plugin wires as a runtime would.
const FUNCTIONS: &str = include_str!("functions.sh");

/// Runs a script with [`FUNCTIONS`], and shows what it printed.
fn step(machine: &mut Machine, what: &str, script: &str) -> Result<String> {
    let start = Instant::now();
    let printed = machine.run(&format!("{FUNCTIONS}\n{script}"), STEP)?;
    println!("{what}: {:.0} s\n{printed}", start.elapsed().as_secs_f32());
    Ok(printed)
}

/// Puts the Debian package and a later one into the machine's share.
fn share_packages(machine: &Machine) -> Result<()> {
    let packages = machine.share().join("packages");
    let (first, next) = package::two_versions(&packages, machine.architecture())?;
    for (package, name) in [(first, "netd.deb"), (next, "next.deb")] {
        std::fs::rename(package, machine.share().join(name))?;
    }
    Ok(())
}

/// Runs a test on a machine of each release that is asked for, and writes down how it went. A
/// machine on which it fails is kept.
fn on_each(half: Half, size: Size, test: impl Fn(&mut Machine) -> Result<()>) -> Result<()> {
    let mut failed = vec![];
    for release in machine::releases(half) {
        let start = Instant::now();
        let outcome = case(|bed| on_one(bed, &release, size, &test));
        record(&release, outcome.is_ok(), start.elapsed())?;
        failed.extend(outcome.err().map(|error| format!("on {release}: {error:#}")));
    }
    ensure!(failed.is_empty(), "{}", failed.join("\n"));
    Ok(())
}

fn on_one(
    bed: &Bed,
    release: &str,
    size: Size,
    test: impl Fn(&mut Machine) -> Result<()>,
) -> Result<()> {
    let mut machine = Machine::boot(bed, release, size)?;
    let outcome = test(&mut machine);
    if outcome.is_err()
        && let Err(error) = show_and_keep(machine, release)
    {
        println!("--- the machine is lost: {error:#}");
    }
    outcome
}

/// A line for `tests/machines/table`: release, test, outcome, seconds.
fn record(release: &str, well: bool, took: Duration) -> Result<()> {
    let directory = paths::root().join("target/machines");
    std::fs::create_dir_all(&directory)?;
    let test = test_name();
    let outcome = if well { "ok" } else { "FAILED" };
    let mut file = OpenOptions::new().create(true).append(true).open(directory.join("results"))?;
    writeln!(file, "{release}\t{test}\t{outcome}\t{}", took.as_secs())?;
    Ok(())
}

/// The function's, without its module: threads of tests have its name.
fn test_name() -> String {
    let thread = std::thread::current();
    thread.name().unwrap_or_default().rsplit("::").next().unwrap_or_default().to_owned()
}

fn show_and_keep(mut machine: Machine, release: &str) -> Result<()> {
    let journal = machine.run(JOURNAL, STEP);
    println!("--- the journal\n{}", journal.unwrap_or_else(|error| format!("{error:#}")));
    let place: PathBuf = paths::root().join("target/machines").join(release).join(test_name());
    machine.keep(&place)?;
    println!("--- kept; tests/machines/enter {}", place.display());
    Ok(())
}
