//! After a reboot the kernel is empty and run_dir is new; state_dir is as it was.

use std::fs;

use anyhow::{Result, ensure};
use netd_api::v1::{Driver, Network, PodAccess, Pool};
use testbed::{Bed, Daemon, Host, Sandbox, case, net::probe};

use crate::node::config;

/// Another machine with the first one's disk. It has the same boot id, as all here run
/// on one kernel; what tells netd of the reboot is that run_dir is empty.
fn rebooted(bed: &Bed, old: &Host) -> Result<(Host, Daemon)> {
    let host = bed.host("rebooted")?;
    let (from, to) = (old.directory().join("netd/state"), host.directory().join("netd/state"));
    fs::create_dir_all(&to)?;
    for entry in fs::read_dir(from)? {
        let entry = entry?;
        fs::copy(entry.path(), to.join(entry.file_name()))?;
    }
    let netd = Daemon::start(&host, &config("bridge"))?;
    Ok((host, netd))
}

#[test]
fn networks_outlast_a_reboot_and_endpoints_do_not() -> Result<()> {
    case(|bed| {
        let host = bed.host("node")?;
        let mut netd = Daemon::start(&host, &config("bridge"))?;
        let pools = vec![Pool { subnet: "10.77.0.0/29".to_owned(), ..Pool::default() }];
        let blue = Network {
            name: "blue".to_owned(),
            driver: Driver::Routed.into(),
            pools,
            pods: Some(PodAccess { namespaces: vec!["*".to_owned()], ..PodAccess::default() }),
            ..Network::default()
        };
        netd.create_network(blue.clone())?;
        let old = [Sandbox::attached(&host, "one")?, Sandbox::attached_to(&host, "two", "blue")?];
        let revision = netd.networks()?.len();
        ensure!(revision == 2);
        netd.service().stop(std::time::Duration::from_secs(10))?;

        let (host, netd) = rebooted(bed, &host)?;
        let networks = netd.networks()?;
        let found = networks.iter().filter_map(|status| status.network.clone());
        let found = found.filter(|network| network.name == "blue").collect::<Vec<_>>();
        ensure!(found.iter().all(|network| network.pools.len() == 1) && found.len() == 1);
        ensure!(netd.endpoints()?.is_empty(), "endpoints of another boot");
        ensure!(netd.addresses_used()? == 0, "addresses leaked");
        // Every address of the small pool can be had.
        let pods: Vec<Sandbox> = (0..5)
            .map(|number| Sandbox::attached_to(&host, &format!("pod{number}"), "blue"))
            .collect::<Result<_>>()?;
        let [first, .., last] = pods.as_slice() else { anyhow::bail!("no pods") };
        probe::ping(&first.net, last.v4()?)?;
        // The same sandbox id, as a runtime may use again.
        let mut again = Sandbox::bare(&host, "again")?;
        again.id.clone_from(&old[0].id);
        again.add(&host)?;
        Ok(())
    })
}

#[test]
fn a_crash_of_the_machine_leaves_a_store_that_can_be_read() -> Result<()> {
    case(|bed| {
        let host = bed.host("node")?;
        let netd = Daemon::start(&host, &config("bridge"))?;
        let _pods: Vec<Sandbox> = (0..5)
            .map(|number| Sandbox::attached(&host, &format!("pod{number}")))
            .collect::<Result<_>>()?;
        // Copied while netd runs and holds it: as the disk is when the power goes.
        let (_host, after) = rebooted(bed, &host)?;
        ensure!(after.endpoints()?.is_empty() && after.addresses_used()? == 0);
        ensure!(after.networks()?.len() == 1);
        drop(netd);
        Ok(())
    })
}
