//! The direction of imports: each part of the crate stands on those below it alone, so there is no circle.
//!
//! Every path in every source file is looked at, in macros and in tests as well.

#![cfg(not(target_family = "wasm"))]

use std::fs;
use std::path::{Path, PathBuf};

use proc_macro2::{Delimiter, TokenStream, TokenTree};

/// The parts of the crate, from the one that everything stands on to the one that stands on everything.
const LAYERS: [&str; 5] = ["oci", "store", "registry", "config", "filter"];

/// A path that leads to another part of the crate.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Import {
    from: String,
    to: String,
}

impl Import {
    /// Whether a part may stand on the other.
    fn leads_down(&self) -> bool {
        let layer = |name: &str| LAYERS.iter().position(|layer| *layer == name);
        match (layer(&self.from), layer(&self.to)) {
            (Some(from), Some(to)) => from >= to,
            _ => false,
        }
    }
}

/// The paths of a source file of the module `module` (its names from the crate's root) that lead to other parts.
fn imports(module: &[&str], source: &str) -> Vec<Import> {
    let tokens: TokenStream = source.parse().expect("Rust");
    let mut found = Vec::new();
    visit(&mut module.to_vec(), tokens, &mut found);
    found
}

fn visit(module: &mut Vec<&str>, tokens: TokenStream, found: &mut Vec<Import>) {
    let tokens: Vec<TokenTree> = tokens.into_iter().collect();
    let mut position = 0;
    while position < tokens.len() {
        match &tokens[position] {
            TokenTree::Ident(ident) if *ident == "mod" => {
                // A module within the file: `super` leads one step less far from there.
                if let Some(TokenTree::Group(group)) = tokens.get(position + 2)
                    && group.delimiter() == Delimiter::Brace
                {
                    module.push("inner");
                    visit(module, group.stream(), found);
                    module.pop();
                    position += 2;
                }
            }
            TokenTree::Ident(ident) if *ident == "crate" || *ident == "super" => {
                let ups = count_supers(&tokens[position..]);
                let base = if *ident == "crate" { Some(0) } else { module.len().checked_sub(ups) };
                let rest = &tokens[position + 3 * ups.max(1) - 2..];
                if base == Some(0) {
                    let targets = targets(rest);
                    let from = module[0].to_owned();
                    let other = targets.into_iter().filter(|to| *to != from);
                    found.extend(other.map(|to| Import { from: from.clone(), to }));
                }
                position += 3 * ups.max(1) - 3;
            }
            TokenTree::Group(group) => visit(module, group.stream(), found),
            _ => {}
        }
        position += 1;
    }
}

/// How many times `super` stands one after the other.
fn count_supers(tokens: &[TokenTree]) -> usize {
    let is_super =
        |token: &TokenTree| matches!(token, TokenTree::Ident(ident) if *ident == "super");
    tokens.iter().step_by(3).take_while(|token| is_super(token)).count()
}

/// The names that come next after `::`: one, or all of a list in braces.
fn targets(rest: &[TokenTree]) -> Vec<String> {
    let Some([TokenTree::Punct(first), TokenTree::Punct(second), next]) = rest.get(..3) else {
        return Vec::new();
    };
    if first.as_char() != ':' || second.as_char() != ':' {
        return Vec::new();
    }
    match next {
        TokenTree::Ident(ident) => vec![ident.to_string()],
        TokenTree::Group(group) => {
            let mut names = Vec::new();
            let mut expects_name = true;
            for token in group.stream() {
                match token {
                    TokenTree::Ident(ident) if expects_name => {
                        names.push(ident.to_string());
                        expects_name = false;
                    }
                    TokenTree::Punct(punct) if punct.as_char() == ',' => expects_name = true,
                    _ => {}
                }
            }
            names
        }
        // `crate::*` would hide what is meant.
        TokenTree::Punct(_) | TokenTree::Literal(_) => vec!["everything".to_owned()],
    }
}

fn source_files(folder: &Path) -> Vec<PathBuf> {
    let mut files = Vec::new();
    for entry in fs::read_dir(folder).expect("a folder of sources") {
        let path = entry.expect("an entry").path();
        if path.is_dir() {
            files.extend(source_files(&path));
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            files.push(path);
        }
    }
    files
}

/// The module of a file, as names from the crate's root.
fn module_of(file: &Path) -> Vec<String> {
    let names = file.with_extension("");
    let mut names: Vec<String> =
        names.iter().map(|name| name.to_str().expect("text").to_owned()).collect();
    names.pop_if(|last| last == "mod");
    names
}

#[test]
fn every_part_stands_on_those_below_it_alone() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let mut wrong = Vec::new();
    let mut looked_at = 0;
    for file in source_files(&root) {
        let relative = file.strip_prefix(&root).expect("a file of src");
        if relative == Path::new("lib.rs") {
            continue;
        }
        let module = module_of(relative);
        let module: Vec<&str> = module.iter().map(String::as_str).collect();
        assert!(LAYERS.contains(&module[0]), "{} has no place in LAYERS", relative.display());
        let source = fs::read_to_string(&file).expect("a source file");
        let imports = imports(&module, &source);
        looked_at += imports.len();
        wrong.extend(imports.into_iter().filter(|i| !i.leads_down()).map(|i| (file.clone(), i)));
    }
    assert!(wrong.is_empty(), "imports that lead up: {wrong:#?}");
    assert!(looked_at > 100, "only {looked_at} imports were found");
}

#[test]
fn an_import_that_is_turned_around_is_found_however_it_is_written() {
    let up = Import { from: "store".to_owned(), to: "registry".to_owned() };
    for source in [
        "use crate::registry::Request;",
        "use crate::{oci::Digest, registry::Request};",
        "use super::super::registry::Request;",
        "fn f() { let x: crate::registry::Request; }",
        "fn f() { println!(\"{}\", crate::registry::VERSION); }",
        "mod tests { use super::super::super::registry::Request; }",
        "impl crate::registry::RequestBody for X {}",
    ] {
        let found = imports(&["store", "cache"], source);
        let wrong: Vec<_> = found.into_iter().filter(|import| !import.leads_down()).collect();
        assert_eq!(wrong, std::slice::from_ref(&up), "{source}");
    }
    for source in [
        "use crate::oci::Digest;",
        "use crate::store::registry;",
        "use super::registry;",
        "mod tests { use super::super::registry; }",
        "// use crate::registry::Request;\nconst TEXT: &str = \"crate::registry\";",
    ] {
        let found = imports(&["store", "cache"], source);
        assert!(found.iter().all(Import::leads_down), "{source}: {found:?}");
    }
}
