//! The manifest of a checkpoint: JSON, versioned, naming every piece of state with its place, length and checksum. Its last
//! field is the checksum of all that stands before it, so that one damaged bit is noticed.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use tidemill_core::{Error, Result};

use crate::key::{Coarse, GroupRange, KEY_GROUPS, groups_of};
use crate::state::{EntryShapes, SectionKind};

/// The version this program writes. Fixtures of every version ever released are read by the tests.
pub const VERSION: u32 = 3;

/// Versions this program reads. Version 1 knew no removals and no files shared by several checkpoints, version 2 no checksum of
/// the manifest itself.
pub const READABLE: std::ops::RangeInclusive<u32> = 1..=VERSION;

/// What to do about a checkpoint that is damaged.
pub(super) const DAMAGED: &str = "restore its files, or move its folder away: a job then goes on from the checkpoint before, and \
    publishes again what it has published since";

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
    /// Key groups its ranges are counted in. Those of an older manifest, written in fewer, are turned into ours as it is read.
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
    /// What the entries of its states are, as far as the program could tell.
    #[serde(default, skip_serializing_if = "EntryShapes::is_empty")]
    pub shapes: EntryShapes,
    /// What its sink subtasks have pre-committed and not yet published, oldest first.
    #[serde(default)]
    pub tokens: Vec<TokenEntry>,
}

impl OperatorState {
    /// The key groups a keyed section can hold keys of: what it says itself, else those its subtask owned, all when that is not known.
    pub(super) fn key_groups_of(&self, place: &SectionPlace) -> GroupRange {
        let own = || (self.parallelism > 0).then(|| groups_of(place.subtask, self.parallelism)).flatten();
        place.groups.or_else(own).unwrap_or((0, KEY_GROUPS - 1))
    }
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

/// The field with the checksum: eight hexadecimal digits, then the end of the object.
const CHECKSUM: &str = ",\"crc32\":\"";
const CHECKSUM_BYTES: usize = CHECKSUM.len() + "01234567\"}".len();

fn checksum(bytes: &[u8]) -> String {
    format!("{CHECKSUM}{:08x}\"}}", crc32fast::hash(bytes))
}

impl Manifest {
    /// The manifest as it is saved.
    pub fn bytes(&self) -> Result<Vec<u8>> {
        let mut bytes =
            serde_json::to_vec(self).map_err(|e| Error::bug(format!("the manifest cannot be written as JSON: {e}")))?;
        bytes.pop();
        let checksum = checksum(&bytes);
        bytes.extend_from_slice(checksum.as_bytes());
        Ok(bytes)
    }

    /// Reads a manifest; `place` is named in errors.
    pub fn parse(bytes: &[u8], place: &str) -> Result<Self> {
        #[derive(Deserialize)]
        struct Version {
            version: u32,
        }
        let damaged = |what: String| Error::corrupt(format!("the manifest `{place}` is damaged: {what}")).hint(DAMAGED);
        let (checked, end) = bytes.split_at(bytes.len().saturating_sub(CHECKSUM_BYTES));
        let has_checksum = end.starts_with(CHECKSUM.as_bytes());
        if has_checksum && end != checksum(checked).as_bytes() {
            return Err(damaged("its checksum does not fit".to_string()));
        }
        let Version { version } = serde_json::from_slice(bytes).map_err(|e| damaged(e.to_string()))?;
        if !READABLE.contains(&version) {
            return Err(Error::input(format!(
                "`{place}` has manifest version {version}, this program reads versions {} to {VERSION}",
                READABLE.start()
            ))
            .hint("use the Tidemill version that wrote it"));
        }
        if version > 2 && !has_checksum {
            return Err(damaged("it has no checksum".to_string()));
        }
        let manifest: Manifest = serde_json::from_slice(bytes).map_err(|e| damaged(e.to_string()))?;
        let key_groups = manifest.key_groups;
        manifest.in_our_key_groups().ok_or_else(|| {
            Error::input(format!(
                "`{place}` was written with {key_groups} key groups, this program reads powers of two up to {KEY_GROUPS}"
            ))
            .hint("use the Tidemill version that wrote it")
        })
    }

    fn in_our_key_groups(mut self) -> Option<Self> {
        if self.key_groups == KEY_GROUPS {
            return Some(self);
        }
        let coarse = Coarse::new(self.key_groups)?;
        for operator in self.operators.values_mut() {
            let parallelism = operator.parallelism;
            for section in operator.sections.iter_mut().filter(|section| section.kind == SectionKind::Keyed) {
                section.groups = match section.groups {
                    Some(groups) => Some(coarse.range(groups)),
                    // What its subtask owned then is not what it would own now.
                    None if parallelism > 0 => coarse.groups_of(section.subtask, parallelism),
                    None => None,
                };
            }
        }
        self.key_groups = KEY_GROUPS;
        Some(self)
    }

    /// Bytes of state it names.
    pub fn state_bytes(&self) -> u64 {
        self.operators.values().flat_map(|operator| &operator.sections).map(|section| section.length).sum()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn manifest(key_groups: u64) -> Vec<u8> {
        let section = |subtask: usize, kind: &str, groups: Option<GroupRange>| {
            serde_json::json!({
                "subtask": subtask, "name": "s", "kind": kind, "entries": 0, "file": "f", "offset": 0, "length": 0,
                "crc32": 0, "groups": groups,
            })
        };
        let sections = [section(1, "keyed", None), section(0, "keyed", Some((5, 6))), section(0, "operator", None)];
        let manifest = serde_json::json!({
            "version": 2, "job_id": "j", "job_name": "j", "epoch": 1, "kind": "savepoint", "created_ms": 0,
            "key_groups": key_groups, "operators": { "a": { "parallelism": 3, "sections": sections } },
        });
        serde_json::to_vec(&manifest).unwrap()
    }

    #[test]
    fn one_damaged_bit_is_noticed_and_so_is_a_missing_end() {
        let whole = Manifest { version: VERSION, ..Manifest::parse(&manifest(KEY_GROUPS), "it").unwrap() };
        let bytes = whole.bytes().unwrap();
        assert_eq!(Manifest::parse(&bytes, "it").unwrap(), whole);
        for bit in 0..8 * bytes.len() {
            let mut damaged = bytes.clone();
            damaged[bit / 8] ^= 1 << (bit % 8);
            let refused = Manifest::parse(&damaged, "it").expect_err("damaged").to_string();
            assert!(refused.contains("`it` is damaged"), "bit {bit}: {refused}");
        }
        for end in 0..bytes.len() {
            let refused = Manifest::parse(&bytes[..end], "it").expect_err("cut").to_string();
            assert!(refused.contains("`it` is damaged") && refused.contains("move its folder away"), "{refused}");
        }
    }

    #[test]
    fn ranges_of_fewer_key_groups_are_read_in_ours() {
        let read = Manifest::parse(&manifest(128), "it").unwrap();
        let groups: Vec<_> = read.operators["a"].sections.iter().map(|section| section.groups).collect();
        // The second of three subtasks owned 43 to 85 of 128.
        assert_eq!(groups, [Some((43 * 256, 86 * 256 - 1)), Some((5 * 256, 7 * 256 - 1)), None]);
        assert_eq!(read.key_groups, KEY_GROUPS);

        let read = Manifest::parse(&manifest(KEY_GROUPS), "it").unwrap();
        let groups: Vec<_> = read.operators["a"].sections.iter().map(|section| section.groups).collect();
        assert_eq!(groups, [None, Some((5, 6)), None]);

        let refused = Manifest::parse(&manifest(100), "it").unwrap_err().to_string();
        assert!(refused.contains("`it` was written with 100 key groups") && refused.contains("32768"), "{refused}");
    }
}
