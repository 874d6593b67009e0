//! Who imports whom, read from every `Cargo.toml`. The two tables below are the law; ARCHITECTURE.md shows the same ones.
//! A new line here is a new arrow between rooms: write an ADR first (docs/adr).

use std::collections::BTreeSet;

use super::tree::Tree;
use super::{Breaches, check, keep};

/// A package, and which of ours it may import. Lowest floor first: each imports only from above in this list.
const ROOMS: &[(&str, &[&str])] = &[
    ("tidemill-core", &[]),
    ("tidemill-engine", &["tidemill-core"]),
    ("tidemill-topic", &["tidemill-core"]),
    ("tidemill-connectors", &["tidemill-core", "tidemill-topic"]),
    ("tidemill", &["tidemill-core", "tidemill-engine", "tidemill-connectors"]),
    ("tidemill-server", &["tidemill-core", "tidemill-topic"]),
    (
        "tidemill-cli",
        &["tidemill-core", "tidemill-engine", "tidemill-topic", "tidemill-connectors", "tidemill", "tidemill-server"],
    ),
];

/// A library that only some rooms may list, and those rooms. Others may list it for their tests.
const OWNED: &[(&str, &[&str])] = &[
    ("timely", &["tidemill-engine"]),
    ("hashbrown", &["tidemill-engine"]),
    ("foldhash", &["tidemill-engine"]),
    ("postcard", &["tidemill-engine"]),
    ("lsm-tree", &["tidemill-engine"]),
    ("ring", &["tidemill-engine", "tidemill-connectors", "tidemill-server"]),
    ("arrow-array", &["tidemill-core", "tidemill-engine", "tidemill-connectors"]),
    ("arrow-buffer", &["tidemill-core", "tidemill-engine", "tidemill-connectors"]),
    ("arrow-schema", &["tidemill-core", "tidemill-engine", "tidemill-connectors"]),
    ("arrow-select", &["tidemill-core", "tidemill-engine"]),
    ("arrow-ipc", &["tidemill-core", "tidemill-engine", "tidemill-connectors"]),
    ("serde_arrow", &["tidemill-engine"]),
    ("smallvec", &["tidemill-engine"]),
    ("object_store", &["tidemill-engine"]),
    ("reqwest", &["tidemill-engine"]),
    ("hdfs-native-object-store", &["tidemill-engine"]),
    ("rustls", &["tidemill-engine", "tidemill-connectors", "tidemill-server"]),
    ("tokio-rustls", &["tidemill-server"]),
    ("rustls-native-certs", &["tidemill-connectors"]),
    ("rusqlite", &["tidemill-topic", "tidemill-connectors", "tidemill-server"]),
    ("postgres", &["tidemill-connectors"]),
    ("tokio-postgres-rustls", &["tidemill-connectors"]),
    ("mysql", &["tidemill-connectors"]),
    ("redis", &["tidemill-connectors"]),
    ("csv", &["tidemill-connectors"]),
    ("memchr", &["tidemill-connectors"]),
    ("kafka-protocol", &["tidemill-connectors"]),
    ("apache-avro", &["tidemill-connectors"]),
    ("orc-rust", &["tidemill-connectors"]),
    ("arrow-of-orc", &["tidemill-connectors"]),
    ("ipc-of-orc", &["tidemill-connectors"]),
    ("ureq", &["tidemill-connectors", "tidemill-cli"]),
    ("axum", &["tidemill-server"]),
    ("utoipa", &["tidemill-server"]),
    ("rust-embed", &["tidemill-server"]),
    ("tokio", &["tidemill-engine", "tidemill-server", "tidemill-cli"]),
    ("tokio-stream", &["tidemill-server"]),
    ("clap", &["tidemill-cli"]),
    ("comfy-table", &["tidemill-cli"]),
    ("indicatif", &["tidemill-cli"]),
    ("tracing-subscriber", &["tidemill-cli"]),
];

/// What a `Cargo.toml` lists.
struct Package {
    path: String,
    name: String,
    dependencies: BTreeSet<String>,
    for_tests: BTreeSet<String>,
    /// Dependencies with a version or path of their own.
    unshared: Vec<String>,
    takes_lints: bool,
}

impl Package {
    /// Whether it is a room of the house; examples, tests and benches are guests and may import any room but the top.
    fn is_room(&self) -> bool {
        self.path.starts_with("crates/")
    }
}

fn packages(tree: &Tree) -> Vec<Package> {
    let read = |(path, text): (&str, &str)| {
        let table: toml::Table = text.parse().unwrap_or_else(|e| panic!("{path}: {e}"));
        let name = table.get("package")?.get("name")?.as_str()?.to_string();
        let mut package = Package {
            path: path.to_string(),
            name,
            dependencies: BTreeSet::new(),
            for_tests: BTreeSet::new(),
            unshared: Vec::new(),
            takes_lints: table.get("lints").and_then(|lints| lints.get("workspace")).is_some(),
        };
        let targets = table.get("target").and_then(|targets| targets.as_table());
        let sections = targets.into_iter().flatten().filter_map(|(_, section)| section.as_table());
        for section in std::iter::once(&table).chain(sections) {
            for kind in ["dependencies", "build-dependencies", "dev-dependencies"] {
                let Some(entries) = section.get(kind).and_then(|entries| entries.as_table()) else { continue };
                for (library, how) in entries {
                    let into =
                        if kind == "dev-dependencies" { &mut package.for_tests } else { &mut package.dependencies };
                    into.insert(library.clone());
                    // One example may stand on another, by its path.
                    let beside =
                        path.starts_with("examples/") && how.get("path").is_some() && how.get("version").is_none();
                    if how.get("workspace").is_none() && !beside {
                        package.unshared.push(library.clone());
                    }
                }
            }
        }
        Some(package)
    };
    tree.below("", "Cargo.toml").filter_map(read).collect()
}

fn wrong_imports(tree: &Tree) -> Breaches {
    let mut breaches = Breaches::new();
    let rooms: Vec<&str> = ROOMS.iter().map(|(room, _)| *room).collect();
    for package in packages(tree) {
        let Package { path, name, .. } = &package;
        let all = package.dependencies.union(&package.for_tests);
        let ours: Vec<&String> = all.filter(|library| rooms.contains(&library.as_str())).collect();
        if !package.is_room() {
            let top = ours.iter().filter(|room| {
                path.starts_with("examples/") && matches!(room.as_str(), "tidemill-server" | "tidemill-cli")
            });
            breaches.extend(top.map(|room| format!("{path}: an example may not import {room}")));
            continue;
        }
        let Some((_, may)) = ROOMS.iter().find(|(room, _)| room == name) else {
            breaches.push(format!("{path}: {name} is not in the import table"));
            continue;
        };
        let not_allowed = ours.into_iter().filter(|room| !may.contains(&room.as_str()));
        breaches.extend(not_allowed.map(|room| format!("{path}: {name} may not import {room}")));
        for (library, owners) in OWNED.iter().filter(|(library, _)| package.dependencies.contains(*library)) {
            if !owners.contains(&name.as_str()) {
                breaches.push(format!("{path}: only {} may list {library}", owners.join(" and ")));
            }
        }
    }
    breaches
}

fn private_versions(tree: &Tree) -> Breaches {
    let mut breaches = Breaches::new();
    for package in packages(tree) {
        let Package { path, unshared, .. } = &package;
        breaches.extend(unshared.iter().map(|library| format!("{path}: `{library}` has a version of its own")));
        breaches.extend((!package.takes_lints).then(|| format!("{path}: no `[lints] workspace = true`")));
    }
    let root = tree.files.get("Cargo.toml").map(String::as_str).unwrap_or_default();
    breaches.extend(root.contains("[patch").then(|| "Cargo.toml: a `[patch]`: no forks on main".to_string()));
    breaches
}

/// The tables as ARCHITECTURE.md shows them.
fn as_markdown() -> String {
    let short = |names: &[&str]| {
        let names: Vec<&str> = names.iter().map(|name| name.trim_start_matches("tidemill-")).collect();
        if names.is_empty() { "–".to_string() } else { names.join(", ") }
    };
    let mut text = "| crate | may import of ours | lists alone, or with those named |\n|---|---|---|\n".to_string();
    for (room, may) in ROOMS {
        let owned = OWNED.iter().filter(|(_, owners)| owners.contains(room)).map(|(library, owners)| {
            let others: Vec<&str> = owners.iter().copied().filter(|owner| owner != room).collect();
            if others.is_empty() { library.to_string() } else { format!("{library} (with {})", short(&others)) }
        });
        let owned: Vec<String> = owned.collect();
        let owned = if owned.is_empty() { "–".to_string() } else { owned.join(", ") };
        text.push_str(&format!("| {} | {} | {owned} |\n", room.trim_start_matches("tidemill-"), short(may)));
    }
    text
}

#[test]
fn rooms_import_only_what_the_table_says() {
    check(
        "imports follow the table",
        "move the code to the room that owns the library, or take a trait of core; a new arrow needs an ADR, then a \
         line in the tables of this file and of ARCHITECTURE.md",
        wrong_imports,
        &[
            (
                "crates/engine/Cargo.toml",
                "[package]\nname = \"tidemill-engine\"\n[dependencies]\ntidemill-core.workspace = true\n\
                 tidemill-server.workspace = true\n[dev-dependencies]\ntidemill-connectors.workspace = true\n",
            ),
            (
                "crates/server/Cargo.toml",
                "[package]\nname = \"tidemill-server\"\n[target.'cfg(unix)'.dependencies]\ntimely.workspace = true\n\
                 [dev-dependencies]\nureq.workspace = true\n",
            ),
            ("crates/rules/Cargo.toml", "[package]\nname = \"tidemill-rules\"\n"),
            (
                "examples/a/Cargo.toml",
                "[package]\nname = \"a\"\n[dependencies]\ntidemill-server.workspace = true\nclap.workspace = true\n",
            ),
        ],
        &[
            "may not import tidemill-server",
            "may not import tidemill-connectors",
            "only tidemill-engine may list timely",
            "tidemill-rules is not in the import table",
            "an example may not import tidemill-server",
        ],
    );
}

#[test]
fn the_table_has_floors() {
    for (floor, (room, may)) in ROOMS.iter().enumerate() {
        let below: Vec<&str> = ROOMS[..floor].iter().map(|(room, _)| *room).collect();
        assert!(may.iter().all(|other| below.contains(other)), "{room} imports from its own floor or above");
    }
}

#[test]
fn architecture_shows_the_same_table() {
    let ours = Tree::ours();
    let map = ours.files.get("ARCHITECTURE.md").map(String::as_str).unwrap_or_default();
    let missing = (!map.contains(&as_markdown())).then(|| "the import table of ARCHITECTURE.md differs".to_string());
    keep("the map shows the law", &format!("put this into it:\n\n{}", as_markdown()), missing.into_iter().collect());
}

#[test]
fn versions_and_lints_stand_in_the_root() {
    check(
        "all versions and lints stand in the workspace's root",
        "write `name.workspace = true` here and the version in the root's [workspace.dependencies]; end with `[lints] workspace = true`",
        private_versions,
        &[(
            "crates/a/Cargo.toml",
            "[package]\nname = \"a\"\n[dependencies]\nserde = \"1\"\ntoml = { workspace = true, features = [] }\n",
        )],
        &["`serde` has a version of its own", "no `[lints]"],
    );
}
