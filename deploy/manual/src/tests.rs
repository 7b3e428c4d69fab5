#![allow(clippy::unwrap_used)]

use std::{collections::BTreeSet, fs, path::Path};

use super::{programs, write};

fn names(dir: &Path) -> BTreeSet<String> {
    let entries = fs::read_dir(dir).unwrap();
    entries.map(|e| e.unwrap().file_name().into_string().unwrap()).collect()
}

#[test]
fn every_verb_has_a_page_and_every_program_its_completions() {
    let dir = tempfile::tempdir().unwrap();
    write(dir.path()).unwrap();
    let pages = names(&dir.path().join("man/man8"));
    for page in
        ["netd.8", "netd-serve.8", "netd-endpoint-attach.8", "netd-hook-oci.8", "netd-tunnel.8"]
    {
        assert!(pages.contains(page), "{page} is not among {pages:?}");
    }
    assert!(!pages.iter().any(|page| page.contains("help")), "{pages:?}");
    for program in programs() {
        let name = program.get_name();
        for verb in program.get_subcommands() {
            assert!(pages.contains(&format!("{name}-{}.8", verb.get_name())), "{name} {verb}");
        }
        for file in [
            format!("bash-completion/completions/{name}"),
            format!("zsh/site-functions/_{name}"),
            format!("fish/vendor_completions.d/{name}.fish"),
        ] {
            assert!(fs::read_to_string(dir.path().join(&file)).unwrap().contains(name), "{file}");
        }
    }
}

#[test]
fn a_page_says_what_the_help_says_and_what_only_the_manual_knows() {
    let dir = tempfile::tempdir().unwrap();
    write(dir.path()).unwrap();
    let page = |name: &str| fs::read_to_string(dir.path().join("man/man8").join(name)).unwrap();
    let serve = page("netd-serve.8");
    assert!(serve.contains(".TH NETD-SERVE 8"), "{serve}");
    assert!(serve.contains("NETD_SOCKET_GROUP") && serve.contains("check\\-config"), "{serve}");
    let netd = page("netd.8");
    assert!(!netd.contains("netd\\-help"), "{netd}");
    assert!(netd.contains("\nnetd \\- the node"), "{netd}");
    for section in ["\"EXIT STATUS\"", "FILES", "\"SEE ALSO\""] {
        assert!(netd.contains(&format!("\n.SH {section}\n")), "{netd}");
    }
}
