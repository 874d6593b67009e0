//! Bounds on files: how long they may be, and how they begin.

use super::rust_source::Code;
use super::tree::Tree;
use super::{Breaches, check};

const RUST_LINES_MAX: usize = 800;
const VUE_LINES_MAX: usize = 300;
const ARCHITECTURE_LINES_MAX: usize = 300;
/// The ground is compiled by everybody.
const CORE_LINES_MAX: usize = 3_500;

fn long_rust(tree: &Tree) -> Breaches {
    let long = |(path, text): (&str, &str)| {
        let lines = Code::of(text).program_lines();
        (lines > RUST_LINES_MAX).then(|| format!("{path}: {lines} lines without its tests"))
    };
    tree.rust("").filter_map(long).collect()
}

fn long_vue(tree: &Tree) -> Breaches {
    let long = |(path, text): (&str, &str)| {
        let lines = text.lines().count();
        (lines > VUE_LINES_MAX).then(|| format!("{path}: {lines} lines"))
    };
    tree.below("web/", ".vue").filter_map(long).collect()
}

fn headless(tree: &Tree) -> Breaches {
    let first = |text: &str| text.lines().find(|line| !line.trim().is_empty()).unwrap_or_default().to_string();
    tree.rust("").filter(|(_, text)| !first(text).starts_with("//! ")).map(|(path, _)| path.to_string()).collect()
}

#[test]
fn no_rust_file_is_too_long() {
    let long = "fn a() {}\n".repeat(RUST_LINES_MAX + 1);
    let tested = format!("fn a() {{}}\n#[cfg(test)]\nmod tests {{\n{long}}}\n");
    check(
        "no Rust file has more than 800 lines besides its tests",
        "split it by noun: one file holds one thing and is named after it",
        long_rust,
        &[("crates/a/src/long.rs", &long), ("crates/a/src/tested.rs", &tested)],
        &["long.rs: 801"],
    );
}

#[test]
fn no_vue_component_is_too_long() {
    check(
        "no Vue component has more than 300 lines",
        "move a part into a component of its own, or logic into a composable",
        long_vue,
        &[("web/src/pages/LongPage.vue", &"<p/>\n".repeat(VUE_LINES_MAX + 1))],
        &["LongPage.vue: 301"],
    );
}

#[test]
fn every_rust_file_says_what_it_is() {
    check(
        "every Rust file opens with `//! `",
        "begin with one sentence: what stands here, and why here",
        headless,
        &[("crates/a/src/b.rs", "use c;\n//! late"), ("crates/a/src/c.rs", "//! This.\n")],
        &["b.rs"],
    );
}

#[test]
fn the_ground_and_the_map_stay_small() {
    let large = |tree: &Tree| {
        let core: usize = tree.rust("crates/core/src/").map(|(_, text)| Code::of(text).program_lines()).sum();
        let map = tree.files.get("ARCHITECTURE.md").map_or(0, |text| text.lines().count());
        let mut breaches = Breaches::new();
        breaches
            .extend((core > CORE_LINES_MAX).then(|| format!("crates/core: {core} lines, {CORE_LINES_MAX} at most")));
        let most = ARCHITECTURE_LINES_MAX;
        breaches.extend((map > most).then(|| format!("ARCHITECTURE.md: {map} lines, {most} at most")));
        breaches
    };
    check(
        "core and ARCHITECTURE.md stay small",
        "move what only one crate needs into that crate; move a long explanation to the head of the file it is about",
        large,
        &[("ARCHITECTURE.md", &"a\n".repeat(301)), ("crates/core/src/a.rs", &"fn a() {}\n".repeat(3_501))],
        &["ARCHITECTURE.md: 301", "crates/core: 3501"],
    );
}
