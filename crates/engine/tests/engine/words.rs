//! Graphs of all shapes at one to four workers give what a loop gives.

use std::collections::BTreeMap;

use tidemill_engine::Environment;
use tidemill_engine::operator::OutputTag;
use tidemill_engine::stream::{ProcessContext, ProcessFunction};

fn words() -> Vec<String> {
    (0..5000).map(|n| format!("w{}", n * n % 137)).collect()
}

#[test]
fn rolling_count_at_every_parallelism() {
    for parallelism in 1..=4 {
        let env = Environment::new();
        env.set_parallelism(parallelism);
        let counts = env
            .from_collection(words())
            .map(|word: String| (word, 1u64))
            .key_by(|(word, _)| word.clone())
            .sum(|(_, count)| count)
            .collect();
        env.execute("rolling count").unwrap();
        let mut expected: BTreeMap<String, u64> = BTreeMap::new();
        let mut all = Vec::new();
        for word in words() {
            let count = expected.entry(word.clone()).or_default();
            *count += 1;
            all.push((word, *count));
        }
        let mut got = counts.take();
        got.sort();
        all.sort();
        assert_eq!(got, all, "parallelism {parallelism}");
    }
}

#[test]
fn union_broadcast_rebalance_and_fan_out() {
    for parallelism in 1..=3 {
        let env = Environment::new();
        env.set_parallelism(parallelism);
        let numbers = env.from_sequence(1, 10_000);
        let even = numbers.filter(|n| n % 2 == 0);
        let odd = numbers.filter(|n| n % 2 == 1).rebalance();
        let both = even.union(&[&odd, &even]).map(|n| n).collect();
        let everywhere = env.from_collection(vec![7i64, 8]).broadcast().map(|n| n).collect();
        env.execute("shapes").unwrap();
        let mut expected: Vec<i64> = (1..=10_000).chain((1..=5_000).map(|n| n * 2)).collect();
        expected.sort_unstable();
        let mut got = both.take();
        got.sort_unstable();
        assert_eq!(got, expected, "parallelism {parallelism}");
        let mut got = everywhere.take();
        got.sort_unstable();
        assert_eq!(got, [vec![7i64; parallelism], vec![8; parallelism]].concat());
    }
}

#[derive(Clone)]
struct SplitByAge;
const MINORS: OutputTag<String> = OutputTag::new("minors");
const SENIORS: OutputTag<(String, u32)> = OutputTag::new("seniors");

impl ProcessFunction<(String, u32), String> for SplitByAge {
    fn process(
        &mut self,
        (name, age): (String, u32),
        context: &mut ProcessContext<'_, String>,
    ) -> tidemill_core::Result<()> {
        match age {
            0..18 => context.side_output(MINORS, name),
            18..65 => context.emit(name),
            _ => context.side_output(SENIORS, (name, age)),
        }
    }
}

#[test]
fn side_outputs_of_two_types() {
    let env = Environment::new();
    let people = [("a", 3), ("b", 30), ("c", 70), ("d", 17)].map(|(name, age)| (name.to_string(), age)).to_vec();
    let adults = env.from_collection(people).process(SplitByAge);
    let minors = adults.side_output(MINORS).collect();
    let seniors = adults.side_output(SENIORS).key_by(|(name, _)| name.clone()).max(|(_, age)| age).collect();
    let adults = adults.collect();
    env.execute("ages").unwrap();
    let mut minors = minors.take();
    minors.sort();
    assert_eq!(
        (adults.take(), minors, seniors.take()),
        (vec!["b".into()], vec!["a".into(), "d".into()], vec![("c".into(), 70)])
    );
}

#[test]
fn rolling_extremes_follow_flink() {
    let rows = vec![(1u8, 5i64, "first"), (1, 3, "second"), (1, 3, "third"), (1, 9, "fourth")];
    let rows: Vec<(u8, i64, String)> = rows.into_iter().map(|(k, n, s)| (k, n, s.to_string())).collect();
    let env = Environment::new();
    let keyed = env.from_collection(rows).key_by(|row| row.0);
    let min = keyed.min(|row| &mut row.1).map(|row| (row.1, row.2)).collect();
    let min_by = keyed.min_by(|row| row.1).map(|row| (row.1, row.2)).collect();
    let max_by = keyed.max_by(|row| row.1).map(|row| (row.1, row.2)).collect();
    env.execute("extremes").unwrap();
    let text = |rows: Vec<(i64, String)>| rows.iter().map(|(n, s)| format!("{n}{s}")).collect::<Vec<_>>().join(" ");
    // min changes the field alone; minBy keeps the record, of equals the first.
    assert_eq!(text(min.take()), "5first 3first 3first 3first");
    assert_eq!(text(min_by.take()), "5first 3second 3second 3second");
    assert_eq!(text(max_by.take()), "5first 5first 5first 9fourth");
}

#[test]
fn a_panic_and_an_error_fail_the_job_with_a_message_on_all_workers() {
    for parallelism in 1..=3 {
        let env = Environment::new();
        env.set_parallelism(parallelism);
        env.from_sequence(1, 100_000).map(|n| if n == 77_777 { panic!("no sevens") } else { n }).collect();
        let error = env.execute("panics").unwrap_err().to_string();
        assert!(error.contains("no sevens") && error.contains("Map"), "{error}");
    }
}

#[test]
fn a_job_that_cannot_be_built_says_why_and_ends() {
    use tidemill_engine::window::Tumbling;
    for parallelism in 1..=3 {
        let env = Environment::new();
        env.set_parallelism(parallelism);
        let windows = Tumbling::event_time(std::time::Duration::ZERO);
        env.from_sequence(1, 10).key_by(|n| *n).window(windows).reduce(|_, _| ()).collect();
        let error = env.execute("no size").unwrap_err().to_string();
        assert!(error.contains("at least 1 ms"), "{error}");
    }
}
