//! Which files a path, folder or pattern stands for.

use std::path::{Path, PathBuf};

use tidemill_core::{Error, Result};

/// The files `pattern` stands for, by name: the file itself; all files of a folder (not of folders in it); or the files
/// whose name fits a last part with `*` (any characters) and `?` (one). Hidden files only when the pattern begins so.
pub fn files(pattern: &Path) -> Result<Vec<PathBuf>> {
    if pattern.is_dir() {
        return matching(pattern, "*");
    }
    let name = pattern.file_name().and_then(|name| name.to_str()).unwrap_or_default();
    if pattern.is_file() || !name.contains(['*', '?']) {
        return Ok(if pattern.exists() { vec![pattern.to_path_buf()] } else { Vec::new() });
    }
    let folder = match pattern.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent,
        _ => Path::new("."),
    };
    if !folder.is_dir() {
        return Err(Error::input(format!("there is no folder `{}`", folder.display()))
            .hint("patterns are only allowed in the last part of a path"));
    }
    matching(folder, name)
}

fn matching(folder: &Path, pattern: &str) -> Result<Vec<PathBuf>> {
    let tried = || format!("list the folder `{}`", folder.display());
    let mut files = Vec::new();
    for entry in std::fs::read_dir(folder).map_err(|e| Error::io(tried(), e))? {
        let entry = entry.map_err(|e| Error::io(tried(), e))?;
        let name = entry.file_name();
        let Some(name) = name.to_str() else { continue };
        let hidden = name.starts_with('.') && !pattern.starts_with('.');
        if !hidden && fits(pattern.as_bytes(), name.as_bytes()) && entry.path().is_file() {
            files.push(entry.path());
        }
    }
    files.sort();
    Ok(files)
}

fn fits(pattern: &[u8], name: &[u8]) -> bool {
    // `again`: where to try on behind the last `*`, should what follows it not fit.
    let (mut p, mut n, mut again) = (0, 0, None);
    while n < name.len() {
        if pattern.get(p) == Some(&b'*') {
            again = Some((p + 1, n));
            p += 1;
        } else if pattern.get(p).is_some_and(|c| *c == b'?' || *c == name[n]) {
            p += 1;
            n += 1;
        } else if let Some((behind_star, from)) = again {
            again = Some((behind_star, from + 1));
            (p, n) = (behind_star, from + 1);
        } else {
            return false;
        }
    }
    pattern[p..].iter().all(|c| *c == b'*')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn patterns_fit_names() {
        for (pattern, name, expected) in [
            ("*", "", true),
            ("*.csv", "a.csv", true),
            ("*.csv", "a.csv.gz", false),
            ("a*b*c", "aXbYbZc", true),
            ("a*b*c", "aXbYbZ", false),
            ("a?c", "abc", true),
            ("a?c", "ac", false),
            ("abc", "abc", true),
            ("abc", "abcd", false),
            ("", "a", false),
        ] {
            assert_eq!(fits(pattern.as_bytes(), name.as_bytes()), expected, "{pattern} {name}");
        }
    }
}
