//! Expiry by a clock moved by hand.

use std::sync::Arc;
use std::time::Duration;

use tidemill_core::ManualClock;

use super::*;
use crate::state::{AggregatingState, ReducingState};
use crate::window::Count;

struct At<'a>(u32, &'a mut KeyedStore<u32>);

impl StateAccess for At<'_> {
    type Key = u32;
    fn keyed_state(&mut self) -> (&u32, &mut KeyedStore<u32>) {
        (&self.0, self.1)
    }
}

fn store() -> (Arc<ManualClock>, KeyedStore<u32>) {
    let clock = Arc::new(ManualClock::new(1_000));
    (clock.clone(), KeyedStore::new(clock))
}

const TTL: Ttl = Ttl { lives_ms: 100, renewed_by_reading: false, returns_expired: false };

#[test]
fn a_value_lives_from_its_last_writing_or_reading() {
    assert_eq!(Ttl::new(Duration::from_millis(100)), TTL);
    for (renewed, after_reading) in [(false, None), (true, Some(7))] {
        let (clock, mut store) = store();
        let ttl = if renewed { TTL.renewed_by_reading() } else { TTL };
        let state = ValueState::<i64>::new("value").with_ttl(ttl);
        let at = &mut At(1, &mut store);
        state.set(at, 5).unwrap();
        clock.set(1_060);
        state.set(at, 7).unwrap();
        clock.set(1_159);
        assert_eq!(state.get(at).unwrap(), Some(&7));
        clock.set(1_160);
        assert_eq!(state.get(at).unwrap().copied(), after_reading, "renewed by reading: {renewed}");
        clock.set(1_260);
        assert_eq!(state.get(at).unwrap(), None);
    }
}

#[test]
fn what_has_expired_is_returned_only_when_asked_for() {
    let (clock, mut store) = store();
    let state = ValueState::<i64>::new("value").with_ttl(TTL.return_expired());
    let at = &mut At(1, &mut store);
    state.set(at, 5).unwrap();
    clock.set(1_100);
    // It is there unless it was swept.
    assert!(matches!(state.get(at).unwrap(), None | Some(5)));
}

#[test]
fn elements_and_fields_expire_one_by_one() {
    let (clock, mut store) = store();
    let (list, map) = (ListState::<i64>::new("list").with_ttl(TTL), MapState::<u8, i64>::new("map").with_ttl(TTL));
    let at = &mut At(1, &mut store);
    list.add(at, 1).unwrap();
    map.put(at, 1, 10).unwrap();
    clock.set(1_050);
    list.add(at, 2).unwrap();
    map.put(at, 2, 20).unwrap();
    clock.set(1_100);
    assert_eq!(list.get(at).unwrap(), [2]);
    assert_eq!(map.get(at, &1).unwrap(), None);
    assert_eq!(map.entries(at).unwrap(), [(&2, &20)]);
    clock.set(1_150);
    assert_eq!(list.get(at).unwrap(), [0; 0]);
    assert!(map.entries(at).unwrap().is_empty());
}

#[test]
fn keys_nobody_touches_any_more_go_too() {
    let (clock, mut store) = store();
    let state = ValueState::<i64>::new("value").with_ttl(TTL);
    for key in 0..10_000 {
        state.set(&mut At(key, &mut store), 1).unwrap();
    }
    clock.set(1_100);
    // Five entries an access: a few thousand accesses to one key go once around all others.
    for _ in 0..4_000 {
        state.set(&mut At(1, &mut store), 2).unwrap();
    }
    assert_eq!(store.table::<Timed<i64>>("value", &state.held.slot).unwrap().keys().unwrap().len(), 1);
}

#[test]
fn a_store_without_a_clock_says_so() {
    let state = ValueState::<i64>::new("value").with_ttl(TTL);
    let error = state.set(&mut At(1, &mut KeyedStore::default()), 1).unwrap_err();
    assert!(error.to_string().contains("clock"), "{error}");
}

#[test]
fn reducing_and_aggregating_state_fold_what_is_added() {
    let (_, mut store) = store();
    let mut sum = ReducingState::new("sum", |held: &mut i64, next| *held += next);
    let mut count = AggregatingState::<i64, Count>::new("count", Count);
    for (key, value) in [(1, 10), (2, 20), (1, 5)] {
        sum.add(&mut At(key, &mut store), value).unwrap();
        count.add(&mut At(key, &mut store), value).unwrap();
    }
    assert_eq!(sum.get(&mut At(1, &mut store)).unwrap(), Some(&15));
    assert_eq!(count.get(&mut At(1, &mut store)).unwrap(), Some(2));
    sum.clear(&mut At(1, &mut store)).unwrap();
    assert_eq!(sum.get(&mut At(1, &mut store)).unwrap(), None);
    assert_eq!(sum.get(&mut At(2, &mut store)).unwrap(), Some(&20));
    assert_eq!(count.get(&mut At(3, &mut store)).unwrap(), None);
}
