//! Checks the CNI configurations: the first one must be netd's, and its plugin installed.

use std::{os::unix::fs::PermissionsExt, path::Path};

use serde_json::Value;

use super::{containerd::CniPaths, finding::Finding};

const CHECK: &str = "cni";
/// The plugin's type in a configuration, which is also its file name in the directory of plugins.
const PLUGIN: &str = "netd-hook";
/// The plugin that containerd calls for a pod's `lo`, before any configuration's.
const LOOPBACK: &str = "loopback";

/// One file of the configuration directory.
#[derive(Debug)]
struct Conf {
    name: String,
    /// The types of its plugins, or why it can't be read.
    types: Result<Vec<String>, String>,
}

pub(super) fn check(paths: &CniPaths) -> Vec<Finding> {
    let directory = paths.conf_dir.display().to_string();
    let mut found = judge(&configurations(&paths.conf_dir), &directory, paths.max_conf);
    let runs = |program: &str| {
        paths.bin_dirs.iter().any(|dir| {
            let file = std::fs::metadata(dir.join(program));
            file.is_ok_and(|m| m.is_file() && m.permissions().mode() & 0o111 != 0)
        })
    };
    let dirs: Vec<_> = paths.bin_dirs.iter().map(|d| d.display().to_string()).collect();
    if paths.needs_loopback && !runs(LOOPBACK) {
        let what = format!("no program {LOOPBACK} in {}", dirs.join(", "));
        found.push(
            Finding::fail(CHECK, what)
                .breaks("containerd executes it for every pod: pods stay in ContainerCreating")
                .fix(format!(
                    "install the CNI project's reference plugins (Debian: \
                     containernetworking-plugins) in {}; containerd 2.1 and later can do it itself: \
                     use_internal_loopback = true",
                    dirs.join(", ")
                )),
        );
    }
    if !runs(PLUGIN) {
        found.push(
            Finding::fail(CHECK, format!("no program {PLUGIN} in {}", dirs.join(", ")))
                .breaks(
                    "containerd can't ask netd for a pod's network: pods stay in ContainerCreating",
                )
                .fix(format!(
                    "netd-hook install; the directory must be containerd's bin_dir ({})",
                    dirs.join(", ")
                )),
        );
    }
    found
}

/// In the order in which a runtime reads them.
fn configurations(directory: &Path) -> Vec<Conf> {
    let entries = std::fs::read_dir(directory).into_iter().flatten().flatten();
    let names = entries.map(|e| e.file_name().to_string_lossy().into_owned());
    let known = |n: &String| [".conf", ".conflist", ".json"].iter().any(|end| n.ends_with(end));
    let mut names: Vec<_> = names.filter(known).collect();
    names.sort();
    let read = |name: String| {
        let text = std::fs::read_to_string(directory.join(&name)).map_err(|e| e.to_string());
        Conf { types: text.and_then(|t| types(&t)), name }
    };
    names.into_iter().map(read).collect()
}

/// The types of a list's plugins, or of a single plugin.
fn types(text: &str) -> Result<Vec<String>, String> {
    let conf: Value = serde_json::from_str(text).map_err(|e| e.to_string())?;
    let of = |v: &Value| v.get("type").and_then(Value::as_str).map(str::to_owned);
    let all: Vec<_> = match conf.get("plugins").and_then(Value::as_array) {
        Some(plugins) => plugins.iter().filter_map(of).collect(),
        None => of(&conf).into_iter().collect(),
    };
    if all.is_empty() { Err("it names no plugin".to_owned()) } else { Ok(all) }
}

fn judge(confs: &[Conf], directory: &str, max_conf: i64) -> Vec<Finding> {
    let ours = |c: &Conf| c.types.as_ref().is_ok_and(|t| t.iter().any(|t| t == PLUGIN));
    let install = "netd-hook install (it waits for netd to be ready)";
    let mut found = vec![];
    for conf in confs {
        if let Err(reason) = &conf.types {
            found.push(
                Finding::warn(CHECK, format!("{directory}/{}: {reason}", conf.name))
                    .breaks("containerd ignores it, or loads no network at all")
                    .fix("correct it or remove it"),
            );
        }
    }
    let usable: Vec<_> = confs.iter().filter(|c| c.types.is_ok()).collect();
    let Some(mine) = usable.iter().position(|c| ours(c)) else {
        let other = usable.first().map(|c| format!("; {} is used", c.name)).unwrap_or_default();
        found.push(
            Finding::fail(CHECK, format!("no configuration in {directory} names {PLUGIN}{other}"))
                .breaks("pods do not get their network from netd")
                .fix(install),
        );
        return found;
    };
    if mine > 0 {
        let names: Vec<_> = usable.iter().take(mine).map(|c| c.name.as_str()).collect();
        let what = format!("{} comes before netd's {}", names.join(", "), usable[mine].name);
        found.push(
            Finding::fail(CHECK, what)
                .breaks("containerd takes the first in order: pods get their network from that one")
                .fix(format!("move the others out of {directory}, and drain the node first")),
        );
    }
    let later: Vec<_> = usable.iter().skip(mine + 1).map(|c| c.name.as_str()).collect();
    if !later.is_empty() && max_conf != 1 {
        let what = format!("containerd loads {} besides netd's", later.join(", "));
        found.push(
            Finding::warn(CHECK, what)
                .breaks("pods get interfaces from several network managers")
                .fix("set max_conf_num = 1, or remove the others"),
        );
    }
    if found.is_empty() {
        found.push(Finding::ok(CHECK, format!("{directory}/{} is the first", usable[mine].name)));
    }
    found
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use crate::doctor::finding::Severity;

    fn conf(name: &str, kind: &str) -> Conf {
        Conf { name: name.to_owned(), types: Ok(vec![kind.to_owned()]) }
    }

    #[test]
    fn netds_configuration_must_be_there_and_first() {
        let worst = |confs: &[Conf], most| {
            judge(confs, "/d", most).iter().map(|f| f.severity).max().unwrap()
        };
        let (mine, other) =
            (|| conf("10-netd.conflist", PLUGIN), || conf("05-x.conflist", "bridge"));
        assert_eq!(worst(&[mine()], 1), Severity::Ok);
        assert_eq!(worst(&[], 1), Severity::Fail);
        assert_eq!(worst(&[other()], 1), Severity::Fail);
        assert_eq!(worst(&[other(), mine()], 1), Severity::Fail);
        let later = || conf("20-flannel.conflist", "flannel");
        assert_eq!(worst(&[mine(), later()], 1), Severity::Ok);
        assert_eq!(worst(&[mine(), later()], 0), Severity::Warn);
        let broken = Conf { name: "00.conf".into(), types: Err("junk".into()) };
        assert_eq!(worst(&[broken, mine()], 1), Severity::Warn);
    }

    #[test]
    fn lists_and_single_configurations_are_read() {
        assert_eq!(types(r#"{"plugins":[{"type":"a"},{"type":"b"}]}"#).unwrap(), ["a", "b"]);
        assert_eq!(types(r#"{"type":"a"}"#).unwrap(), ["a"]);
        assert!(types("{}").is_err() && types("x").is_err());
    }

    #[test]
    fn the_directory_is_read_in_order_and_the_program_looked_for() {
        let dir = tempfile::tempdir().unwrap();
        let write = |name: &str, text: &str| std::fs::write(dir.path().join(name), text).unwrap();
        write("10-netd.conflist", r#"{"plugins":[{"type":"netd-hook"}]}"#);
        write("05-old.conf", r#"{"type":"bridge"}"#);
        write("README", "no configuration");
        let paths = CniPaths {
            conf_dir: dir.path().to_owned(),
            bin_dirs: vec![dir.path().to_owned()],
            max_conf: 1,
            needs_loopback: false,
        };
        let found = check(&paths);
        assert!(found[0].what.starts_with("05-old.conf comes before"), "{found:?}");
        assert!(found[1].what.contains("no program netd-hook"), "{found:?}");
        write(PLUGIN, "#!/bin/sh\n");
        let file = dir.path().join(PLUGIN);
        std::fs::set_permissions(file, PermissionsExt::from_mode(0o755)).unwrap();
        assert_eq!(check(&paths).len(), 1);
        let needed = CniPaths { needs_loopback: true, ..paths };
        let found = check(&needed);
        assert!(found.iter().any(|f| f.severity == Severity::Fail && f.what.contains("loopback")));
        let file = dir.path().join(LOOPBACK);
        std::fs::copy(dir.path().join(PLUGIN), &file).unwrap();
        assert_eq!(check(&needed).len(), 1);
        // One that can't be executed is as good as none.
        std::fs::set_permissions(file, PermissionsExt::from_mode(0o644)).unwrap();
        assert_eq!(check(&needed).len(), 2);
    }
}
