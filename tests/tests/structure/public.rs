//! What a crate makes public is used by another one, or is part of something that is.

use std::{
    collections::BTreeSet,
    fs,
    path::{Path, PathBuf},
};

use proc_macro2::{TokenStream, TokenTree};
use quote::ToTokens;
use syn::{Fields, ImplItem, Item, TraitItem, Visibility};

use crate::{
    modules::{is_for_tests, name_of},
    workspace::{Package, package_named, packages, rust_files},
};

/// The public items of a library, and what their signatures name.
#[derive(Default)]
struct Public {
    /// Name and file of functions and constants.
    values: Vec<(String, PathBuf)>,
    /// Name and file of types and traits.
    types: Vec<(String, PathBuf)>,
    /// Words in the public signatures.
    signatures: BTreeSet<String>,
}

#[test]
fn every_public_item_is_named_outside_its_crate() {
    let root = package_named("netd-tests").folder.parent().unwrap().to_owned();
    let sources: Vec<PathBuf> = ["deploy", "fuzz", "netd", "proto", "runtime-hook", "tests"]
        .iter()
        .flat_map(|folder| rust_files(&root.join(folder)))
        .filter(|file| !file.strip_prefix(&root).unwrap().starts_with("fuzz/target"))
        .collect();
    let mut unused = vec![];
    for package in packages() {
        let library = library_files(&package);
        let mut public = Public::default();
        for file in &library {
            let parsed = syn::parse_file(&fs::read_to_string(file).unwrap()).unwrap();
            parsed.items.iter().for_each(|item| public.add(item, file));
        }
        let outside = words_of(sources.iter().filter(|file| !library.contains(*file)));
        let is_named = |name: &String| outside.contains(name);
        let is_part = |name: &String| public.signatures.contains(name);
        let values = public.values.iter().filter(|(name, _)| !is_named(name));
        let types = public.types.iter().filter(|(name, _)| !is_named(name) && !is_part(name));
        unused.extend(values.chain(types).map(|(name, file)| {
            format!("{}: {name}", file.strip_prefix(&root).unwrap().display())
        }));
    }
    assert!(unused.is_empty(), "public, but no other crate names it:\n{}", unused.join("\n"));
}

/// The files of the library; those of the package's programs, tests and examples use it.
fn library_files(package: &Package) -> Vec<PathBuf> {
    let Some(root) = package.roots.iter().find(|root| root.ends_with("lib.rs")) else {
        return vec![];
    };
    let folder = root.parent().unwrap();
    let is_program = |file: &Path| {
        file.ends_with("main.rs") || file.strip_prefix(folder).unwrap().starts_with("bin")
    };
    rust_files(folder).into_iter().filter(|file| !is_program(file)).collect()
}

fn words_of<'a>(files: impl Iterator<Item = &'a PathBuf>) -> BTreeSet<String> {
    let mut words = BTreeSet::new();
    for file in files {
        let text = fs::read_to_string(file).unwrap();
        let parts = text.split(|c: char| !c.is_alphanumeric() && c != '_');
        words.extend(parts.filter(|word| !word.is_empty()).map(str::to_owned));
    }
    words
}

impl Public {
    fn add(&mut self, item: &Item, file: &Path) {
        let public = |vis: &Visibility| matches!(vis, Visibility::Public(_));
        match item {
            Item::Fn(i) if public(&i.vis) => {
                self.values.push((i.sig.ident.to_string(), file.to_owned()));
                self.sign(i.sig.to_token_stream());
            }
            Item::Const(i) if public(&i.vis) => {
                self.values.push((i.ident.to_string(), file.to_owned()));
                self.sign(i.ty.to_token_stream());
            }
            Item::Static(i) if public(&i.vis) => {
                self.values.push((i.ident.to_string(), file.to_owned()));
                self.sign(i.ty.to_token_stream());
            }
            Item::Struct(i) if public(&i.vis) => {
                self.types.extend(name_of(item).map(|name| (name, file.to_owned())));
                self.add_fields(&i.fields, false);
            }
            Item::Enum(i) if public(&i.vis) => {
                self.types.extend(name_of(item).map(|name| (name, file.to_owned())));
                i.variants.iter().for_each(|variant| self.add_fields(&variant.fields, true));
            }
            Item::Type(i) if public(&i.vis) => {
                self.types.extend(name_of(item).map(|name| (name, file.to_owned())));
                self.sign(i.ty.to_token_stream());
            }
            Item::Trait(i) if public(&i.vis) => {
                self.types.extend(name_of(item).map(|name| (name, file.to_owned())));
                for item in &i.items {
                    match item {
                        TraitItem::Fn(function) => self.sign(function.sig.to_token_stream()),
                        other => self.sign(other.to_token_stream()),
                    }
                }
            }
            Item::Impl(i) if !is_for_tests(&i.attrs) => self.add_impl(i, file),
            Item::Mod(i) if !is_for_tests(&i.attrs) => {
                let items = i.content.iter().flat_map(|(_, items)| items);
                items.for_each(|item| self.add(item, file));
            }
            _ => {}
        }
    }

    fn add_impl(&mut self, block: &syn::ItemImpl, file: &Path) {
        let of_trait = block.trait_.is_some();
        for item in &block.items {
            match item {
                ImplItem::Fn(i) if of_trait => self.sign(i.sig.to_token_stream()),
                ImplItem::Type(i) if of_trait => self.sign(i.ty.to_token_stream()),
                ImplItem::Fn(i) if matches!(i.vis, Visibility::Public(_)) => {
                    self.values.push((i.sig.ident.to_string(), file.to_owned()));
                    self.sign(i.sig.to_token_stream());
                }
                ImplItem::Const(i) if matches!(i.vis, Visibility::Public(_)) => {
                    self.values.push((i.ident.to_string(), file.to_owned()));
                    self.sign(i.ty.to_token_stream());
                }
                _ => {}
            }
        }
        if let Some((_, path, _)) = &block.trait_ {
            self.sign(path.to_token_stream());
        }
    }

    fn add_fields(&mut self, fields: &Fields, all: bool) {
        for field in fields {
            if all || matches!(field.vis, Visibility::Public(_)) {
                self.sign(field.ty.to_token_stream());
            }
        }
    }

    fn sign(&mut self, signature: TokenStream) {
        for token in signature {
            match token {
                TokenTree::Ident(word) => {
                    self.signatures.insert(word.to_string());
                }
                TokenTree::Group(group) => self.sign(group.stream()),
                _ => {}
            }
        }
    }
}
