//! A source over files: one split a file.

use std::path::{Path, PathBuf};

use tidemill_core::format::Decode;
use tidemill_core::source::{Assignment, Boundedness, ReaderContext, Source, SourceReader, Split};
use tidemill_core::{Error, Result};

use super::fetch::FileFetch;
use crate::fetcher::FetchReader;

/// Reads lines of files; a format makes records of them. Files that end with `.gz` are unpacked.
///
/// Bounded by default: the files that are there are read to their ends, each as it is when its end is met, a last line
/// without a line end included. A subtask takes the next file when it is done with one; event time waits until all are begun.
/// With [`FileSource::follow`] it goes on like `tail -F`, and files belong to subtasks by their names.
#[derive(Debug, Clone)]
pub struct FileSource<D> {
    pattern: PathBuf,
    pub(super) format: D,
    follow: bool,
    pub(super) line_bytes_max: usize,
    pub(super) skip_lines: u64,
    pub(super) skip_blank_lines: bool,
}

impl<D: Decode> FileSource<D> {
    /// The default for [`FileSource::line_bytes_max`].
    pub const LINE_BYTES_MAX: usize = 1 << 20;

    /// How often a following source looks for new files, in ms.
    pub const DISCOVERY_INTERVAL_MS: u64 = 1000;

    /// Reads the file `path`, the files of a folder, or those that fit a pattern with `*` and `?` in its last part.
    pub fn new(path: impl AsRef<Path>, format: D) -> Self {
        FileSource {
            pattern: path.as_ref().to_path_buf(),
            format,
            follow: false,
            line_bytes_max: Self::LINE_BYTES_MAX,
            skip_lines: 0,
            skip_blank_lines: false,
        }
    }

    /// Whether to go on reading at the ends of files as they grow, and to take up new files. A line without its end waits
    /// until it is whole. A file that is replaced by another of its name (rotated) is read to its end and then the new
    /// one from its beginning; one that became shorter is read again from its beginning. Packed files are read once.
    /// Default: false. The pattern should not fit the names old files are rotated to, or they are read again.
    pub fn follow(mut self, follow: bool) -> Self {
        self.follow = follow;
        self
    }

    /// The longest line, in bytes; longer ones become dead letters. Default 1 MiB.
    pub fn line_bytes_max(mut self, bytes: usize) -> Self {
        self.line_bytes_max = bytes;
        self
    }

    /// How many lines to skip at the beginning of each file, for headings. Default 0.
    pub fn skip_lines(mut self, lines: u64) -> Self {
        self.skip_lines = lines;
        self
    }

    /// Whether lines without any character are passed over instead of being given to the format. Default: false.
    pub fn skip_blank_lines(mut self, skip: bool) -> Self {
        self.skip_blank_lines = skip;
        self
    }
}

fn no_file(pattern: &Path) -> Error {
    Error::input(format!("no file fits `{}`", pattern.display()))
        .hint("correct the path, or follow it to wait for files")
}

/// A file as a split, in the slot of its name.
fn split(file: &Path, slot: impl FnOnce(&str) -> u32) -> Result<Split> {
    let id = file
        .to_str()
        .ok_or_else(|| Error::input(format!("the name of `{}` is not UTF-8", file.display())).hint("rename it"))?;
    Ok(Split { id: id.to_string(), slot: slot(id), position: serde_json::Value::Null })
}

/// The files of a pattern as splits of a source that reads each once; there must be one.
pub(super) fn splits_of(pattern: &Path) -> Result<Vec<Split>> {
    let files = super::path::files(pattern)?;
    match files.is_empty() {
        true => Err(no_file(pattern)),
        false => files.iter().zip(0..).map(|(file, index)| split(file, |_| index)).collect(),
    }
}

impl<D> Source<D::Value> for FileSource<D>
where
    D: Decode,
    D::Value: Send + 'static,
{
    fn name(&self) -> String {
        format!("files `{}`", self.pattern.display())
    }

    fn boundedness(&self) -> Boundedness {
        if self.follow { Boundedness::Unbounded } else { Boundedness::Bounded }
    }

    fn splits(&self) -> Result<Vec<Split>> {
        let files = super::path::files(&self.pattern)?;
        if files.is_empty() && !self.follow {
            return Err(no_file(&self.pattern));
        }
        // When following, subtasks may see a new file at different moments: its slot must come from its name alone.
        let slot = |index, id: &str| match self.follow {
            true => tidemill_topic::partition_for(id.as_bytes(), 1 << 20),
            false => index,
        };
        files.iter().zip(0..).map(|(file, index)| split(file, |id| slot(index, id))).collect()
    }

    fn assignment(&self) -> Assignment {
        if self.follow { Assignment::ByNumber } else { Assignment::OnDemand }
    }

    fn discovery_interval_ms(&self) -> Option<u64> {
        self.follow.then_some(Self::DISCOVERY_INTERVAL_MS)
    }

    fn reader(&self, context: ReaderContext) -> Result<Box<dyn SourceReader<D::Value>>> {
        let fetch = FileFetch::new(self.clone(), self.follow);
        Ok(Box::new(FetchReader::new(&self.name(), &context, fetch)))
    }
}
