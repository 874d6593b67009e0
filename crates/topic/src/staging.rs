//! Two-phase output: records of a job are stored durably but nobody sees them until the checkpoint they belong to is
//! complete.

use tidemill_core::{Error, Result};

use crate::topic::{NewRecord, Topic};

/// Names the staged output of one subtask in one epoch of one attempt of a job.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct StageId {
    /// Job and sink; what [`Topic::recover`] cleans up.
    pub scope: String,
    /// The epoch.
    pub epoch: u64,
    /// The subtask.
    pub subtask: u32,
    /// The attempt of the job, so that leftovers of an earlier one are never committed with a later one's.
    pub attempt: u64,
}

impl StageId {
    /// The bytes that go into a checkpoint.
    pub fn token(&self) -> Vec<u8> {
        Vec::new()
    }
}

impl Topic {
    /// Stores records durably without showing them. May be called several times for one id: the records add up.
    pub fn stage(&self, _id: &StageId, _records: &[NewRecord<'_>]) -> Result<()> {
        Err(Error::bug("not written yet"))
    }

    /// Makes the staged records of `tokens` visible, in one transaction, in the order of the tokens. A token committed
    /// before changes nothing. `Kind::Corrupt` for bytes that are no token.
    pub fn commit(&self, _tokens: &[Vec<u8>], _now_ms: i64) -> Result<()> {
        Err(Error::bug("not written yet"))
    }

    /// Commits `tokens` and deletes everything else staged under `scope`, in one transaction.
    pub fn recover(&self, _scope: &str, _tokens: &[Vec<u8>], _now_ms: i64) -> Result<()> {
        Err(Error::bug("not written yet"))
    }
}
