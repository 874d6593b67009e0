//! ORC files as columns (feature `orc`): only the columns asked for are read, by name.
//!
//! The library that reads them has Arrow of another version than the rest of this program; its batches come over by Arrow's
//! own format for that, a copy of each.

use std::fs::File;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;

use arrow_array::RecordBatch;
use arrow_ipc::reader::StreamReader;
use arrow_of_orc::{RecordBatch as OrcBatch, RecordBatchReader};
use arrow_schema::SchemaRef;
use ipc_of_orc::writer::StreamWriter;
use orc_rust::projection::ProjectionMask;
use orc_rust::{ArrowReaderBuilder, TimestampPrecision};
use tidemill_core::columns::failed;
use tidemill_core::{Error, Result};

use super::container::{BATCH_ROWS, Container, Records};
use super::fit::{Fitted, check_fits};
use crate::format::columns::Rows;

/// ORC files, read as columns of a schema: a column of the file goes to the one of its name; one that is not in the file is
/// null where the schema allows it; other columns are not read. Stripes may be packed by zlib, Snappy, LZO, LZ4 or Zstandard.
///
/// Columns are `Boolean`, `Int32` (also days of a date), `Int64`, `Float64`, `Utf8`, `Decimal128` (of the same scale), and timestamps
/// in milliseconds; narrower numbers and finer timestamps are converted. A row with a null where the schema allows none goes to
/// the dead letters; a damaged stripe fails the job. Stripes before a position are not read again.
#[derive(Debug, Clone)]
pub struct OrcFiles {
    schema: SchemaRef,
}

impl OrcFiles {
    /// The columns of this schema. An error if one has another type than those above.
    pub fn new(schema: SchemaRef) -> Result<Self> {
        Rows::new(schema.clone())?;
        Ok(OrcFiles { schema })
    }
}

/// What the library makes of a file. It panics at some damaged ones.
fn read<T, E: std::fmt::Display>(what: impl FnOnce() -> std::result::Result<T, E>) -> Result<T> {
    let told = |why: &dyn std::fmt::Display| Error::input(format!("not to be read as ORC: {why}"));
    match catch_unwind(AssertUnwindSafe(what)) {
        Ok(read) => read.map_err(|error| told(&error)),
        Err(_) => Err(told(&"it is damaged")),
    }
}

/// A batch as one of our Arrow.
fn ours(batch: &OrcBatch) -> Result<RecordBatch> {
    let mut bytes = Vec::new();
    let write = |mut writer: StreamWriter<&mut Vec<u8>>| {
        writer.write(batch)?;
        writer.finish()
    };
    let written = StreamWriter::try_new(&mut bytes, &batch.schema()).and_then(write);
    written.map_err(|error| Error::bug(format!("a batch cannot be written as Arrow: {error}")))?;
    let mut batches = StreamReader::try_new(bytes.as_slice(), None).map_err(failed)?;
    batches.next().ok_or_else(|| Error::bug("a batch is lost between two versions of Arrow"))?.map_err(failed)
}

impl Container for OrcFiles {
    fn schema(&self) -> &SchemaRef {
        &self.schema
    }

    fn open(&self, path: &Path, records: u64) -> Result<Box<dyn Records>> {
        let file = File::open(path).map_err(|error| Error::io("open it", error))?;
        // In nanoseconds there is no time before 1677 or behind 2262.
        let builder =
            read(|| ArrowReaderBuilder::try_new(file))?.with_timestamp_precision(TimestampPrecision::Microsecond);
        let metadata = builder.file_metadata();
        if records > metadata.number_of_rows() {
            return Err(Error::input(format!("it has only {} records", metadata.number_of_rows())));
        }
        let root = metadata.root_data_type();
        let asked = |name: &str| self.schema.column_with_name(name).is_some();
        let mut names: Vec<&str> =
            root.children().iter().map(|column| column.name()).filter(|name| asked(name)).collect();
        if names.is_empty() {
            // Rows are counted by a column.
            names.extend(root.children().first().map(|column| column.name()));
        }
        let mask = ProjectionMask::named_roots(root, &names);
        // Of the stripes it begins with the one the position is in.
        let (mut passed, mut from) = (records, 0);
        for stripe in metadata.stripe_metadatas() {
            if passed < stripe.number_of_rows() {
                break;
            }
            passed -= stripe.number_of_rows();
            from = stripe.offset() + 1;
        }
        let from = usize::try_from(from).unwrap_or(usize::MAX);
        let builder = builder.with_projection(mask).with_batch_size(BATCH_ROWS).with_file_byte_range(from..usize::MAX);
        let mut batches = read(|| Ok::<_, Error>(builder.build()))?;
        for found in ours(&OrcBatch::new_empty(batches.schema()))?.schema().fields() {
            if let Some((_, wanted)) = self.schema.column_with_name(found.name()) {
                check_fits(wanted, found.data_type())?;
            }
        }
        let next = move || read(|| batches.next().transpose()).transpose();
        let batches = std::iter::from_fn(next).map(|batch| ours(&batch?));
        Ok(Box::new(Fitted::behind(passed, batches, self.schema.clone())))
    }
}
