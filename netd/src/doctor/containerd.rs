//! Checks containerd's configuration: format 2 (containerd 1.7), 3 and later (2.x).

use std::path::{Path, PathBuf};

use toml::{Table, Value};

use super::finding::Finding;
use crate::exec::output;

const CHECK: &str = "containerd";
const NRI: &str = "io.containerd.nri.v1.nri";
/// The plugins that have the settings for CNI: from containerd 2.0, and before.
const CRI: [&str; 2] = ["io.containerd.cri.v1.runtime", "io.containerd.grpc.v1.cri"];
const MAX_BYTES: u64 = 4 << 20;

/// containerd as it is installed on this host.
#[derive(Debug, Default)]
pub(super) struct Runtime {
    file: PathBuf,
    file_exists: bool,
    /// Merged with its imports; empty if there is no file.
    config: Table,
    /// Files that can't be read, each with the reason.
    unread: Vec<String>,
    /// Major and minor version of the program; `None`: it can't be run.
    version: Option<(u32, u32)>,
}

/// Where containerd looks for CNI configurations and plugins.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct CniPaths {
    pub conf_dir: PathBuf,
    pub bin_dirs: Vec<PathBuf>,
    /// How many configurations containerd loads; 0: all.
    pub max_conf: i64,
    /// Whether containerd executes the plugin `loopback` for every pod.
    pub needs_loopback: bool,
}

/// Asks containerd for its effective configuration, because distributions change its
/// defaults and versions merge imports differently. If it can't be run, the files are read.
pub(super) fn read(file: &Path, program: &str) -> Runtime {
    let version = output(program, &["--version"], "").ok().and_then(|text| version(&text));
    let mut facts = Runtime { file: file.to_owned(), version, ..Default::default() };
    let path = file.to_string_lossy();
    facts.file_exists = file.exists();
    let asked = match facts.file_exists {
        true => output(program, &["--config", &path, "config", "dump"], ""),
        false => output(program, &["config", "default"], ""),
    };
    match asked.ok().and_then(|text| text.parse().ok()) {
        Some(config) => facts.config = config,
        None => read_files(&mut facts),
    }
    facts
}

fn read_files(facts: &mut Runtime) {
    facts.config = load(&facts.file, &mut facts.unread).unwrap_or_default();
    for import in imports(&facts.config, &facts.file) {
        let part = load(&import, &mut facts.unread).unwrap_or_default();
        let deep = facts.merges_deeply();
        merge(&mut facts.config, part, deep, 0);
    }
}

/// `containerd github.com/containerd/containerd/v2 2.1.9 ...`
fn version(text: &str) -> Option<(u32, u32)> {
    text.split_whitespace().find_map(|word| {
        let mut parts = word.trim_start_matches('v').split('.');
        Some((parts.next()?.parse().ok()?, parts.next()?.parse().ok()?))
    })
}

/// `None` if there is no such file, or it can't be read.
fn load(file: &Path, unread: &mut Vec<String>) -> Option<Table> {
    let length = std::fs::metadata(file).map(|m| m.len()).ok()?;
    if length > MAX_BYTES {
        unread.push(format!("{} is larger than {MAX_BYTES} bytes", file.display()));
        return None;
    }
    let text = std::fs::read_to_string(file).map_err(|e| e.to_string());
    let table = text.and_then(|t| t.parse::<Table>().map_err(|e| e.message().to_owned()));
    table.map_err(|e| unread.push(format!("{}: {e}", file.display()))).ok()
}

/// The files that `imports` names: paths relative to the file, with `*` in the last part.
fn imports(config: &Table, file: &Path) -> Vec<PathBuf> {
    let Some(Value::Array(patterns)) = config.get("imports") else { return vec![] };
    let base = file.parent().unwrap_or(Path::new("/"));
    let mut all = vec![];
    for pattern in patterns.iter().filter_map(Value::as_str) {
        let full = base.join(pattern);
        let name = full.file_name().map(|n| n.to_string_lossy().into_owned()).unwrap_or_default();
        let Some((before, after)) = name.split_once('*') else {
            all.push(full);
            continue;
        };
        let entries = full.parent().and_then(|d| std::fs::read_dir(d).ok()).into_iter().flatten();
        let paths = entries.flatten().map(|entry| entry.path());
        let fits = |p: &PathBuf| {
            let name = p.file_name().map(|n| n.to_string_lossy().into_owned()).unwrap_or_default();
            name.len() >= before.len() + after.len()
                && name.starts_with(before)
                && name.ends_with(after)
        };
        let mut matching: Vec<_> = paths.filter(fits).collect();
        matching.sort();
        all.extend(matching);
    }
    all
}

/// Merges an import into the configuration. Before containerd 2.0 an import replaces the
/// whole section of a plugin; since then sections are merged (containerd's pull request
/// 9982).
fn merge(into: &mut Table, from: Table, deep: bool, depth: usize) {
    for (key, value) in from {
        match (into.get_mut(&key), value) {
            // Depth 0 is the file, 1 the table of plugins, 2 a plugin's section.
            (Some(Value::Table(old)), Value::Table(new)) if deep || depth < 1 => {
                merge(old, new, deep, depth + 1);
            }
            (Some(Value::Array(old)), Value::Array(new)) if depth == 0 => old.extend(new),
            (_, value) => {
                into.insert(key, value);
            }
        }
    }
}

impl Runtime {
    fn merges_deeply(&self) -> bool {
        self.version.map_or_else(|| self.format() >= 3, |(major, _)| major >= 2)
    }

    fn format(&self) -> i64 {
        self.config.get("version").and_then(Value::as_integer).unwrap_or(1)
    }

    fn plugin(&self, id: &str) -> Option<&Table> {
        self.config.get("plugins")?.get(id)?.as_table()
    }

    /// The settings for CNI; containerd's defaults for those that are not set.
    pub(super) fn cni(&self) -> CniPaths {
        let sections = CRI.iter().filter_map(|id| self.plugin(id)?.get("cni")?.as_table());
        let first = sections.into_iter().next();
        let get = |key: &str| first.and_then(|cni| cni.get(key));
        let text = |key: &str| get(key).and_then(Value::as_str).map(PathBuf::from);
        let list = get("bin_dirs").and_then(Value::as_array).map(|dirs| {
            dirs.iter().filter_map(Value::as_str).map(PathBuf::from).collect::<Vec<_>>()
        });
        CniPaths {
            conf_dir: text("conf_dir").unwrap_or_else(|| "/etc/cni/net.d".into()),
            bin_dirs: list
                .filter(|dirs| !dirs.is_empty())
                .unwrap_or_else(|| vec![text("bin_dir").unwrap_or_else(|| "/opt/cni/bin".into())]),
            max_conf: get("max_conf_num").and_then(Value::as_integer).unwrap_or(1),
            needs_loopback: self.is_there()
                && !get("use_internal_loopback").and_then(Value::as_bool).unwrap_or(false),
        }
    }

    fn is_there(&self) -> bool {
        self.file_exists || self.version.is_some()
    }

    /// By default NRI is off in 1.7 and on from 2.0.
    fn nri_enabled(&self) -> bool {
        let told = self.plugin(NRI).and_then(|nri| nri.get("disable")).and_then(Value::as_bool);
        match told {
            Some(disabled) => !disabled,
            None => self.version.map_or_else(|| self.format() >= 3, |(major, _)| major >= 2),
        }
    }

    fn disabled(&self) -> Vec<&str> {
        let list = self.config.get("disabled_plugins").and_then(Value::as_array);
        list.into_iter().flatten().filter_map(Value::as_str).collect()
    }
}

pub(super) fn judge(facts: &Runtime) -> Vec<Finding> {
    let file = facts.file.display();
    if !facts.is_there() {
        return vec![
            Finding::warn(CHECK, format!("neither a program containerd nor {file}"))
                .breaks("nothing, if another runtime runs the pods: it could not be examined")
                .fix("name them with --containerd and --containerd-config"),
        ];
    }
    let mut found: Vec<_> = facts
        .unread
        .iter()
        .map(|problem| {
            Finding::fail(CHECK, problem.clone())
                .breaks("containerd does not start with it, or starts with other settings")
                .fix("correct the file; containerd config dump prints what containerd reads")
        })
        .collect();
    let disabled = facts.disabled();
    let cri = ["cri", CRI[0], CRI[1]];
    if let Some(name) = disabled.iter().find(|name| cri.contains(name)) {
        found.push(
            Finding::fail(CHECK, format!("{file} disables the plugin \"{name}\""))
                .breaks("kubelet and crictl can't run pods: containerd has no CRI")
                .fix("take it out of disabled_plugins and restart containerd"),
        );
    }
    if let Some((1, minor @ ..=6)) = facts.version {
        found.push(
            Finding::warn(CHECK, format!("containerd 1.{minor} has no NRI"))
                .breaks("labels and annotations of pods, additional networks, waiting for the attach before containers start; pods' main network works")
                .fix("install containerd 1.7.24 or later, or 2.x"),
        );
    } else if disabled.contains(&NRI) || !facts.nri_enabled() {
        found.push(
            Finding::warn(CHECK, format!("NRI is off ({file})"))
                .breaks("labels and annotations of pods, additional networks, waiting for the attach before containers start; pods' main network works")
                .fix(format!("[plugins.\"{NRI}\"] disable = false, then restart containerd")),
        );
    }
    if !facts.file_exists {
        found.push(Finding::ok(CHECK, format!("no {file}: containerd uses its defaults")));
    } else if found.is_empty() {
        found.push(Finding::ok(CHECK, format!("{file} suits netd")));
    }
    found
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use crate::doctor::finding::Severity;

    fn facts(text: &str, version: Option<(u32, u32)>) -> Runtime {
        Runtime { file_exists: true, config: text.parse().unwrap(), version, ..Default::default() }
    }

    #[test]
    fn both_formats_say_where_cni_is() {
        let old = facts(
            "version = 2\n[plugins.\"io.containerd.grpc.v1.cri\".cni]\nbin_dir = \"/b\"\nconf_dir = \"/c\"",
            None,
        );
        let want = CniPaths {
            conf_dir: "/c".into(),
            bin_dirs: vec!["/b".into()],
            max_conf: 1,
            needs_loopback: true,
        };
        assert_eq!(old.cni(), want);
        let new = facts(
            "version = 3\n[plugins.'io.containerd.cri.v1.runtime'.cni]\nbin_dirs = ['/x', '/y']\nmax_conf_num = 0",
            None,
        );
        assert_eq!(new.cni().bin_dirs, [PathBuf::from("/x"), PathBuf::from("/y")]);
        assert_eq!((new.cni().conf_dir, new.cni().max_conf), ("/etc/cni/net.d".into(), 0));
        assert_eq!(facts("", None).cni().bin_dirs, [PathBuf::from("/opt/cni/bin")]);
    }

    #[test]
    fn nri_is_on_by_default_from_2_0() {
        assert!(facts("version = 3", None).nri_enabled());
        assert!(!facts("version = 2", None).nri_enabled());
        assert!(facts("version = 2", Some((2, 1))).nri_enabled());
        assert!(!facts("", Some((1, 7))).nri_enabled());
        let on = "version = 2\n[plugins.\"io.containerd.nri.v1.nri\"]\ndisable = false";
        assert!(facts(on, Some((1, 7))).nri_enabled());
    }

    #[test]
    fn a_disabled_cri_fails_and_a_disabled_nri_warns() {
        let found = judge(&facts("version = 3\ndisabled_plugins = [\"cri\"]", Some((2, 1))));
        assert_eq!((found.len(), found[0].severity), (1, Severity::Fail));
        let off = "version = 3\n[plugins.'io.containerd.nri.v1.nri']\ndisable = true";
        assert_eq!(judge(&facts(off, Some((2, 1))))[0].severity, Severity::Warn);
        assert_eq!(judge(&facts("version = 3", Some((2, 1))))[0].severity, Severity::Ok);
        assert_eq!(judge(&facts("", Some((1, 6))))[0].severity, Severity::Warn);
        assert!(judge(&Runtime::default())[0].what.starts_with("neither"));
    }

    #[test]
    fn versions_are_read_off_the_programs_words() {
        let new = "containerd github.com/containerd/containerd/v2 2.1.9~ds1 2.1.9~ds1-1";
        assert_eq!(version(new), Some((2, 1)));
        assert_eq!(version("containerd containerd.io v1.7.24 abc"), Some((1, 7)));
        assert_eq!(version("what"), None);
    }

    #[test]
    fn imports_replace_a_plugins_section_before_2_0_and_merge_into_it_since() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("config.toml");
        std::fs::create_dir(dir.path().join("conf.d")).unwrap();
        let drop_in = "[plugins.'io.containerd.grpc.v1.cri'.registry]\na = 1\n[plugins.'io.containerd.nri.v1.nri']\ndisable = false";
        std::fs::write(dir.path().join("conf.d/netd.toml"), drop_in).unwrap();
        std::fs::write(dir.path().join("conf.d/notes.txt"), "not toml").unwrap();
        let text = "version = 2\nimports = ['conf.d/*.toml']\n[plugins.'io.containerd.grpc.v1.cri'.cni]\nconf_dir = '/c'";
        std::fs::write(&file, text).unwrap();
        let mut facts = read(&file, "/nonexistent");
        assert!(facts.unread.is_empty() && facts.nri_enabled());
        assert_eq!(facts.cni().conf_dir, PathBuf::from("/etc/cni/net.d"));
        facts.config = text.parse().unwrap();
        merge(&mut facts.config, drop_in.parse().unwrap(), true, 0);
        assert_eq!(facts.cni().conf_dir, PathBuf::from("/c"));
    }

    #[test]
    fn the_drop_ins_switch_nri_on_and_name_the_plugin_directory() {
        let old = facts(include_str!("../../../deploy/containerd/1.7/netd.toml"), Some((1, 7)));
        assert!(old.nri_enabled() && old.plugin(CRI[1]).is_none(), "an import would replace CRI's");
        let new = facts(include_str!("../../../deploy/containerd/2.x/netd.toml"), Some((2, 1)));
        assert!(new.nri_enabled());
        let want = CniPaths {
            conf_dir: "/etc/cni/net.d".into(),
            bin_dirs: vec!["/opt/cni/bin".into()],
            max_conf: 1,
            needs_loopback: true,
        };
        assert_eq!(new.cni(), want);
    }

    #[test]
    fn the_loopback_plugin_is_needed_unless_containerd_does_it_itself() {
        let inside = "[plugins.'io.containerd.cri.v1.runtime'.cni]\nuse_internal_loopback = true";
        assert!(!facts(inside, Some((2, 1))).cni().needs_loopback);
        assert!(facts("", Some((2, 1))).cni().needs_loopback);
        assert!(!Runtime::default().cni().needs_loopback, "another runtime may run the pods");
    }

    #[test]
    fn a_file_that_is_no_toml_fails() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("config.toml");
        std::fs::write(&file, "version = ").unwrap();
        assert_eq!(judge(&read(&file, "/nonexistent"))[0].severity, Severity::Fail);
    }
}
