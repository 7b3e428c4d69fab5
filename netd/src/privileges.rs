//! The capabilities without which netd can't work at all.

/// capabilities(7): its number, its name, what it is for.
pub(crate) type Capability = (u32, &'static str, &'static str);

const NEEDED: [Capability; 4] = [
    (11, "CAP_NET_BROADCAST", "follow netlink events in pods' network namespaces"),
    (12, "CAP_NET_ADMIN", "make links, routes and rules"),
    (13, "CAP_NET_RAW", "announce pods' addresses to their neighbours"),
    (21, "CAP_SYS_ADMIN", "enter pods' network namespaces"),
];

/// Those that this process does not have; `None`: /proc does not say.
pub(crate) fn missing() -> Option<Vec<Capability>> {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    effective(&status).map(missing_of)
}

/// Of a process with these capabilities.
pub(crate) fn missing_of(held: u64) -> Vec<Capability> {
    NEEDED.into_iter().filter(|(number, ..)| held & (1 << number) == 0).collect()
}

/// The effective set in `/proc/PID/status`.
fn effective(status: &str) -> Option<u64> {
    let line = status.lines().find_map(|l| l.strip_prefix("CapEff:"))?;
    u64::from_str_radix(line.trim(), 16).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_effective_set_is_read() {
        assert_eq!(effective("Name:\tx\nCapEff:\t00000000000000ff\n"), Some(0xff));
        assert_eq!(effective("CapEff:\tzz\n"), None);
    }
}
