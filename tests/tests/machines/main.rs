//! netd on whole machines: a Debian release's own kernel, systemd and userland. Slow, because
//! they are emulated: each test boots one machine and does much on it.

mod life;
mod power;

use std::time::Duration;

use anyhow::{Context as _, Result};
use testbed::{Machine, case, machine, package};

/// Of one step, under emulation.
const STEP: Duration = Duration::from_secs(240);

/// Runs a test on a machine of each release that is asked for; shows the journal if it fails.
fn on_each(test: impl Fn(&mut Machine) -> Result<()>) -> Result<()> {
    for release in machine::releases() {
        case(|bed| {
            let mut machine = Machine::boot(bed, &release)?;
            let packages = bed.directory().join("packages");
            let (first, next) = package::two_versions(&packages)?;
            for (package, name) in [(first, "netd.deb"), (next, "next.deb")] {
                std::fs::rename(package, machine.share().join(name))?;
            }
            let outcome = test(&mut machine).with_context(|| format!("on {release}"));
            if outcome.is_err() {
                let journal = machine.run("journalctl -b --no-pager | tail -n 150", STEP);
                println!(
                    "--- the journal\n{}",
                    journal.unwrap_or_else(|error| format!("{error:#}"))
                );
            }
            outcome
        })?;
    }
    Ok(())
}
