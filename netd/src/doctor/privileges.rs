//! Whether the caller may do what netd has to do.

use super::finding::Finding;

const CHECK: &str = "privileges";
/// capabilities(7), linux/capability.h
const NEEDED: [(u32, &str, &str); 3] = [
    (11, "CAP_NET_BROADCAST", "follow netlink events in pods' network namespaces"),
    (12, "CAP_NET_ADMIN", "make links, routes and rules"),
    (21, "CAP_SYS_ADMIN", "enter pods' network namespaces"),
];

pub(super) fn check() -> Vec<Finding> {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    judge(effective(&status))
}

/// The effective set in `/proc/PID/status`.
fn effective(status: &str) -> Option<u64> {
    let line = status.lines().find_map(|l| l.strip_prefix("CapEff:"))?;
    u64::from_str_radix(line.trim(), 16).ok()
}

fn judge(effective: Option<u64>) -> Vec<Finding> {
    let Some(held) = effective else {
        return vec![
            Finding::warn(CHECK, "capabilities can't be read from /proc/self/status")
                .breaks("nothing by itself")
                .fix("mount /proc"),
        ];
    };
    let missing = NEEDED.iter().filter(|(bit, ..)| held & (1 << bit) == 0);
    let found: Vec<_> = missing
        .map(|(_, name, purpose)| {
            Finding::fail(CHECK, format!("{name} is missing"))
                .breaks(format!("a netd with these privileges can't {purpose}"))
                .fix("run as root; in a container or unit, grant the capability")
        })
        .collect();
    match found.is_empty() {
        true => {
            vec![Finding::ok(CHECK, "CAP_NET_ADMIN, CAP_NET_BROADCAST and CAP_SYS_ADMIN are there")]
        }
        false => found,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::doctor::finding::Severity;

    #[test]
    fn each_missing_capability_is_named() {
        assert_eq!(judge(Some(u64::MAX))[0].severity, Severity::Ok);
        let found = judge(Some(1 << 11 | 1 << 12));
        assert!(found.len() == 1 && found[0].what.contains("CAP_SYS_ADMIN"), "{found:?}");
        assert_eq!(judge(Some(0)).len(), 3);
        assert_eq!(judge(None)[0].severity, Severity::Warn);
    }

    #[test]
    fn the_effective_set_is_read() {
        assert_eq!(effective("Name:\tx\nCapEff:\t00000000000000ff\n"), Some(0xff));
        assert_eq!(effective("CapEff:\tzz\n"), None);
    }
}
