//! No files inside a crate import each other in a circle.
//!
//! A file imports another when its code names something that the other defines; a
//! re-export on the way does not count, nor does `mod`. Methods are not followed.

use std::{
    collections::{BTreeMap, BTreeSet},
    path::{Path, PathBuf},
};

use crate::{
    modules::{Module, read_crate},
    resolve::{Target, resolve},
    workspace::packages,
};

type Graph = BTreeMap<PathBuf, BTreeSet<PathBuf>>;

#[test]
fn no_files_import_each_other_in_a_circle() {
    let mut complaints = vec![];
    for package in packages() {
        for root in &package.roots {
            let graph = graph(&read_crate(root));
            for file in graph.keys().filter(|file| reaches(&graph, file, file)) {
                let back = graph[file].iter().filter(|next| reaches(&graph, next, file));
                let back: Vec<_> = back.map(|f| relative(f, &package.folder)).collect();
                let short = relative(file, &package.folder);
                complaints.push(format!("{}: {short} -> {}", package.name, back.join(", ")));
            }
        }
    }
    assert!(complaints.is_empty(), "\n{}\n", complaints.join("\n"));
}

fn relative(file: &Path, folder: &Path) -> String {
    file.strip_prefix(folder).unwrap_or(file).display().to_string()
}

/// Which file imports which.
fn graph(all: &[Module]) -> Graph {
    let mut graph = Graph::new();
    for (index, module) in all.iter().enumerate() {
        let targets = imports(all, index).chain(names(all, index)).map(|to| all[to].file.clone());
        let others = targets.filter(|file| *file != module.file);
        graph.entry(module.file.clone()).or_default().extend(others);
    }
    graph
}

/// Modules that define what `index` imports for itself. One that it hands on counts
/// only when its own code names it.
fn imports(all: &[Module], index: usize) -> impl Iterator<Item = usize> {
    let module = &all[index];
    let used = module
        .imports
        .iter()
        .filter(|(name, import)| !import.reexport || module.words.contains(*name));
    let named = used.filter_map(move |(_, import)| match resolve(all, index, &import.path) {
        // What the code names in that module counts, not the module.
        Some(Target::Item(target)) => Some(target),
        _ => None,
    });
    let globs = module.globs.iter().filter_map(move |glob| match resolve(all, index, glob) {
        Some(Target::Module(source)) if source != index => Some(source),
        _ => None,
    });
    named.chain(globs.flat_map(move |source| {
        let words = module.words.iter().filter(|word| !module.items.contains(*word));
        words.filter_map(move |word| match resolve(all, source, std::slice::from_ref(word)) {
            Some(Target::Item(target)) => Some(target),
            _ => None,
        })
    }))
}

/// Modules that define what the paths in `index`'s code name.
fn names(all: &[Module], index: usize) -> impl Iterator<Item = usize> {
    all[index].paths.iter().filter_map(move |path| match resolve(all, index, path)? {
        Target::Item(target) => Some(target),
        Target::Module(_) => None,
    })
}

fn reaches(graph: &Graph, from: &PathBuf, to: &PathBuf) -> bool {
    let mut seen = BTreeSet::new();
    let mut next: Vec<&PathBuf> = graph[from].iter().collect();
    while let Some(file) = next.pop() {
        if file == to {
            return true;
        }
        if seen.insert(file) {
            next.extend(&graph[file]);
        }
    }
    false
}
