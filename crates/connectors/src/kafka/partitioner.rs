//! Which partition a record goes to.

use std::sync::Arc;

use tidemill_topic::partition_for;

/// Chooses a partition by the record and the number of partitions; what is out of range wraps around.
pub type ChoosePartition<T> = Arc<dyn Fn(&T, usize) -> usize + Send + Sync>;

/// How records are spread over the partitions of their topic.
pub enum KafkaPartitioner<T> {
    /// By the hash of the key, as Kafka's own producers do (murmur2); records without a key as with `Sticky`. The default.
    KeyHash,
    /// One partition until a batch is full or nothing more waits, then the next: the fewest and largest batches.
    Sticky,
    /// Each record to the next partition.
    RoundRobin,
    /// All records of a subtask to one partition (Flink's fixed partitioner).
    Subtask,
    /// As a function says.
    By(ChoosePartition<T>),
}

impl<T> Clone for KafkaPartitioner<T> {
    fn clone(&self) -> Self {
        match self {
            KafkaPartitioner::KeyHash => KafkaPartitioner::KeyHash,
            KafkaPartitioner::Sticky => KafkaPartitioner::Sticky,
            KafkaPartitioner::RoundRobin => KafkaPartitioner::RoundRobin,
            KafkaPartitioner::Subtask => KafkaPartitioner::Subtask,
            KafkaPartitioner::By(choose) => KafkaPartitioner::By(Arc::clone(choose)),
        }
    }
}

impl<T> KafkaPartitioner<T> {
    /// The partition of a record, of `count`. `turn` is the one whose turn it is, and is moved on where records take turns.
    #[inline]
    pub fn choose(&self, record: &T, key: Option<&[u8]>, count: usize, subtask: usize, turn: &mut usize) -> usize {
        match (self, key) {
            (KafkaPartitioner::KeyHash, Some(key)) => partition_for(key, count as u32) as usize,
            (KafkaPartitioner::KeyHash | KafkaPartitioner::Sticky, _) => *turn % count,
            (KafkaPartitioner::RoundRobin, _) => {
                *turn = turn.wrapping_add(1);
                *turn % count
            }
            (KafkaPartitioner::Subtask, _) => subtask % count,
            (KafkaPartitioner::By(choose), _) => choose(record, count) % count,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn records_go_where_they_are_told() {
        let by = |partitioner: &KafkaPartitioner<u8>, record: u8, key: Option<&[u8]>, turn: &mut usize| {
            partitioner.choose(&record, key, 4, 5, turn)
        };
        let mut turn = 6;
        // What Kafka's own producer says for these keys.
        let hashed: Vec<usize> = [&b"21"[..], b"foobar", b"a-little-bit-long-string", b"abc"]
            .map(|key| by(&KafkaPartitioner::KeyHash, 0, Some(key), &mut turn))
            .to_vec();
        let murmur2: [i32; 4] = [-973932308, -790332482, -985981536, 479470107];
        assert_eq!(hashed, murmur2.map(|hash| ((hash & 0x7fff_ffff) % 4) as usize));
        assert_eq!(by(&KafkaPartitioner::KeyHash, 0, None, &mut turn), 2);
        assert_eq!(by(&KafkaPartitioner::Sticky, 0, Some(b"21"), &mut turn), 2);
        assert_eq!(by(&KafkaPartitioner::Subtask, 0, Some(b"21"), &mut turn), 1);
        assert_eq!(by(&KafkaPartitioner::By(Arc::new(|record, _| usize::from(*record))), 7, None, &mut turn), 3);
        assert_eq!([(); 3].map(|()| by(&KafkaPartitioner::RoundRobin, 0, None, &mut turn)), [3, 0, 1]);
    }
}
