//! Limited sources: the same records, in no less than the time the rate needs.

use std::sync::Arc;

use tidemill_connectors::conformance::{Alarm, check_bounded_source};
use tidemill_connectors::file::FileSource;
use tidemill_connectors::format::Text;
use tidemill_connectors::generator::GeneratorSource;
use tidemill_connectors::rate_limit::{RateLimit, RateLimitedSource};
use tidemill_core::source::{Poll, ReaderContext, Source, SourceOutput};
use tidemill_core::{Clock, ManualClock};

#[test]
fn it_keeps_the_contract_of_the_source_it_limits() {
    let folder = tempfile::tempdir().unwrap();
    for file in 0..3 {
        let lines: String = (0..10).map(|n| format!("{file}-{n}\n")).collect();
        std::fs::write(folder.path().join(file.to_string()), lines).unwrap();
    }
    let expected: Vec<String> = (0..3).flat_map(|file| (0..10).map(move |n| format!("{file}-{n}"))).collect();
    for limit in [RateLimit::PerJob(7.0), RateLimit::PerSubtask(0.5), RateLimit::PerJob(1e9)] {
        check_bounded_source(&RateLimitedSource::new(FileSource::new(folder.path(), Text), limit), &expected, 0);
    }
}

/// How many records a source gives by each full second.
fn by_second(limit: RateLimit, parallelism: usize) -> Vec<usize> {
    let clock = Arc::new(ManualClock::new(0));
    let (_alarm, waker) = Alarm::new();
    let source = RateLimitedSource::new(GeneratorSource::new("numbers", |n| n), limit);
    let mut reader = source.reader(ReaderContext::new(0, parallelism, waker, clock.clone())).unwrap();
    reader.add_splits(source.splits().unwrap()).unwrap();
    let (mut emitted, mut seconds) = (0, Vec::new());
    while seconds.len() < 5 {
        let mut output = SourceOutput::with_capacity(64);
        let polled = reader.poll(&mut output).unwrap();
        emitted += output.take().0.len();
        if let Poll::Pending { wake_at_ms } = polled {
            let at = wake_at_ms.unwrap();
            assert!(at > clock.now_ms());
            while at / 1000 > seconds.len() as i64 {
                seconds.push(emitted);
            }
            clock.set(at);
        }
    }
    seconds
}

#[test]
fn the_rate_is_that_of_the_job_or_of_each_subtask() {
    let about = |counts: Vec<usize>, rate: usize| {
        for (second, count) in counts.iter().enumerate() {
            let expected = rate * (second + 1);
            assert!((expected - 1..=expected).contains(count), "{counts:?} at {rate} a second");
        }
    };
    about(by_second(RateLimit::PerJob(300.0), 1), 300);
    about(by_second(RateLimit::PerJob(300.0), 3), 100);
    about(by_second(RateLimit::PerSubtask(300.0), 3), 300);
}

#[test]
fn a_rate_of_nothing_is_refused() {
    for rate in [0.0, -1.0, f64::NAN, f64::INFINITY] {
        let source = RateLimitedSource::new(GeneratorSource::new("n", |n| n), RateLimit::PerJob(rate));
        let context = ReaderContext::new(0, 1, Alarm::new().1, Arc::new(ManualClock::new(0)));
        assert!(source.reader(context).is_err_and(|error| error.to_string().contains("above 0")));
    }
}
