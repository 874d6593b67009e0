//! The manifest of a checkpoint: JSON, versioned, naming every piece of state with its place, length and checksum.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use tidemill_core::{Error, Result};

use crate::key::GroupRange;
use crate::state::SectionKind;

/// The version this program writes. Fixtures of every version ever released are read by the tests.
pub const VERSION: u32 = 2;

/// Versions this program reads. Version 1 knew no removals and no files shared by several checkpoints.
pub const READABLE: std::ops::RangeInclusive<u32> = 1..=VERSION;

/// What a checkpoint holds.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Manifest {
    /// The manifest's format.
    pub version: u32,
    /// The job that wrote it.
    pub job_id: String,
    /// The job's name.
    pub job_name: String,
    /// The epoch it closes; a restored job goes on with the next.
    pub epoch: u64,
    /// `checkpoint` or `savepoint`.
    pub kind: String,
    /// When it was complete, epoch ms.
    pub created_ms: i64,
    /// Key groups of the job.
    pub key_groups: u64,
    /// State by operator uid.
    pub operators: BTreeMap<String, OperatorState>,
}

/// One operator's state.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct OperatorState {
    /// Subtasks that wrote it; 0 when not known.
    #[serde(default)]
    pub parallelism: usize,
    /// Pieces of state of all subtasks; those of one subtask and name in the order they are to be read.
    #[serde(default)]
    pub sections: Vec<SectionPlace>,
    /// What its sink subtasks have pre-committed and not yet published, oldest first.
    #[serde(default)]
    pub tokens: Vec<TokenEntry>,
}

/// Where a piece of state stands.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct SectionPlace {
    /// The subtask that wrote it.
    pub subtask: usize,
    /// The state's name.
    pub name: String,
    /// How it is divided among subtasks.
    pub kind: SectionKind,
    /// Entries in it.
    pub entries: u64,
    /// File, from the checkpoint's folder; one in `../shared` may be named by several checkpoints.
    pub file: String,
    /// First byte.
    pub offset: u64,
    /// Bytes.
    pub length: u64,
    /// CRC-32 of the bytes.
    pub crc32: u32,
    /// The entries are keys that sections before this one hold and that are gone.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub removal: bool,
    /// Only entries of these key groups count: the first and the last of them.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub groups: Option<GroupRange>,
}

/// A sink's token, as hexadecimal digits.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct TokenEntry {
    /// The subtask whose output it publishes.
    pub subtask: usize,
    /// The token.
    pub token: String,
}

impl TokenEntry {
    /// An entry for a token.
    pub fn new(subtask: usize, token: &[u8]) -> Self {
        TokenEntry { subtask, token: token.iter().map(|byte| format!("{byte:02x}")).collect() }
    }

    /// The token's bytes.
    pub fn bytes(&self) -> Result<Vec<u8>> {
        let digits = self.token.as_bytes();
        digits
            .chunks(2)
            .map(|pair| {
                std::str::from_utf8(pair).ok().filter(|p| p.len() == 2).and_then(|p| u8::from_str_radix(p, 16).ok())
            })
            .collect::<Option<Vec<u8>>>()
            .ok_or_else(|| Error::corrupt("a sink's token in the manifest is not made of hexadecimal digits"))
    }
}

impl Manifest {
    /// Reads a manifest; `place` is named in errors.
    pub fn parse(bytes: &[u8], place: &str) -> Result<Self> {
        #[derive(Deserialize)]
        struct Version {
            version: u32,
        }
        let Version { version } =
            serde_json::from_slice(bytes).map_err(|e| Error::corrupt(format!("`{place}` is not a manifest: {e}")))?;
        if !READABLE.contains(&version) {
            return Err(Error::input(format!(
                "`{place}` has manifest version {version}, this program reads versions {} to {VERSION}",
                READABLE.start()
            ))
            .hint("use the Tidemill version that wrote it"));
        }
        serde_json::from_slice(bytes).map_err(|e| Error::corrupt(format!("`{place}` is not a whole manifest: {e}")))
    }

    /// Bytes of state it names.
    pub fn state_bytes(&self) -> u64 {
        self.operators.values().flat_map(|operator| &operator.sections).map(|section| section.length).sum()
    }
}
