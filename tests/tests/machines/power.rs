//! Power cuts at random moments of attaches and detaches.

use anyhow::Result;
use testbed::{
    Random,
    machine::{Half, Size},
    scale, wait,
};

use super::{on_each, share_packages, step};

#[test]
fn after_a_power_cut_nothing_is_lost_and_no_address_is_given_twice() -> Result<()> {
    let cuts: u64 = scale("NETD_POWER_CUTS", 5)?;
    on_each(Half::Long, Size::USUAL, |machine| {
        share_packages(machine)?;
        step(machine, "installing", "dpkg -i /share/netd.deb; start_netd")?;
        let random = Random::new();
        for cut in 0..cuts {
            let kept: Vec<String> = (0..=cut).map(|n| format!("kept{n}")).collect();
            // The last network is stored before the power goes; what comes after may be.
            let storm = format!(
                "netd network create kept{cut} --pool 10.60.{cut}.0/24 >/dev/null
                 (n=0; while :; do n=$((n + 1)); add_pod s$n default; [ $((n % 3)) != 0 ] ||
                  remove_pod s$n default; netd network create new$n --pool 10.70.$n.0/24 >/dev/null
                  done) >/dev/null 2>&1 &"
            );
            step(machine, "a storm", &storm)?;
            wait::pause(random.moment(6000));
            machine.cut_power()?;
            // `set -e` does not look at a command after `!`.
            let check = format!(
                "wait_ready; for name in {}; do netd network list | grep -qw $name; done
                 if journalctl -b -u netd | grep -i 'refused record\\|unreadable'; then exit 1; fi
                 for n in $(seq 30); do add_pod p$n default; done
                 for n in $(seq 30); do address p$n 4; done > /root/given
                 [ $(sort -u /root/given | wc -l) = 30 ]
                 for n in $(seq 30); do remove_pod p$n default; done
                 for name in $(netd network list | awk '/^new/ {{print $1}}'); do
                 netd network delete $name >/dev/null; done",
                kept.join(" ")
            );
            step(machine, "after the cut", &check)?;
        }
        Ok(())
    })
}
