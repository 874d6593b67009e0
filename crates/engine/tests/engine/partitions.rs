//! Where records go between operators, which operators are one task, and how parallel they are.

use std::collections::{BTreeMap, BTreeSet};
use std::process::Command;

use tidemill_core::Result;
use tidemill_engine::runtime::{Cluster, Secret};
use tidemill_engine::stream::{DataStream, ExecutionPlan, ProcessContext, ProcessFunction, RuntimeContext};
use tidemill_engine::{Environment, JobSettings};

/// Puts the subtask behind each number.
#[derive(Clone, Default)]
struct Here(usize);

impl ProcessFunction<(usize, i64), (usize, usize, i64)> for Here {
    fn open(&mut self, context: &RuntimeContext) -> Result<()> {
        self.0 = context.subtask;
        Ok(())
    }
    fn process(
        &mut self,
        (from, n): (usize, i64),
        context: &mut ProcessContext<'_, (usize, usize, i64)>,
    ) -> Result<()> {
        context.emit((from, self.0, n))
    }
}

#[derive(Clone, Default)]
struct From(usize);

impl ProcessFunction<i64, (usize, i64)> for From {
    fn open(&mut self, context: &RuntimeContext) -> Result<()> {
        self.0 = context.subtask;
        Ok(())
    }
    fn process(&mut self, n: i64, context: &mut ProcessContext<'_, (usize, i64)>) -> Result<()> {
        context.emit((self.0, n))
    }
}

const LAST: i64 = 12_000;

/// Sends numbers from `before` subtasks to `behind`: (from, to, number), and the edge's name.
fn sent(
    (before, behind): (usize, usize),
    ship: impl Fn(&DataStream<(usize, i64)>) -> DataStream<(usize, i64)>,
) -> (Vec<(usize, usize, i64)>, String) {
    let env = Environment::new();
    env.set_parallelism(behind);
    let from = env.from_sequence(1, LAST).set_parallelism(before).process(From::default()).set_parallelism(before);
    let there = ship(&from).process(Here::default()).collect();
    let report = env.execute("sent").unwrap().report;
    let mut sent = there.take();
    sent.sort_unstable_by_key(|(_, _, n)| *n);
    assert!(sent.iter().map(|(_, _, n)| *n).eq(1..=LAST), "every record once");
    (sent, report.edges[0].ship.clone())
}

/// How many records went from each subtask to each.
fn counts(sent: &[(usize, usize, i64)]) -> BTreeMap<(usize, usize), usize> {
    let mut counts = BTreeMap::new();
    sent.iter().for_each(|(from, to, _)| *counts.entry((*from, *to)).or_default() += 1);
    counts
}

#[test]
fn each_way_of_sending_reaches_the_subtasks_it_names() {
    for (before, behind) in [(1, 3), (2, 4), (4, 2), (3, 2), (2, 3)] {
        let of_sender = |from: usize, counts: &BTreeMap<(usize, usize), usize>| {
            let own = counts.iter().filter(move |((sender, _), _)| *sender == from);
            own.map(|((_, to), count)| (*to, *count)).collect::<BTreeMap<usize, usize>>()
        };
        let even = |to: &BTreeMap<usize, usize>| to.values().max().unwrap() - to.values().min().unwrap() <= 1;
        let (rescaled, name) = sent((before, behind), DataStream::rescale);
        let rescaled = counts(&rescaled);
        assert_eq!(name, "RESCALE");
        let reached: BTreeSet<usize> = rescaled.keys().map(|(_, to)| *to).collect();
        assert_eq!(reached.len(), behind, "{before} to {behind}: every subtask is reached");
        for from in 0..before {
            let to = of_sender(from, &rescaled);
            assert!(even(&to) && (behind > before || to.len() == 1), "{from}: {to:?}");
        }
        if (before, behind) == (2, 4) {
            assert!(rescaled.keys().eq(&[(0, 0), (0, 1), (1, 2), (1, 3)]));
        }
        let (rebalanced, name) = sent((before, behind), DataStream::rebalance);
        assert_eq!(name, "REBALANCE");
        for from in 0..before {
            let to = of_sender(from, &counts(&rebalanced));
            assert!(to.len() == behind && even(&to), "{from}: {to:?}");
        }
        let (shuffled, name) = sent((before, behind), |stream| stream.shuffle(7));
        assert_eq!(name, "SHUFFLE");
        for from in 0..before {
            let to = of_sender(from, &counts(&shuffled));
            let fair = to.values().sum::<usize>() / behind;
            assert!(to.len() == behind && to.values().all(|n| n.abs_diff(fair) < fair / 5), "{from}: {to:?}");
        }
        let (custom, name) =
            sent((before, behind), |stream| stream.partition_custom(|n: &i64, of| *n as usize % of, |(_, n)| n / 10));
        assert_eq!(name, "CUSTOM");
        assert!(custom.iter().all(|(_, to, n)| *to == (n / 10) as usize % behind));
    }
    let (again, once) = (sent((2, 3), |stream| stream.shuffle(7)).0, sent((2, 3), |stream| stream.shuffle(7)).0);
    assert_eq!(again, once, "one seed, one run");
    assert_ne!(again, sent((2, 3), |stream| stream.shuffle(8)).0);
    let (forward, _) = sent((3, 3), |stream| stream.forward().map(|n| n).start_new_chain());
    assert!(forward.iter().all(|(from, to, _)| from == to));
}

#[test]
fn what_cannot_be_sent_is_refused() {
    let env = Environment::new();
    env.from_sequence(1, 10).name("numbers").set_parallelism(2).forward().map(|n| n).set_parallelism(3).collect();
    let error = env.execution_plan().unwrap_err().to_string();
    assert!(
        error.contains("forward from `Source: numbers` to `Map` needs one parallelism, but it is 2 and 3"),
        "{error}"
    );
    assert_eq!(env.execute("forward").unwrap_err().to_string(), error);
    let env = Environment::new();
    env.set_parallelism(2);
    env.from_sequence(1, 10).partition_custom(|n: &i64, _| *n as usize, |n| *n).map(|n| n).collect();
    let error = env.execute("custom").unwrap_err().to_string();
    assert!(error.contains("a partitioner sent a record to subtask") && error.contains("of 2"), "{error}");
}

#[test]
fn two_inputs_keep_their_partitioners() {
    let env = Environment::new();
    env.set_parallelism(3);
    let numbers = env.from_sequence(0, 999);
    let left = numbers.partition_custom(|n: &i64, of| *n as usize % of, |n| *n);
    let right = numbers.map(|n| n).shuffle(3);
    let both = left.connect(&right).map(|n| (true, n), |n| (false, n)).collect();
    env.execute("both").unwrap();
    let mut both = both.take();
    both.sort_unstable();
    assert!(both.into_iter().eq((0..1000).map(|n| (false, n)).chain((0..1000).map(|n| (true, n)))));
}

fn tasks(plan: &ExecutionPlan) -> Vec<&str> {
    plan.vertices.iter().map(|vertex| vertex.name.as_str()).collect()
}

#[test]
fn chains_are_as_long_as_they_may_be() {
    let plan = |change: fn(DataStream<i64>) -> DataStream<i64>, off: bool| {
        let env = Environment::new();
        env.set_parallelism(2);
        if off {
            env.disable_operator_chaining();
        }
        let middle = change(env.from_sequence(1, 10).map(|n| n).name("a").map(|n| n).name("b"));
        middle.map(|n| n).name("c").collect();
        let plan = env.execution_plan().unwrap();
        // Looking at the plan takes nothing away.
        assert_eq!(env.execute("chains").unwrap().report.vertices.len(), plan.vertices.len());
        plan
    };
    let source = "Source: Sequence";
    assert_eq!(tasks(&plan(|b| b, false)), ["Source: Sequence -> a -> b -> c -> Sink: Collect"]);
    assert_eq!(tasks(&plan(|b| b.start_new_chain(), false)), ["Source: Sequence -> a", "b -> c -> Sink: Collect"]);
    assert_eq!(tasks(&plan(|b| b.disable_chaining(), false)), ["Source: Sequence -> a", "b", "c -> Sink: Collect"]);
    assert_eq!(tasks(&plan(|b| b, true)), [source, "a", "b", "c", "Sink: Collect"]);
    let grouped = plan(|b| b.slot_sharing_group("heavy").set_description("does the work"), false);
    assert_eq!(tasks(&grouped), ["Source: Sequence -> a", "b -> c -> Sink: Collect"]);
    let groups: Vec<&str> = grouped.vertices.iter().map(|vertex| vertex.slot_sharing_group.as_str()).collect();
    assert_eq!(groups, ["default", "heavy"], "operators behind inherit the group");
    let described: Vec<_> = grouped.vertices[1].operators.iter().map(|operator| &operator.description).collect();
    assert_eq!(described, [&Some("does the work".to_string()), &None, &None]);
    assert_eq!(grouped.edges[0].ship, "FORWARD");
}

/// Puts the thread that a record passes behind it.
#[derive(Clone, Default)]
struct Threads;

impl ProcessFunction<Vec<u64>, Vec<u64>> for Threads {
    fn process(&mut self, mut passed: Vec<u64>, context: &mut ProcessContext<'_, Vec<u64>>) -> Result<()> {
        let thread = format!("{:?}", std::thread::current().id());
        passed.push(thread.bytes().filter(u8::is_ascii_digit).fold(0, |number, b| number * 10 + u64::from(b - b'0')));
        context.emit(passed)
    }
}

#[test]
fn groups_have_threads_of_their_own_and_the_slots_add_up() {
    let env = Environment::new();
    env.set_parallelism(2);
    let first = env.from_sequence(1, 1000).map(|_| Vec::new()).process(Threads).process(Threads);
    let heavy = first.rebalance().process(Threads).set_parallelism(3).slot_sharing_group("heavy");
    let back = heavy.rebalance().process(Threads).slot_sharing_group("default");
    let passed = back.collect();
    let report = env.execute("groups").unwrap().report;
    assert_eq!((report.parallelism, report.slots), (3, 5));
    let passed = passed.take();
    assert_eq!(passed.len(), 1000);
    let threads = |step: usize| passed.iter().map(|passed| passed[step]).collect::<BTreeSet<u64>>();
    assert!(passed.iter().all(|passed| passed[0] == passed[1]), "what shares a slot and is chained runs on one thread");
    assert_eq!([threads(0).len(), threads(2).len(), threads(3).len()], [2, 3, 2]);
    assert_eq!(threads(0), threads(3), "operators of one group share its slots");
    assert!(threads(0).is_disjoint(&threads(2)), "those of another have others");
}

#[test]
fn the_default_parallelism_is_the_greatest_that_has_room_for_all_groups() {
    let planned = |workers: usize, processes: usize, grouped: bool| {
        let addresses = (0..processes).map(|process| format!("127.0.0.1:{process}")).collect();
        let secret = Secret::new("0123456789abcdef").unwrap();
        let cluster = Cluster { workers: Some(workers), ..Cluster::new(0, addresses, secret) };
        let env = Environment::with_settings(JobSettings { cluster: Some(cluster), ..JobSettings::default() });
        let numbers = env.from_sequence(1, 10).rebalance().map(|n| n);
        let numbers = if grouped { numbers.slot_sharing_group("other") } else { numbers };
        numbers.rebalance().map(|n| n).set_parallelism(2);
        env.execution_plan().unwrap().vertices[0].parallelism
    };
    assert_eq!(planned(4, 2, false), 8);
    assert_eq!(planned(4, 2, true), 4);
    assert_eq!(planned(3, 1, true), 1, "the other group has an operator of two subtasks");
    assert_eq!(planned(1, 1, true), 1, "where there is no room a process has more workers than it says");
}

/// The parallelism of the operators `own`, `env` and `plain` of a job that says something on the levels named.
fn parallelism(started_with: JobSettings, environment: Option<usize>, operator: Option<usize>) -> usize {
    let env = Environment::with_settings(started_with);
    if let Some(parallelism) = environment {
        env.set_parallelism(parallelism);
    }
    let map = env.from_sequence(1, 10).map(|n| n).start_new_chain();
    let map = if let Some(parallelism) = operator { map.set_parallelism(parallelism) } else { map };
    map.start_new_chain();
    env.execution_plan().unwrap().vertices[1].parallelism
}

#[test]
fn parallelism_of_four_levels() {
    if std::env::var("TIDEMILL_PARALLELISM").is_ok() {
        // This test, as a job process that was started with a parallelism.
        let started = JobSettings::from_process().unwrap();
        assert_eq!(parallelism(started.clone(), Some(4), Some(5)), 5, "the operator goes first");
        assert_eq!(parallelism(started.clone(), Some(4), None), 4, "then the environment");
        assert_eq!(parallelism(started, None, None), 3, "then what the process was started with");
        assert_eq!(JobSettings::from_process().unwrap().max_parallelism, Some(77));
        return;
    }
    let cores = std::thread::available_parallelism().unwrap().get();
    assert_eq!(parallelism(JobSettings::default(), None, None), cores, "then the default");
    let child = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "partitions::parallelism_of_four_levels"])
        .env("TIDEMILL_PARALLELISM", "3")
        .env("TIDEMILL_MAX_PARALLELISM", "77")
        .output()
        .unwrap();
    assert!(child.status.success(), "{}", String::from_utf8_lossy(&child.stdout));
    assert!(String::from_utf8_lossy(&child.stdout).contains("1 passed"));
}

#[test]
fn a_parallelism_above_the_maximum_is_refused_and_a_default_is_cut_down_to_it() {
    // Of the job, then of the operator: parallelism and maximum.
    type Said = (Option<usize>, Option<usize>);
    let planned = |job: Said, operator: Said| {
        let env = Environment::with_settings(JobSettings { max_parallelism: job.1, ..JobSettings::default() });
        job.0.map(|parallelism| env.set_parallelism(parallelism));
        let mut map = env.from_sequence(1, 10).map(|n| n).name("slow").start_new_chain();
        if let Some(parallelism) = operator.0 {
            map = map.set_parallelism(parallelism);
        }
        if let Some(max) = operator.1 {
            map = map.set_max_parallelism(max);
        }
        map.print();
        env.execution_plan().map(|plan| plan.vertices[1].parallelism).map_err(|e| e.to_string())
    };
    assert_eq!(planned((Some(6), None), (None, Some(4))), Ok(4), "the job's is a default for the operator");
    assert_eq!(planned((Some(6), Some(8)), (None, None)), Ok(6));
    assert_eq!(planned((Some(2), Some(2)), (Some(9), Some(9))), Ok(9), "the operator's maximum goes first");
    assert_eq!(planned((None, Some(1)), (None, None)), Ok(1), "cores are a default");
    let refused = |job, operator, why: &str| {
        let error = planned(job, operator).unwrap_err();
        assert!(error.contains(why), "{error}");
    };
    refused((Some(6), Some(4)), (None, None), "parallelism of the job is 6, above its maximum parallelism of 4");
    refused(
        (Some(1), None),
        (Some(5), Some(4)),
        "parallelism of operator `slow` is 5, above its maximum parallelism of 4",
    );
    refused((Some(1), Some(4)), (Some(5), None), "operator `slow` is 5, above its maximum parallelism of 4");
    refused((Some(1), Some(0)), (None, None), "maximum parallelism of the job is 0, but must be 1 to 32768");
    refused((Some(1), None), (None, Some(32_769)), "maximum parallelism of operator `slow` is 32769, but must be 1");
}

#[test]
fn split_records_are_found_under_all_their_names() {
    let env = Environment::new();
    let numbers = env.from_sequence(1, 30).split(|n| {
        let names = [(n % 2 == 0, "even"), (n % 3 == 0, "third"), (*n > 1000, "large")];
        names.into_iter().filter(|(is, _)| *is).map(|(_, name)| name).collect::<Vec<_>>()
    });
    let (even, third, none) =
        (numbers.select("even").collect(), numbers.select("third").collect(), numbers.select("large").collect());
    env.execute("split").unwrap();
    let sorted = |mut numbers: Vec<i64>| {
        numbers.sort_unstable();
        numbers
    };
    assert_eq!(sorted(even.take()), (1..=15).map(|n| n * 2).collect::<Vec<_>>());
    assert_eq!(sorted(third.take()), (1..=10).map(|n| n * 3).collect::<Vec<_>>());
    assert!(none.is_empty());
}
