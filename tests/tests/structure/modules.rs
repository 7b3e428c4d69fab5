//! The modules of one crate: what each defines, imports and names.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    path::{Path, PathBuf},
};

use proc_macro2::{Delimiter, TokenStream, TokenTree};
use quote::ToTokens;
use syn::{Attribute, Item, UseTree, Visibility};

/// The segments of a path as written: `["super", "link", "Link"]`.
pub(crate) type Segments = Vec<String>;

pub(crate) struct Import {
    pub path: Segments,
    /// `pub use` or `pub(...) use`: others may import it from here.
    pub reexport: bool,
}

#[derive(Default)]
pub(crate) struct Module {
    pub file: PathBuf,
    pub parent: Option<usize>,
    pub children: BTreeMap<String, usize>,
    /// Names of what it defines.
    pub items: BTreeSet<String>,
    /// By the name that each has here.
    pub imports: BTreeMap<String, Import>,
    pub globs: Vec<Segments>,
    /// Paths of two segments or more outside `use` declarations.
    pub paths: BTreeSet<Segments>,
    /// All words outside `use` declarations.
    pub words: BTreeSet<String>,
}

/// The modules of the crate whose root file is given; the first is the root. Those for
/// tests are left out.
pub(crate) fn read_crate(root: &Path) -> Vec<Module> {
    let mut modules = vec![];
    read_file(&mut modules, root, root.parent().unwrap(), None);
    modules
}

/// `folder` is where files of the module's children are.
fn read_file(all: &mut Vec<Module>, file: &Path, folder: &Path, parent: Option<usize>) -> usize {
    let text = fs::read_to_string(file).unwrap_or_else(|e| panic!("{}: {e}", file.display()));
    let parsed = syn::parse_file(&text).unwrap_or_else(|e| panic!("{}: {e}", file.display()));
    read_items(all, parsed.items, file, folder, parent)
}

fn read_items(
    all: &mut Vec<Module>,
    items: Vec<Item>,
    file: &Path,
    folder: &Path,
    parent: Option<usize>,
) -> usize {
    let own = all.len();
    all.push(Module { file: file.to_owned(), parent, ..Module::default() });
    for item in items.into_iter().filter(|item| !is_for_tests(attributes(item))) {
        match item {
            Item::Mod(child) => {
                let name = child.ident.to_string();
                let below = folder.join(&name);
                let index = match child.content {
                    Some((_, items)) => read_items(all, items, file, &below, Some(own)),
                    None => {
                        let at = file_of(&child.attrs, file, folder, &name);
                        read_file(all, &at, &below, Some(own))
                    }
                };
                all[own].children.insert(name, index);
            }
            Item::Use(import) => {
                let reexport = !matches!(import.vis, Visibility::Inherited);
                add_imports(&mut all[own], vec![], &import.tree, reexport);
            }
            item => {
                all[own].items.extend(name_of(&item));
                add_code(&mut all[own], item.to_token_stream());
            }
        }
    }
    own
}

fn file_of(attributes: &[Attribute], file: &Path, folder: &Path, name: &str) -> PathBuf {
    let path = attributes.iter().find(|a| a.path().is_ident("path"));
    if let Some(path) = path.and_then(|a| a.meta.require_name_value().ok()) {
        let value = path.value.to_token_stream().to_string();
        return file.parent().unwrap().join(value.trim_matches('"'));
    }
    let flat = folder.join(format!("{name}.rs"));
    if flat.exists() { flat } else { folder.join(name).join("mod.rs") }
}

/// `#[cfg(test)]` or `#[cfg(all(test, ...))]`.
pub(crate) fn is_for_tests(attributes: &[Attribute]) -> bool {
    attributes.iter().filter(|a| a.path().is_ident("cfg")).any(|a| {
        let condition = a.meta.require_list().map(|l| l.tokens.to_string()).unwrap_or_default();
        condition == "test" || condition.replace(' ', "").starts_with("all(test")
    })
}

fn attributes(item: &Item) -> &[Attribute] {
    match item {
        Item::Const(i) => &i.attrs,
        Item::Enum(i) => &i.attrs,
        Item::Fn(i) => &i.attrs,
        Item::Impl(i) => &i.attrs,
        Item::Macro(i) => &i.attrs,
        Item::Mod(i) => &i.attrs,
        Item::Static(i) => &i.attrs,
        Item::Struct(i) => &i.attrs,
        Item::Trait(i) => &i.attrs,
        Item::Type(i) => &i.attrs,
        Item::Use(i) => &i.attrs,
        _ => &[],
    }
}

pub(crate) fn name_of(item: &Item) -> Option<String> {
    match item {
        Item::Const(i) => Some(i.ident.to_string()),
        Item::Enum(i) => Some(i.ident.to_string()),
        Item::Fn(i) => Some(i.sig.ident.to_string()),
        Item::Macro(i) => i.ident.as_ref().map(ToString::to_string),
        Item::Static(i) => Some(i.ident.to_string()),
        Item::Struct(i) => Some(i.ident.to_string()),
        Item::Trait(i) => Some(i.ident.to_string()),
        Item::Type(i) => Some(i.ident.to_string()),
        Item::Union(i) => Some(i.ident.to_string()),
        _ => None,
    }
}

fn add_imports(module: &mut Module, mut before: Segments, tree: &UseTree, reexport: bool) {
    match tree {
        UseTree::Path(path) => {
            before.push(path.ident.to_string());
            add_imports(module, before, &path.tree, reexport);
        }
        UseTree::Group(group) => {
            for tree in &group.items {
                add_imports(module, before.clone(), tree, reexport);
            }
        }
        UseTree::Glob(_) => module.globs.push(before),
        UseTree::Name(name) => {
            // `use a::b::{self}` imports `b`.
            if name.ident != "self" {
                before.push(name.ident.to_string());
            }
            let name = before.last().unwrap().clone();
            module.imports.insert(name, Import { path: before, reexport });
        }
        UseTree::Rename(rename) => {
            if rename.ident != "self" {
                before.push(rename.ident.to_string());
            }
            let name = match rename.rename.to_string() {
                // Imported for its methods; the name is never used.
                name if name == "_" => before.join("::"),
                name => name,
            };
            module.imports.insert(name, Import { path: before, reexport });
        }
    }
}

fn add_code(module: &mut Module, code: TokenStream) {
    scan(module, &[], code);
}

/// Collects words and paths. `before` is the path in front of a group of imports.
fn scan(module: &mut Module, before: &[String], code: TokenStream) {
    let tokens: Vec<TokenTree> = code.into_iter().collect();
    let is_colons = |at: usize| {
        let colon = |at| matches!(tokens.get(at), Some(TokenTree::Punct(p)) if p.as_char() == ':');
        colon(at) && colon(at + 1)
    };
    let mut at = 0;
    while at < tokens.len() {
        match &tokens[at] {
            TokenTree::Ident(word) => {
                let mut path = before.to_vec();
                path.push(word.to_string());
                at += 1;
                while is_colons(at) {
                    match tokens.get(at + 2) {
                        Some(TokenTree::Ident(word)) => path.push(word.to_string()),
                        Some(TokenTree::Group(g)) if g.delimiter() == Delimiter::Brace => {
                            scan(module, &path, g.stream());
                        }
                        _ => break,
                    }
                    at += 3;
                }
                module.words.extend(path.iter().cloned());
                if path.len() > 1 {
                    module.paths.insert(path);
                }
            }
            TokenTree::Group(group) => {
                scan(module, before, group.stream());
                at += 1;
            }
            _ => at += 1,
        }
    }
}
