//! Sources one after the other: the contract, the position handed on, and what cannot be chained.

use tidemill_connectors::conformance::check_bounded_source;
use tidemill_connectors::file::FileSource;
use tidemill_connectors::format::Json;
use tidemill_connectors::generator::GeneratorSource;
use tidemill_connectors::hybrid::HybridSource;
use tidemill_connectors::topic::{TopicSource, TopicStart};
use tidemill_core::source::{Boundedness, Source, Split};
use tidemill_topic::{NewRecord, TopicConfig, Topics};

#[test]
fn files_then_a_topic_then_made_up_records_keep_the_contract() {
    let folder = tempfile::tempdir().unwrap();
    let files = folder.path().join("history");
    std::fs::create_dir(&files).unwrap();
    for file in 1..=3 {
        std::fs::write(files.join(format!("{file}.txt")), format!("{file}0\n{file}1\nx\n{file}2\n")).unwrap();
    }
    let config = TopicConfig { partitions: 2, retention_ms: None, retention_bytes: None };
    let topic = Topics::open(folder.path().join("topics")).unwrap().create("numbers", &config).unwrap();
    for n in 0..40u32 {
        let value = n.to_string();
        let record = NewRecord { partition: n % 2, timestamp_ms: n.into(), key: None, value: value.as_bytes() };
        topic.append(&[record], None, 0).unwrap();
    }
    // Each file ends at line 4; the topic goes on from what is made of that, its timestamps being the numbers.
    let behind = |ended: &[Split]| {
        assert_eq!(ended.len(), 3);
        let newest = ended.iter().filter_map(|split| split.position["line"].as_i64()).max().unwrap();
        Ok(TopicSource::new(folder_of(ended), "numbers", Json::<u64>::new())
            .start(TopicStart::Timestamp(newest * 8))
            .bounded(true))
    };
    let source = HybridSource::new(FileSource::new(&files, Json::<u64>::new()))
        .then_from(Boundedness::Bounded, behind)
        .then(GeneratorSource::new("more", |n| 1000 + n).count(5).split_count(2));
    let mut expected: Vec<u64> = (1..=3).flat_map(|file| (0..3).map(move |n| file * 10 + n)).collect();
    expected.extend((32..40).chain(1000..1005));
    check_bounded_source(&source, &expected, 3);
}

/// The topics stand beside the files.
fn folder_of(ended: &[Split]) -> std::path::PathBuf {
    let file = std::path::Path::new(ended[0].id.split_once(':').unwrap().1);
    file.parent().unwrap().parent().unwrap().join("topics")
}

#[test]
fn only_the_last_may_go_on_for_ever_and_what_was_announced_holds() {
    let numbers = || GeneratorSource::new("numbers", |n: u64| n);
    let error = HybridSource::new(numbers()).then(numbers().count(3)).splits().unwrap_err().to_string();
    assert!(error.contains("does not end, so nothing can follow it"), "{error}");
    let both = HybridSource::new(numbers().count(3)).then(numbers());
    assert_eq!((both.boundedness(), both.stages()), (Boundedness::Unbounded, 2));
    assert_eq!(both.name(), "generator `numbers`, then generator `numbers`");
    let other = HybridSource::new(numbers().count(3)).then_from(Boundedness::Bounded, move |_| Ok(numbers()));
    assert!(other.stage_splits(1, &[]).unwrap_err().to_string().contains("not as it was announced"));
    let numbers = || GeneratorSource::new("numbers", |n: u64| n).count(1);
    let nested = HybridSource::new(HybridSource::new(numbers()).then(numbers()));
    assert!(nested.splits().unwrap_err().to_string().contains("one of a chain already"));
}
