//! Network managers and firewalls beside netd: they may not take its devices, nor its packets.

use anyhow::{Result, ensure};
use testbed::machine::{Half, Size};

use super::{on_each, share_packages, step};

const PODS: &str = "dpkg -i /share/netd.deb; start_netd
    netd network create routed --driver routed --pool 10.77.0.0/24 --pool fd00:77::/64 \
        --pod-namespace '*' >/dev/null
    for pod in a b; do add_pod $pod default; add_pod r$pod routed; done
    start_traffic a b; start_traffic ra rb";

/// A file that matches every device is what people write for a machine with one card.
const NETWORKD: &str = "printf '[Match]\\nName=*\\n[Network]\\nDHCP=yes\\nIPForward=no\\n' \
        > /etc/systemd/network/10-all.network
    devices > /root/before; systemctl restart systemd-networkd; sleep 5; networkctl reload
    sleep 5; networkctl --no-pager; devices | diff /root/before -
    networkctl --no-pager | grep -c unmanaged; if networkctl --no-pager | grep -E ' (cni0|nd[0-9a-f]{12}) ' | grep -v unmanaged; then
        exit 1; fi
    systemctl restart systemd-networkd; wait_ready; rm /etc/systemd/network/10-all.network
    systemctl restart systemd-networkd";

const NETWORK_MANAGER: &str = "devices > /root/before; systemctl start NetworkManager
    sleep 8; nmcli device; devices | diff /root/before -
    if nmcli -g DEVICE,STATE device | grep -E '^(cni0|nd[0-9a-f]{12}):' | grep -v unmanaged; then
        exit 1; fi
    add_pod late default; sleep 3; nmcli device; nmcli -g DEVICE,STATE device | \
        grep -c -E '^nd[0-9a-f]{12}:unmanaged'
    systemctl restart NetworkManager; sleep 5; remove_pod late default
    devices | diff /root/before -; systemctl stop NetworkManager; wait_ready
    stop_traffic a; stop_traffic ra";

/// firewalld rejects what is forwarded between devices in no zone; doctor names the cure.
const FIREWALLD: &str = "systemctl start firewalld; firewall-cmd --state; netd doctor || true
    for pool in 10.77.0.0/24 fd00:77::/64 $(netd network inspect default -o json |
        grep -o '\"[0-9a-f.:]*/[0-9]*\"' | tr -d '\"' | sort -u); do
        firewall-cmd -q --permanent --zone=trusted --add-source=$pool; done
    firewall-cmd --reload; sleep 2; netd doctor; start_traffic a b; start_traffic ra rb
    firewall-cmd --reload; systemctl restart firewalld; sleep 3; wait_ready
    ping -c 3 -q $(address a 4); ping -c 3 -q $(address ra 4)
    stop_traffic a; stop_traffic ra; systemctl stop firewalld";

const RESTARTS: &str = "start_traffic a b; start_traffic ra rb; systemctl daemon-reexec; sleep 2
    before=$(systemctl show -P MainPID netd); systemctl kill -s STOP netd
    for _ in $(seq 120); do [ $(systemctl show -P NRestarts netd) = 0 ] || break; sleep 0.5; done
    systemctl show netd -p NRestarts; wait_ready; [ $before != $(systemctl show -P MainPID netd) ]
    add_pod late default; remove_pod late default; stop_traffic a; stop_traffic ra";

#[test]
fn managers_and_firewalls_leave_pods_alone() -> Result<()> {
    on_each(Half::Long, Size::USUAL, |machine| {
        share_packages(machine)?;
        step(machine, "pods", PODS)?;
        step(machine, "systemd-networkd with a file for all devices", NETWORKD)?;
        step(machine, "NetworkManager", NETWORK_MANAGER)?;
        step(machine, "firewalld", FIREWALLD)?;
        let said = step(machine, "the watchdog", RESTARTS)?;
        ensure!(!said.contains("NRestarts=0"), "{said}");
        Ok(())
    })
}
