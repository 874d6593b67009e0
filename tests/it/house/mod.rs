//! The house rules (CONTRIBUTING.md), read off the source tree. Each rule is a function from the tree to its breaches,
//! tried on a small tree that breaks it and then on ours; the failure says what to do.

mod code;
mod compatibility;
mod imports;
mod names;
mod registries;
mod rust_source;
mod sizes;
mod tree;

use tree::Tree;

/// What a rule found: a place and what is wrong there.
type Breaches = Vec<String>;

/// Fails with the breaches and the advice.
fn keep(rule: &str, advice: &str, breaches: Breaches) {
    assert!(breaches.is_empty(), "\n{rule}\n  {}\nWhat to do: {advice}\n", breaches.join("\n  "));
}

/// The rule holds in our tree, and is seen to fail on `broken`, whose breaches must name each of `named`.
fn check(rule: &str, advice: &str, find: impl Fn(&Tree) -> Breaches, broken: &[(&str, &str)], named: &[&str]) {
    let seen = find(&Tree::of(broken));
    assert_eq!(seen.len(), named.len(), "the rule `{rule}` does not see what breaks it: {seen:#?}");
    for name in named {
        assert!(seen.iter().any(|breach| breach.contains(name)), "`{name}` is not among {seen:#?}");
    }
    keep(rule, advice, find(&Tree::ours()));
}
