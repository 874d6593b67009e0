//! Deleting what is too old or too much: whole batches, from the beginning of a partition.

use tidemill_core::{Error, Result};

use crate::topic::Topic;

impl Topic {
    /// Deletes the batches retention no longer covers; how many records went. Appending does this too, every so often:
    /// call it for topics nobody appends to.
    pub fn enforce_retention(&self, _now_ms: i64) -> Result<u64> {
        Err(Error::bug("not written yet"))
    }
}
