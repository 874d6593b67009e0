//! What a seed stands for.

use std::fmt;

use serde::{Deserialize, Serialize};

use super::{Chance, mix, reference};

/// What flows on every edge; its time stands beside it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Event {
    /// What streams are keyed by.
    pub key: i64,
    /// What is counted and summed.
    pub value: i64,
}

/// A step that would give more rows than this is left out.
const ROWS_MAX: usize = 20_000;

/// A bounded stream of events in order of time but for some disorder.
#[derive(Debug, Clone, Copy)]
pub struct Source {
    /// Of its events.
    pub seed: u64,
    /// How many there are.
    pub rows: u64,
    /// Different keys at most.
    pub keys: u64,
    /// Events of one tick.
    pub rows_a_tick: u64,
    /// An event's time is at most so much later than that of one behind it.
    pub disorder_ms: u64,
    /// Parts read side by side.
    pub splits: u32,
    /// Events a second, so that there is something to disturb.
    pub rate: f64,
}

/// All times of sources, and all sizes of windows, are even, and gaps of sessions are odd: no event comes exactly at a
/// session's end, where whether it belongs to it hangs on how far the watermark has come, as in Flink. Where streams meet whose
/// times are not alike, a session that would be touched so is no step (`reference.rs`).
const TICK_MS: u64 = 2;

impl Source {
    /// The event of an index, and its time.
    pub fn event(&self, index: u64) -> (i64, Event) {
        let chance = mix(self.seed.wrapping_mul(0x9e37_79b9).wrapping_add(index));
        let ticks = index / self.rows_a_tick + (chance >> 40) % (self.disorder_ms / TICK_MS + 1);
        let time_ms = ticks * TICK_MS;
        let event = Event { key: (chance % self.keys) as i64, value: ((chance >> 20) % 1000) as i64 };
        (time_ms as i64, event)
    }
}

/// What is done with the events of a step before; sizes and gaps in milliseconds of event time.
#[derive(Debug, Clone, Copy)]
pub enum Step {
    /// value · 3 + number
    Map(i64),
    /// Another key, made of key and value.
    Rekey(i64),
    /// value % 3 copies.
    FlatMap,
    /// Those whose value is not divided by the number.
    Filter(i64),
    /// Odd values leave through a side output and come back changed.
    Sides,
    /// Async I/O, in order or not.
    Asynchronous {
        /// In the order of their calls.
        ordered: bool,
    },
    /// Both streams.
    Union(usize),
    /// A co-map of two streams.
    Connect(usize),
    /// Sum a key and window.
    Tumbling(i64),
    /// Count and sum a key and window.
    Sliding(i64, i64),
    /// Sum a key and session.
    Session(i64),
    /// Sessions whose gap depends on the value.
    DynamicSession(i64),
    /// All values of a window, listed.
    Listed(i64),
    /// All values of a window that are not older than so much before the newest.
    Evicted(i64, i64),
    /// Sum of all keys a window.
    TumblingAll(i64),
    /// Sums before the exchange, kept as operator state, then sums a key and window.
    PreAggregated(i64),
    /// Columns: count, sum, least and most of each key, text and window.
    Columns(i64, i64),
    /// Columns with rows that are taken back: count and sum of each key, text and window.
    ColumnChanges(i64),
    /// One event for so many of a key; without event time of its own.
    CountWindow(i64),
    /// The how-manieth of its key; without event time of its own.
    Numbered,
    /// The first of each key and value; without event time of its own.
    Distinct,
    /// Keyed state and timers: sums of the past at each multiple of the number.
    Timers(i64),
    /// The same over two streams: the difference.
    CoTimers(usize, i64),
    /// Pairs of a key whose times differ by at most the number.
    IntervalJoin(usize, i64),
    /// Pairs of a key and window.
    WindowJoin(usize, i64),
    /// Both sides of a key and window.
    CoGroup(usize, i64),
    /// The second stream is broadcast; each event waits for a timer, then sees what was broadcast before.
    Broadcast(usize, i64),
}

impl Step {
    /// The other input.
    pub fn second(&self) -> Option<usize> {
        match *self {
            Step::Union(other)
            | Step::Connect(other)
            | Step::CoTimers(other, _)
            | Step::IntervalJoin(other, _)
            | Step::WindowJoin(other, _)
            | Step::CoGroup(other, _)
            | Step::Broadcast(other, _) => Some(other),
            _ => None,
        }
    }

    /// Which event goes with which time depends on the order of events: no step that looks at time may follow.
    fn loses_time(&self) -> bool {
        matches!(self, Step::CountWindow(_) | Step::Numbered | Step::Distinct)
    }

    fn needs_time(&self) -> bool {
        !matches!(
            self,
            Step::Map(_)
                | Step::Rekey(_)
                | Step::FlatMap
                | Step::Filter(_)
                | Step::Sides
                | Step::Asynchronous { .. }
                | Step::Union(_)
                | Step::Connect(_)
                | Step::CountWindow(_)
                | Step::Numbered
                | Step::Distinct
        )
    }
}

/// How events come to a step that does not say so itself.
#[derive(Debug, Clone, Copy)]
pub enum Ship {
    /// As they stand.
    Forward,
    /// In turn.
    Rebalance,
    /// In turn, to near ones.
    Rescale,
    /// By chance.
    Shuffle,
    /// To the first subtask.
    Global,
    /// By a function of the key.
    Custom,
}

/// A step, and how it is run.
#[derive(Debug, Clone, Copy)]
pub struct Node {
    /// Its first input.
    pub from: usize,
    /// What is done.
    pub step: Step,
    /// How events come to it.
    pub ship: Ship,
    /// Whether it may be chained; else it has a parallelism of its own.
    pub chained: bool,
    /// Against the job's parallelism: one less, the same, one more.
    pub parallelism: i64,
}

/// Sources have the first numbers, nodes those behind them.
pub struct Graph {
    /// What it is made of.
    pub seed: u64,
    /// What is read.
    pub sources: Vec<Source>,
    /// What is done, each behind its inputs.
    pub nodes: Vec<Node>,
    /// Whose results are published.
    pub sinks: Vec<usize>,
    /// What each source and node must come to, times beside; times mean nothing where `timeless`.
    pub results: Vec<Vec<(i64, Event)>>,
    timeless: Vec<bool>,
}

impl Graph {
    /// The graph of a seed.
    pub fn of(seed: u64) -> Graph {
        let mut chance = Chance::new(mix(seed));
        let sources: Vec<Source> = (0..chance.between(1, 3)).map(|_| source(&mut chance)).collect();
        let results =
            sources.iter().map(|source| (0..source.rows).map(|index| source.event(index)).collect()).collect();
        let timeless = vec![false; sources.len()];
        let mut graph = Graph { seed, sources, nodes: Vec::new(), sinks: Vec::new(), results, timeless };
        let wanted = chance.between(3, 10) as usize;
        while graph.nodes.len() < wanted {
            graph.grow(&mut chance);
        }
        // What nobody reads is published, and now and then something that is read, too.
        let read = |at: usize| graph.nodes.iter().any(|node| node.from == at || node.step.second() == Some(at));
        graph.sinks = (0..graph.results.len()).filter(|at| !read(*at) || chance.below(6) == 0).collect();
        graph
    }

    /// The lines that must be published, sorted.
    pub fn expected(&self) -> Vec<String> {
        let lines = |sink: usize| self.results[sink].iter().map(move |(_, event)| line(sink, event));
        let mut lines: Vec<String> = self.sinks.iter().flat_map(|sink| lines(*sink)).collect();
        lines.sort();
        lines
    }

    fn grow(&mut self, chance: &mut Chance) {
        let pick = |chance: &mut Chance, count: usize| {
            // Rather the newest, so that chains become long.
            let back = chance.below(count as u64).min(chance.below(count as u64)) as usize;
            count - 1 - back
        };
        let count = self.results.len();
        let (from, other) = (pick(chance, count), pick(chance, count));
        let step = step(chance, other);
        let inputs = [Some(from), step.second()];
        let timeless = inputs.iter().flatten().any(|input| self.timeless[*input]);
        if step.needs_time() && timeless {
            return;
        }
        let ships = [Ship::Forward, Ship::Rebalance, Ship::Rescale, Ship::Shuffle, Ship::Global, Ship::Custom];
        let ship = if chance.below(3) > 0 { Ship::Forward } else { ships[chance.below(ships.len() as u64) as usize] };
        let (chained, parallelism) = (chance.below(3) > 0, chance.below(3) as i64 - 1);
        let node = Node { from, step, ship, chained, parallelism };
        let second = step.second().map(|other| self.results[other].as_slice());
        if let Some(rows) = reference::results(step, &self.results[from], second.unwrap_or(&[]), ROWS_MAX) {
            self.nodes.push(node);
            self.results.push(rows);
            self.timeless.push(timeless || step.loses_time());
        }
    }
}

/// An event as a sink publishes it.
pub fn line(sink: usize, event: &Event) -> String {
    format!("{sink},{},{}", event.key, event.value)
}

fn source(chance: &mut Chance) -> Source {
    let rows = chance.between(1_000, 6_000);
    Source {
        seed: chance.below(u64::MAX),
        rows,
        keys: [1, 7, 40, 300, 2_000][chance.below(5) as usize],
        rows_a_tick: chance.between(1, 4),
        disorder_ms: [0, 10, 200][chance.below(3) as usize],
        splits: chance.between(1, 5) as u32,
        // From 40 ms to half a second.
        rate: rows as f64 * (1000.0 / chance.between(40, 500) as f64),
    }
}

fn step(chance: &mut Chance, other: usize) -> Step {
    let size = [20, 100, 400, 2_000][chance.below(4) as usize];
    let number = chance.between(2, 9) as i64;
    match chance.below(29) {
        0 => Step::Map(number),
        1 => Step::Rekey([3, 20, 500][chance.below(3) as usize]),
        2 => Step::FlatMap,
        3 => Step::Filter(number),
        4 => Step::Sides,
        5 | 6 => Step::Asynchronous { ordered: chance.below(2) == 0 },
        7 => Step::Union(other),
        8 => Step::Connect(other),
        9 => Step::Tumbling(size),
        10 => Step::Sliding(size, size / [1, 2, 5][chance.below(3) as usize]),
        11 => Step::Session(size / 2 + 1),
        12 => Step::DynamicSession(size / 2 + 1),
        13 => Step::Listed(size),
        14 => Step::Evicted(size, size / 2),
        15 => Step::TumblingAll(size),
        16 => Step::PreAggregated(size),
        17 => Step::CountWindow(number),
        18 => Step::Numbered,
        19 => Step::Distinct,
        20 => Step::Timers(size),
        21 => Step::CoTimers(other, size),
        22 => Step::IntervalJoin(other, number * 5),
        23 => Step::WindowJoin(other, size),
        24 => Step::CoGroup(other, size),
        25 | 26 => Step::Columns(size, size / [1, 1, 2, 5][chance.below(4) as usize]),
        27 => Step::ColumnChanges(size),
        _ => Step::Broadcast(other, size),
    }
}

impl fmt::Display for Graph {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "graph of seed {}", self.seed)?;
        let rows = |at: usize| self.results[at].len();
        for (at, source) in self.sources.iter().enumerate() {
            writeln!(f, "  {at}: {} rows of {source:?}", rows(at))?;
        }
        for (index, node) in self.nodes.iter().enumerate() {
            let at = self.sources.len() + index;
            writeln!(f, "  {at}: {} rows of {node:?}", rows(at))?;
        }
        write!(f, "  published: {:?}", self.sinks)
    }
}
