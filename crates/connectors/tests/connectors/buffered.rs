//! The buffer's own promises: bounds, order, new tries, the end.

use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Mutex};

use tidemill_connectors::buffered::{BufferOptions, Buffered, Deliver};
use tidemill_connectors::conformance::{Alarm, DEADLINE};
use tidemill_core::sink::Token;
use tidemill_core::{Error, Kind, Result};

/// Delivers into a vector; each delivery first takes what is to become of it.
struct Slow {
    delivered: Arc<Mutex<Vec<Vec<u32>>>>,
    outcomes: Receiver<Result<()>>,
}

impl Deliver for Slow {
    type Item = u32;

    fn deliver(&mut self, items: &[u32]) -> Result<()> {
        self.outcomes.recv().map_err(|_| Error::bug("the test is over"))??;
        self.delivered.lock().unwrap().push(items.to_vec());
        Ok(())
    }

    fn close(&mut self, epoch: u64) -> Result<Vec<Token>> {
        Ok(vec![vec![epoch as u8]])
    }
}

type Started = (Buffered<u32>, Arc<Mutex<Vec<Vec<u32>>>>, Sender<Result<()>>, Arc<Alarm>);

fn start(retries_max: Option<u32>) -> Started {
    let (alarm, waker) = Alarm::new();
    let (outcome, outcomes) = channel();
    let delivered = Arc::default();
    let deliver = Slow { delivered: Arc::clone(&delivered), outcomes };
    let (queue, batches) = ((10, 1000), (4, 400));
    let options = BufferOptions {
        queue_items_max: queue.0,
        queue_bytes_max: queue.1,
        batch_items_max: batches.0,
        batch_bytes_max: batches.1,
        retry_first_ms: 1,
        retry_most_ms: 4,
        retries_max,
    };
    (Buffered::start("slow", waker, options, deliver).unwrap(), delivered, outcome, alarm)
}

#[test]
fn the_queue_is_bounded_and_the_worker_woken_when_there_is_room() {
    let (buffer, delivered, outcome, alarm) = start(None);
    let mut next = 0;
    // One batch of at most four is on its way; ten wait.
    while buffer.ready() {
        buffer.push([next], 8).unwrap();
        next += 1;
    }
    assert!((10..=14).contains(&next), "{next}");
    while !buffer.ready() {
        outcome.send(Ok(())).unwrap();
        assert!(alarm.wait(DEADLINE), "woken");
    }
    let close = buffer.pre_commit(1).unwrap();
    for _ in 0..next {
        outcome.send(Ok(())).unwrap();
    }
    assert_eq!(close().unwrap(), [[1]]);
    let delivered = delivered.lock().unwrap();
    assert!(delivered.iter().all(|batch| batch.len() <= 4));
    assert!(delivered.iter().flatten().copied().eq(0..next), "all, in order");
}

#[test]
fn large_items_are_bounded_by_their_bytes() {
    let (buffer, delivered, outcome, _alarm) = start(None);
    // A thousand bytes: the first is on its way or waits, and the rest of three waits with the next three.
    buffer.push(0..3, 600).unwrap();
    buffer.push(3..6, 600).unwrap();
    buffer.push([6], 900).unwrap();
    assert!(!buffer.ready());
    let close = buffer.pre_commit(1).unwrap();
    drop(outcome.send(Ok(())));
    (0..9).for_each(|_| drop(outcome.send(Ok(()))));
    assert_eq!(close().unwrap(), [[1]]);
    assert!(buffer.ready());
    let delivered = delivered.lock().unwrap();
    assert!(delivered.iter().all(|batch| batch.len() <= 2), "{delivered:?}");
    assert!(delivered.iter().flatten().copied().eq(0..7), "{delivered:?}");
}

#[test]
fn epochs_do_not_mix_and_each_closure_waits_for_its_own() {
    let (buffer, delivered, outcome, _alarm) = start(None);
    buffer.push([1, 2], 16).unwrap();
    let first = buffer.pre_commit(1).unwrap();
    buffer.push([3], 8).unwrap();
    let second = buffer.pre_commit(2).unwrap();
    let third = buffer.pre_commit(3).unwrap();
    outcome.send(Err(Error::external("away"))).unwrap();
    outcome.send(Err(Error::full("no room"))).unwrap();
    for _ in 0..2 {
        outcome.send(Ok(())).unwrap();
    }
    assert_eq!(first().unwrap(), [[1]]);
    // The writer may go before its last epochs are delivered.
    drop(buffer);
    for _ in 0..2 {
        outcome.send(Ok(())).unwrap();
    }
    assert_eq!((second().unwrap(), third().unwrap()), (vec![vec![2]], vec![vec![3]]));
    let all: Vec<u32> = delivered.lock().unwrap().iter().flatten().copied().collect();
    assert_eq!(all, [1, 2, 3]);
}

#[test]
fn what_no_new_try_can_mend_fails_the_sink() {
    for (retries_max, outcomes, expected) in [
        (None, vec![Err(Error::external("away")), Err(Error::input("wrong"))], Kind::Input),
        (Some(1), vec![Err(Error::external("away")), Err(Error::external("away"))], Kind::External),
    ] {
        let (buffer, _, outcome, alarm) = start(retries_max);
        buffer.push(0..20, 160).unwrap();
        assert!(!buffer.ready());
        let close = buffer.pre_commit(1).unwrap();
        for failure in outcomes {
            outcome.send(failure).unwrap();
        }
        let error = close().expect_err("failed");
        assert_eq!(error.kind(), expected);
        assert!(error.to_string().starts_with("slow: "), "{error}");
        assert!(alarm.wait(DEADLINE) && buffer.ready(), "woken to hear of it");
        assert!(buffer.push([1], 8).is_err() && buffer.pre_commit(2).is_err());
    }
}

#[test]
fn a_buffer_that_is_dropped_stops_also_while_it_tries_again() {
    let (buffer, _, outcome, _alarm) = start(None);
    buffer.push([1], 8).unwrap();
    outcome.send(Err(Error::external("away"))).unwrap();
    drop(buffer);
    // The thread ends, and with it the other end of this channel.
    crate::wait_until("the thread ends", || outcome.send(Err(Error::external("away"))).is_err());
}
