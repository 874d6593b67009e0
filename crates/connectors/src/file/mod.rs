//! Files: reading lines from them, once or as they grow, and writing part files exactly once.

mod bucket;
mod fetch;
mod path;
mod sink;
mod source;

pub use bucket::{Bucket, BucketTime, ByRecord, ByTime, OneBucket};
pub use sink::FileSink;
pub use source::FileSource;
