//! The reading thread of a file source: opens, finds its place again, reads lines, follows.

use std::cmp::Ordering;
use std::fs::File;
use std::io::{self, BufReader, Read, Seek, SeekFrom};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use flate2::read::MultiGzDecoder;
use serde::{Deserialize, Serialize};
use tidemill_core::format::Decode;
use tidemill_core::{DeadLetter, Error, NO_TIMESTAMP, Result};

use super::source::FileSource;
use crate::fetcher::{Emitter, Fetch, Fetched};
use crate::lines::{Found, Lines};

/// How often files that are followed are looked at when they have no more.
const LOOK_EVERY: Duration = Duration::from_millis(100);

/// How many lines of one file are read before the next file has its turn.
const LINES_A_TURN: usize = 4096;

/// Where to go on in a file.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct FilePosition {
    /// Bytes (of a packed file: unpacked ones) before it.
    offset: u64,
    /// Lines before it.
    line: u64,
    /// Which file the name meant, so that a rotation in between is noticed; only when following.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    inode: Option<u64>,
}

pub struct FileFetch<D> {
    source: FileSource<D>,
    decode: D,
    follow: bool,
    files: Vec<Reading>,
    /// The file whose turn it is.
    turn: usize,
}

/// A file being read.
struct Reading {
    index: usize,
    path: PathBuf,
    position: Option<FilePosition>,
    open: Option<Open>,
    paused: bool,
}

struct Open {
    lines: Lines<Box<dyn Read + Send>>,
    /// The same file, to look at.
    file: File,
    inode: u64,
    packed: bool,
}

enum Turn {
    /// There may be more.
    More,
    /// At the end for now.
    Waiting,
    /// At the end for good.
    Finished,
    /// The reader is gone.
    Stopped,
}

impl<D: Decode> FileFetch<D> {
    pub fn new(source: FileSource<D>, follow: bool) -> Self {
        FileFetch { decode: source.format.clone(), source, follow, files: Vec::new(), turn: 0 }
    }

    /// Reads some lines of the file at `at`.
    fn take_turn(&mut self, at: usize, out: &mut Emitter<D::Value, FilePosition>) -> Result<Turn> {
        let reading = &mut self.files[at];
        let failed = |tried: &str, path: &Path, e: io::Error| Error::io(format!("{tried} `{}`", path.display()), e);
        let open = match &mut reading.open {
            Some(open) => open,
            none => match open_at(&reading.path, self.follow, reading.position.take(), self.source.line_bytes_max) {
                Ok(open) => none.insert(open),
                // Between a file's going and its coming again.
                Err(error) if self.follow && error.kind() == io::ErrorKind::NotFound => return Ok(Turn::Waiting),
                Err(error) => return Err(failed("open", &reading.path, error)),
            },
        };
        let mut hand_over = HandOver {
            source: &self.source,
            path: &reading.path,
            index: reading.index,
            inode: self.follow.then_some(open.inode),
            decode: &mut self.decode,
            out,
        };
        let mut lines_left = LINES_A_TURN;
        while lines_left > 0 {
            lines_left -= 1;
            let found = open.lines.next().map_err(|e| failed("read", &reading.path, e))?;
            if found != Found::End {
                if !hand_over.line(found, &open.lines) {
                    return Ok(Turn::Stopped);
                }
                continue;
            }
            let ended = match self.follow && !open.packed {
                true => look(&reading.path, open).map_err(|e| failed("look at", &reading.path, e))?,
                false => Look::Ended,
            };
            match ended {
                Look::Same => return Ok(Turn::Waiting),
                Look::Grown => continue,
                Look::Shorter => {}
                Look::Replaced | Look::Ended => {
                    let rest = open.lines.rest();
                    if !hand_over.line(rest, &open.lines) {
                        return Ok(Turn::Stopped);
                    }
                }
            }
            reading.open = None;
            return Ok(if ended == Look::Ended { Turn::Finished } else { Turn::More });
        }
        Ok(Turn::More)
    }
}

/// What became of a file at whose end we are.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Look {
    Same,
    Grown,
    /// Cut: it begins anew.
    Shorter,
    /// Its name means another file now.
    Replaced,
    /// It is not followed.
    Ended,
}

fn look(path: &Path, open: &Open) -> io::Result<Look> {
    // The open file first: what was written to it before it was replaced is then seen.
    let bytes = open.file.metadata()?.len();
    let replaced = match std::fs::metadata(path) {
        Ok(named) => named.ino() != open.inode,
        // It was taken away and is not there again yet.
        Err(error) if error.kind() == io::ErrorKind::NotFound => false,
        Err(error) => return Err(error),
    };
    let read_to = open.lines.read_to();
    Ok(match bytes.cmp(&read_to) {
        Ordering::Greater => Look::Grown,
        Ordering::Less => Look::Shorter,
        Ordering::Equal if !replaced => Look::Same,
        Ordering::Equal if open.file.metadata()?.len() > read_to => Look::Grown,
        Ordering::Equal => Look::Replaced,
    })
}

/// Opens a file and goes to the position.
fn open_at(path: &Path, follow: bool, position: Option<FilePosition>, line_bytes_max: usize) -> io::Result<Open> {
    let mut file = File::open(path)?;
    let metadata = file.metadata()?;
    let inode = metadata.ino();
    let packed = path.extension().is_some_and(|extension| extension == "gz");
    let mut position = position.unwrap_or(FilePosition { offset: 0, line: 0, inode: None });
    let replaced = position.inode.is_some_and(|of_position| of_position != inode);
    if follow && (replaced || !packed && metadata.len() < position.offset) {
        position = FilePosition { offset: 0, line: 0, inode: None };
    }
    let kept = file.try_clone()?;
    let shorter = || io::Error::new(io::ErrorKind::UnexpectedEof, format!("it ends before byte {}", position.offset));
    let input: Box<dyn Read + Send> = if packed {
        let mut unpacked = MultiGzDecoder::new(BufReader::new(file));
        if io::copy(&mut unpacked.by_ref().take(position.offset), &mut io::sink())? < position.offset {
            return Err(shorter());
        }
        Box::new(unpacked)
    } else {
        if metadata.len() < position.offset {
            return Err(shorter());
        }
        file.seek(SeekFrom::Start(position.offset))?;
        Box::new(file)
    };
    let lines = Lines::new(input, line_bytes_max, position.offset, position.line);
    Ok(Open { lines, file: kept, inode, packed })
}

/// Hands lines of one file over.
struct HandOver<'a, D: Decode> {
    source: &'a FileSource<D>,
    path: &'a Path,
    index: usize,
    inode: Option<u64>,
    decode: &'a mut D,
    out: &'a mut Emitter<D::Value, FilePosition>,
}

impl<D: Decode> HandOver<'_, D> {
    /// `false`: the reader is gone.
    fn line(&mut self, found: Found, lines: &Lines<Box<dyn Read + Send>>) -> bool {
        let text = lines.text();
        let heading = lines.number() <= self.source.skip_lines;
        let blank = self.source.skip_blank_lines && found == Found::Whole && text.is_empty();
        if found == Found::End || heading || blank {
            return true;
        }
        let value = match found {
            Found::TooLong { bytes } => {
                let most = self.source.line_bytes_max;
                Err(format!("a line of {bytes} bytes; the longest allowed has {most} (option line_bytes_max)"))
            }
            _ => self.decode.decode(text),
        };
        let value = value.map_err(|reason| {
            let path = self.path.display();
            DeadLetter::new(format!("file `{path}`"), format!("{path} line {}", lines.number()), reason, text)
        });
        let position = FilePosition { offset: lines.offset(), line: lines.number(), inode: self.inode };
        self.out.push(self.index, NO_TIMESTAMP, value, text.len(), position)
    }
}

impl<D: Decode> Fetch for FileFetch<D>
where
    D::Value: Send + 'static,
{
    type Value = D::Value;
    type Position = FilePosition;

    fn add_split(&mut self, index: usize, id: &str, position: Option<FilePosition>) -> Result<()> {
        self.files.push(Reading { index, path: PathBuf::from(id), position, open: None, paused: false });
        Ok(())
    }

    fn can_pause(&self) -> bool {
        true
    }

    fn pause_splits(&mut self, paused: &[bool]) {
        for file in &mut self.files {
            file.paused = paused.get(file.index).copied().unwrap_or(false);
        }
    }

    fn fetch(&mut self, out: &mut Emitter<D::Value, FilePosition>) -> Result<Fetched> {
        // When following each file has its turn; else one is read after the other.
        for _ in 0..self.files.len() {
            let at = self.turn % self.files.len();
            let turn = if self.files[at].paused { Turn::Waiting } else { self.take_turn(at, out)? };
            match turn {
                Turn::Stopped => return Ok(Fetched::More),
                Turn::Waiting => self.turn = at + 1,
                Turn::More => {
                    self.turn = if self.follow { at + 1 } else { at };
                    return Ok(Fetched::More);
                }
                Turn::Finished => {
                    let finished = self.files.remove(at);
                    self.turn = at;
                    let _ = out.finish(finished.index);
                    return Ok(Fetched::More);
                }
            }
        }
        Ok(if self.files.is_empty() { Fetched::Done } else { Fetched::Idle(LOOK_EVERY) })
    }
}
