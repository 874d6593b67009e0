//! How records of an edge are spread over the subtasks of the next operator.

use tidemill_core::Data;

use crate::driver::Records;
use crate::key::{Key, key_group, owner};

/// Spreads one batch over per-subtask buffers. One dispatch a batch.
pub(crate) trait Partition<T> {
    /// `buffers[i]` goes to subtask i; only the first `parallelism` of the next operator may be filled.
    fn scatter(&mut self, batch: Records<T>, buffers: &mut [Records<T>]);
}

/// Makes the partitioner of one sending subtask.
pub(crate) trait PartitionFactory<T>: Send + Sync {
    /// `subtask` of `senders` sends to `receivers` subtasks.
    fn make(&self, subtask: usize, senders: usize, receivers: usize) -> Box<dyn Partition<T>>;
}

/// A subtask sends to the one of its own number; round robin where the parallelism changes.
pub(crate) struct Forward;
/// Round robin.
pub(crate) struct Rebalance;
/// Everything to every subtask.
pub(crate) struct Broadcast;
/// Everything to the first subtask.
pub(crate) struct Global;
/// By key group.
pub(crate) struct ByKeyGroup<G>(std::sync::Mutex<G>);

impl<G> ByKeyGroup<G> {
    /// `group` tells the key group of a record.
    pub fn new(group: G) -> Self {
        ByKeyGroup(std::sync::Mutex::new(group))
    }
}

/// By key group of a key.
pub(crate) fn by_key<T: Data, K: Key>(
    mut selector: impl FnMut(&T) -> K + Clone + Send + 'static,
) -> impl PartitionFactory<T> + 'static {
    ByKeyGroup::new(move |value: &T| key_group(&selector(value)))
}

struct To(usize);
impl<T> Partition<T> for To {
    fn scatter(&mut self, mut batch: Records<T>, buffers: &mut [Records<T>]) {
        buffers[self.0].append(&mut batch);
    }
}

struct Round {
    next: usize,
    parallelism: usize,
}
impl<T> Partition<T> for Round {
    fn scatter(&mut self, batch: Records<T>, buffers: &mut [Records<T>]) {
        for record in batch {
            buffers[self.next].push(record);
            self.next += 1;
            if self.next == self.parallelism {
                self.next = 0;
            }
        }
    }
}

struct All(usize);
impl<T: Clone> Partition<T> for All {
    fn scatter(&mut self, mut batch: Records<T>, buffers: &mut [Records<T>]) {
        for buffer in &mut buffers[1..self.0] {
            buffer.extend_from_slice(&batch);
        }
        buffers[0].append(&mut batch);
    }
}

struct Keyed<G> {
    group: G,
    /// Key group to subtask.
    owners: Vec<usize>,
}
impl<T, G: FnMut(&T) -> u64> Partition<T> for Keyed<G> {
    fn scatter(&mut self, batch: Records<T>, buffers: &mut [Records<T>]) {
        for record in batch {
            let to = self.owners[(self.group)(&record.1) as usize];
            buffers[to].push(record);
        }
    }
}

impl<T: Data> PartitionFactory<T> for Forward {
    fn make(&self, subtask: usize, senders: usize, receivers: usize) -> Box<dyn Partition<T>> {
        if senders == receivers { Box::new(To(subtask)) } else { Rebalance.make(subtask, senders, receivers) }
    }
}
impl<T: Data> PartitionFactory<T> for Rebalance {
    fn make(&self, subtask: usize, _senders: usize, receivers: usize) -> Box<dyn Partition<T>> {
        Box::new(Round { next: subtask % receivers, parallelism: receivers })
    }
}
impl<T: Data> PartitionFactory<T> for Broadcast {
    fn make(&self, _subtask: usize, _senders: usize, receivers: usize) -> Box<dyn Partition<T>> {
        Box::new(All(receivers))
    }
}
impl<T: Data> PartitionFactory<T> for Global {
    fn make(&self, _subtask: usize, _senders: usize, _receivers: usize) -> Box<dyn Partition<T>> {
        Box::new(To(0))
    }
}
impl<T: Data, G: FnMut(&T) -> u64 + Clone + Send + 'static> PartitionFactory<T> for ByKeyGroup<G> {
    fn make(&self, _subtask: usize, _senders: usize, receivers: usize) -> Box<dyn Partition<T>> {
        let group = self.0.lock().unwrap_or_else(std::sync::PoisonError::into_inner).clone();
        if receivers == 1 {
            return Box::new(To(0));
        }
        let owners = (0..crate::key::KEY_GROUPS).map(|group| owner(group, receivers)).collect();
        Box::new(Keyed { group, owners })
    }
}
