//! The units and the install target, as they are shipped.
#![allow(clippy::unwrap_used)]

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
};

fn deploy() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../deploy")
}

#[test]
fn systemd_finds_nothing_wrong_with_the_units() {
    let dir = tempfile::tempdir().unwrap();
    let mut units = vec![];
    for entry in fs::read_dir(deploy().join("systemd")).unwrap() {
        let path = entry.unwrap().path();
        // The programs are not installed where the test runs.
        let text = fs::read_to_string(&path).unwrap();
        let text = text.replace("/usr/local/bin/netd-hook", "/bin/true");
        let text = text.replace("/usr/local/bin/netd-tunnel", "/bin/true");
        let copy = dir.path().join(path.file_name().unwrap());
        fs::write(&copy, text.replace("/usr/local/bin/netd", "/bin/true")).unwrap();
        units.push(copy);
    }
    assert_eq!(units.len(), 6);
    let verified = Command::new("systemd-analyze").arg("verify").args(&units).output().unwrap();
    let said = String::from_utf8_lossy(&verified.stderr).into_owned();
    // Complaints about other units of the machine name other files.
    let about_ours: Vec<_> = said.lines().filter(|l| l.contains("netd")).collect();
    assert!(verified.status.success() && about_ours.is_empty(), "{said}");
}

#[test]
fn install_puts_all_in_place_and_keeps_an_existing_configuration() {
    let dir = tempfile::tempdir().unwrap();
    let (built, root) = (dir.path().join("built"), dir.path().join("root"));
    fs::create_dir_all(&built).unwrap();
    fs::copy(env!("CARGO_BIN_EXE_netd"), built.join("netd")).unwrap();
    for other in ["netd-hook", "netd-cni", "netd-tunnel"] {
        fs::copy("/bin/true", built.join(other)).unwrap();
    }
    let make = |target: &str| {
        let done = Command::new("make")
            .args(["-s", "-f"])
            .arg(deploy().join("install.mk"))
            .arg(target)
            .arg(format!("BUILT={}", built.display()))
            .arg(format!("DESTDIR={}", root.display()))
            .arg("PREFIX=/usr")
            .output()
            .unwrap();
        assert!(done.status.success(), "{}", String::from_utf8_lossy(&done.stderr));
    };
    make("install");
    let config = root.join("etc/netd/netd.toml");
    fs::write(&config, "node = \"mine\"\n").unwrap();
    make("install");
    assert_eq!(fs::read_to_string(&config).unwrap(), "node = \"mine\"\n");
    let unit = fs::read_to_string(root.join("etc/systemd/system/netd.service")).unwrap();
    assert!(unit.contains("ExecStart=/usr/bin/netd serve"), "{unit}");
    // There is none for other processors.
    assert_eq!(root.join("usr/bin/netd-cni").exists(), cfg!(target_arch = "x86_64"));
    let completions = root.join("usr/share/bash-completion/completions/netd");
    assert!(fs::read_to_string(completions).unwrap().contains("_netd"));
    make("uninstall");
    assert!(config.exists());
    assert_eq!(fs::read_dir(root.join("usr/bin")).unwrap().count(), 0);
}
