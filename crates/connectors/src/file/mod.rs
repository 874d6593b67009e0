//! Files: reading lines from them, once or as they grow, or columns of files that describe their own records; and writing
//! part files exactly once.

mod avro;
mod bucket;
mod bucket_commit;
mod commit;
mod container;
mod fetch;
mod fit;
#[cfg(feature = "orc")]
mod orc;
mod parquet;
mod path;
mod sink;
mod source;

pub use avro::AvroFiles;
pub use bucket::{Bucket, BucketTime, ByRecord, ByTime, OneBucket};
pub use bucket_commit::BucketCommit;
pub use container::{Container, ContainerSource, Part, Records};
#[cfg(feature = "orc")]
pub use orc::OrcFiles;
pub use parquet::ParquetFiles;
pub use sink::FileSink;
pub use source::FileSource;
