//! `netd-hook install` and `uninstall` in a temporary directory.
#![allow(clippy::unwrap_used)]

mod common;

use std::{fs, os::unix::fs::PermissionsExt as _, path::Path, process::Output};

use common::{Netd, Script, exec, json};

fn install(netd: &Netd, more: &[&str]) -> Output {
    run(
        netd,
        "install",
        &[&["--socket", netd.socket().to_str().unwrap(), "--wait", "0"], more].concat(),
    )
}

fn run(netd: &Netd, command: &str, more: &[&str]) -> Output {
    let path = |name: &str| netd.dir.path().join(name).display().to_string();
    let (bin, conf) = (path("bin"), path("net.d"));
    exec(&[&[command, "--bin-dir", &bin, "--conf-dir", &conf], more].concat(), &[], b"")
}

fn names(dir: &Path) -> Vec<String> {
    let mut names: Vec<String> =
        fs::read_dir(dir).unwrap().map(|e| e.unwrap().file_name().into_string().unwrap()).collect();
    names.sort();
    names
}

#[test]
fn an_installed_plugin_works_and_uninstall_leaves_nothing() {
    let netd = Netd::ready();
    let (bin, conf) = (netd.dir.path().join("bin"), netd.dir.path().join("net.d"));
    let output = install(&netd, &["--cni-version", "1.1.0", "--network", "blue"]);
    assert!(output.status.success(), "{output:?}");
    assert_eq!(names(&bin), ["netd-hook"]);
    assert_eq!(names(&conf), ["10-netd.conflist"]);
    let mode = fs::metadata(bin.join("netd-hook")).unwrap().permissions().mode();
    assert_eq!(mode & 0o7777, 0o755);

    let text = fs::read(conf.join("10-netd.conflist")).unwrap();
    let list: serde_json::Value = serde_json::from_slice(&text).unwrap();
    let mut config = list["plugins"][0].clone();
    config["cniVersion"] = list["cniVersion"].clone();
    config["name"] = list["name"].clone();
    let output = common::cni("ADD", &config);
    assert!(output.status.success(), "{output:?}");
    assert_eq!(json(&output)["cniVersion"], "1.1.0");

    let again = install(&netd, &["--cni-version", "1.1.0", "--network", "blue"]);
    let said = String::from_utf8(again.stdout).unwrap();
    assert_eq!(said.matches("unchanged").count(), 2, "{said}");

    for word in ["removed", "absent"] {
        let output = run(&netd, "uninstall", &[]);
        assert!(output.status.success());
        assert_eq!(String::from_utf8(output.stdout).unwrap().matches(word).count(), 2);
    }
    assert!(names(&bin).is_empty() && names(&conf).is_empty());
}

#[test]
fn nothing_is_installed_while_netd_is_not_ready() {
    let netd = Netd::start(Script { starting: true, ..Script::default() });
    let output = install(&netd, &[]);
    assert_eq!(output.status.code(), Some(1));
    let said = String::from_utf8(output.stderr).unwrap();
    assert!(said.contains("not ready") && said.contains("the disk is full"), "{said}");
    assert!(!netd.dir.path().join("bin").exists() && !netd.dir.path().join("net.d").exists());
}

#[test]
fn an_earlier_configuration_is_warned_about_and_a_foreign_one_kept() {
    let netd = Netd::ready();
    let conf = netd.dir.path().join("net.d");
    fs::create_dir(&conf).unwrap();
    fs::write(conf.join("05-flannel.conflist"), "{}").unwrap();
    let output = install(&netd, &[]);
    assert!(output.status.success(), "{output:?}");
    assert!(String::from_utf8(output.stderr).unwrap().contains("05-flannel.conflist sorts before"));
    for command in ["install", "uninstall"] {
        let more = ["--conf-name", "05-flannel.conflist"];
        let output =
            if command == "install" { install(&netd, &more) } else { run(&netd, command, &more) };
        assert_eq!(output.status.code(), Some(1));
        assert!(String::from_utf8(output.stderr).unwrap().contains("is not netd's"));
    }
    assert_eq!(fs::read_to_string(conf.join("05-flannel.conflist")).unwrap(), "{}");
}

#[test]
fn bad_options_are_refused_by_name() {
    let netd = Netd::ready();
    for (option, value) in [
        ("--conf-name", "../x.conflist"),
        ("--network", "Bad Name"),
        ("--timeout", "0"),
        ("--cni-version", "0.2.0"),
        ("--socket", "relative"),
    ] {
        let output = run(&netd, "install", &[option, value]);
        assert_eq!(output.status.code(), Some(2), "{option}");
        assert!(String::from_utf8(output.stderr).unwrap().contains(option));
    }
    assert!(netd.asked().is_empty());
}
