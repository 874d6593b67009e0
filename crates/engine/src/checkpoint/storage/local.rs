//! Checkpoints in folders of a file system. A file counts when it and the name that leads to it are on disk.

use std::fs::{self, File};
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::ops::Range;
use std::path::{Path, PathBuf};

use tidemill_core::{Error, Result};

use super::{Output, Storage};

/// The file system.
pub(super) struct LocalStorage;

struct LocalOutput {
    file: File,
    path: PathBuf,
}

impl Output for LocalOutput {
    fn write(&mut self, bytes: &[u8]) -> Result<()> {
        self.file.write_all(bytes).map_err(|e| Error::io(format!("write `{}`", self.path.display()), e))
    }

    fn finish(self: Box<Self>) -> Result<()> {
        self.file.sync_all().map_err(|e| Error::io(format!("write `{}`", self.path.display()), e))
    }
}

/// What is gone already is no error.
fn gone_is_fine(result: io::Result<()>, tried: impl Fn() -> String) -> Result<()> {
    match result {
        Err(e) if e.kind() != io::ErrorKind::NotFound => Err(Error::io(tried(), e)),
        _ => Ok(()),
    }
}

impl Storage for LocalStorage {
    fn make_folder(&self, folder: &Path) -> Result<()> {
        fs::create_dir_all(folder)
            .map_err(|e| Error::io(format!("make the checkpoint folder `{}`", folder.display()), e))
    }

    fn create(&self, file: &Path) -> Result<Box<dyn Output>> {
        let path = file.to_path_buf();
        let file = File::create(&path).map_err(|e| Error::io(format!("write `{}`", path.display()), e))?;
        Ok(Box::new(LocalOutput { file, path }))
    }

    fn write(&self, file: &Path, bytes: &[u8]) -> Result<()> {
        let mut output = self.create(file)?;
        output.write(bytes)?;
        output.finish()
    }

    /// Written aside, then renamed.
    fn publish(&self, file: &Path, bytes: &[u8]) -> Result<()> {
        let tried = || format!("publish `{}`", file.display());
        let aside = file.with_extension("tmp");
        self.write(&aside, bytes)?;
        fs::rename(&aside, file).map_err(|e| Error::io(tried(), e))?;
        let folder = file.parent().ok_or_else(|| Error::bug(format!("`{}` has no folder", file.display())))?;
        self.sync_folder(folder)?;
        folder
            .parent()
            .filter(|parent| !parent.as_os_str().is_empty())
            .map_or(Ok(()), |parent| self.sync_folder(parent))
    }

    fn create_new(&self, file: &Path) -> Result<bool> {
        match File::create_new(file) {
            Ok(_) => Ok(true),
            Err(e) if e.kind() == io::ErrorKind::AlreadyExists => Ok(false),
            Err(e) => Err(Error::io(format!("make `{}`", file.display()), e)),
        }
    }

    fn read(&self, file: &Path, range: Option<Range<u64>>) -> Result<Vec<u8>> {
        let read = || match range {
            None => fs::read(file),
            Some(range) => {
                let mut bytes = vec![0u8; (range.end - range.start) as usize];
                let mut file = File::open(file)?;
                file.seek(SeekFrom::Start(range.start))?;
                file.read_exact(&mut bytes).map(|()| bytes)
            }
        };
        read().map_err(|e| Error::io(format!("read `{}`", file.display()), e))
    }

    fn exists(&self, file: &Path) -> Result<bool> {
        Ok(file.is_file())
    }

    fn list(&self, folder: &Path) -> Result<Vec<String>> {
        let entries = match fs::read_dir(folder) {
            Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
            entries => entries.map_err(|e| Error::io(format!("list `{}`", folder.display()), e))?,
        };
        Ok(entries.flatten().map(|entry| entry.file_name().to_string_lossy().into_owned()).collect())
    }

    fn remove_file(&self, file: &Path) -> Result<()> {
        gone_is_fine(fs::remove_file(file), || format!("remove `{}`", file.display()))
    }

    fn remove_folder(&self, folder: &Path) -> Result<()> {
        gone_is_fine(fs::remove_dir_all(folder), || format!("remove `{}`", folder.display()))
    }

    /// A second name costs nothing; on another file system it takes a copy.
    fn copy(&self, from: &Path, to: &Path) -> Result<()> {
        if fs::hard_link(from, to).is_ok() {
            return Ok(());
        }
        let copied = fs::copy(from, to).and_then(|_| File::open(to)).and_then(|copy| copy.sync_all());
        copied.map_err(|e| Error::io(format!("copy `{}` to `{}`", from.display(), to.display()), e))
    }

    fn sync_folder(&self, folder: &Path) -> Result<()> {
        File::open(folder)
            .and_then(|folder| folder.sync_all())
            .map_err(|e| Error::io(format!("sync the folder `{}`", folder.display()), e))
    }
}
