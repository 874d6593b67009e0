//! A source of column batches over any source that takes a format.
//!
//! The inner source decodes each record on its own thread; the format it is given writes the row into columns they share and
//! answers with the row's number alone. When the worker polls, the numbers that come out say which rows those are.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use arrow_array::cast::AsArray;
use arrow_array::types::{Int64Type, TimestampMillisecondType};
use arrow_array::{Int64Array, RecordBatch};
use arrow_schema::{DataType, SchemaRef, TimeUnit};
use tidemill_core::columns::no_column;
use tidemill_core::format::Decode;
use tidemill_core::source::{Assignment, Boundedness, Poll, ReaderContext, Source, SourceOutput, SourceReader, Split};
use tidemill_core::{ColumnBatch, Error, Result};

use super::rows::{RowFormat, Rows};

/// A row's number among those one reader has decoded.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RowNumber(u64);

/// What decoding and polling share. It holds what the reader is ahead of the worker, which the reader's queue bounds.
struct Filling {
    rows: Rows,
    /// The number of the first row.
    first: u64,
}

type Shared = Arc<Mutex<Filling>>;

fn lock(shared: &Shared) -> MutexGuard<'_, Filling> {
    shared.lock().unwrap_or_else(PoisonError::into_inner)
}

/// A [`RowFormat`] as the inner source takes it.
#[derive(Clone)]
pub struct ColumnRows<F> {
    format: F,
    filling: Shared,
}

impl<F: RowFormat> ColumnRows<F> {
    fn new(format: F) -> Result<Self> {
        let rows = Rows::new(format.schema().clone())?;
        Ok(ColumnRows { format, filling: Arc::new(Mutex::new(Filling { rows, first: 0 })) })
    }
}

impl<F: RowFormat> Decode for ColumnRows<F> {
    type Value = RowNumber;

    fn decode(&mut self, bytes: &[u8]) -> Result<RowNumber, String> {
        let mut filling = lock(&self.filling);
        let Filling { rows, first } = &mut *filling;
        match self.format.read(bytes, rows).and_then(|()| rows.finish_row()) {
            Ok(()) => Ok(RowNumber(*first + rows.count() as u64 - 1)),
            Err(reason) => {
                rows.forget_row();
                Err(reason)
            }
        }
    }
}

/// A source of column batches: what an inner source reads, decoded into the columns of a format.
pub struct ColumnSource<F, S, M> {
    format: F,
    make: M,
    /// Answers for all readers, which have an inner source each.
    described: S,
    time: Option<usize>,
    batch_rows: usize,
}

impl<F, S, M> ColumnSource<F, S, M>
where
    F: RowFormat,
    S: Source<RowNumber>,
    M: Fn(ColumnRows<F>) -> S + Send + Sync + 'static,
{
    /// The most rows of a batch, unless something else is said.
    pub const BATCH_ROWS: usize = 1024;

    /// `make` makes the inner source with the format it is given, such as `|format| FileSource::new("orders.ndjson", format)`.
    /// Rows have the event times that the inner source gives its records.
    pub fn new(format: F, make: M) -> Result<Self> {
        let described = make(ColumnRows::new(format.clone())?);
        Ok(ColumnSource { format, make, described, time: None, batch_rows: Self::BATCH_ROWS })
    }

    /// Takes the rows' event times from a column: epoch ms, or a timestamp. It must not be nullable, so that a record
    /// without a time goes to the dead letters.
    pub fn event_time(mut self, column: &str) -> Result<Self> {
        let schema = self.format.schema();
        let place = time_column(schema, column)?;
        let field = schema.field(place);
        if field.is_nullable() {
            return Err(Error::input(format!("column `{column}` may be null, so it cannot be the event time"))
                .hint("make it not nullable: records without it are refused then"));
        }
        self.time = Some(place);
        Ok(self)
    }

    /// The most rows of a batch. Default 1024, which is also the most; at least 1.
    pub fn batch_rows(mut self, rows: usize) -> Self {
        self.batch_rows = rows.clamp(1, Self::BATCH_ROWS);
        self
    }

    /// Names and types of the columns.
    pub fn schema(&self) -> &SchemaRef {
        self.format.schema()
    }
}

impl<F, S, M> Source<ColumnBatch> for ColumnSource<F, S, M>
where
    F: RowFormat,
    S: Source<RowNumber>,
    M: Fn(ColumnRows<F>) -> S + Send + Sync + 'static,
{
    fn name(&self) -> String {
        self.described.name()
    }

    fn boundedness(&self) -> Boundedness {
        self.described.boundedness()
    }

    fn splits(&self) -> Result<Vec<Split>> {
        self.described.splits()
    }

    fn discovery_interval_ms(&self) -> Option<u64> {
        self.described.discovery_interval_ms()
    }

    fn assignment(&self) -> Assignment {
        self.described.assignment()
    }

    fn stages(&self) -> u32 {
        self.described.stages()
    }

    fn stage_splits(&self, stage: u32, ended: &[Split]) -> Result<Vec<Split>> {
        self.described.stage_splits(stage, ended)
    }

    fn reader(&self, context: ReaderContext) -> Result<Box<dyn SourceReader<ColumnBatch>>> {
        let format = ColumnRows::new(self.format.clone())?;
        let filling = format.filling.clone();
        Ok(Box::new(ColumnReader {
            inner: (self.make)(format).reader(context)?,
            output: SourceOutput::with_capacity(0),
            batch_rows: self.batch_rows,
            columns: Columns { filling, taken: VecDeque::new() },
            time: self.time,
        }))
    }
}

struct ColumnReader {
    inner: Box<dyn SourceReader<RowNumber>>,
    output: SourceOutput<RowNumber>,
    batch_rows: usize,
    columns: Columns,
    time: Option<usize>,
}

/// The rows decoded so far.
struct Columns {
    filling: Shared,
    /// Taken over from `filling` and not emitted yet, each with the number of its first row.
    taken: VecDeque<(u64, RecordBatch)>,
}

impl Columns {
    /// The longest part of the rows `from..to` that begins with `from` and stands together.
    fn part(&mut self, from: u64, to: u64) -> Result<RecordBatch> {
        loop {
            match self.taken.front() {
                // Rows before it were decoded and never emitted.
                Some((first, rows)) if first + rows.num_rows() as u64 <= from => {
                    self.taken.pop_front();
                }
                Some((first, rows)) if *first <= from => {
                    let begin = (from - first) as usize;
                    let count = ((to - from) as usize).min(rows.num_rows() - begin);
                    return Ok(rows.slice(begin, count));
                }
                Some(_) => return Err(Error::bug("a row was emitted twice")),
                None => {
                    let mut filling = lock(&self.filling);
                    if filling.rows.count() == 0 {
                        return Err(Error::bug("a row was emitted that was not decoded"));
                    }
                    let (first, rows) = (filling.first, filling.rows.take()?);
                    filling.first += rows.num_rows() as u64;
                    self.taken.push_back((first, rows));
                }
            }
        }
    }
}

impl SourceReader<ColumnBatch> for ColumnReader {
    fn add_splits(&mut self, splits: Vec<Split>) -> Result<()> {
        self.inner.add_splits(splits)
    }

    fn poll(&mut self, output: &mut SourceOutput<ColumnBatch>) -> Result<Poll> {
        // Each row may be a batch or a dead letter of its own.
        self.output = SourceOutput::with_capacity(self.batch_rows.min(output.room()));
        let poll = self.inner.poll(&mut self.output)?;
        self.output.take_rejected().into_iter().for_each(|letter| output.reject(letter));
        let (finished, (records, runs)) = (self.output.take_finished(), self.output.take());
        let mut begin = 0;
        for (split, end) in runs {
            let run = &records[begin..end];
            begin = end;
            for group in run.chunk_by(|(_, one), (_, next)| one.0 + 1 == next.0) {
                let (first, count) = (group[0].1.0, group.len());
                let mut done = 0;
                while done < count {
                    let rows = self.columns.part(first + done as u64, first + count as u64)?;
                    let times_ms = match self.time {
                        Some(place) => times(&rows, place),
                        None => group[done..done + rows.num_rows()].iter().map(|(time_ms, _)| *time_ms).collect(),
                    };
                    done += rows.num_rows();
                    let batch = ColumnBatch::new(rows).with_times(times_ms)?;
                    output.push(split, batch.latest_ms(), batch);
                }
            }
        }
        finished.into_iter().for_each(|split| output.finish_split(split));
        Ok(poll)
    }

    fn pause_splits(&mut self, paused: &[bool]) -> bool {
        self.inner.pause_splits(paused)
    }

    fn snapshot(&mut self) -> Result<Vec<Split>> {
        self.inner.snapshot()
    }

    fn checkpoint_complete(&mut self, epoch: u64) -> Result<()> {
        self.inner.checkpoint_complete(epoch)
    }

    fn pending_records(&self) -> Option<u64> {
        self.inner.pending_records()
    }

    fn fetched_ms(&self) -> Option<i64> {
        self.inner.fetched_ms()
    }
}

/// The place of a column of event times.
pub(crate) fn time_column(schema: &SchemaRef, column: &str) -> Result<usize> {
    let place = schema.fields().iter().position(|field| field.name() == column);
    let place = place.ok_or_else(|| no_column(column, schema))?;
    match schema.field(place).data_type() {
        DataType::Int64 | DataType::Timestamp(TimeUnit::Millisecond, _) => Ok(place),
        other => Err(Error::input(format!("column `{column}` of type {other} is no event time"))
            .hint("event times are epoch ms as Int64, or timestamps in milliseconds")),
    }
}

/// A column of times as epoch ms.
pub(crate) fn times(rows: &RecordBatch, place: usize) -> Int64Array {
    let column = rows.column(place);
    match column.as_primitive_opt::<Int64Type>() {
        Some(times_ms) => times_ms.clone(),
        None => column.as_primitive::<TimestampMillisecondType>().reinterpret_cast(),
    }
}
