//! Offsets: where partitions begin and end, where a time begins, and what groups have committed.

use std::collections::{BTreeMap, HashMap};

use kafka_protocol::messages::list_offsets_request::{ListOffsetsPartition, ListOffsetsTopic};
use kafka_protocol::messages::offset_commit_request::{OffsetCommitRequestPartition, OffsetCommitRequestTopic};
use kafka_protocol::messages::offset_fetch_request::OffsetFetchRequestTopic;
use kafka_protocol::messages::{GroupId, ListOffsetsRequest, OffsetCommitRequest, OffsetFetchRequest};
use kafka_protocol::protocol::StrBytes;
use tidemill_core::Result;

use super::cluster::{CONSUMER, Cluster, topic_name};
use super::failure::error_of;

/// An offset to be looked up.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum OffsetSpec {
    /// Of the oldest record kept.
    Earliest,
    /// Behind the newest record; behind the last committed one where uncommitted ones are not read.
    Latest,
    /// Of the first record with this timestamp (epoch ms) or a later one.
    Timestamp(i64),
}

impl OffsetSpec {
    fn timestamp(self) -> i64 {
        match self {
            OffsetSpec::Earliest => -2,
            OffsetSpec::Latest => -1,
            OffsetSpec::Timestamp(timestamp_ms) => timestamp_ms.max(0),
        }
    }
}

/// The offsets of partitions; `None` where no record has that timestamp or a later one.
pub fn list_offsets(
    cluster: &mut Cluster,
    partitions: &[(String, i32)],
    spec: OffsetSpec,
    read_committed: bool,
) -> Result<HashMap<(String, i32), Option<i64>>> {
    let mut by_leader: BTreeMap<i32, BTreeMap<&str, Vec<ListOffsetsPartition>>> = BTreeMap::new();
    for (topic, partition) in partitions {
        let leader = cluster.leader(topic, *partition)?;
        let wanted = ListOffsetsPartition::default()
            .with_partition_index(*partition)
            .with_current_leader_epoch(-1)
            .with_timestamp(spec.timestamp());
        by_leader.entry(leader).or_default().entry(topic).or_default().push(wanted);
    }
    let mut offsets = HashMap::with_capacity(partitions.len());
    for (leader, topics) in by_leader {
        let topics = topics
            .into_iter()
            .map(|(topic, partitions)| {
                ListOffsetsTopic::default().with_name(topic_name(topic)).with_partitions(partitions)
            })
            .collect();
        let request = ListOffsetsRequest::default()
            .with_replica_id(CONSUMER)
            .with_isolation_level(i8::from(read_committed))
            .with_topics(topics);
        for topic in cluster.call(leader, &request)?.topics {
            let name = topic.name.0.to_string();
            for partition in topic.partitions {
                let index = partition.partition_index;
                error_of(partition.error_code, || format!("look up an offset of partition {index} of `{name}`"))
                    .inspect_err(|_| cluster.forget())?;
                let offset = (partition.offset >= 0).then_some(partition.offset);
                offsets.insert((name.clone(), index), offset);
            }
        }
    }
    Ok(offsets)
}

/// What a group has committed for partitions; those it has nothing for are left out.
pub fn committed_offsets(
    cluster: &mut Cluster,
    group: &str,
    partitions: &[(String, i32)],
) -> Result<HashMap<(String, i32), i64>> {
    let mut topics: BTreeMap<&str, Vec<i32>> = BTreeMap::new();
    for (topic, partition) in partitions {
        topics.entry(topic).or_default().push(*partition);
    }
    let topics = topics
        .into_iter()
        .map(|(topic, partitions)| {
            OffsetFetchRequestTopic::default().with_name(topic_name(topic)).with_partition_indexes(partitions)
        })
        .collect();
    let request = OffsetFetchRequest::default()
        .with_group_id(group_id(group))
        .with_topics(Some(topics))
        .with_require_stable(true);
    let coordinator = cluster.group_coordinator(group)?;
    let answer = cluster.call(coordinator, &request)?;
    let doing = || format!("look up the offsets of the group `{group}`");
    error_of(answer.error_code, doing).inspect_err(|_| cluster.forget())?;
    let mut offsets = HashMap::new();
    for topic in answer.topics {
        for partition in topic.partitions {
            error_of(partition.error_code, doing).inspect_err(|_| cluster.forget())?;
            if partition.committed_offset >= 0 {
                offsets.insert((topic.name.0.to_string(), partition.partition_index), partition.committed_offset);
            }
        }
    }
    Ok(offsets)
}

/// Commits offsets to a group nobody is a member of: they are for those who watch, and for a later start.
pub fn commit_offsets(cluster: &mut Cluster, group: &str, offsets: &[(String, i32, i64)]) -> Result<()> {
    let mut topics: BTreeMap<&str, Vec<OffsetCommitRequestPartition>> = BTreeMap::new();
    for (topic, partition, offset) in offsets {
        let committed = OffsetCommitRequestPartition::default()
            .with_partition_index(*partition)
            .with_committed_offset(*offset)
            .with_committed_leader_epoch(-1)
            .with_committed_metadata(Some(StrBytes::default()));
        topics.entry(topic).or_default().push(committed);
    }
    let topics = topics
        .into_iter()
        .map(|(topic, partitions)| {
            OffsetCommitRequestTopic::default().with_name(topic_name(topic)).with_partitions(partitions)
        })
        .collect();
    let request = OffsetCommitRequest::default()
        .with_group_id(group_id(group))
        .with_generation_id_or_member_epoch(-1)
        .with_topics(topics);
    let coordinator = cluster.group_coordinator(group)?;
    let answer = cluster.call(coordinator, &request)?;
    for partition in answer.topics.iter().flat_map(|topic| &topic.partitions) {
        error_of(partition.error_code, || format!("commit offsets to the group `{group}`"))
            .inspect_err(|_| cluster.forget())?;
    }
    Ok(())
}

fn group_id(group: &str) -> GroupId {
    GroupId(StrBytes::from_string(group.to_string()))
}
