//! `docs/compatibility.md` promises no more than is tested: each test it names is there.

use super::tree::Tree;
use super::{Breaches, check};

const PAGE: &str = "docs/compatibility.md";

/// Words in backticks that can only be the names of tests: long, with several underscores.
fn named(line: &str) -> impl Iterator<Item = &str> {
    line.split('`').skip(1).step_by(2).filter(|word| {
        word.matches('_').count() >= 3 && word.chars().all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_')
    })
}

fn promises(tree: &Tree) -> Breaches {
    let mut breaches = Breaches::new();
    let page = tree.files.get(PAGE).map(String::as_str).unwrap_or_default();
    let is_test = |name: &str| {
        let head = format!("fn {name}()");
        tree.rust("").any(|(_, text)| {
            text.split_once(&head).is_some_and(|(before, _)| before.trim_end().trim_end_matches("async").ends_with(']'))
        })
    };
    for (at, line) in page.lines().enumerate() {
        for name in named(line).filter(|name| !is_test(name)) {
            breaches.push(format!("{PAGE}:{}: there is no test `{name}`", at + 1));
        }
        if line.contains("| yes |") && named(line).next().is_none() && !line.contains("CONTRIBUTING") {
            breaches.push(format!("{PAGE}:{}: `yes` without a test", at + 1));
        }
    }
    breaches
}

#[test]
fn what_is_said_to_be_there_is_tested() {
    check(
        "docs/compatibility.md names a test for each `yes`, and the tests are there",
        "name the test that shows it, or say `partly` or `no` and what is missing",
        promises,
        &[
            (
                PAGE,
                "| A1 | x | yes | `a_test_that_is_there` |\n| A2 | y | yes | `a_test_that_is_not` |\n| A3 | z | yes | |\n",
            ),
            ("crates/a/tests/b.rs", "#[test]\nfn a_test_that_is_there() {}\n"),
        ],
        &["a_test_that_is_not", "without a test"],
    );
}
