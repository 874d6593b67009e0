//! The generator: exact resume, pacing, speed.

use tidemill_connectors::conformance::{Driven, check_bounded_source};
use tidemill_connectors::generator::GeneratorSource;
use tidemill_core::source::{Boundedness, Poll, Source, SourceOutput};
use tidemill_core::{Clock, ManualClock};

#[test]
fn every_index_comes_once_also_after_restarts() {
    for splits in 1..=4 {
        for count in [0, 1, 10, 101] {
            let source = GeneratorSource::new("numbers", |index| index).count(count).split_count(splits);
            check_bounded_source(&source, &(0..count).collect::<Vec<u64>>(), 0);
        }
    }
    let paced = GeneratorSource::new("numbers", |index| index).count(50).split_count(3).rate_per_second(2000.0);
    check_bounded_source(&paced, &(0..50).collect::<Vec<u64>>(), 0);
}

#[test]
fn without_a_count_it_goes_on() {
    let source = GeneratorSource::new("numbers", |index| index);
    assert_eq!(source.boundedness(), Boundedness::Unbounded);
    let mut driven = Driven::start(&source, 0, 1, &source.splits().unwrap());
    assert!(!driven.run_until(1000, |driven| driven.count >= 10_000));
    assert!(driven.records["0/1"].iter().copied().eq(0..driven.count as u64));
}

#[test]
fn the_rate_is_kept_by_the_clock() {
    let source = GeneratorSource::new("numbers", |index| index).rate_per_second(500.0).split_count(2);
    let splits = source.splits().unwrap();
    let clock = std::sync::Arc::new(ManualClock::new(0));
    let (_alarm, waker) = tidemill_connectors::conformance::Alarm::new();
    let context = tidemill_core::source::ReaderContext::new(0, 2, waker, clock.clone());
    let mut reader = source.reader(context).unwrap();
    // One of two splits: half of the rate, 250 a second.
    reader.add_splits(vec![splits[0].clone()]).unwrap();
    let mut emitted = 0;
    while clock.now_ms() < 10_000 {
        let mut output = SourceOutput::with_capacity(100);
        let polled = reader.poll(&mut output).unwrap();
        emitted += output.take().0.len();
        let due = clock.now_ms() / 4 + 1;
        assert!(emitted as i64 <= due, "{emitted} at {}", clock.now_ms());
        if let Poll::Pending { wake_at_ms: Some(at) } = polled {
            assert!(at > clock.now_ms());
            clock.set(at);
        }
    }
    assert!((2490..=2501).contains(&emitted), "{emitted}");
    // Held up for a minute it catches up for a second, not for more.
    clock.advance(60_000);
    let mut output = SourceOutput::with_capacity(100_000);
    reader.poll(&mut output).unwrap();
    assert_eq!(output.take().0.len(), 250);
}

#[test]
fn a_wrong_rate_or_split_is_refused() {
    let source = GeneratorSource::new("numbers", |index| index).rate_per_second(0.0);
    assert!(source.splits().is_err());
    let source = GeneratorSource::new("numbers", |index| index).count(5);
    let mut splits = source.splits().unwrap();
    splits[0].id = "elsewhere".into();
    let (_alarm, waker) = tidemill_connectors::conformance::Alarm::new();
    let clock = std::sync::Arc::new(ManualClock::new(0));
    let context = tidemill_core::source::ReaderContext::new(0, 1, waker, clock);
    assert!(source.reader(context).unwrap().add_splits(splits).is_err());
}
