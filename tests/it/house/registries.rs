//! Lists are complete: what is in a folder of extensions is registered, and what is registered is there and tested.

use tidemill_connectors::CONNECTORS;

use super::tree::Tree;
use super::{Breaches, check};

/// Modules of the connectors crate that serve authors, or stand around other connectors, and are none themselves.
const FOR_AUTHORS: [&str; 9] =
    ["async_sink", "authority", "buffered", "conformance", "fetcher", "format", "hybrid", "rate_limit", "write_ahead"];

/// The names behind `pub mod …;` in a file.
fn public_modules(text: &str) -> impl Iterator<Item = &str> {
    text.lines().filter_map(|line| line.strip_prefix("pub mod ")?.strip_suffix(';'))
}

fn connectors(tree: &Tree, listed: &[&str]) -> Breaches {
    let mut breaches = Breaches::new();
    for name in listed {
        let file = [format!("crates/connectors/src/{name}.rs"), format!("crates/connectors/src/{name}/mod.rs")];
        if !file.iter().any(|file| tree.files.contains_key(file)) {
            breaches.push(format!("`{name}` is in CONNECTORS, but there is no {}", file.join(" or ")));
        }
        let tested = tree.rust("crates/connectors/tests/connectors/").any(|(path, text)| {
            let stem = path.rsplit('/').next().unwrap_or_default().trim_end_matches(".rs");
            (stem == *name || stem.starts_with(&format!("{name}_"))) && text.contains("#[test]")
        });
        if !tested {
            breaches.push(format!("`{name}` has no test in crates/connectors/tests/connectors/{name}.rs"));
        }
    }
    let modules = tree.files.get("crates/connectors/src/lib.rs").map(String::as_str).unwrap_or_default();
    for module in public_modules(modules).filter(|module| !FOR_AUTHORS.contains(module) && !listed.contains(module)) {
        breaches.push(format!("the module `{module}` of crates/connectors is not in CONNECTORS"));
    }
    breaches
}

/// Names of the methods by which a connector's options are given: they take the source or sink and return it.
fn builders(text: &str) -> impl Iterator<Item = &str> {
    let names = text.lines().filter_map(|line| line.trim_start().strip_prefix("pub fn ")?.split_once("(mut self"));
    names.map(|(name, _)| name)
}

/// What docs/connectors does not say: a page for each connector, listed in the index and tested, with each option.
fn undocumented(tree: &Tree, listed: &[&str]) -> Breaches {
    let text = |path: &str| tree.files.get(path).map(String::as_str).unwrap_or_default();
    let mut breaches = Breaches::new();
    for name in listed {
        let path = format!("docs/connectors/{name}.md");
        let page = text(&path);
        for part in ["```rust", "## Options", "## Guarantee", "## Errors"].iter().filter(|part| !page.contains(**part))
        {
            breaches.push(format!("{path} has no `{part}`"));
        }
        if !text("docs/connectors/README.md").contains(&format!("]({name}.md)")) {
            breaches.push(format!("docs/connectors/README.md does not lead to {name}.md"));
        }
        if !text("tests/src/lib.rs").contains(&path) {
            breaches.push(format!("tests/src/lib.rs does not run the program of {path}"));
        }
        let source = format!("crates/connectors/src/{name}");
        let files =
            tree.rust(&source).filter(|(path, _)| [".", "/"].iter().any(|next| path[source.len()..].starts_with(next)));
        for (file, text) in files {
            let missing = builders(text).filter(|option| !page.contains(&format!("`{option}")));
            breaches.extend(missing.map(|option| format!("{path} does not tell `{option}` of {file}")));
        }
    }
    breaches
}

/// Files of `folder` whose call is missing in the file that lists them.
fn unlisted(
    tree: &Tree,
    folder: &str,
    list: &str,
    ending: &str,
    call: impl Fn(&str, &str) -> Option<String>,
) -> Breaches {
    let listed = tree.files.get(list).map(String::as_str).unwrap_or_default();
    let missing = |(path, text): (&str, &str)| {
        let stem = path.strip_prefix(folder)?.strip_suffix(ending)?;
        let call = call(stem, text)?;
        (!listed.contains(&call)).then(|| format!("{path}: `{call}` is not in {list}"))
    };
    tree.below(folder, ending).filter_map(missing).collect()
}

#[test]
fn every_connector_is_listed_there_and_tested() {
    let broken = Tree::of(&[
        ("crates/connectors/src/lib.rs", "pub mod fetcher;\npub mod file;\npub mod mqtt;\n"),
        ("crates/connectors/src/file/mod.rs", ""),
        ("crates/connectors/tests/connectors/file_source.rs", "#[test]\nfn a() {}"),
        ("crates/connectors/tests/connectors/redis.rs", "//! Nothing yet.\n"),
    ]);
    let seen = connectors(&broken, &["file", "redis"]);
    assert_eq!(seen.len(), 3, "no file and no test of redis, mqtt not listed: {seen:#?}");
    let listed: Vec<&str> = CONNECTORS.iter().map(|connector| connector.name).collect();
    super::keep(
        "every connector is in the list, has a file and a test",
        "see \"Walk-through: a connector\" in CONTRIBUTING.md",
        connectors(&Tree::ours(), &listed),
    );
}

#[test]
fn every_connector_has_a_page_with_its_options() {
    let broken = Tree::of(&[
        ("docs/connectors/README.md", "[file](file.md)"),
        ("docs/connectors/file.md", "```rust\n## Options\n| `follow` |\n## Guarantee\n"),
        ("tests/src/lib.rs", "include_str!(\"../../docs/connectors/file.md\")"),
        (
            "crates/connectors/src/file/source.rs",
            "    pub fn follow(mut self) {}\n    pub fn skip_lines(mut self) {}\n",
        ),
        ("crates/connectors/src/filed.rs", "    pub fn other(mut self) {}\n"),
    ]);
    let seen = undocumented(&broken, &["file"]);
    assert_eq!(seen.len(), 2, "no errors, `skip_lines` not told: {seen:#?}");
    assert_eq!(undocumented(&broken, &["mqtt"]).len(), 6, "no page at all");
    let listed: Vec<&str> = CONNECTORS.iter().map(|connector| connector.name).collect();
    super::keep(
        "every connector has a page with a tested program and all options",
        "write docs/connectors/<name>.md as its neighbours are, and list it in README.md there and in tests/src/lib.rs",
        undocumented(&Tree::ours(), &listed),
    );
}

#[test]
fn every_rest_resource_is_routed() {
    let routes = |stem: &str, text: &str| text.contains("fn routes()").then(|| format!("{stem}::routes()"));
    check(
        "every resource of the API is in the router's list",
        "add it in crates/server/src/api/mod.rs: a `mod` line and a `.merge` line",
        |tree| unlisted(tree, "crates/server/src/api/", "crates/server/src/api/mod.rs", ".rs", routes),
        &[
            ("crates/server/src/api/mod.rs", ".merge(jobs::routes())"),
            ("crates/server/src/api/jobs.rs", "fn routes() {}"),
            ("crates/server/src/api/rules.rs", "fn routes() {}"),
        ],
        &["rules::routes()"],
    );
}

#[test]
fn every_page_is_routed() {
    let page = |stem: &str, _: &str| stem.ends_with("Page").then(|| format!("{stem}.vue"));
    check(
        "every page is in the router",
        "add it in web/src/router.ts",
        |tree| unlisted(tree, "web/src/pages/", "web/src/router.ts", ".vue", page),
        &[("web/src/router.ts", "import('./pages/JobPage.vue')"), ("web/src/pages/RulesPage.vue", "")],
        &["RulesPage.vue"],
    );
}
