//! The smallest machine that people run nodes on.

use anyhow::{Result, ensure};
use testbed::machine::{Half, Size};

use super::{on_each, share_packages, step};

#[test]
fn one_processor_and_half_a_gigabyte_are_enough() -> Result<()> {
    on_each(Half::Long, Size::SMALL, |machine| {
        share_packages(machine)?;
        step(machine, "installing", "dpkg -i /share/netd.deb; start_netd")?;
        let pods = "for n in $(seq 40); do add_pod p$n default; done; start_traffic p1 p2
                    for n in $(seq 3 40); do remove_pod p$n default; done; stop_traffic p1
                    netd endpoint list -o json | grep -c '\"sandbox' || true; netd status | head -n 3
                    free -m; systemctl show netd -p MemoryPeak -p MemoryCurrent -p NRestarts";
        let said = step(machine, "40 pods", pods)?;
        ensure!(said.contains("NRestarts=0"), "{said}");
        Ok(())
    })
}
