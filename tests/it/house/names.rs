//! Names of files, and paths that exist on one machine only.

use super::tree::Tree;
use super::{Breaches, check};

/// Words that say nothing about what a file holds.
const EMPTY_WORDS: [&str; 9] = ["v2", "v3", "util", "utils", "common", "manager", "helper", "helpers", "misc"];

/// Beginnings of paths that only one machine has. In two pieces, so that this file does not break its own rule.
const MACHINE: [(&str, &str); 6] =
    [("/home", "/"), ("/Users", "/"), ("/root", "/"), ("/work", "/"), ("/opt", "/tidemill"), ("C:\\", "Users")];

fn empty_names(tree: &Tree) -> Breaches {
    let is_code = |path: &&String| [".rs", ".ts", ".vue", ".mjs", ".sh"].iter().any(|ending| path.ends_with(ending));
    let says_nothing = |part: &str| {
        let lower = part.to_lowercase();
        lower.starts_with("new_") || lower.split(['.', '_', '-']).any(|word| EMPTY_WORDS.contains(&word))
    };
    tree.files.keys().filter(is_code).filter(|path| path.split('/').any(says_nothing)).cloned().collect()
}

fn machine_paths(tree: &Tree) -> Breaches {
    let mut breaches = Breaches::new();
    let machine: Vec<String> = MACHINE.iter().map(|(a, b)| format!("{a}{b}")).collect();
    for (path, text) in &tree.files {
        for (number, line) in text.lines().enumerate() {
            let begins = |found: &String| {
                let before = |at: usize| line[..at].chars().next_back();
                let is_path = |at: usize| before(at).is_none_or(|c| !c.is_alphanumeric() && !"/.}_-~:)".contains(c));
                line.match_indices(found.as_str()).any(|(at, _)| is_path(at))
            };
            let found = machine.iter().find(|found| begins(found));
            breaches.extend(found.map(|found| format!("{path}:{}: `{found}…`", number + 1)));
        }
    }
    breaches
}

#[test]
fn files_are_named_after_what_they_hold() {
    check(
        "no file is called v2, utils, common, manager, helper or new_…",
        "name it after the one thing it holds; replace the old version instead of standing beside it",
        empty_names,
        &[
            ("crates/a/src/http_utils.rs", ""),
            ("crates/a/src/new_window.rs", ""),
            ("crates/common/src/lib.rs", ""),
            ("crates/a/src/window.rs", ""),
            ("crates/a/tests/fixtures/v2/_metadata.json", ""),
        ],
        &["http_utils", "new_window", "crates/common"],
    );
}

#[test]
fn no_path_of_one_machine() {
    let home = "/home".to_string() + "/";
    let broken = format!("let a = \"{home}me/x\";\nlet b = \"https://x.y{home}me\";");
    check(
        "no path that only one machine has",
        "take it from an argument or the environment, or make it relative to the crate (`CARGO_MANIFEST_DIR`)",
        machine_paths,
        &[("crates/a/src/b.rs", &broken)],
        &["b.rs:1"],
    );
}
