//! The sink that keeps nothing: always ready, nothing to commit.

use tidemill_connectors::blackhole::BlackholeSink;
use tidemill_connectors::conformance::{Alarm, scope, write, writer_context};
use tidemill_core::sink::Sink;

#[test]
fn it_takes_everything_and_has_nothing_to_commit() {
    let (alarm, waker) = Alarm::new();
    let mut writer = Sink::<u64>::writer(&BlackholeSink, writer_context(0, 1, 1, 1, waker)).unwrap();
    for epoch in 1..=3 {
        write(&mut *writer, &alarm, (0..1000).map(|n| (0, n)).collect());
        assert!(writer.pre_commit(epoch).unwrap()().unwrap().is_empty());
    }
    assert!(Sink::<u64>::committer(&BlackholeSink, &scope()).unwrap().is_none());
}
