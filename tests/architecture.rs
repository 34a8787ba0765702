//! The direction of imports, and what may stand only in one place. A tree that breaks a rule fails with its file and line.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a test may fail loudly")]

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use proc_macro2::{Delimiter, Ident, TokenStream, TokenTree};

/// What each room may import. A room that is missing here may not exist.
const MAY_IMPORT: &[(&str, &[&str])] = &[
    ("model", &[]),
    ("kernels", &["model"]),
    ("rows", &["model", "kernels"]),
    ("bank", &["model", "rows", "kernels"]),
    ("index", &["model", "rows", "kernels"]),
    ("sampling", &["model", "rows", "kernels", "bank", "index"]),
    ("gather", &["model"]),
    ("codec", &["model"]),
    ("archive", &["model"]),
    ("durability", &["model", "codec"]),
    (
        "engine",
        &["model", "kernels", "rows", "bank", "index", "sampling", "gather", "codec", "archive", "durability", "telemetry"],
    ),
    ("telemetry", &[]),
    ("proto", &[]),
    ("client", &["proto"]),
    ("grpc", &["model", "engine", "telemetry", "proto"]),
    ("config", &["engine", "grpc", "telemetry"]),
    ("cli", &["client", "config", "app"]),
    ("fuzzing", &["archive", "config", "engine", "grpc", "model"]),
    ("app", &["config", "engine", "grpc", "telemetry", "model"]),
];

/// Identifiers that may stand only where the path starts with one of these.
const ONLY_IN: &[(&str, &[&str], &str)] = &[
    ("hnsw_rs", &["index/hnsw.rs"], "only index/hnsw.rs names hnsw_rs"),
    ("unsafe", &["kernels/", "index/flat_graph"], "unsafe stands in kernels/ and the flat graph only"),
    (
        "SystemTime",
        &["model/clock.rs", "cli/doctor/clock.rs"],
        "the raw clock is read in model/clock.rs and cli/doctor/clock.rs only",
    ),
    ("getrandom", &["model/seed.rs", "client/entropy.rs"], "entropy is taken in model/seed.rs and client/entropy.rs only"),
    ("RandomState", &["model/seed.rs"], "entropy is taken in model/seed.rs only"),
    ("rand", &["model/seed.rs"], "entropy is taken in model/seed.rs only"),
];

/// Rooms and files in which neither tokio nor anything async may stand.
const SYNCHRONOUS: &[&str] =
    &["model/", "kernels/", "rows/", "bank/", "index/", "sampling/", "gather/", "codec/", "durability/", "engine/"];
/// The server's clock, the client's, and the stopwatch of `negbank bench` and `negbank top`.
const CLOCKS: &[&str] = &["model/clock.rs", "client/deadline.rs", "cli/bench/stopwatch.rs"];

/// A file, and the folder of its parts.
const ASYNC_EDGE: &str = "engine/handle";

const NO_NAMES: &[&str] = &["utils", "util", "common", "helpers", "helper", "types", "manager", "misc"];

const LONGEST_FILE: usize = 400;

type Tree = BTreeMap<String, String>;

#[test]
fn the_tree_keeps_its_rules() {
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let mut tree = Tree::new();
    read(&source, &source, &mut tree);
    assert!(tree.len() > 50, "the source tree was not found: {} files", tree.len());
    let broken = violations(&tree);
    assert!(broken.is_empty(), "{} rules are broken:\n{}", broken.len(), broken.join("\n"));
}

#[test]
fn a_bad_tree_fails_rule_by_rule() {
    let bad: &[(&str, &str, &str)] = &[
        ("model/up.rs", "use crate::bank::Bank;", "model may not import bank"),
        ("kernels/up.rs", "fn f() { let x = super::super::rows::Rows::new(1); }", "kernels may not import rows"),
        ("rows/braces.rs", "use crate::{model::Metric, engine::{Engine}};", "rows may not import engine"),
        ("bank/in_macro.rs", "fn f() { println!(\"{}\", crate::grpc::X); }", "bank may not import grpc"),
        ("bank/in_tests.rs", "mod tests { use super::super::super::index::Scan; }", "bank may not import index"),
        ("client/server.rs", "use crate::model::Seed;", "client may not import model"),
        ("sampling/generated.rs", "use crate::proto::v1;", "sampling may not import proto"),
        ("engine/pool.rs", "use tokio::sync::oneshot;", "no tokio"),
        ("bank/waits.rs", "async fn f() {}", "no async"),
        ("sampling/waits.rs", "fn f() { x.await }", "no async"),
        ("index/scan.rs", "use hnsw_rs::Hnsw;", "only index/hnsw.rs names hnsw_rs"),
        ("engine/clock.rs", "fn f() { let t = std::time::Instant::now(); }", "the raw clock"),
        ("rows/clock.rs", "use std::time::SystemTime;", "the raw clock"),
        ("grpc/random.rs", "fn f() { getrandom::fill(&mut b); }", "entropy is taken"),
        ("rows/raw.rs", "fn f() { unsafe { g() } }", "unsafe stands"),
        ("bank/utils.rs", "", "says nothing"),
        ("extras/new.rs", "", "no room"),
        ("bank/long.rs", &"\n".repeat(LONGEST_FILE + 1), "lines"),
    ];
    for (path, source, expected) in bad {
        let tree = Tree::from([((*path).to_owned(), (*source).to_owned())]);
        let found = violations(&tree);
        assert!(
            found.iter().any(|violation| violation.starts_with(path) && violation.contains(expected)),
            "{path} must be refused with {expected:?}, found {found:?}"
        );
    }
}

#[test]
fn a_good_tree_passes() {
    let good = [
        ("model/mod.rs", "pub mod seed;"),
        ("model/clock.rs", "fn now() -> Instant { Instant::now() }"),
        ("index/hnsw.rs", "use hnsw_rs::Hnsw; use crate::rows::Rows;"),
        ("engine/handle.rs", "use tokio::sync::oneshot; async fn f() { g().await } use super::pool::Pool;"),
        ("kernels/x.rs", "fn f() { unsafe { g() } } mod tests { use super::f; use crate::model::Metric; }"),
        ("grpc/convert/x.rs", "use super::super::status; use crate::{engine::Engine, proto::v1};"),
    ];
    let tree = good.map(|(path, source)| (path.to_owned(), source.to_owned())).into();
    assert_eq!(violations(&tree), Vec::<String>::new());
}

fn read(root: &Path, folder: &Path, tree: &mut Tree) {
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            read(root, &path, tree);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            let name = path.strip_prefix(root).unwrap().to_str().unwrap().to_owned();
            tree.insert(name, fs::read_to_string(&path).unwrap());
        }
    }
}

fn violations(tree: &Tree) -> Vec<String> {
    let mut found = Vec::new();
    for (path, source) in tree {
        if path == "lib.rs" || path == "main.rs" {
            continue;
        }
        let tokens: TokenStream = source.parse().unwrap_or_else(|fault| panic!("{path}: {fault}"));
        let mut file = File { path, module: module_of(path), found: &mut found };
        file.check_name(source);
        file.walk(tokens, 0);
    }
    found
}

/// `bank/apply.rs` is module bank::apply, `bank/mod.rs` is module bank.
fn module_of(path: &str) -> Vec<String> {
    let stem = path.trim_end_matches(".rs");
    let stem = stem.strip_suffix("/mod").unwrap_or(stem);
    stem.split('/').map(str::to_owned).collect()
}

struct File<'a> {
    path: &'a str,
    module: Vec<String>,
    found: &'a mut Vec<String>,
}

impl File<'_> {
    fn check_name(&mut self, source: &str) {
        let room = self.room().to_owned();
        if !MAY_IMPORT.iter().any(|(name, _)| *name == room) {
            self.report(1, &format!("{room} is no room of the design"));
        }
        if let Some(name) = self.module.iter().find(|name| NO_NAMES.contains(&name.as_str())) {
            let reason = format!("{name} says nothing of what is inside");
            self.report(1, &reason);
        }
        let lines = source.lines().count();
        if lines > LONGEST_FILE {
            self.report(LONGEST_FILE, &format!("{lines} lines are two things in one file"));
        }
    }

    /// Walks tokens inside `depth` inline modules.
    fn walk(&mut self, tokens: TokenStream, depth: usize) {
        let tokens: Vec<TokenTree> = tokens.into_iter().collect();
        for (at, token) in tokens.iter().enumerate() {
            match token {
                TokenTree::Ident(ident) => self.ident(ident, &tokens, at, depth),
                TokenTree::Group(group) => {
                    let is_module = at >= 2
                        && group.delimiter() == Delimiter::Brace
                        && matches!(&tokens[at - 2], TokenTree::Ident(word) if word == "mod");
                    self.walk(group.stream(), depth + usize::from(is_module));
                }
                TokenTree::Punct(_) | TokenTree::Literal(_) => {}
            }
        }
    }

    fn ident(&mut self, ident: &Ident, tokens: &[TokenTree], at: usize, depth: usize) {
        let line = ident.span().start().line;
        let name = ident.to_string();
        let is_path = is_path_separator(tokens, at + 1);
        let starts_path = is_path && !(at >= 2 && is_path_separator(tokens, at - 2));
        match name.as_str() {
            "crate" if is_path => self.imports(line, &[], &tokens[at + 3..]),
            "super" if starts_path => self.supers(line, tokens, at, depth),
            "await" | "async" if self.is_synchronous() => self.report(line, "no async below engine/handle.rs"),
            "tokio" if self.is_synchronous() => self.report(line, "no tokio below engine/handle.rs"),
            "Instant" if is_path && !CLOCKS.contains(&self.path) => {
                if matches!(tokens.get(at + 3), Some(TokenTree::Ident(method)) if method == "now") {
                    self.report(
                        line,
                        "the raw clock is read in model/clock.rs, client/deadline.rs and cli/bench/stopwatch.rs only",
                    );
                }
            }
            _ => {
                for (word, places, reason) in ONLY_IN {
                    if name == *word && !places.iter().any(|place| self.path.starts_with(place)) {
                        self.report(line, reason);
                    }
                }
            }
        }
    }

    /// Resolves `super::super::name` from `depth` inline modules inside this file.
    fn supers(&mut self, line: usize, tokens: &[TokenTree], mut at: usize, depth: usize) {
        let mut module: Vec<String> = self.module.clone();
        module.extend((0..depth).map(|_| "inline".to_owned()));
        while matches!(&tokens.get(at), Some(TokenTree::Ident(word)) if *word == "super") && is_path_separator(tokens, at + 1) {
            module.pop();
            at += 3;
        }
        self.imports(line, &module, &tokens[at.min(tokens.len())..]);
    }

    /// Checks the path `base::rest`, where rest may be a list in braces.
    fn imports(&mut self, line: usize, base: &[String], rest: &[TokenTree]) {
        let names: Vec<String> = match rest.first() {
            Some(TokenTree::Ident(name)) => vec![name.to_string()],
            Some(TokenTree::Group(group)) => first_names(group.stream()),
            _ => return,
        };
        for name in names {
            let target = base.first().cloned().unwrap_or(name);
            let room = self.room().to_owned();
            let allowed = MAY_IMPORT.iter().find(|(name, _)| *name == room).map_or(&[][..], |(_, allowed)| allowed);
            if target != room && !allowed.contains(&target.as_str()) {
                self.report(line, &format!("{room} may not import {target}"));
            }
        }
    }

    fn is_synchronous(&self) -> bool {
        !self.path.starts_with(ASYNC_EDGE) && SYNCHRONOUS.iter().any(|room| self.path.starts_with(room))
    }

    fn room(&self) -> &str {
        &self.module[0]
    }

    fn report(&mut self, line: usize, reason: &str) {
        self.found.push(format!("{}:{line}: {reason}", self.path));
    }
}

fn is_path_separator(tokens: &[TokenTree], at: usize) -> bool {
    let colon = |token: Option<&TokenTree>| matches!(token, Some(TokenTree::Punct(punct)) if punct.as_char() == ':');
    colon(tokens.get(at)) && colon(tokens.get(at + 1))
}

/// The first name of each comma-separated part.
fn first_names(list: TokenStream) -> Vec<String> {
    let mut names = Vec::new();
    let mut at_start = true;
    for token in list {
        match token {
            TokenTree::Ident(name) if at_start => {
                names.push(name.to_string());
                at_start = false;
            }
            TokenTree::Punct(punct) if punct.as_char() == ',' => at_start = true,
            _ => at_start = false,
        }
    }
    names
}
