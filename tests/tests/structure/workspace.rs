//! The workspace as cargo sees it.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use serde_json::Value;

pub(crate) struct Package {
    pub name: String,
    pub folder: PathBuf,
    /// The root files of its library and its binaries.
    pub roots: Vec<PathBuf>,
    /// Names of the packages of its `[dependencies]`, not of those for tests or builds.
    pub dependencies: Vec<String>,
}

/// Every package of the workspace.
pub(crate) fn packages() -> Vec<Package> {
    let text = cargo(&["metadata", "--no-deps", "--offline", "--format-version", "1"]);
    let all: Value = serde_json::from_str(&text).unwrap();
    all["packages"].as_array().unwrap().iter().map(package).collect()
}

pub(crate) fn package_named(name: &str) -> Package {
    packages().into_iter().find(|p| p.name == name).unwrap()
}

fn package(value: &Value) -> Package {
    let text = |value: &Value| value.as_str().unwrap().to_owned();
    let is_code = |target: &&Value| {
        let kind = target["kind"][0].as_str().unwrap();
        kind == "lib" || kind == "bin"
    };
    let targets = value["targets"].as_array().unwrap().iter().filter(is_code);
    let dependencies = value["dependencies"].as_array().unwrap().iter();
    Package {
        name: text(&value["name"]),
        folder: Path::new(value["manifest_path"].as_str().unwrap()).parent().unwrap().into(),
        roots: targets.map(|t| text(&t["src_path"]).into()).collect(),
        dependencies: dependencies
            .filter(|d| d["kind"].is_null())
            .map(|d| text(&d["name"]))
            .collect(),
    }
}

/// What `cargo` with these arguments prints.
pub(crate) fn cargo(args: &[&str]) -> String {
    let done = Command::new(env!("CARGO")).args(args).output().unwrap();
    assert!(done.status.success(), "cargo {args:?}: {}", String::from_utf8_lossy(&done.stderr));
    String::from_utf8(done.stdout).unwrap()
}

/// Every file of Rust below `folder`.
pub(crate) fn rust_files(folder: &Path) -> Vec<PathBuf> {
    let mut found = vec![];
    let mut folders = vec![folder.to_owned()];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(&folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                folders.push(path);
            } else if path.extension().is_some_and(|end| end == "rs") {
                found.push(path);
            }
        }
    }
    assert!(!found.is_empty(), "{} has no code", folder.display());
    found.sort();
    found
}
