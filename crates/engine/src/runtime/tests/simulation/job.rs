//! The jobs of the simulation, and what they must publish: sources, counts kept in a state that is written as base and
//! deltas, windows, two sinks that publish in two phases. A seed settles their shape.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use tidemill_core::sink::{Committer, PreCommit, Sink, SinkScope, SinkWriter, Token, WriterContext};
use tidemill_core::source::{Boundedness, Poll, ReaderContext, Source, SourceOutput, SourceReader, Split};
use tidemill_core::{Result, SharedClock};

use super::chance::Chance;
use super::world::{Row, World};
use crate::driver::Records;
use crate::graph::Graph;
use crate::operator::{CopyRun, Operator, Out, SnapshotMode, SnapshotParts};
use crate::state::{ChainPart, Restored, Section, SectionKind, Writer};
use crate::stream::watermark::WatermarkStrategy;
use crate::stream::{DataStream, Environment};
use crate::window::Tumbling;

/// A key and a value.
type Item = (i64, i64);

/// A record's time is at most so much later than that of one behind it.
const DISORDER_MS: i64 = 30;
const WINDOW_MS: i64 = 50;

/// What a seed makes of the job.
#[derive(Debug, Clone)]
pub struct Shape {
    seed: u64,
    sources: usize,
    splits: u32,
    rows: i64,
    keys: i64,
    /// How two sources come together: as one stream, or as two inputs of one operator.
    connected: bool,
    windows: bool,
    /// Whether counts have a parallelism of their own.
    counts_parallelism: Option<usize>,
    /// Whether sources have one subtask: then other processes hear of an epoch's end by what comes from it, too.
    lone_sources: bool,
    /// A reader waits behind so many records.
    rest_behind: i64,
    /// Whether sources, and whether counts, have slots of their own.
    apart: (bool, bool),
}

impl Shape {
    /// The shape of a seed.
    pub fn of(seed: u64) -> Self {
        let mut chance = Chance::new(seed ^ 0x5a9e);
        Shape {
            seed,
            sources: 1 + chance.below(2),
            splits: 1 + chance.below(3) as u32,
            rows: 3 + chance.below(8) as i64,
            keys: [1, 3, 7][chance.below(3)],
            connected: chance.once_in(2),
            windows: chance.below(3) > 0,
            counts_parallelism: chance.once_in(3).then(|| 1 + chance.below(2)),
            rest_behind: 1 + chance.below(4) as i64,
            lone_sources: chance.once_in(3),
            apart: (chance.once_in(4), chance.once_in(4)),
        }
    }

    /// A record and its time.
    fn record(&self, source: usize, split: u32, at: i64) -> (i64, Item) {
        let number = (source as u64 * 100 + u64::from(split)) * 1000 + at as u64;
        let mut chance = Chance::new(self.seed ^ (number << 20));
        let time_ms = at * 10 + chance.below(DISORDER_MS as usize + 1) as i64;
        (time_ms, (chance.below(self.keys as usize) as i64, chance.below(100) as i64))
    }

    /// The job, for `world`.
    pub fn graph(&self, world: &World) -> Graph {
        let env = Environment::new();
        let read = |source: usize| {
            let times = WatermarkStrategy::bounded_out_of_orderness(Duration::from_millis(DISORDER_MS as u64))
                .with_timestamps(|(time_ms, _): &(i64, Item), _| *time_ms);
            let numbers = Numbers { shape: self.clone(), source, world: world.clone() };
            let name = format!("source {source}");
            let mut numbers = env.from_source(numbers, times, &name).uid(&name);
            if self.lone_sources {
                numbers = numbers.set_parallelism(1);
            }
            if self.apart.0 {
                numbers = numbers.slot_sharing_group("sources");
            }
            numbers.map(|(_, item)| item).uid(&format!("items {source}"))
        };
        let mut streams: Vec<DataStream<Item>> = (0..self.sources).map(read).collect();
        let items = match (streams.pop(), streams.pop()) {
            (Some(one), Some(other)) if self.connected => {
                one.connect(&other).map(|item| item, |item| item).uid("connected")
            }
            (Some(one), Some(other)) => one.union(&[&other]).map(|item| item).uid("united"),
            (one, _) => one.unwrap(),
        };
        let keyed = items.key_by(|(key, _)| *key);
        let mut counts = keyed.stream.transform("counts", Counts::default).uid("counts");
        if let Some(parallelism) = self.counts_parallelism {
            counts = counts.set_parallelism(parallelism);
        }
        if self.apart.1 {
            counts = counts.slot_sharing_group("counts");
        }
        counts.sink_to(Publishing { world: world.clone(), number: 1 }).uid("one");
        if self.windows {
            let windows = keyed.window(Tumbling::event_time(Duration::from_millis(WINDOW_MS as u64)));
            let sums = windows.reduce(|held, item| held.1 += item.1).uid("sums");
            sums.sink_to(Publishing { world: world.clone(), number: 2 }).uid("two");
        }
        env.take_graph()
    }

    /// What must be published, sorted.
    pub fn expected(&self) -> Vec<Row> {
        let (mut counts, mut sums) = (BTreeMap::<i64, i64>::new(), BTreeMap::<(i64, i64), i64>::new());
        for source in 0..self.sources {
            for (split, at) in (0..self.splits).flat_map(|split| (0..self.rows).map(move |at| (split, at))) {
                let (time_ms, (key, value)) = self.record(source, split, at);
                *counts.entry(key).or_default() += 1;
                *sums.entry((key, time_ms.div_euclid(WINDOW_MS))).or_default() += value;
            }
        }
        let counted = |(key, count): (i64, i64)| (1..=count).map(move |number| (1, key, number));
        let mut rows: Vec<Row> = counts.into_iter().flat_map(counted).collect();
        if self.windows {
            rows.extend(sums.into_iter().map(|((key, _), sum)| (2, key, sum)));
        }
        rows.sort_unstable();
        rows
    }
}

/// Reads one record a poll, and rests now and then.
struct Numbers {
    shape: Shape,
    source: usize,
    world: World,
}

impl Source<(i64, Item)> for Numbers {
    fn name(&self) -> String {
        format!("numbers {}", self.source)
    }

    fn boundedness(&self) -> Boundedness {
        Boundedness::Bounded
    }

    fn splits(&self) -> Result<Vec<Split>> {
        let split = |slot| Split { id: format!("{}-{slot}", self.source), slot, position: serde_json::json!(0) };
        Ok((0..self.shape.splits).map(split).collect())
    }

    fn reader(&self, context: ReaderContext) -> Result<Box<dyn SourceReader<(i64, Item)>>> {
        let (shape, world) = (self.shape.clone(), self.world.clone());
        Ok(Box::new(NumbersReader {
            shape,
            world,
            source: self.source,
            clock: context.clock,
            splits: Vec::new(),
            read: 0,
            complete: 0,
        }))
    }
}

struct NumbersReader {
    shape: Shape,
    world: World,
    source: usize,
    clock: SharedClock,
    /// With the next record, and whether its end was told.
    splits: Vec<(Split, i64, bool)>,
    read: i64,
    complete: u64,
}

impl SourceReader<(i64, Item)> for NumbersReader {
    fn add_splits(&mut self, splits: Vec<Split>) -> Result<()> {
        let next = |split: Split| {
            let at = split.position.as_i64().unwrap();
            (split, at, false)
        };
        self.splits.extend(splits.into_iter().map(next));
        Ok(())
    }

    fn poll(&mut self, output: &mut SourceOutput<(i64, Item)>) -> Result<Poll> {
        let rows = self.shape.rows;
        for (index, (_, at, told)) in self.splits.iter_mut().enumerate() {
            if *at >= rows && !std::mem::replace(told, true) {
                output.finish_split(index);
            }
        }
        let open = self.splits.iter_mut().enumerate().filter(|(_, (_, at, _))| *at < rows);
        let Some((index, (split, at, _))) = open.min_by_key(|(_, (_, at, _))| *at) else { return Ok(Poll::End) };
        let (time_ms, item) = self.shape.record(self.source, split.slot, *at);
        output.push(index, time_ms, (time_ms, item));
        (*at, self.read) = (*at + 1, self.read + 1);
        let rests = self.read % self.shape.rest_behind == 0;
        Ok(if rests { Poll::Pending { wake_at_ms: Some(self.clock.now_ms() + 7) } } else { Poll::More })
    }

    fn snapshot(&mut self) -> Result<Vec<Split>> {
        let now = |(split, at, _): &(Split, i64, bool)| Split { position: serde_json::json!(at), ..split.clone() };
        Ok(self.splits.iter().map(now).collect())
    }

    fn checkpoint_complete(&mut self, epoch: u64) -> Result<()> {
        self.world.heard_complete(epoch);
        if epoch <= self.complete {
            self.world.fault(format!("a source hears of epoch {epoch} behind {}", self.complete));
        }
        self.complete = epoch;
        Ok(())
    }
}

/// The how-manieth of its key each record is. Its state is written in two units, each a base and deltas, one section a step.
#[derive(Default)]
struct Counts {
    counts: BTreeMap<i64, i64>,
    changed: BTreeSet<i64>,
    based: bool,
    snapshots: usize,
    copying: Vec<Section>,
}

impl Counts {
    fn section(&self, unit: i64, keys: impl Iterator<Item = i64>, chain: Option<bool>) -> Result<Section> {
        let mut writer = Writer::new("counts", SectionKind::Keyed);
        for key in keys.filter(|key| key % 2 == unit) {
            writer.entry(&(key, self.counts[&key]))?;
        }
        let chain = chain.map(|begins| ChainPart { table: "counts".into(), unit: unit as u16, begins });
        Ok(Section { chain, ..writer.finish() })
    }
}

impl Operator<Item, Item> for Counts {
    fn restore(&mut self, mut state: Restored) -> Result<()> {
        for section in state.take("counts") {
            let mut reader = section.reader()?;
            while let Some((key, count)) = reader.entry::<Item>()? {
                if state.owns(&key) {
                    self.counts.insert(key, count);
                }
            }
        }
        state.finish()
    }

    fn on_batch(&mut self, batch: Records<Item>, out: &mut Out<Item>) -> Result<()> {
        for (time_ms, (key, _)) in batch {
            let count = self.counts.entry(key).or_default();
            *count += 1;
            self.changed.insert(key);
            let count = *count;
            out.emit(time_ms, (key, count))?;
        }
        Ok(())
    }

    fn snapshot(&mut self, _: u64, parts: &mut SnapshotParts) -> Result<()> {
        self.snapshots += 1;
        let all: Vec<i64> = self.counts.keys().copied().collect();
        let (keys, chain) = match parts.mode {
            SnapshotMode::Nothing => return Ok(()),
            SnapshotMode::Detached => (all, None),
            SnapshotMode::Checkpoint { fresh } => {
                parts.roster.push("counts".into());
                let begins = fresh || !self.based || self.snapshots.is_multiple_of(4);
                self.based = true;
                let changed = std::mem::take(&mut self.changed);
                (if begins { all } else { changed.into_iter().collect() }, Some(begins))
            }
        };
        for unit in 0..2 {
            self.copying.push(self.section(unit, keys.iter().copied(), chain)?);
        }
        Ok(())
    }

    fn copy_some(&mut self, run: &mut CopyRun) -> Result<bool> {
        while run.room()
            && let Some(section) = self.copying.pop()
        {
            run.sections.push(section);
            // One a step.
            run.spend(usize::MAX);
        }
        Ok(self.copying.is_empty())
    }
}

/// A sink into the world.
struct Publishing {
    world: World,
    number: u8,
}

fn prefix(scope: &SinkScope) -> String {
    format!("{}/{}/", scope.uid, scope.job_id.trim_start_matches('0'))
}

impl Sink<Item> for Publishing {
    fn name(&self) -> String {
        format!("publishing {}", self.number)
    }

    fn writer(&self, context: WriterContext) -> Result<Box<dyn SinkWriter<Item>>> {
        let name = format!("{}{}-{}", prefix(&context.scope), context.attempt, context.subtask);
        Ok(Box::new(PublishingWriter { world: self.world.clone(), number: self.number, name, rows: Vec::new() }))
    }

    fn committer(&self, _: &SinkScope) -> Result<Option<Box<dyn Committer>>> {
        Ok(Some(Box::new(self.world.clone())))
    }

    fn recover(&self, scope: &SinkScope, tokens: &[Token]) -> Result<()> {
        tokens.iter().try_for_each(|token| self.world.commit(token))?;
        self.world.clean(prefix(scope).as_bytes())
    }
}

struct PublishingWriter {
    world: World,
    number: u8,
    name: String,
    rows: Vec<Row>,
}

impl SinkWriter<Item> for PublishingWriter {
    fn write(&mut self, batch: Vec<(i64, Item)>) -> Result<()> {
        self.rows.extend(batch.into_iter().map(|(_, (key, value))| (self.number, key, value)));
        Ok(())
    }

    fn pre_commit(&mut self, epoch: u64) -> Result<PreCommit> {
        let (world, rows) = (self.world.clone(), std::mem::take(&mut self.rows));
        let token = format!("{}-{epoch}", self.name).into_bytes();
        Ok(Box::new(move || match rows.is_empty() {
            true => Ok(Vec::new()),
            false => world.prepare(token.clone(), rows).map(|()| vec![token]),
        }))
    }
}

impl Committer for World {
    fn commit(&mut self, tokens: &[Token]) -> Result<()> {
        tokens.iter().try_for_each(|token| World::commit(self, token))
    }
}
