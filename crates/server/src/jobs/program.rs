//! Finds the program of a job. The one place that decides what may be run: files of the jobs folder, by their bare
//! name, and nothing a link points to outside it.

use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};

use serde::Serialize;
use tidemill_core::{Error, Result};
use utoipa::ToSchema;

/// A program that may be run.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Program {
    /// Where it stands.
    pub path: PathBuf,
    /// A `.toml` job file, run by `tidemill run <file>`, instead of an executable.
    pub job_file: bool,
}

/// A program as the list shows it.
#[derive(Debug, Clone, Serialize, ToSchema)]
pub struct ProgramInfo {
    /// Its file name.
    pub name: String,
    /// Its size.
    pub bytes: u64,
}

/// The most programs a list shows.
const LISTED_MAX: usize = 1000;

/// The program called `name` in `folder`. `Kind::Input` when the name is no bare file name, leads out of the folder, is
/// not there or cannot be executed.
pub fn find(folder: &Path, name: &str) -> Result<Program> {
    check_name(name)?;
    let root = folder.canonicalize().map_err(|e| {
        Error::input(format!("the jobs folder `{}` cannot be read: {e}", folder.display()))
            .hint("create it, or start the server with `--jobs <folder>`")
    })?;
    let path = root.join(name).canonicalize().map_err(|e| match e.kind() {
        std::io::ErrorKind::NotFound => {
            Error::input(format!("there is no program `{name}` in the folder `{}`", root.display()))
                .hint("copy it there, or correct the name")
        }
        _ => Error::input(format!("program `{name}` cannot be read: {e}")),
    })?;
    if path.parent() != Some(root.as_path()) {
        return Err(Error::input(format!("program `{name}` is a link that leads out of the jobs folder"))
            .hint("copy the program into the folder instead"));
    }
    let meta = path.metadata().map_err(|e| Error::io(format!("read program `{name}`"), e))?;
    if !meta.is_file() {
        return Err(
            Error::input(format!("program `{name}` is not a file")).hint("name an executable or a job file (`.toml`)")
        );
    }
    let job_file = path.extension().is_some_and(|ending| ending == "toml");
    if !job_file && meta.permissions().mode() & 0o111 == 0 {
        return Err(
            Error::input(format!("program `{name}` is not executable")).hint(format!("chmod +x {}", path.display()))
        );
    }
    Ok(Program { path, job_file })
}

/// The programs of the folder by name, at most 1000; none when the folder is not there.
pub fn list(folder: &Path) -> Vec<ProgramInfo> {
    let Ok(entries) = std::fs::read_dir(folder) else {
        return Vec::new();
    };
    let mut programs: Vec<ProgramInfo> = entries
        .flatten()
        .filter_map(|entry| entry.file_name().into_string().ok())
        .filter_map(|name| {
            let program = find(folder, &name).ok()?;
            let bytes = program.path.metadata().ok()?.len();
            Some(ProgramInfo { name, bytes })
        })
        .take(LISTED_MAX)
        .collect();
    programs.sort_by(|a, b| a.name.cmp(&b.name));
    programs
}

/// Stores an uploaded program, executable, replacing an older one of that name in one step; whether it is new.
pub fn store(folder: &Path, name: &str, bytes: &[u8]) -> Result<bool> {
    check_name(name)?;
    let doing = || format!("store program `{name}`");
    std::fs::create_dir_all(folder).map_err(|e| Error::io(doing(), e))?;
    let (target, fresh) = (folder.join(name), folder.join(format!(".{name}.upload")));
    let new = !target.exists();
    let write = || -> std::io::Result<()> {
        use std::io::Write;
        let mut file = std::fs::OpenOptions::new().write(true).create(true).truncate(true).mode(0o755).open(&fresh)?;
        file.write_all(bytes)?;
        file.sync_all()?;
        std::fs::rename(&fresh, &target)
    };
    write().map_err(|e| Error::io(doing(), e))?;
    Ok(new)
}

fn check_name(name: &str) -> Result<()> {
    let plain = !name.is_empty() && name.len() <= 128 && !name.starts_with('.');
    if !plain || name.chars().any(|c| c == '/' || c == '\\' || c.is_control()) {
        return Err(Error::input(format!("`{}` is no program name", name.escape_debug()))
            .hint("give the bare name of a file in the server's jobs folder"));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_files_of_the_folder_are_programs() {
        let folder = tempfile::tempdir().unwrap();
        let jobs = folder.path().join("jobs");
        std::fs::create_dir(&jobs).unwrap();
        store(&jobs, "good", b"#!/bin/true\n").unwrap();
        std::fs::write(jobs.join("plain.txt"), "x").unwrap();
        std::fs::write(jobs.join("file.toml"), "x").unwrap();
        std::os::unix::fs::symlink("/bin/sh", jobs.join("shell")).unwrap();
        std::os::unix::fs::symlink(jobs.join("good"), jobs.join("alias")).unwrap();

        assert!(!find(&jobs, "good").unwrap().job_file);
        assert!(find(&jobs, "file.toml").unwrap().job_file);
        assert_eq!(find(&jobs, "alias").unwrap().path, jobs.canonicalize().unwrap().join("good"));
        for (name, said) in [
            ("../jobs/good", "no program name"),
            ("..", "no program name"),
            ("", "no program name"),
            (".hidden", "no program name"),
            ("a\\b", "no program name"),
            ("/bin/sh", "no program name"),
            ("shell", "leads out of the jobs folder"),
            ("plain.txt", "not executable"),
            ("absent", "there is no program `absent`"),
        ] {
            let error = find(&jobs, name).unwrap_err().to_string();
            assert!(error.contains(said), "{name}: {error}");
        }
        let names: Vec<String> = list(&jobs).into_iter().map(|p| p.name).collect();
        assert_eq!(names, ["alias", "file.toml", "good"]);
    }
}
