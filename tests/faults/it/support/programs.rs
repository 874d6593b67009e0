//! The programs under test, built by cargo when they are older than what they are made of.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;

/// The folder of programs: where cargo puts them, beside the tests.
pub fn folder() -> &'static Path {
    static FOLDER: OnceLock<PathBuf> = OnceLock::new();
    FOLDER.get_or_init(|| {
        let folder = Path::new(env!("CARGO_BIN_EXE_sums")).parent().unwrap().to_path_buf();
        if !["tidemill", "order-screen"].iter().all(|name| is_fresh(&folder, name)) {
            build(&folder);
        }
        folder
    })
}

pub fn program(name: &str) -> PathBuf {
    folder().join(name)
}

/// Whether a program is newer than all its sources, which cargo lists beside it.
fn is_fresh(folder: &Path, name: &str) -> bool {
    let changed = |path: &Path| path.metadata().and_then(|file| file.modified()).ok();
    let sources = std::fs::read_to_string(folder.join(format!("{name}.d"))).unwrap_or_default();
    let Some((_, sources)) = sources.split_once(": ") else { return false };
    let built = changed(&folder.join(name));
    // A target folder may be shared by several copies of the repository.
    let ours = Path::new(env!("CARGO_MANIFEST_DIR")).ancestors().nth(2).unwrap();
    let mut sources = sources.split_whitespace().map(Path::new);
    let older = |source: &Path| source.starts_with(ours) && changed(source).is_some_and(|at| Some(at) <= built);
    built.is_some() && sources.all(older)
}

fn build(folder: &Path) {
    let mut command = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    command.args(["build", "--locked", "--bins", "-p", "order-screen", "-p", "tidemill-cli", "--target-dir"]);
    command.arg(folder.parent().unwrap()).current_dir(env!("CARGO_MANIFEST_DIR"));
    if folder.ends_with("release") {
        command.arg("--release");
    }
    assert!(command.status().unwrap().success(), "the programs under test do not build");
}
