//! A node's life with the Debian package, under a real systemd.

use anyhow::{Result, ensure};
use testbed::machine::{Half, Size};

use super::{on_each, share_packages, step};

#[test]
fn installed_it_starts_and_carries_pods_over_restarts_upgrades_and_reboots() -> Result<()> {
    on_each(Half::Short, Size::USUAL, |machine| {
        share_packages(machine)?;
        let card = "until ip -br address | grep -q 10.0.2.15; do sleep 0.5; done";
        step(machine, "before", &format!("{card}; inventory > /root/before"))?;
        step(machine, "installing", "dpkg -i /share/netd.deb")?;
        step(machine, "starting", "start_netd; systemctl --no-pager status netd | head -n 5")?;
        let doctor = step(machine, "doctor", "netd doctor")?;
        ensure!(doctor.contains("0 failed"), "{doctor}");
        let pods = "netd network create routed --driver routed --pool 10.77.0.0/24 \
                    --pool fd00:77::/64 --pod-namespace '*' >/dev/null
                    for pod in a b; do add_pod $pod default; add_pod r$pod routed; done
                    netd endpoint list; start_traffic a b; start_traffic ra rb";
        step(machine, "pods", pods)?;
        let restarts = "systemctl restart netd; wait_ready
                        systemctl kill -s KILL netd; sleep 2; wait_ready
                        systemctl stop netd; sleep 2; systemctl start netd; wait_ready
                        systemctl restart nftables; sysctl -q --system; sleep 3; wait_ready
                        stop_traffic a; stop_traffic ra";
        step(machine, "restarts under traffic", restarts)?;
        let upgrade = "start_traffic a b; start_traffic ra rb; dpkg -i /share/next.deb
                       wait_ready; dpkg-query -W netd; stop_traffic a; stop_traffic ra";
        step(machine, "an upgrade under traffic", upgrade)?;
        machine.reboot()?;
        let after = "wait_ready; netd network list | grep -q routed; ls /run/netns || true
                     for pod in a b; do add_pod $pod default; add_pod r$pod routed; done
                     netd endpoint list; start_traffic a b; start_traffic ra rb; sleep 3
                     stop_traffic a; stop_traffic ra";
        step(machine, "after a reboot", after)?;
        let purge = "for pod in a b; do remove_pod $pod default; remove_pod r$pod routed; done
                     sleep 2; dpkg --purge netd; inventory > /root/after
                     diff /root/before /root/after";
        step(machine, "a purge", purge)?;
        Ok(())
    })
}
