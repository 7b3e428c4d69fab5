//! From a path as written to the module that defines what it names.

use crate::modules::{Module, Segments};

/// Re-exports that lead to re-exports; deeper than this is a circle of them.
const MAX_DEPTH: usize = 16;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Target {
    /// A module itself.
    Module(usize),
    /// Something that this module defines.
    Item(usize),
}

/// What `path` in module `from` names; `None` when it belongs to another crate.
pub(crate) fn resolve(all: &[Module], from: usize, path: &[String]) -> Option<Target> {
    resolve_at(all, from, path, 0)
}

fn resolve_at(all: &[Module], from: usize, path: &[String], depth: usize) -> Option<Target> {
    if depth > MAX_DEPTH {
        return None;
    }
    let mut module = from;
    for (n, segment) in path.iter().enumerate() {
        let next = match segment.as_str() {
            "crate" => Some(0),
            "self" => Some(module),
            "super" => all[module].parent,
            name => all[module].children.get(name).copied(),
        };
        if let Some(next) = next {
            module = next;
            continue;
        }
        if all[module].items.contains(segment) {
            return Some(Target::Item(module));
        }
        if let Some(target) = imported(all, module, &path[n..], depth) {
            return Some(target);
        }
        // A name that nothing declares: of another crate at the front, made by a macro
        // or inherited from a trait further on.
        return (n > 0).then_some(Target::Item(module));
    }
    Some(Target::Module(module))
}

/// What `path` means in `module` through what the module imports.
fn imported(all: &[Module], module: usize, path: &[String], depth: usize) -> Option<Target> {
    if let Some(import) = all[module].imports.get(&path[0]) {
        // `use self::name` and `use name` of another crate lead nowhere else.
        if import.path == path[..1] {
            return None;
        }
        let whole: Segments = import.path.iter().chain(&path[1..]).cloned().collect();
        return resolve_at(all, module, &whole, depth + 1);
    }
    all[module].globs.iter().find_map(|glob| {
        let Target::Module(source) = resolve_at(all, module, glob, depth + 1)? else { return None };
        declares(all, source, &path[0], depth + 1)
            .then(|| resolve_at(all, source, path, depth + 1))
            .flatten()
    })
}

/// Whether `name` can be found in `module`.
fn declares(all: &[Module], module: usize, name: &str, depth: usize) -> bool {
    let own = &all[module];
    own.items.contains(name)
        || own.children.contains_key(name)
        || own.imports.contains_key(name)
        || depth < MAX_DEPTH
            && own.globs.iter().any(|glob| match resolve_at(all, module, glob, depth + 1) {
                Some(Target::Module(source)) => {
                    source != module && declares(all, source, name, depth + 1)
                }
                _ => false,
            })
}
