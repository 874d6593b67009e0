//! Window join and co-group: the records of two streams that have the same key and fall into the same window. They are
//! the windows of one keyed stream of [`Either`], with an aggregation that keeps both sides' records; so every kind of
//! window will do, and lateness is what it is for windows.

use std::marker::PhantomData;
use std::time::Duration;

use serde::{Deserialize, Deserializer, Serialize, Serializer};
use smallvec::SmallVec;
use tidemill_core::Data;

use super::connected_keyed::KeyedConnectedStreams;
use super::data_stream::DataStream;
use super::either::Either;
use crate::key::Key;
use crate::operator::OutputTag;
use crate::window::{Aggregate, Arrival, Arrivals, Unnumbered, Window, WindowKind, sort_kept};

/// The result is made of each pair; see [`DataStream::join`].
pub struct Join;

/// The result is made of both sides' records together; see [`DataStream::co_group`].
pub struct CoGroup;

/// Two streams to be joined; say by which keys.
pub struct JoinedStreams<A, B, M> {
    left: DataStream<A>,
    right: DataStream<B>,
    mode: PhantomData<M>,
}

/// Two streams to be joined, the first with its key; say which of the second it must equal.
pub struct JoinedStreamsWhere<A, B, M, F> {
    streams: JoinedStreams<A, B, M>,
    first: F,
}

/// Two streams to be joined by key; say in which windows.
pub struct JoinedStreamsEqual<A, B, M, K, F, G> {
    connected: KeyedConnectedStreams<A, B, K, F, G>,
    mode: PhantomData<M>,
}

/// Two streams to be joined by key and window; say what becomes of them.
pub struct WindowJoin<A, B, M, K, F, G, W> {
    connected: KeyedConnectedStreams<A, B, K, F, G>,
    windows: W,
    allowed_lateness: Duration,
    late_tag: Option<OutputTag<Either<A, B>>>,
    mode: PhantomData<M>,
}

impl<A: Data> DataStream<A> {
    /// Pairs the records of this stream with those of `other` that have the same key and fall into the same window.
    /// What has no partner there gives no result. Results have the window's last millisecond as their event time.
    ///
    /// ```
    /// use std::time::Duration;
    /// use tidemill_engine::Environment;
    /// use tidemill_engine::stream::WatermarkStrategy;
    /// use tidemill_engine::window::Tumbling;
    ///
    /// let env = Environment::new();
    /// env.set_parallelism(1);
    /// let timed = |events: &[(u32, i64)]| {
    ///     let strategy = WatermarkStrategy::monotonous().with_timestamps(|event: &(u32, i64), _| event.1);
    ///     env.from_collection(events.to_vec()).assign_timestamps_and_watermarks(strategy)
    /// };
    /// let pairs = timed(&[(1, 100), (1, 200), (2, 300)])
    ///     .join(&timed(&[(1, 900), (2, 1_000)]))
    ///     .where_key(|left| left.0)
    ///     .equal_to(|right| right.0)
    ///     .window(Tumbling::event_time(Duration::from_secs(1)))
    ///     .apply(|left, right| Some((left.1, right.1)))
    ///     .collect();
    /// env.execute("pairs").unwrap();
    /// assert_eq!(pairs.take(), [(100, 900), (200, 900)]);
    /// ```
    pub fn join<B: Data>(&self, other: &DataStream<B>) -> JoinedStreams<A, B, Join> {
        JoinedStreams { left: self.clone(), right: other.clone(), mode: PhantomData }
    }

    /// Brings together the records of this stream and of `other` that have the same key and fall into the same window;
    /// one side may be empty, so outer joins can be written with it. Results have the window's last millisecond as their
    /// event time.
    ///
    /// ```
    /// use std::time::Duration;
    /// use tidemill_engine::Environment;
    /// use tidemill_engine::stream::WatermarkStrategy;
    /// use tidemill_engine::window::Tumbling;
    ///
    /// let env = Environment::new();
    /// let timed = |events: &[(u32, i64)]| {
    ///     let strategy = WatermarkStrategy::monotonous().with_timestamps(|event: &(u32, i64), _| event.1);
    ///     env.from_collection(events.to_vec()).assign_timestamps_and_watermarks(strategy)
    /// };
    /// let unpaid = timed(&[(1, 100), (2, 300)])
    ///     .co_group(&timed(&[(1, 900)]))
    ///     .where_key(|order| order.0)
    ///     .equal_to(|payment| payment.0)
    ///     .window(Tumbling::event_time(Duration::from_secs(1)))
    ///     .apply(|key, _window, orders, payments| (orders.len() > payments.len()).then_some(*key))
    ///     .collect();
    /// env.execute("unpaid").unwrap();
    /// assert_eq!(unpaid.take(), [2]);
    /// ```
    pub fn co_group<B: Data>(&self, other: &DataStream<B>) -> JoinedStreams<A, B, CoGroup> {
        JoinedStreams { left: self.clone(), right: other.clone(), mode: PhantomData }
    }
}

impl<A: Data, B: Data, M> JoinedStreams<A, B, M> {
    /// Takes the key from a record of the first stream (Flink's `where`).
    pub fn where_key<K: Key, F: FnMut(&A) -> K + Clone + Send + 'static>(
        self,
        first: F,
    ) -> JoinedStreamsWhere<A, B, M, F> {
        JoinedStreamsWhere { streams: self, first }
    }
}

impl<A: Data, B: Data, M, F> JoinedStreamsWhere<A, B, M, F> {
    /// Takes the key from a record of the second stream.
    pub fn equal_to<K: Key, G: FnMut(&B) -> K + Clone + Send + 'static>(
        self,
        second: G,
    ) -> JoinedStreamsEqual<A, B, M, K, F, G>
    where
        F: FnMut(&A) -> K + Clone + Send + 'static,
    {
        let connected = self.streams.left.connect(&self.streams.right).key_by(self.first, second);
        JoinedStreamsEqual { connected, mode: PhantomData }
    }
}

impl<A: Data, B: Data, M, K, F, G> JoinedStreamsEqual<A, B, M, K, F, G> {
    /// The windows within which records meet: `Tumbling`, `Sliding`, or any other kind.
    pub fn window<W: WindowKind<Either<A, B>>>(self, windows: W) -> WindowJoin<A, B, M, K, F, G, W> {
        let (connected, mode) = (self.connected, PhantomData);
        WindowJoin { connected, windows, allowed_lateness: Duration::ZERO, late_tag: None, mode }
    }
}

impl<A, B, M, K, F, G, W> WindowJoin<A, B, M, K, F, G, W>
where
    A: Data,
    B: Data,
    K: Key,
    F: FnMut(&A) -> K + Clone + Send + 'static,
    G: FnMut(&B) -> K + Clone + Send + 'static,
    W: WindowKind<Either<A, B>>,
{
    /// Keeps windows this long behind their end: a record that comes in time makes the window emit all its results again.
    pub fn allowed_lateness(mut self, lateness: Duration) -> Self {
        self.allowed_lateness = lateness;
        self
    }

    /// Sends records that come too late to this side output of the result, instead of dropping and counting them.
    pub fn side_output_late_data(mut self, tag: OutputTag<Either<A, B>>) -> Self {
        self.late_tag = Some(tag);
        self
    }

    fn both<R: Arrival, O: Data, I: IntoIterator<Item = O> + 'static>(
        self,
        emit: impl FnMut(&K, Window, Met<A, B, R>) -> I + Clone + Send + 'static,
    ) -> DataStream<O> {
        let windowed = self.connected.keyed().window(self.windows).allowed_lateness(self.allowed_lateness);
        let windowed = match self.late_tag {
            Some(tag) => windowed.side_output_late_data(tag),
            None => windowed,
        };
        windowed.aggregate_with(BothSides::default(), emit)
    }
}

impl<A, B, K, F, G, W> WindowJoin<A, B, Join, K, F, G, W>
where
    A: Data,
    B: Data,
    K: Key,
    F: FnMut(&A) -> K + Clone + Send + 'static,
    G: FnMut(&B) -> K + Clone + Send + 'static,
    W: WindowKind<Either<A, B>>,
{
    /// Any number of results for each pair, in the order of the first stream's records, then of the second's.
    pub fn apply<O: Data, I: IntoIterator<Item = O>>(
        self,
        function: impl FnMut(&A, &B) -> I + Clone + Send + 'static,
    ) -> DataStream<O> {
        if self.windows.comes_in_parts() {
            self.pairs::<u64, O, I>(function)
        } else {
            self.pairs::<Unnumbered, O, I>(function)
        }
    }

    fn pairs<R: Arrival, O: Data, I: IntoIterator<Item = O>>(
        self,
        mut function: impl FnMut(&A, &B) -> I + Clone + Send + 'static,
    ) -> DataStream<O> {
        let pairs = move |_: &K, _, met: Met<A, B, R>| {
            // Most keys have few pairs in a window.
            let mut results: SmallVec<[O; 2]> = SmallVec::new();
            let rights: SmallVec<[&B; 4]> = met.rights().map(|(_, right)| right).collect();
            for (_, left) in met.lefts() {
                rights.iter().for_each(|right| results.extend(function(left, right)));
            }
            results
        };
        self.both(pairs).name("Window Join")
    }
}

impl<A, B, K, F, G, W> WindowJoin<A, B, CoGroup, K, F, G, W>
where
    A: Data,
    B: Data,
    K: Key,
    F: FnMut(&A) -> K + Clone + Send + 'static,
    G: FnMut(&B) -> K + Clone + Send + 'static,
    W: WindowKind<Either<A, B>>,
{
    /// Any number of results for each key and window, from both sides' records in the order they came.
    pub fn apply<O: Data, I: IntoIterator<Item = O> + 'static>(
        self,
        function: impl FnMut(&K, Window, Vec<A>, Vec<B>) -> I + Clone + Send + 'static,
    ) -> DataStream<O> {
        if self.windows.comes_in_parts() {
            self.groups::<u64, O, I>(function)
        } else {
            self.groups::<Unnumbered, O, I>(function)
        }
    }

    fn groups<R: Arrival, O: Data, I: IntoIterator<Item = O> + 'static>(
        self,
        mut function: impl FnMut(&K, Window, Vec<A>, Vec<B>) -> I + Clone + Send + 'static,
    ) -> DataStream<O> {
        let groups = move |key: &K, window, met: Met<A, B, R>| {
            let (mut lefts, mut rights) = (Vec::new(), Vec::new());
            met.0.into_iter().for_each(|(_, value)| match value {
                Either::Left(left) => lefts.push(left),
                Either::Right(right) => rights.push(right),
            });
            function(key, window, lefts, rights)
        };
        self.both(groups).name("Window Co-Group")
    }
}

/// The records of both sides, each side's in the order they came. In one list, where a few need no memory of their own.
#[derive(Clone)]
struct Met<A, B, R>(SmallVec<[(R, Either<A, B>); 2]>);

impl<A, B, R: Arrival> Met<A, B, R> {
    fn lefts(&self) -> impl Iterator<Item = (R, &A)> {
        self.0.iter().filter_map(|(arrival, value)| match value {
            Either::Left(left) => Some((*arrival, left)),
            Either::Right(_) => None,
        })
    }

    fn rights(&self) -> impl Iterator<Item = (R, &B)> {
        self.0.iter().filter_map(|(arrival, value)| match value {
            Either::Left(_) => None,
            Either::Right(right) => Some((*arrival, right)),
        })
    }
}

/// Saved as two lists, one a side.
impl<A: Serialize, B: Serialize, R: Arrival> Serialize for Met<A, B, R> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let lefts: SmallVec<[(R, &A); 2]> = self.lefts().collect();
        let rights: SmallVec<[(R, &B); 2]> = self.rights().collect();
        (lefts, rights).serialize(serializer)
    }
}

impl<'de, A: Deserialize<'de>, B: Deserialize<'de>, R: Arrival> Deserialize<'de> for Met<A, B, R> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let (lefts, rights) = <(SmallVec<[(R, A); 2]>, SmallVec<[(R, B); 2]>)>::deserialize(deserializer)?;
        let lefts = lefts.into_iter().map(|(arrival, left)| (arrival, Either::Left(left)));
        let rights = rights.into_iter().map(|(arrival, right)| (arrival, Either::Right(right)));
        let mut met: SmallVec<[_; 2]> = lefts.chain(rights).collect();
        sort_kept(&mut met);
        Ok(Met(met))
    }
}

/// Keeps the records of both sides.
#[derive(Clone, Default)]
struct BothSides<R> {
    arrivals: Arrivals<R>,
}

impl<A: Data, B: Data, R: Arrival> Aggregate<Either<A, B>> for BothSides<R> {
    type Accumulator = Met<A, B, R>;
    type Output = Met<A, B, R>;

    fn create(&self) -> Self::Accumulator {
        Met(SmallVec::new())
    }

    fn add(&mut self, met: &mut Self::Accumulator, value: Either<A, B>) {
        let arrival = self.arrivals.number(&met.0);
        met.0.push((arrival, value));
    }

    fn merge(&mut self, met: &mut Self::Accumulator, other: Self::Accumulator) {
        met.0.extend(other.0);
    }

    fn restored(&mut self, met: &Self::Accumulator) {
        self.arrivals.restored(&met.0);
    }

    fn result(&mut self, mut met: Self::Accumulator) -> Self::Output {
        sort_kept(&mut met.0);
        met
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{Harness, HarnessBuilder};
    use crate::window::{Sliding, TimeWindows, Tumbling};

    type Number = Either<i64, i64>;
    type Group = (i64, Vec<i64>, Vec<i64>);
    const LATE: OutputTag<Number> = OutputTag::new("late");

    /// Both sides' numbers by window, all of one key; 5 ms of lateness are allowed.
    fn groups(windows: TimeWindows) -> HarnessBuilder<Number, Group> {
        let pipeline = |left: DataStream<i64>, right: DataStream<i64>| {
            let keyed = left.co_group(&right).where_key(|_| 0u8).equal_to(|_| 0u8);
            let windowed = keyed.window(windows).allowed_lateness(Duration::from_millis(5)).side_output_late_data(LATE);
            windowed.apply(|_: &u8, window, lefts, rights| Some((window.end_ms, lefts, rights)))
        };
        Harness::two(pipeline).side_output(LATE)
    }

    #[test]
    fn both_sides_come_in_order_also_across_slices_and_one_side_may_be_empty() {
        let sliding = Sliding::event_time(Duration::from_millis(10), Duration::from_millis(5));
        let mut groups = groups(sliding).build().unwrap();
        let (left, right) = (|time, n| (time, Either::Left(n)), |time, n| (time, Either::Right(n)));
        let records = vec![left(7, 1), right(8, 2), left(2, 3), right(3, 4), left(6, 5), right(12, 6)];
        groups.push_batch(records).unwrap();
        groups.watermark(100).unwrap();
        let expected: [Group; 4] = [
            (5, vec![3], vec![4]),
            (10, vec![1, 3, 5], vec![2, 4]),
            (15, vec![1, 5], vec![2, 6]),
            (20, vec![], vec![6]),
        ];
        assert_eq!(groups.take(), expected.map(|group| (group.0 - 1, group)));
    }

    #[test]
    fn late_records_of_either_side_bring_the_window_again_and_then_go_aside() {
        let mut groups = groups(Tumbling::event_time(Duration::from_millis(10))).build().unwrap();
        groups.push_batch(vec![(3, Either::Left(1)), (4, Either::Right(2))]).unwrap();
        groups.watermark(12).unwrap();
        assert_eq!(groups.take(), [(9, (10, vec![1], vec![2]))]);
        groups.push(5, Either::Right(3)).unwrap();
        assert_eq!(groups.take(), [(9, (10, vec![1], vec![2, 3]))]);
        groups.watermark(14).unwrap();
        groups.push_batch(vec![(6, Either::Left(4)), (7, Either::Right(5))]).unwrap();
        assert_eq!(groups.take(), []);
        assert_eq!(groups.take_side(LATE), [(6, Either::Left(4)), (7, Either::Right(5))]);
    }

    #[test]
    fn a_join_gives_each_pair_in_order_and_nothing_for_one_side_alone() {
        let pipeline = |left: DataStream<i64>, right: DataStream<i64>| {
            let keyed = left.join(&right).where_key(|n| n % 10).equal_to(|n| n % 10);
            let windowed = keyed.window(Tumbling::event_time(Duration::from_millis(10)));
            windowed.apply(|left, right| vec![(*left, *right); (*left == *right) as usize + 1])
        };
        let mut pairs = Harness::two(pipeline).build().unwrap();
        let (left, right) = (|time, n| (time, Either::Left(n)), |time, n| (time, Either::Right(n)));
        pairs.push_batch(vec![right(9, 11), left(1, 21), left(0, 1), right(2, 1), left(3, 2), right(3, 3)]).unwrap();
        pairs.push_batch(vec![left(10, 11), right(19, 22)]).unwrap();
        pairs.end().unwrap();
        assert_eq!(pairs.take(), [(21, 11), (21, 1), (1, 11), (1, 1), (1, 1)].map(|pair| (9, pair)));
    }

    #[test]
    fn windows_of_processing_time_will_do_too() {
        let mut groups = groups(Tumbling::processing_time(Duration::from_millis(10))).clock(3).build().unwrap();
        groups.push(1_000, Either::Left(1)).unwrap();
        groups.set_processing_time(9).unwrap();
        groups.push(2_000, Either::Right(2)).unwrap();
        assert_eq!(groups.take(), []);
        groups.set_processing_time(10).unwrap();
        assert_eq!(groups.take(), [(9, (10, vec![1], vec![2]))]);
    }

    #[test]
    fn both_sides_are_saved_as_two_lists_and_what_comes_later_stands_behind_them() {
        let saved = postcard::to_stdvec(&(vec![(0u64, 1i64), (1, 3), (5, 5)], vec![(0u64, 2i64), (1, 4)])).unwrap();
        let mut met: Met<i64, i64, u64> = postcard::from_bytes(&saved).unwrap();
        assert_eq!(postcard::to_stdvec(&met).unwrap(), saved);
        let mut both = BothSides::default();
        both.add(&mut met, Either::Right(6));
        both.add(&mut met, Either::Left(7));
        let met = both.result(met);
        assert_eq!(met.lefts().map(|(_, left)| *left).collect::<Vec<_>>(), [1, 3, 5, 7]);
        assert_eq!(met.rights().collect::<Vec<_>>(), [(0, &2), (1, &4), (6, &6)]);
    }
}
