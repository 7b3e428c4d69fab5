//! The papers name files and items of the tree; what they name has to exist.
#![allow(clippy::unwrap_used)]

use std::{
    collections::BTreeSet,
    ffi::OsStr,
    fs,
    path::{Path, PathBuf},
};

const KEYWORDS: [&str; 8] = ["fn", "struct", "enum", "trait", "const", "static", "type", "mod"];

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..")
}

/// Every paper with its text: those at the root and those in docs/.
fn papers() -> Vec<(PathBuf, String)> {
    let at_root = fs::read_dir(root()).unwrap();
    let in_docs = fs::read_dir(root().join("docs")).unwrap();
    let files = at_root.chain(in_docs).map(|entry| entry.unwrap().path());
    let papers = files.filter(|path| path.extension().is_some_and(|extension| extension == "md"));
    let read = |path: PathBuf| (path.clone(), fs::read_to_string(&path).unwrap());
    papers.map(read).collect()
}

/// What stands between backticks, in prose: code blocks are not looked at.
fn quoted(text: &str) -> Vec<&str> {
    let prose = text.split("```").step_by(2);
    let lines = prose.flat_map(str::lines);
    lines.flat_map(|line| line.split('`').skip(1).step_by(2)).collect()
}

fn defines(file: &Path, item: &str) -> bool {
    let text = fs::read_to_string(file).unwrap();
    let words: Vec<_> = text.split(|c: char| !(c.is_alphanumeric() || c == '_')).collect();
    words.windows(2).any(|pair| KEYWORDS.contains(&pair[0]) && pair[1] == item)
}

/// What is wrong with `path` or `path::item`.
fn problem(named: &str) -> Option<String> {
    let (path, item) = named.split_once("::").unwrap_or((named, ""));
    let file = root().join(path);
    if !file.exists() {
        return Some(format!("{path} does not exist"));
    }
    (!item.is_empty() && !defines(&file, item)).then(|| format!("{path} defines no {item}"))
}

#[test]
fn what_the_papers_name_exists() {
    let top = fs::read_dir(root()).unwrap();
    let top: BTreeSet<_> = top.map(|entry| entry.unwrap().file_name()).collect();
    let in_tree = |name: &&str| {
        let first = name.split('/').next().unwrap_or_default();
        name.contains('/') && !name.contains([' ', '*']) && top.contains(OsStr::new(first))
    };
    let (mut checked, mut problems) = (0, vec![]);
    for (paper, text) in papers() {
        for name in quoted(&text).into_iter().filter(in_tree) {
            checked += 1;
            problems.extend(problem(name).map(|p| format!("{}: {p}", paper.display())));
        }
    }
    assert!(problems.is_empty(), "{}", problems.join("\n"));
    assert!(checked > 100, "only {checked} paths were found: is the format still the same?");
}

#[test]
fn links_between_the_papers_lead_somewhere() {
    for (paper, text) in papers() {
        for link in text.split("](").skip(1).filter_map(|rest| rest.split(')').next()) {
            let file = link.split('#').next().unwrap_or_default();
            let found = file.is_empty() || file.contains("://");
            let found = found || paper.parent().unwrap().join(file).exists();
            assert!(found, "{}: {link}", paper.display());
        }
    }
}

#[test]
fn the_readme_stays_short() {
    let lines = fs::read_to_string(root().join("README.md")).unwrap().lines().count();
    assert!(lines < 200, "README.md has {lines} lines; docs/ has room");
}
