//! A graph on the DataStream API.

use std::collections::BTreeMap;
use std::path::Path;

use tidemill::connectors::file::FileSink;
use tidemill::connectors::format::Text;
use tidemill::connectors::generator::GeneratorSource;
use tidemill::engine::window::TimeWindows;
use tidemill::prelude::*;

use super::functions::{
    CountSum, Distinct, KNOWN, ODD, PreAggregate, Sides, Timed, Totals, Waiting, copies, dynamic_gap, grouped,
    is_taken_back, joined, listed, mapped, pair, rekeyed, row, second_mapped, side, totalled, windowed,
};
use super::graph::{Event, Graph, Node, Ship, Source, Step, line};
use super::kafka::KafkaPlace;

/// Where a job reads and publishes, exactly once.
pub enum Place<'a> {
    /// Made up on the way, and into part files of a folder.
    Folder(&'a Path),
    /// From and into topics of Kafka.
    Kafka(KafkaPlace),
}

/// Builds the job.
pub fn build(graph: &Graph, env: &Environment, parallelism: usize, place: &Place<'_>) {
    let mut streams: Vec<DataStream<Event>> = Vec::new();
    for (at, source) in graph.sources.iter().enumerate() {
        streams.push(match place {
            Place::Folder(_) => read(*source, env, at),
            Place::Kafka(kafka) => kafka.read(*source, env, at),
        });
    }
    for node in &graph.nodes {
        let at = streams.len();
        let mut made = shape(node, apply(node, &streams, at), parallelism);
        // Of every third graph some steps, and what comes behind them, run in slots of their own.
        if graph.seed.is_multiple_of(3) && at.is_multiple_of(4) && !matches!(node.step, Step::Union(_) | Step::Sides) {
            made = made.slot_sharing_group(&format!("apart {at}"));
        }
        streams.push(made.uid(&format!("step {at}")));
    }
    let lines = |sink: &usize| {
        let sink = *sink;
        streams[sink].map(move |event| line(sink, &event)).uid(&format!("lines {sink}"))
    };
    let lines: Vec<DataStream<String>> = graph.sinks.iter().map(lines).collect();
    let (first, others) = lines.split_first().expect("a graph publishes something");
    let others: Vec<&DataStream<String>> = others.iter().collect();
    let lines = first.union(&others);
    match place {
        Place::Folder(into) => {
            let files = FileSink::new(into, Text);
            // Files of every other graph go on over checkpoints.
            let across = graph.nodes.len().is_multiple_of(2);
            let files = if across { files.part_age_max_ms(200).across_checkpoints() } else { files };
            drop(lines.sink_to(files).uid("published"));
        }
        Place::Kafka(kafka) => kafka.publish(&lines),
    }
}

fn read(source: Source, env: &Environment, at: usize) -> DataStream<Event> {
    let generator = GeneratorSource::new(format!("source {at}"), move |index| source.event(index))
        .count(source.rows)
        .rate_per_second(source.rate)
        .split_count(source.splits);
    // Each split has a watermark of its own, so nothing is ever late.
    let times = WatermarkStrategy::bounded_out_of_orderness(Duration::from_millis(source.disorder_ms))
        .with_timestamps(|(time_ms, _): &(i64, Event), _| *time_ms);
    env.from_source(generator, times, &format!("source {at}"))
        .uid(&format!("source {at}"))
        .map(|(_, event)| event)
        .uid(&format!("events {at}"))
}

/// How a step is run: nothing of this may change a result. Flink's operators chain where they can; here some do not.
fn shape(node: &Node, made: DataStream<Event>, parallelism: usize) -> DataStream<Event> {
    let wanted = (parallelism as i64 + node.parallelism).clamp(1, 4) as usize;
    // A step over all keys is one subtask's, and a union is no operator.
    match node.step {
        Step::TumblingAll(_) | Step::Union(_) | Step::Sides => made,
        _ if node.chained => made,
        _ => made.disable_chaining().set_parallelism(wanted),
    }
}

fn ship(node: &Node, stream: &DataStream<Event>) -> DataStream<Event> {
    match node.ship {
        Ship::Forward => stream.clone(),
        Ship::Rebalance => stream.rebalance(),
        Ship::Rescale => stream.rescale(),
        Ship::Shuffle => stream.shuffle(7),
        Ship::Global => stream.global(),
        Ship::Custom => {
            stream.partition_custom(|key: &i64, count| key.unsigned_abs() as usize % count, |event| event.key)
        }
    }
}

fn key(event: &Event) -> i64 {
    event.key
}

fn time(ms: i64) -> Duration {
    Duration::from_millis(ms as u64)
}

fn add(held: &mut Event, event: Event) {
    held.value = held.value.wrapping_add(event.value);
}

fn apply(node: &Node, streams: &[DataStream<Event>], at: usize) -> DataStream<Event> {
    let stream = ship(node, &streams[node.from]);
    let by_key = stream.key_by(key);
    let second = |other: usize| &streams[other];
    match node.step {
        Step::Map(number) => stream.map(move |event| mapped(event, number)),
        Step::Rekey(keys) => stream.map(move |event| rekeyed(event, keys)),
        Step::FlatMap => stream.flat_map(copies),
        Step::Filter(number) => stream.filter(move |event| event.value % number != 0),
        Step::Sides => {
            let even = stream.process(Sides).uid(&format!("sides {at}"));
            let odd = even.side_output(ODD).map(side).uid(&format!("odd {at}"));
            // A union has no state and no uid; the step's name goes to a map behind it.
            even.union(&[&odd]).map(|event| event)
        }
        Step::Asynchronous { ordered } => {
            let options = AsyncOptions::timeout(Duration::from_secs(60)).capacity(20);
            let ask = |event: Event| async move { Ok(Some(mapped(event, 1))) };
            if ordered { stream.ordered_wait(options, ask) } else { stream.unordered_wait(options, ask) }
        }
        Step::Union(other) => stream.union(&[second(other)]).map(|event| event),
        Step::Connect(other) => stream.connect(second(other)).map(|event| mapped(event, 2), second_mapped),
        Step::Tumbling(size) => by_key.window(Tumbling::event_time(time(size))).reduce(add),
        Step::Sliding(size, slide) => by_key
            .window(Sliding::event_time(time(size), time(slide)))
            .aggregate_with(CountSum, |key, _, (count, sum)| [windowed(*key, count as usize, sum)]),
        Step::Session(gap) => by_key.window(Session::event_time(time(gap))).reduce(add),
        Step::DynamicSession(gap) => by_key
            .window(Session::event_time_with_dynamic_gap(move |event: &Event| time(dynamic_gap(gap, event))))
            .reduce(add),
        Step::Listed(size) => {
            by_key.window(Tumbling::event_time(time(size))).apply(|key, _, events| [listed(*key, events)])
        }
        Step::Evicted(size, keep) => by_key
            .window(Tumbling::event_time(time(size)))
            .evictor(TimeEvictor::of(time(keep)))
            .apply(|key, _, events| [listed(*key, events)]),
        Step::TumblingAll(size) => {
            let one = stream.map(|event| Event { key: 0, ..event }).uid(&format!("one key {at}"));
            one.window_all(Tumbling::event_time(time(size))).reduce(add)
        }
        Step::PreAggregated(size) => stream
            .process(PreAggregate { size_ms: size, sums: BTreeMap::new() })
            .uid(&format!("before {at}"))
            .key_by(key)
            .window(Tumbling::event_time(time(size)))
            .reduce(add),
        Step::Columns(size, slide) => {
            let rows = stream.map(row).to_columns().expect("an event is a row of columns");
            let calls = [AggregateCall::min("value", "least"), AggregateCall::max("value", "most")];
            totals(&rows, Sliding::event_time(time(size), time(slide)), &calls, at)
        }
        Step::ColumnChanges(size) => {
            let changes = stream.flat_map(|event| {
                let back = is_taken_back(event).then(|| (RowKind::Delete, row(event)));
                std::iter::once((RowKind::Insert, row(event))).chain(back)
            });
            let rows = changes.changelog_to_columns().expect("an event is a row of columns");
            totals(&rows, Tumbling::event_time(time(size)), &[], at)
        }
        Step::CountWindow(number) => {
            by_key.count_window(number as u64).reduce_with(add, |key, _, _| [Event { key: *key, value: 1 }])
        }
        Step::Numbered => by_key.flat_map_with_state(|event: Event, seen: &mut Option<i64>| {
            let value = seen.unwrap_or(0) + 1;
            *seen = Some(value);
            [Event { value, ..event }]
        }),
        Step::Distinct => by_key.process(Distinct(MapState::new("seen"))),
        Step::Timers(size) => by_key.process(Timed::new(size)),
        Step::CoTimers(other, size) => by_key.connect(&second(other).key_by(key)).process(Timed::new(size)),
        Step::IntervalJoin(other, within) => by_key
            .interval_join(&second(other).key_by(key))
            .between(-within, within)
            .apply(|left, right| [pair(left, right)]),
        Step::WindowJoin(other, size) => stream
            .join(second(other))
            .where_key(key)
            .equal_to(key)
            .window(Tumbling::event_time(time(size)))
            .apply(|left, right| [joined(left, right)]),
        Step::CoGroup(other, size) => stream
            .co_group(second(other))
            .where_key(key)
            .equal_to(key)
            .window(Tumbling::event_time(time(size)))
            .apply(|key, _, left, right| [grouped(*key, left, right)]),
        Step::Broadcast(other, size) => by_key
            .connect_broadcast(&second(other).broadcast_with(&[&KNOWN]))
            .process(Waiting { size_ms: size, waiting: ListState::new("waiting") }),
    }
}

/// Totals of each key, text and window, by columns.
fn totals(rows: &ColumnStream, windows: TimeWindows, more: &[AggregateCall], at: usize) -> DataStream<Event> {
    let mut calls = vec![AggregateCall::count("count"), AggregateCall::sum("value", "sum")];
    calls.extend_from_slice(more);
    let keyed = rows.key_by(&["key", "text"]).expect("numbers and texts are keys");
    let totals = keyed.window(windows).aggregate(&calls).expect("whole numbers are summed and compared");
    totals.uid(&format!("totals {at}")).rows::<Totals>().map(totalled)
}
