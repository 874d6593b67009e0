//! Parquet files as columns: only the columns asked for are read, by name.

use std::fs::File;
use std::path::Path;

use arrow_schema::SchemaRef;
use parquet::arrow::ProjectionMask;
use parquet::arrow::arrow_reader::{ArrowReaderOptions, ParquetRecordBatchReaderBuilder};
use tidemill_core::{Error, Result};

use super::container::{BATCH_ROWS, Container, Records};
use super::fit::{Fitted, check_fits};
use crate::format::columns::Rows;

/// Parquet files, read as columns of a schema: a column of the file goes to the one of its name; one that is not in the file is
/// null where the schema allows it; other columns are not read. Pages may be packed by Snappy, gzip, LZ4 or Zstandard.
///
/// Columns are `Boolean`, `Int32` (also days of a date), `Int64`, `Float64`, `Utf8`, `Decimal128` (of the same scale), and timestamps
/// in milliseconds; narrower numbers and timestamps of other units are converted. A row with a null where the schema allows
/// none goes to the dead letters; a damaged page fails the job. Row groups before a position are not read again.
#[derive(Debug, Clone)]
pub struct ParquetFiles {
    schema: SchemaRef,
}

impl ParquetFiles {
    /// The columns of this schema. An error if one has another type than those above.
    pub fn new(schema: SchemaRef) -> Result<Self> {
        Rows::new(schema.clone())?;
        Ok(ParquetFiles { schema })
    }
}

fn refused(error: impl std::fmt::Display) -> Error {
    Error::input(format!("not to be read as Parquet: {error}"))
}

impl Container for ParquetFiles {
    fn schema(&self) -> &SchemaRef {
        &self.schema
    }

    fn open(&self, path: &Path, records: u64) -> Result<Box<dyn Records>> {
        let file = File::open(path).map_err(|error| Error::io("open it", error))?;
        // Its columns as Parquet says, not as the Arrow program that wrote it saw them.
        let options = ArrowReaderOptions::new().with_skip_arrow_metadata(true);
        let builder = ParquetRecordBatchReaderBuilder::try_new_with_options(file, options).map_err(refused)?;
        let in_file = u64::try_from(builder.metadata().file_metadata().num_rows()).unwrap_or(0);
        if records > in_file {
            return Err(Error::input(format!("it has only {in_file} records")));
        }
        let mut places = Vec::new();
        for column in self.schema.fields() {
            let Some((place, found)) = builder.schema().column_with_name(column.name()) else { continue };
            check_fits(column, found.data_type())?;
            places.push(place);
        }
        let mask = ProjectionMask::roots(builder.parquet_schema(), places);
        // A batch begins where it would have begun in a reading from the beginning.
        let passed = records % BATCH_ROWS as u64;
        let offset = usize::try_from(records - passed).map_err(refused)?;
        let reader = builder.with_projection(mask).with_batch_size(BATCH_ROWS).with_offset(offset).build();
        let batches = reader.map_err(refused)?.map(|batch| batch.map_err(refused));
        Ok(Box::new(Fitted::behind(passed, batches, self.schema.clone())))
    }
}
