//! Every window kind with every trigger and evictor, on random streams with random watermarks, clocks and restarts with
//! another parallelism, step by step against the reference.

use super::erased::{SomeKind, SomeTrigger, fired};
use super::reference::{Book, Evict, Kind, Reference, Rule, Timeout};
use super::subtasks::Subtasks;
use super::*;
use crate::state::{StateHome, scratch};
use crate::stream::DataStream;
use crate::window::count::CountWindows;

type Difference = fn(&Event, &Event) -> f64;

/// Evictors as one type.
#[derive(Clone)]
enum SomeEvictor {
    Count(Timed<CountEvictor>),
    Time(Timed<TimeEvictor>),
    Delta(Timed<DeltaEvictor<Difference>>),
}

impl Evictor<Event> for SomeEvictor {
    fn evict_before(&mut self, records: &mut Vec<(i64, Event)>, context: &EvictorContext) -> Result<()> {
        match self {
            SomeEvictor::Count(evictor) => evictor.evict_before(records, context),
            SomeEvictor::Time(evictor) => evictor.evict_before(records, context),
            SomeEvictor::Delta(evictor) => evictor.evict_before(records, context),
        }
    }
    fn evict_after(&mut self, records: &mut Vec<(i64, Event)>, context: &EvictorContext) -> Result<()> {
        match self {
            SomeEvictor::Count(evictor) => evictor.evict_after(records, context),
            SomeEvictor::Time(evictor) => evictor.evict_after(records, context),
            SomeEvictor::Delta(evictor) => evictor.evict_after(records, context),
        }
    }
}

fn ms(n: i64) -> Duration {
    Duration::from_millis(n as u64)
}

fn difference(a: &Event, b: &Event) -> f64 {
    (a.value - b.value).abs() as f64
}

fn gap_of(event: &Event) -> Duration {
    ms(event.value)
}

fn kind_of(kind: Kind) -> SomeKind {
    match kind {
        Kind::Sliding { size, slide, offset, event_time } => SomeKind::new(match event_time {
            true => Sliding::event_time(ms(size), ms(slide)).with_offset_ms(offset),
            false => Sliding::processing_time(ms(size), ms(slide)).with_offset_ms(offset),
        }),
        Kind::Session { gap, event_time: true } => SomeKind::new(Session::event_time(ms(gap))),
        Kind::Session { gap, event_time: false } => SomeKind::new(Session::processing_time(ms(gap))),
        Kind::DynamicSession { event_time: true } => {
            SomeKind::new(Session::event_time_with_dynamic_gap(gap_of as fn(&Event) -> Duration))
        }
        Kind::DynamicSession { event_time: false } => {
            SomeKind::new(Session::processing_time_with_dynamic_gap(gap_of as fn(&Event) -> Duration))
        }
        Kind::Global => SomeKind::new(GlobalWindows::new()),
    }
}

fn trigger_of(book: &Book) -> SomeTrigger {
    fn wrapped<G: Trigger<Event>>(trigger: G, book: &Book) -> SomeTrigger {
        let timeout = |timeout: Timeout| (ms(timeout.after), timeout.reset, timeout.clear);
        match (book.timeout.map(timeout), book.purging) {
            (None, false) => SomeTrigger::new(trigger),
            (None, true) => SomeTrigger::new(PurgingTrigger::of(trigger)),
            (Some((after, reset, clear)), purging) => {
                assert!(!purging);
                let trigger = ProcessingTimeoutTrigger::of(trigger, after);
                SomeTrigger::new(trigger.reset_timer_on_new_record(reset).clear_on_timeout(clear))
            }
        }
    }
    match book.rule {
        Rule::EventTime => wrapped(EventTimeTrigger, book),
        Rule::ProcessingTime => wrapped(ProcessingTimeTrigger, book),
        Rule::Count(n) => wrapped(CountTrigger::of(n), book),
        Rule::ContinuousEventTime(interval) => wrapped(ContinuousEventTimeTrigger::of(ms(interval)), book),
        Rule::ContinuousProcessingTime(interval) => wrapped(ContinuousProcessingTimeTrigger::of(ms(interval)), book),
        Rule::Delta(threshold) => wrapped(DeltaTrigger::of(threshold as f64, difference as Difference), book),
        Rule::Never => wrapped(NeverTrigger, book),
    }
}

fn evictor_of((evict, after): (Evict, bool)) -> SomeEvictor {
    fn timed<E>(evictor: Timed<E>, after: bool) -> Timed<E> {
        if after { evictor.after_function() } else { evictor }
    }
    match evict {
        Evict::Count(keep) => SomeEvictor::Count(timed(CountEvictor::of(keep as u64), after)),
        Evict::Time(keep) => SomeEvictor::Time(timed(TimeEvictor::of(ms(keep)), after)),
        Evict::Delta(threshold) => {
            SomeEvictor::Delta(timed(DeltaEvictor::of(threshold as f64, difference as Difference), after))
        }
    }
}

/// Where the windows of a run stand: in memory, or at each start in memory or on disk.
#[derive(Clone)]
struct Homes(StateHome);

impl Homes {
    fn memory() -> Self {
        Homes(StateHome::default())
    }

    /// With so little memory that a handful of entries goes to files.
    fn disk(folder: &tempfile::TempDir) -> Self {
        Homes(StateHome::tiny(folder.path().join("scratch")).unwrap())
    }

    fn next(&self, chance: &mut Chance) -> StateHome {
        if self.0.is_on_disk() && chance.below(3) == 0 { StateHome::default() } else { self.0.clone() }
    }
}

/// Runs operator and reference side by side and compares them after each step. Returns how much was fired and late.
fn compare(
    seed: u64,
    what: &str,
    book: Book,
    homes: &Homes,
    pipeline: impl Fn(DataStream<Event>) -> DataStream<Fired> + 'static,
) -> (usize, usize) {
    const START: i64 = -100;
    let mut chance = Chance(seed | 1);
    let read_late = chance.below(4) > 0;
    let mut subtasks = Subtasks::new(START, read_late, &homes.0, Box::new(pipeline));
    let mut reference = Reference::new(book, START);
    let (mut newest, mut watermark, mut now, mut fired, mut late) = (START, i64::MIN, START, 0, 0);
    for step in 0..350u32 {
        let done = match chance.below(20) {
            0..=12 => {
                newest += chance.below(9) as i64;
                let time_ms = newest - chance.below(40) as i64;
                let event =
                    Event { id: step, key: chance.below(4) as u32, time_ms, value: 1 + chance.below(25) as i64 };
                reference.record(event);
                subtasks.record(event).map(|()| format!("{event:?}"))
            }
            13..=16 => {
                let to = newest - chance.below(30) as i64;
                if to <= watermark {
                    continue;
                }
                watermark = to;
                reference.watermark(to);
                subtasks.watermark(to).map(|()| format!("watermark {to}"))
            }
            17 | 18 => {
                now += 1 + chance.below(20) as i64;
                reference.clock(now);
                subtasks.clock(now).map(|()| format!("clock {now}"))
            }
            _ if chance.below(4) == 0 => {
                let parallelism = 1 + chance.below(4) as usize;
                let home = homes.next(&mut chance);
                subtasks.restart(parallelism, &home).map(|()| format!("restart with {parallelism}"))
            }
            _ => continue,
        };
        let done = format!("seed {seed}, {what} {book:?}, step {step}: {}", done.unwrap());
        let mut got: Vec<_> =
            subtasks.fired().into_iter().map(|(time, it)| (it.key, it.window, it.ids, time)).collect();
        let mut expected = std::mem::take(&mut reference.fired);
        got.sort();
        expected.sort();
        assert_eq!(got, expected, "{done}");
        fired += got.len();
        if read_late {
            late += reference.late.len();
            assert_eq!(subtasks.late(), std::mem::take(&mut reference.late), "late: {done}");
        } else {
            late = reference.late.len();
            assert_eq!(subtasks.late_dropped(), late as u64, "late count: {done}");
        }
    }
    (fired, late)
}

fn kinds(chance: &mut Chance) -> [Kind; 10] {
    let size = 1 + chance.below(40) as i64;
    let slide = [1 + chance.below(size as u64) as i64, size + 7][usize::from(chance.below(5) == 0)];
    let offset = chance.below(slide.min(size) as u64) as i64;
    let gap = 1 + chance.below(15) as i64;
    [
        Kind::Sliding { size, slide: size, offset, event_time: true },
        Kind::Sliding { size, slide, offset, event_time: true },
        Kind::Sliding { size, slide: size, offset, event_time: false },
        Kind::Sliding { size, slide, offset, event_time: false },
        Kind::Session { gap, event_time: true },
        Kind::Session { gap: 1, event_time: true },
        Kind::Session { gap, event_time: false },
        Kind::DynamicSession { event_time: true },
        Kind::DynamicSession { event_time: false },
        Kind::Global,
    ]
}

/// The trigger a kind has by itself.
fn own_rule(kind: Kind) -> Rule {
    match kind {
        Kind::Global => Rule::Never,
        kind if kind.event_time() => Rule::EventTime,
        _ => Rule::ProcessingTime,
    }
}

#[test]
fn kinds_by_themselves_equal_the_reference_fast_and_general() {
    let (results, late) = kinds_by_themselves(40, &Homes::memory());
    assert!(results > 10_000 && late > 100, "the streams show something: {results} results, {late} late");
}

#[test]
fn kinds_by_themselves_on_disk_equal_the_reference_fast_and_general() {
    let folder = scratch();
    let (results, late) = kinds_by_themselves(6, &Homes::disk(&folder));
    assert!(results > 1_500 && late > 15, "the streams show something: {results} results, {late} late");
}

fn kinds_by_themselves(seeds: u64, homes: &Homes) -> (usize, usize) {
    let (mut results, mut late) = (0, 0);
    for seed in 1..=seeds {
        let mut chance = Chance(seed * 7_919);
        for kind in kinds(&mut chance) {
            for lateness in [0, 1 + chance.below(30) as i64] {
                let book = Book { kind, rule: own_rule(kind), purging: false, timeout: None, evict: None, lateness };
                let own = move |input| kind_of(kind).fired(input, lateness);
                let run = compare(seed, "own operator of", book, homes, own);
                (results, late) = (results + run.0, late + run.1);
                compare(seed, "general operator of", book, homes, move |input| fired(input, kind_of(kind), lateness));
            }
        }
    }
    (results, late)
}

#[test]
fn every_kind_with_every_trigger_and_evictor_equals_the_reference() {
    let results = every_kind_with_every_trigger_and_evictor(12, &Homes::memory());
    assert!(results > 50_000, "the streams show something: {results} results");
}

#[test]
fn every_kind_with_every_trigger_and_evictor_on_disk_equals_the_reference() {
    let folder = scratch();
    let results = every_kind_with_every_trigger_and_evictor(1, &Homes::disk(&folder));
    assert!(results > 4_000, "the streams show something: {results} results");
}

fn every_kind_with_every_trigger_and_evictor(seeds: u64, homes: &Homes) -> usize {
    let mut results = 0;
    for seed in 1..=seeds {
        let mut chance = Chance(seed * 104_729);
        let interval = 1 + chance.below(12) as i64;
        let count = 1 + chance.below(5);
        let rules = [
            Rule::EventTime,
            Rule::ProcessingTime,
            Rule::Count(count),
            Rule::ContinuousEventTime(interval),
            Rule::ContinuousProcessingTime(interval),
            Rule::Delta(5),
            Rule::Never,
        ];
        let keep = chance.below(4) as i64;
        let evicts = [Evict::Count(keep as usize), Evict::Time(3 * keep), Evict::Delta(3 * keep)];
        for kind in kinds(&mut chance) {
            for rule in rules {
                for wrap in 0..3u64 {
                    let timeout = (wrap == 2).then(|| Timeout {
                        after: chance.below(25) as i64,
                        reset: chance.below(2) == 0,
                        clear: chance.below(2) == 0,
                    });
                    if kind.merges() && (timeout.is_some() || matches!(rule, Rule::Delta(_))) {
                        continue;
                    }
                    let evict = match chance.below(6) {
                        n @ 0..=2 => Some((evicts[n as usize], chance.below(2) == 0)),
                        _ => None,
                    };
                    let lateness = [0, chance.below(30) as i64][chance.below(2) as usize];
                    let book = Book { kind, rule, purging: wrap == 1, timeout, evict, lateness };
                    let (run, _) = compare(seed, "general operator of", book, homes, move |input| {
                        let kind = Triggered { kind: kind_of(kind), trigger: trigger_of(&book) };
                        match evict {
                            None => fired(input, kind, lateness),
                            Some(evict) => fired(input, Evicted { kind, evictor: evictor_of(evict) }, lateness),
                        }
                    });
                    results += run;
                }
            }
        }
    }
    results
}

#[test]
fn count_windows_are_global_windows_with_a_count() {
    let folder = scratch();
    let homes = [Homes::memory(), Homes::disk(&folder)];
    for seed in 1..=30u64 {
        let homes = &homes[usize::from(seed % 5 == 0)];
        let mut chance = Chance(seed * 31_337);
        let (size, slide) = (1 + chance.below(6), 1 + chance.below(6));
        let (windows, purging) = match chance.below(2) {
            0 => (CountWindows::tumbling(size), true),
            _ if size == slide => (CountWindows::tumbling(size), true),
            _ => (CountWindows::sliding(size, slide), false),
        };
        let count = if purging { size } else { slide };
        let evict = (!purging).then_some((Evict::Count(size as usize), false));
        let (kind, rule) = (Kind::Global, Rule::Count(count));
        let book = Book { kind, rule, purging, timeout: None, evict, lateness: 0 };
        let own = move |input| SomeKind::new(windows).fired(input, 0);
        assert!(compare(seed, "count windows'", book, homes, own).0 > 20);
        compare(seed, "general count windows'", book, homes, move |input| fired(input, SomeKind::new(windows), 0));
    }
}
