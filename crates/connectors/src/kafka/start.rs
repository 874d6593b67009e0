//! Where reading begins and ends, found out from the cluster once, before the first record.

use std::collections::{BTreeMap, HashMap};

use serde::{Deserialize, Serialize};
use tidemill_core::{Error, Result};

use super::client::{Cluster, OffsetSpec, committed_offsets, list_offsets};

/// Offsets by topic and partition.
pub type KafkaOffsets = BTreeMap<(String, i32), i64>;

/// What to do where there is no offset to go on from.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum KafkaReset {
    /// The job fails, with the partition named.
    Fail,
    /// Go on with the oldest record kept. The default.
    #[default]
    Earliest,
    /// Go on behind the newest record.
    Latest,
}

/// Where to begin; only asked when there is no position from a checkpoint. Partitions that appear later begin at their
/// oldest record whatever this says.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub enum KafkaStart {
    /// At the oldest record kept. The default.
    #[default]
    Earliest,
    /// Behind the newest record.
    Latest,
    /// At the first record with this timestamp (epoch ms) or a later one; behind the newest where there is none.
    Timestamp(i64),
    /// At what the group has committed; what else where it has committed nothing.
    GroupOffsets(KafkaReset),
    /// At these offsets; what else in partitions not named.
    Offsets(KafkaOffsets, KafkaReset),
}

/// Where to end. With one the source is bounded.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum KafkaStop {
    /// Behind what is the newest record when the job starts.
    Latest,
    /// In front of the first record with this timestamp (epoch ms) or a later one; when there is none, behind what is the newest
    /// record when the job starts.
    Timestamp(i64),
    /// In front of these offsets; partitions not named are read to what is their newest record when the job starts.
    Offsets(KafkaOffsets),
    /// In front of what the group had committed when the job starts; nothing is read from partitions without.
    GroupOffsets,
}

/// Where to go on in a partition.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct KafkaPosition {
    /// The next offset; [`OLDEST`] until it is found out.
    pub next: i64,
    /// Where a bounded source ends; in the position, because it must not move with a restart.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub end: Option<i64>,
}

/// In place of an offset: that of the oldest record, whatever it will be when reading begins.
pub const OLDEST: i64 = -2;

/// What is asked about offsets.
pub struct Finder<'a> {
    pub cluster: &'a mut Cluster,
    pub group: Option<&'a str>,
    pub read_committed: bool,
}

type Found = HashMap<(String, i32), i64>;

impl Finder<'_> {
    /// Where to begin in each of `partitions`.
    pub fn starts(&mut self, start: &KafkaStart, partitions: &[(String, i32)]) -> Result<Found> {
        match start {
            KafkaStart::Earliest => Ok(partitions.iter().map(|partition| (partition.clone(), OLDEST)).collect()),
            KafkaStart::Latest => self.latest(partitions),
            KafkaStart::Timestamp(timestamp_ms) => self.at_timestamp(*timestamp_ms, partitions),
            KafkaStart::GroupOffsets(reset) => {
                let group = self.group()?.to_string();
                let known = committed_offsets(self.cluster, &group, partitions)?;
                self.or_reset(known, *reset, partitions, &format!("the group `{group}` has committed no offset"))
            }
            KafkaStart::Offsets(offsets, reset) => {
                let known = offsets.iter().map(|(partition, offset)| (partition.clone(), *offset)).collect();
                self.or_reset(known, *reset, partitions, "no offset to start at is given")
            }
        }
    }

    /// Where to end in each of `partitions`.
    pub fn ends(&mut self, stop: &KafkaStop, partitions: &[(String, i32)]) -> Result<Found> {
        match stop {
            KafkaStop::Latest => self.latest(partitions),
            KafkaStop::Timestamp(timestamp_ms) => self.at_timestamp(*timestamp_ms, partitions),
            KafkaStop::Offsets(offsets) => {
                let mut found = self.latest(partitions)?;
                for (partition, offset) in offsets {
                    if let Some(end) = found.get_mut(partition) {
                        *end = *offset;
                    }
                }
                Ok(found)
            }
            KafkaStop::GroupOffsets => {
                let group = self.group()?.to_string();
                let mut found = committed_offsets(self.cluster, &group, partitions)?;
                for partition in partitions {
                    found.entry(partition.clone()).or_insert(0);
                }
                Ok(found)
            }
        }
    }

    fn group(&self) -> Result<&str> {
        self.group.ok_or_else(|| {
            Error::input("offsets of a group are asked for, but no group is given").hint("name it with `group_id(…)`")
        })
    }

    fn latest(&mut self, partitions: &[(String, i32)]) -> Result<Found> {
        let found = list_offsets(self.cluster, partitions, OffsetSpec::Latest, self.read_committed)?;
        Ok(found.into_iter().filter_map(|(partition, offset)| Some((partition, offset?))).collect())
    }

    fn at_timestamp(&mut self, timestamp_ms: i64, partitions: &[(String, i32)]) -> Result<Found> {
        let mut found = self.latest(partitions)?;
        let spec = OffsetSpec::Timestamp(timestamp_ms);
        for (partition, offset) in list_offsets(self.cluster, partitions, spec, self.read_committed)? {
            if let Some(offset) = offset {
                found.insert(partition, offset);
            }
        }
        Ok(found)
    }

    fn or_reset(
        &mut self,
        mut known: Found,
        reset: KafkaReset,
        partitions: &[(String, i32)],
        why: &str,
    ) -> Result<Found> {
        let missing: Vec<(String, i32)> =
            partitions.iter().filter(|partition| !known.contains_key(*partition)).cloned().collect();
        match (reset, missing.first()) {
            (_, None) => {}
            (KafkaReset::Fail, Some((topic, partition))) => {
                return Err(Error::input(format!("{why} for partition {partition} of `{topic}`"))
                    .hint("give one, or say with a `KafkaReset` where to begin instead"));
            }
            (KafkaReset::Earliest, _) => known.extend(missing.into_iter().map(|partition| (partition, OLDEST))),
            (KafkaReset::Latest, _) => known.extend(self.latest(&missing)?),
        }
        Ok(known)
    }
}
