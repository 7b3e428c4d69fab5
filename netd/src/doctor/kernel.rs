//! Judges which features the kernel has.

use super::finding::Finding;
use crate::{
    exec::ExecError,
    kernel_features::{FEATURES, Feature, Tried, try_all},
    kernel_modules::BACKENDS,
};

const CHECK: &str = "kernel";

pub(super) fn check() -> Vec<Finding> {
    let mut found = match try_all() {
        Ok(results) => judge(&results),
        Err(reason) => vec![untried(reason)],
    };
    // A node with another backend has nothing to look at.
    let missing = BACKENDS.iter().filter(|backend| backend.is_there() == Some(false));
    found.extend(missing.map(|backend| {
        let (name, option) = (backend.name, backend.option);
        Finding::ok(CHECK, format!("no {name} ({option}); breaks {}", backend.breaks))
    }));
    found
}

fn untried(reason: &str) -> Finding {
    Finding::warn(CHECK, format!("no network namespace to try features in: {reason}"))
        .breaks("nothing by itself: it is not known what this kernel can do")
        .fix("run netd doctor as root")
}

fn judge(results: &[Tried]) -> Vec<Finding> {
    let mut found = vec![];
    let mut works = vec![];
    let mut tools: Vec<&str> = vec![];
    for (feature, result) in FEATURES.iter().zip(results) {
        match result {
            Ok(()) => works.push(feature.name),
            Err((program, ExecError::Missing)) if tools.contains(program) => {}
            Err((program, ExecError::Missing)) => tools.push(program),
            Err((_, ExecError::Failed(reason))) => found.push(refused(feature, reason)),
        }
    }
    found.extend(tools.iter().map(|program| missing(program)));
    if !works.is_empty() {
        found.insert(0, Finding::ok(CHECK, format!("works: {}", works.join("; "))));
    }
    found
}

fn refused(feature: &Feature, reason: &str) -> Finding {
    let what = format!("no {}: {reason}", feature.name);
    let found = if feature.vital { Finding::fail(CHECK, what) } else { Finding::warn(CHECK, what) };
    found
        .breaks(feature.breaks)
        .fix(format!("use a kernel with {}, or load its module", feature.option))
}

fn missing(program: &str) -> Finding {
    if program == "nft" {
        return Finding::fail(CHECK, "the program nft is not installed")
            .breaks("netd loads its nftables table with it at start, and does not start without")
            .fix("apt-get install nftables");
    }
    Finding::warn(CHECK, format!("the program {program} is not installed"))
        .breaks("nothing by itself: some kernel features could not be tried")
        .fix("apt-get install iproute2")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::doctor::finding::Severity;

    #[test]
    fn a_missing_nft_fails_once_and_a_missing_ip_only_warns() {
        let results: Vec<_> = FEATURES
            .iter()
            .map(|f| {
                let program = f.try_it.first().map_or("nft", |c| c[0]);
                if program == "tc" { Ok(()) } else { Err((program, ExecError::Missing)) }
            })
            .collect();
        let found = judge(&results);
        let fails: Vec<_> = found.iter().filter(|f| f.severity == Severity::Fail).collect();
        assert!(fails.len() == 1 && fails[0].fix.contains("nftables"), "{found:?}");
        assert!(found.iter().any(|f| f.what.contains("program ip ")), "{found:?}");
    }

    #[test]
    fn a_refused_feature_is_as_bad_as_what_it_breaks() {
        let refused = |name: &str| {
            let results: Vec<_> = FEATURES
                .iter()
                .map(|f| match f.name == name {
                    true => Err(("ip", ExecError::Failed("Operation not supported".into()))),
                    false => Ok(()),
                })
                .collect();
            judge(&results).remove(1).severity
        };
        assert_eq!(refused("veth pairs"), Severity::Fail);
        assert_eq!(refused("IPv6"), Severity::Warn);
    }

    #[test]
    fn the_check_says_something_with_and_without_root() {
        let found = check();
        assert!(found.iter().all(|f| f.check == CHECK && !f.what.is_empty()), "{found:?}");
        assert!(!found.is_empty());
        if nix::unistd::geteuid().is_root() {
            // Every feature works here; a typing error in a rule would look like a gap.
            assert!(found.iter().all(|f| f.severity == Severity::Ok), "{found:?}");
            assert!(found[0].what.contains("nftables, fib"), "{found:?}");
        }
    }
}
