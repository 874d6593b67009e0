//! How a keyed stream takes the key from a record: it makes one, or it points at it inside the record.

use std::borrow::Borrow;
use std::hash::Hash;
use std::marker::PhantomData;

use crate::key::{Key, key_group};
use crate::state::Equivalent;

/// Takes the key from a record: a closure that makes one, as [`DataStream::key_by`] wants it, or one that points at it
/// ([`ByRef`]). It must say the same key for the same record every time.
///
/// [`DataStream::key_by`]: super::DataStream::key_by
pub trait KeySelector<T, K>: Clone + Send + 'static {
    /// What the key is found by: itself, or what it lends out, as a `String` lends `str`. It hashes as the key does.
    type Lookup: Hash + Equivalent<K> + ?Sized;

    /// The key of one record, as it is taken from it.
    type Found<'a>: Borrow<Self::Lookup>
    where
        T: 'a;

    /// Takes the key from a record.
    fn find<'a>(&mut self, value: &'a T) -> Self::Found<'a>;

    /// The key itself, to be kept.
    fn own(found: Self::Found<'_>) -> K;

    /// Takes the key from a record, to be kept.
    fn key(&mut self, value: &T) -> K {
        Self::own(self.find(value))
    }

    /// The key group of a record.
    #[inline]
    fn key_group(&mut self, value: &T) -> u64 {
        let found = self.find(value);
        let key: &Self::Lookup = found.borrow();
        key_group(key)
    }
}

impl<T: 'static, K: Key, F: FnMut(&T) -> K + Clone + Send + 'static> KeySelector<T, K> for F {
    type Lookup = K;
    type Found<'a> = K;

    #[inline]
    fn find(&mut self, value: &T) -> K {
        self(value)
    }

    #[inline]
    fn own(found: K) -> K {
        found
    }
}

/// Points at the key inside a record; see [`DataStream::key_by_ref`](super::DataStream::key_by_ref).
pub struct ByRef<F, Q: ?Sized> {
    point: F,
    key: PhantomData<fn(&Q)>,
}

impl<F, Q: ?Sized> ByRef<F, Q> {
    pub(super) fn new(point: F) -> Self {
        ByRef { point, key: PhantomData }
    }
}

impl<F: Clone, Q: ?Sized> Clone for ByRef<F, Q> {
    fn clone(&self) -> Self {
        Self::new(self.point.clone())
    }
}

impl<T, K, Q, F> KeySelector<T, K> for ByRef<F, Q>
where
    T: 'static,
    K: Key + Borrow<Q>,
    Q: ToOwned<Owned = K> + Hash + Eq + ?Sized + 'static,
    F: FnMut(&T) -> &Q + Clone + Send + 'static,
{
    type Lookup = Q;
    type Found<'a> = &'a Q;

    #[inline]
    fn find<'a>(&mut self, value: &'a T) -> &'a Q {
        (self.point)(value)
    }

    #[inline]
    fn own(found: &Q) -> K {
        found.to_owned()
    }
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;
    use std::time::Duration;

    use super::*;
    use crate::stream::DataStream;
    use crate::testing::{Harness, Snapshot};
    use crate::window::{Count, Tumbling, Window};

    type Word = (String, u64);
    type Pipeline = fn(DataStream<Word>) -> DataStream<Word>;

    fn rolling_by_ref(words: DataStream<Word>) -> DataStream<Word> {
        words.key_by_ref(|word| word.0.as_str()).sum(|word| &mut word.1)
    }

    fn rolling(words: DataStream<Word>) -> DataStream<Word> {
        words.key_by(|word| word.0.clone()).sum(|word| &mut word.1)
    }

    fn window_by_ref(words: DataStream<Word>) -> DataStream<Word> {
        let windowed = words.key_by_ref(|word| word.0.as_str()).window(Tumbling::event_time(Duration::from_secs(1)));
        windowed.aggregate_with(Count, |word: &String, _: Window, count| Some((word.clone(), count)))
    }

    fn window(words: DataStream<Word>) -> DataStream<Word> {
        let windowed = words.key_by(|word| word.0.clone()).window(Tumbling::event_time(Duration::from_secs(1)));
        windowed.aggregate_with(Count, |word: &String, _: Window, count| Some((word.clone(), count)))
    }

    /// Words that come again and again, and some that come once.
    fn words(from: u64, to: u64) -> Vec<Word> {
        (from..to).map(|n| (if n % 5 == 0 { format!("once {n}") } else { format!("word {}", n % 7) }, n)).collect()
    }

    /// What subtasks make of the first words, and others, that go on from their state, of the rest.
    fn run(first: Pipeline, second: Pipeline) -> Vec<(i64, Word)> {
        let mut results = Vec::new();
        let mut saved = Snapshot::merged([]);
        for (pipeline, parallelism, words) in [(first, 2, words(0, 3_000)), (second, 3, words(3_000, 6_000))] {
            let mut snapshots = Vec::new();
            for subtask in 0..parallelism {
                let builder = Harness::builder(pipeline).subtask(subtask, parallelism).restore(&saved);
                let mut harness = builder.build().unwrap();
                let own: Vec<_> = words.iter().filter(|word| harness.owns(&word.0)).cloned().collect();
                harness.push_batch(own.into_iter().map(|word| (500, word)).collect()).unwrap();
                snapshots.push(harness.snapshot().unwrap());
                if parallelism == 3 {
                    harness.end().unwrap();
                }
                results.extend(harness.take());
            }
            saved = Snapshot::merged(snapshots);
        }
        results.sort();
        results
    }

    #[test]
    fn a_key_by_reference_is_the_same_key_also_in_saved_state() {
        let pipelines: [(Pipeline, Pipeline, usize); 2] =
            [(rolling, rolling_by_ref, 6_000), (window, window_by_ref, 1_000)];
        for (owned, by_ref, least) in pipelines {
            let expected = run(owned, owned);
            assert!(expected.len() >= least);
            for (first, second) in [(owned, by_ref), (by_ref, owned), (by_ref, by_ref)] {
                assert_eq!(run(first, second), expected);
            }
        }
    }

    thread_local! {
        static COPIES: Cell<usize> = const { Cell::new(0) };
    }

    #[derive(Debug, PartialEq, Eq, Hash, serde::Serialize, serde::Deserialize)]
    struct Counted(u8);

    impl Clone for Counted {
        fn clone(&self) -> Self {
            COPIES.set(COPIES.get() + 1);
            Counted(self.0)
        }
    }

    #[test]
    fn only_new_keys_are_copied() {
        let pipeline = |input: DataStream<(Counted, u64)>| {
            let windowed = input.key_by_ref(|record| &record.0).window(Tumbling::event_time(Duration::from_secs(1)));
            windowed.aggregate_with(Count, |key: &Counted, _: Window, count| Some((key.0, count)))
        };
        let mut counts = Harness::new(pipeline).unwrap();
        counts.push_batch((0..1_000u64).map(|n| (1, (Counted((n % 3) as u8), n))).collect()).unwrap();
        assert_eq!(COPIES.get(), 3);
        counts.end().unwrap();
        assert_eq!(counts.take().len(), 3);
        assert_eq!(COPIES.get(), 3);
    }
}
