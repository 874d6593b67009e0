//! A source over files that describe their own records (Avro, Parquet): batches of columns, one split a file.
//!
//! A batch is what one reading brings, at most [`BATCH_ROWS`] rows. The position is the number of records before it in its
//! file, so a file read again from a position gives the batches that follow as they would have come.

use std::path::{Path, PathBuf};

use arrow_array::RecordBatch;
use arrow_schema::SchemaRef;
use serde::{Deserialize, Serialize};
use tidemill_core::source::{Assignment, Boundedness, ReaderContext, Source, SourceReader, Split};
use tidemill_core::{ColumnBatch, DeadLetter, Error, NO_TIMESTAMP, Result};

use crate::fetcher::{Emitter, Fetch, FetchReader, Fetched};
use crate::format::columns::{time_column, times};

/// The most rows of a batch.
pub const BATCH_ROWS: usize = 1024;

/// A kind of file that describes its own records.
pub trait Container: Clone + Send + Sync + 'static {
    /// Names and types of the columns it gives, whatever else stands in the files.
    fn schema(&self) -> &SchemaRef;

    /// Opens a file behind its first `records`. An error says what is wrong, without the file's name.
    fn open(&self, path: &Path, records: u64) -> Result<Box<dyn Records>>;
}

/// A file being read.
pub trait Records: Send {
    /// The next records, at most `BATCH_ROWS`; `None` at the end of the file.
    fn next(&mut self) -> Result<Option<Part>>;
}

/// Records of a file that follow each other.
pub enum Part {
    /// Rows of the schema.
    Rows(RecordBatch),
    /// One record that does not fit the schema, and why.
    Refused(String),
}

/// Reads files that describe their own records, each to its end. A subtask takes the next file when it is done with one;
/// event time waits until all are begun.
#[derive(Debug, Clone)]
pub struct ContainerSource<C> {
    pattern: PathBuf,
    container: C,
    time: Option<usize>,
}

impl<C: Container> ContainerSource<C> {
    /// Reads the file `path`, the files of a folder, or those that fit a pattern with `*` and `?` in its last part.
    pub fn new(path: impl AsRef<Path>, container: C) -> Self {
        ContainerSource { pattern: path.as_ref().to_path_buf(), container, time: None }
    }

    /// Takes the rows' event times from a column: a timestamp in milliseconds, or epoch ms as `Int64`. A row where it is null
    /// has none.
    pub fn event_time(mut self, column: &str) -> Result<Self> {
        self.time = Some(time_column(self.container.schema(), column)?);
        Ok(self)
    }

    /// Names and types of the columns.
    pub fn schema(&self) -> &SchemaRef {
        self.container.schema()
    }
}

impl<C: Container> Source<ColumnBatch> for ContainerSource<C> {
    fn name(&self) -> String {
        format!("files `{}`", self.pattern.display())
    }

    fn boundedness(&self) -> Boundedness {
        Boundedness::Bounded
    }

    fn splits(&self) -> Result<Vec<Split>> {
        super::source::splits_of(&self.pattern)
    }

    fn assignment(&self) -> Assignment {
        Assignment::OnDemand
    }

    fn reader(&self, context: ReaderContext) -> Result<Box<dyn SourceReader<ColumnBatch>>> {
        let fetch = ContainerFetch { container: self.container.clone(), time: self.time, files: Vec::new() };
        Ok(Box::new(FetchReader::new(&self.name(), &context, fetch)))
    }
}

/// Where to go on in a file.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
struct Position {
    /// Records before it.
    records: u64,
}

struct ContainerFetch<C> {
    container: C,
    time: Option<usize>,
    /// The last one is being read.
    files: Vec<Reading>,
}

struct Reading {
    index: usize,
    path: PathBuf,
    /// Records before what comes next.
    records: u64,
    open: Option<Box<dyn Records>>,
}

impl Reading {
    /// Says which file, and where in it.
    fn failed(&self, error: Error) -> Error {
        error.context(format!("file `{}` behind record {}", self.path.display(), self.records))
    }
}

impl<C: Container> Fetch for ContainerFetch<C> {
    type Value = ColumnBatch;
    type Position = Position;

    fn add_split(&mut self, index: usize, id: &str, position: Option<Position>) -> Result<()> {
        let records = position.unwrap_or_default().records;
        self.files.insert(0, Reading { index, path: PathBuf::from(id), records, open: None });
        Ok(())
    }

    fn fetch(&mut self, out: &mut Emitter<ColumnBatch, Position>) -> Result<Fetched> {
        let Some(mut reading) = self.files.pop() else { return Ok(Fetched::Done) };
        let mut open = match reading.open.take() {
            Some(open) => open,
            None => self.container.open(&reading.path, reading.records).map_err(|error| reading.failed(error))?,
        };
        let Some(part) = open.next().map_err(|error| reading.failed(error))? else {
            let _ = out.finish(reading.index);
            return Ok(Fetched::More);
        };
        let (time_ms, value) = match part {
            Part::Rows(rows) => {
                reading.records += rows.num_rows() as u64;
                let times_ms = self.time.map(|place| times(&rows, place));
                let batch = ColumnBatch::new(rows);
                let batch = match times_ms {
                    Some(times_ms) => batch.with_times(times_ms)?,
                    None => batch,
                };
                (batch.latest_ms(), Ok(batch))
            }
            Part::Refused(reason) => {
                reading.records += 1;
                let path = reading.path.display();
                let place = format!("{path} record {}", reading.records);
                (NO_TIMESTAMP, Err(DeadLetter::new(format!("file `{path}`"), place, reason, b"")))
            }
        };
        let position = Position { records: reading.records };
        let bytes = value.as_ref().map_or(0, ColumnBatch::bytes);
        // Each batch is handed over at once: the queue is bounded by their number.
        let _ = out.push(reading.index, time_ms, value, bytes, position) && out.flush();
        reading.open = Some(open);
        self.files.push(reading);
        Ok(Fetched::More)
    }
}
