//! How records of an edge are spread over the subtasks of the next operator.

use tidemill_core::{Data, Error, Result};

use super::selector::KeySelector;
use crate::driver::Records;
use crate::key::{Key, owner};

/// Spreads one batch over per-subtask buffers. One dispatch a batch.
pub(crate) trait Partition<T> {
    /// `buffers[i]` goes to subtask i; only the first `parallelism` of the next operator may be filled.
    fn scatter(&mut self, batch: Records<T>, buffers: &mut [Records<T>]) -> Result<()>;
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
/// Round robin over a part of the receivers: each sender has its own, so that records stay near (Flink's pointwise edges).
pub(crate) struct Rescale;
/// To a receiver by chance; the seed makes a run repeatable.
pub(crate) struct Shuffle {
    pub seed: u64,
}
/// To the receiver a function names.
pub(crate) struct Custom<F>(std::sync::Mutex<F>);

impl<F> Custom<F> {
    /// `receiver` tells the receiver of a record among so many.
    pub fn new(receiver: F) -> Self {
        Custom(std::sync::Mutex::new(receiver))
    }
}

/// By key group.
pub(crate) struct ByKeyGroup<G>(std::sync::Mutex<G>);

impl<G> ByKeyGroup<G> {
    /// `group` tells the key group of a record.
    pub fn new(group: G) -> Self {
        ByKeyGroup(std::sync::Mutex::new(group))
    }
}

/// By key group of a key.
pub(crate) fn by_key<T: Data, K: Key>(mut selector: impl KeySelector<T, K>) -> impl PartitionFactory<T> + 'static {
    ByKeyGroup::new(move |value: &T| selector.key_group(value))
}

/// Gives buffers without memory as much as they mostly come to hold: what travels together, and a part of the batch that
/// makes them full. Growing by steps would copy the records.
fn make_room<T>(records: usize, buffers: &mut [Records<T>]) {
    for buffer in buffers.iter_mut().filter(|buffer| buffer.capacity() == 0) {
        buffer.reserve_exact(records + records / 2);
    }
}

struct To(usize);
impl<T> Partition<T> for To {
    fn scatter(&mut self, mut batch: Records<T>, buffers: &mut [Records<T>]) -> Result<()> {
        let buffer = &mut buffers[self.0];
        if buffer.is_empty() {
            *buffer = batch;
        } else {
            buffer.append(&mut batch);
        }
        Ok(())
    }
}

struct Round {
    next: usize,
    /// The receivers that take part.
    among: std::ops::Range<usize>,
}
impl<T> Partition<T> for Round {
    fn scatter(&mut self, batch: Records<T>, buffers: &mut [Records<T>]) -> Result<()> {
        make_room(batch.len(), &mut buffers[self.among.clone()]);
        batch.into_iter().for_each(|record| {
            buffers[self.next].push(record);
            self.next += 1;
            if self.next == self.among.end {
                self.next = self.among.start;
            }
        });
        Ok(())
    }
}

/// The receivers of a sender on a pointwise edge. Each receiver has a sender, and each sender a receiver.
fn pointwise(sender: usize, senders: usize, receivers: usize) -> std::ops::Range<usize> {
    if senders >= receivers {
        // Receiver r takes the senders r·s/n to (r+1)·s/n.
        let receiver = (0..receivers).find(|r| sender < (r + 1) * senders / receivers).unwrap_or(0);
        receiver..receiver + 1
    } else {
        let first = |sender: usize| (sender * receivers).div_ceil(senders);
        first(sender)..first(sender + 1)
    }
}

/// Numbers that look random: SplitMix64.
struct Chance(u64);
impl Chance {
    fn below(&mut self, bound: usize) -> usize {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut word = self.0;
        word = (word ^ (word >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        word = (word ^ (word >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (((word ^ (word >> 31)) as u128 * bound as u128) >> 64) as usize
    }
}

struct Random {
    chance: Chance,
    receivers: usize,
}
impl<T> Partition<T> for Random {
    fn scatter(&mut self, batch: Records<T>, buffers: &mut [Records<T>]) -> Result<()> {
        make_room(batch.len(), &mut buffers[..self.receivers]);
        batch.into_iter().for_each(|record| buffers[self.chance.below(self.receivers)].push(record));
        Ok(())
    }
}

struct Named<F> {
    receiver: F,
    receivers: usize,
}
impl<T, F: FnMut(&T, usize) -> usize> Partition<T> for Named<F> {
    fn scatter(&mut self, batch: Records<T>, buffers: &mut [Records<T>]) -> Result<()> {
        make_room(batch.len(), &mut buffers[..self.receivers]);
        batch.into_iter().try_for_each(|record| {
            let to = (self.receiver)(&record.1, self.receivers);
            if to >= self.receivers {
                let receivers = self.receivers;
                return Err(Error::input(format!("a partitioner sent a record to subtask {to} of {receivers}"))
                    .hint("it must return a number below the one it is given"));
            }
            buffers[to].push(record);
            Ok(())
        })
    }
}

struct All(usize);
impl<T: Clone> Partition<T> for All {
    fn scatter(&mut self, mut batch: Records<T>, buffers: &mut [Records<T>]) -> Result<()> {
        for buffer in &mut buffers[1..self.0] {
            buffer.extend_from_slice(&batch);
        }
        buffers[0].append(&mut batch);
        Ok(())
    }
}

struct Keyed<G> {
    group: G,
    receivers: usize,
}
impl<T, G: FnMut(&T) -> u64> Partition<T> for Keyed<G> {
    fn scatter(&mut self, batch: Records<T>, buffers: &mut [Records<T>]) -> Result<()> {
        make_room(batch.len(), &mut buffers[..self.receivers]);
        batch.into_iter().for_each(|record| {
            let to = owner((self.group)(&record.1), self.receivers);
            buffers[to].push(record);
        });
        Ok(())
    }
}

impl<T: Data> PartitionFactory<T> for Forward {
    fn make(&self, subtask: usize, senders: usize, receivers: usize) -> Box<dyn Partition<T>> {
        if senders == receivers { Box::new(To(subtask)) } else { Rebalance.make(subtask, senders, receivers) }
    }
}
impl<T: Data> PartitionFactory<T> for Rebalance {
    fn make(&self, subtask: usize, _senders: usize, receivers: usize) -> Box<dyn Partition<T>> {
        Box::new(Round { next: subtask % receivers, among: 0..receivers })
    }
}
impl<T: Data> PartitionFactory<T> for Rescale {
    fn make(&self, subtask: usize, senders: usize, receivers: usize) -> Box<dyn Partition<T>> {
        // A worker without a sending subtask sends nothing.
        let among = pointwise(subtask.min(senders - 1), senders, receivers);
        Box::new(Round { next: among.start, among })
    }
}
impl<T: Data> PartitionFactory<T> for Shuffle {
    fn make(&self, subtask: usize, _senders: usize, receivers: usize) -> Box<dyn Partition<T>> {
        let chance = Chance(self.seed ^ (subtask as u64).wrapping_mul(0xd134_2543_de82_ef95));
        Box::new(Random { chance, receivers })
    }
}
impl<T: Data, F: FnMut(&T, usize) -> usize + Clone + Send + 'static> PartitionFactory<T> for Custom<F> {
    fn make(&self, _subtask: usize, _senders: usize, receivers: usize) -> Box<dyn Partition<T>> {
        let receiver = self.0.lock().unwrap_or_else(std::sync::PoisonError::into_inner).clone();
        Box::new(Named { receiver, receivers })
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
        Box::new(Keyed { group, receivers })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pointwise_edges_are_flinks() {
        let of = |senders, receivers| (0..senders).map(|s| pointwise(s, senders, receivers)).collect::<Vec<_>>();
        assert_eq!(of(2, 4), [0..2, 2..4]);
        assert_eq!(of(4, 2), [0..1, 0..1, 1..2, 1..2]);
        assert_eq!(of(2, 3), [0..2, 2..3]);
        assert_eq!(of(3, 2), [0..1, 1..2, 1..2]);
        for (senders, receivers) in (1..9).flat_map(|s| (1..9).map(move |r| (s, r))) {
            let mut reached: Vec<usize> = of(senders, receivers).into_iter().flatten().collect();
            reached.dedup();
            assert_eq!(reached, (0..receivers).collect::<Vec<_>>(), "{senders} to {receivers}");
        }
    }
}
