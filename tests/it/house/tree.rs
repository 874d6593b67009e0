//! The files of the repository as text, by path from its root.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

/// Folders that are made, not written.
const MADE: [&str; 5] = [".git", "node_modules", "dist", "target", "data"];

/// Endings of files that are written by hand and read as text.
const TEXT: [&str; 15] =
    ["rs", "toml", "md", "ts", "vue", "mjs", "js", "json", "css", "html", "sh", "yml", "yaml", "sql", "svg"];

/// Files without an ending that are text too.
const TEXT_NAMES: [&str; 3] = ["Makefile", "run", ".gitignore"];

/// The repository, or a small made-up one.
pub struct Tree {
    pub files: BTreeMap<String, String>,
}

/// The root of the repository.
pub fn root() -> PathBuf {
    let tests = Path::new(env!("CARGO_MANIFEST_DIR"));
    tests.parent().unwrap_or(tests).to_path_buf()
}

impl Tree {
    /// A made-up tree.
    pub fn of(files: &[(&str, &str)]) -> Tree {
        let own = |(path, text): &(&str, &str)| (path.to_string(), text.to_string());
        Tree { files: files.iter().map(own).collect() }
    }

    /// This repository.
    pub fn ours() -> Tree {
        let mut files = BTreeMap::new();
        read(&root(), "", &mut files);
        assert!(files.contains_key("Cargo.toml") && files.len() > 100, "the repository was not found");
        Tree { files }
    }

    /// Files below a folder (`""`: all) with an ending.
    pub fn below<'a>(&'a self, folder: &'a str, ending: &'a str) -> impl Iterator<Item = (&'a str, &'a str)> + 'a {
        let fits = move |path: &str| path.starts_with(folder) && path.ends_with(ending);
        self.files.iter().filter(move |(path, _)| fits(path)).map(|(path, text)| (path.as_str(), text.as_str()))
    }

    /// Rust files, all or those below a folder.
    pub fn rust<'a>(&'a self, folder: &'a str) -> impl Iterator<Item = (&'a str, &'a str)> + 'a {
        self.below(folder, ".rs")
    }
}

fn read(folder: &Path, prefix: &str, files: &mut BTreeMap<String, String>) {
    // Somebody else may add and remove files meanwhile: what is gone is gone.
    let Ok(entries) = std::fs::read_dir(folder) else { return };
    for entry in entries.flatten() {
        let name = entry.file_name().to_string_lossy().into_owned();
        let path = format!("{prefix}{name}");
        let Ok(kind) = entry.file_type() else { continue };
        if kind.is_dir() {
            // cargo marks its target folders, whatever they are called.
            if !MADE.contains(&name.as_str()) && !entry.path().join("CACHEDIR.TAG").exists() {
                read(&entry.path(), &format!("{path}/"), files);
            }
        } else if kind.is_file() {
            let ending = Path::new(&name).extension().and_then(|ending| ending.to_str()).unwrap_or_default();
            if TEXT.contains(&ending) || TEXT_NAMES.contains(&name.as_str()) {
                files.extend(std::fs::read_to_string(entry.path()).ok().map(|text| (path, text)));
            }
        }
    }
}
