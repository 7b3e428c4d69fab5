//! Whether the caller may do what netd has to do.

use super::finding::Finding;
use crate::privileges::{Capability, missing, missing_of};

const CHECK: &str = "privileges";

pub(super) fn check() -> Vec<Finding> {
    judge(missing())
}

fn judge(missing: Option<Vec<Capability>>) -> Vec<Finding> {
    let Some(missing) = missing else {
        return vec![
            Finding::warn(CHECK, "capabilities can't be read from /proc/self/status")
                .breaks("nothing by itself")
                .fix("mount /proc"),
        ];
    };
    let found: Vec<_> = missing
        .iter()
        .map(|(_, name, purpose)| {
            Finding::fail(CHECK, format!("{name} is missing"))
                .breaks(format!("a netd with these privileges can't {purpose}"))
                .fix("run as root; in a container or unit, grant the capability")
        })
        .collect();
    match found.is_empty() {
        true => {
            let all = missing_of(0).iter().map(|(_, name, _)| *name).collect::<Vec<_>>().join(", ");
            vec![Finding::ok(CHECK, format!("{all} are there"))]
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
        let judge = |held| judge(Some(missing_of(held)));
        assert_eq!(judge(u64::MAX)[0].severity, Severity::Ok);
        let found = judge(1 << 11 | 1 << 12 | 1 << 13);
        assert!(found.len() == 1 && found[0].what.contains("CAP_SYS_ADMIN"), "{found:?}");
        assert_eq!(judge(0).len(), 4);
        assert_eq!(super::judge(None)[0].severity, Severity::Warn);
    }
}
