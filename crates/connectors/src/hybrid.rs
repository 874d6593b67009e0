//! Sources one after the other: history from files, then what comes in from a topic or Kafka.
//!
//! The engine sees one source with stages (see [`tidemill_core::source`]): a stage begins on every subtask when the one
//! before is read to its end on all. Which stage it is, and where the one before had ended, stands in the checkpoint.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tidemill_core::source::{Boundedness, Poll, ReaderContext, Source, SourceOutput, SourceReader, Split};
use tidemill_core::{Error, Result};

/// Makes the next source, knowing the splits of the one before at their ends.
type Make<T> = Box<dyn Fn(&[Split]) -> Result<Arc<dyn Source<T>>> + Send + Sync>;

struct Stage<T> {
    make: Make<T>,
    boundedness: Boundedness,
    /// What it is called before it is made.
    title: String,
}

/// Reads bounded sources one after the other; the last one may be unbounded.
///
/// ```
/// use tidemill_connectors::generator::GeneratorSource;
/// use tidemill_connectors::hybrid::HybridSource;
/// let history = GeneratorSource::new("history", |n: u64| n).count(1000);
/// let live = GeneratorSource::new("live", |n: u64| 1000 + n);
/// let all = HybridSource::new(history).then(live);
/// # let _ = all;
/// ```
pub struct HybridSource<T> {
    stages: Vec<Stage<T>>,
    opened: Arc<Opened<T>>,
}

/// The sources that were made so far, by stage; shared by all subtasks of the process.
struct Opened<T>(Mutex<BTreeMap<u32, Arc<dyn Source<T>>>>);

impl<T> Opened<T> {
    fn lock(&self) -> MutexGuard<'_, BTreeMap<u32, Arc<dyn Source<T>>>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl<T: 'static> HybridSource<T> {
    /// Begins with `first`, which must be bounded when others follow.
    pub fn new(first: impl Source<T>) -> Self {
        HybridSource { stages: Vec::new(), opened: Arc::new(Opened(Mutex::default())) }.then(first)
    }

    /// Goes on with `next`, whose position at the switch is the one it was made with, such as a start timestamp.
    pub fn then(mut self, next: impl Source<T>) -> Self {
        let (boundedness, title) = (next.boundedness(), next.name());
        let next: Arc<dyn Source<T>> = Arc::new(next);
        self.stages.push(Stage { make: Box::new(move |_| Ok(Arc::clone(&next))), boundedness, title });
        self
    }

    /// Goes on with a source that is made at the switch: `make` gets the splits of the source before at their ends, of all
    /// subtasks and ordered by id. After a restart it is called again with the same splits and must give the same source.
    pub fn then_from<S: Source<T>>(
        mut self,
        boundedness: Boundedness,
        make: impl Fn(&[Split]) -> Result<S> + Send + Sync + 'static,
    ) -> Self {
        let make: Make<T> = Box::new(move |ended| Ok(Arc::new(make(ended)?)));
        self.stages.push(Stage { make, boundedness, title: "a source that depends on it".to_string() });
        self
    }

    fn open(&self, number: u32, ended: &[Split]) -> Result<Vec<Split>> {
        let stage = self.stages.get(number as usize);
        let stage = stage.ok_or_else(|| Error::bug(format!("{} has no stage {number}", self.name())))?;
        let mut opened = self.opened.lock();
        let source = match opened.get(&number) {
            Some(source) => Arc::clone(source),
            None => (stage.make)(ended)?,
        };
        if source.boundedness() != stage.boundedness {
            return Err(Error::input(format!(
                "{} is {:?}, not as it was announced",
                source.name(),
                source.boundedness()
            )));
        }
        if source.stages() > 1 {
            return Err(Error::input(format!("{} is one of a chain already", source.name()))
                .hint("chain its parts with `then` instead"));
        }
        opened.insert(number, Arc::clone(&source));
        drop(opened);
        let splits = source.splits()?;
        Ok(splits.into_iter().map(|split| Split { id: outer_id(number, &split.id), ..split }).collect())
    }
}

fn outer_id(stage: u32, id: &str) -> String {
    format!("{stage}:{id}")
}

fn inner(split: Split) -> Result<(u32, Split)> {
    let wrong = || Error::input(format!("split `{}` is not one of a hybrid source", split.id));
    let (stage, id) = split.id.split_once(':').ok_or_else(wrong)?;
    let stage = stage.parse().map_err(|_| wrong())?;
    Ok((stage, Split { id: id.to_string(), ..split }))
}

impl<T: 'static> Source<T> for HybridSource<T> {
    fn name(&self) -> String {
        self.stages.iter().map(|stage| stage.title.as_str()).collect::<Vec<_>>().join(", then ")
    }

    fn boundedness(&self) -> Boundedness {
        self.stages.last().map_or(Boundedness::Bounded, |stage| stage.boundedness)
    }

    fn splits(&self) -> Result<Vec<Split>> {
        let before_last = self.stages.split_last().map_or(&[][..], |(_, before)| before);
        if let Some(endless) = before_last.iter().find(|stage| stage.boundedness == Boundedness::Unbounded) {
            return Err(Error::input(format!("{} does not end, so nothing can follow it", endless.title))
                .hint("bound it, or let it be the last of the chain"));
        }
        self.open(0, &[])
    }

    fn stages(&self) -> u32 {
        self.stages.len() as u32
    }

    fn stage_splits(&self, stage: u32, ended: &[Split]) -> Result<Vec<Split>> {
        if stage == 0 { self.splits() } else { self.open(stage, ended) }
    }

    /// Of the last source; those before it are read as they are found.
    fn discovery_interval_ms(&self) -> Option<u64> {
        let last = self.stages().saturating_sub(1);
        self.opened.lock().get(&last).and_then(|source| source.discovery_interval_ms())
    }

    fn reader(&self, context: ReaderContext) -> Result<Box<dyn SourceReader<T>>> {
        Ok(Box::new(HybridReader { opened: Arc::clone(&self.opened), context, current: None, added: 0 }))
    }
}

struct HybridReader<T> {
    opened: Arc<Opened<T>>,
    context: ReaderContext,
    current: Option<Current<T>>,
    /// Splits added so far, of all stages.
    added: usize,
}

struct Current<T> {
    stage: u32,
    reader: Box<dyn SourceReader<T>>,
    /// Splits added in stages before.
    before: usize,
}

impl<T: 'static> HybridReader<T> {
    /// The reader of a stage; that of the stage before ends.
    fn enter(&mut self, stage: u32) -> Result<&mut Current<T>> {
        match &mut self.current {
            Some(current) if current.stage == stage => {}
            current => {
                let source = self.opened.lock().get(&stage).cloned();
                let source =
                    source.ok_or_else(|| Error::bug(format!("stage {stage} of a hybrid source has not begun")))?;
                // Only the first one entered goes on from a checkpoint.
                let restored = self.context.restored && current.is_none();
                let reader = source.reader(ReaderContext { restored, ..self.context.clone() })?;
                *current = Some(Current { stage, reader, before: self.added });
            }
        }
        self.current.as_mut().ok_or_else(|| Error::bug("a stage was entered and is not there"))
    }
}

impl<T: 'static> SourceReader<T> for HybridReader<T> {
    fn add_splits(&mut self, splits: Vec<Split>) -> Result<()> {
        let count = splits.len();
        let inner: Vec<(u32, Split)> = splits.into_iter().map(inner).collect::<Result<_>>()?;
        // A subtask may have no splits in a stage; the newest stage has begun then.
        let newest = self.opened.lock().keys().next_back().copied().unwrap_or(0);
        let stage = inner.first().map_or(newest, |(stage, _)| *stage);
        self.enter(stage)?.reader.add_splits(inner.into_iter().map(|(_, split)| split).collect())?;
        self.added += count;
        Ok(())
    }

    fn poll(&mut self, output: &mut SourceOutput<T>) -> Result<Poll> {
        match &mut self.current {
            Some(current) => output.behind(current.before, |output| current.reader.poll(output)),
            None => Ok(Poll::End),
        }
    }

    fn pause_splits(&mut self, paused: &[bool]) -> bool {
        match &mut self.current {
            Some(current) => current.reader.pause_splits(paused.get(current.before..).unwrap_or_default()),
            None => true,
        }
    }

    fn snapshot(&mut self) -> Result<Vec<Split>> {
        let Some(current) = &mut self.current else { return Ok(Vec::new()) };
        let outer = |split: Split| Split { id: outer_id(current.stage, &split.id), ..split };
        Ok(current.reader.snapshot()?.into_iter().map(outer).collect())
    }

    fn checkpoint_complete(&mut self, epoch: u64) -> Result<()> {
        self.current.as_mut().map_or(Ok(()), |current| current.reader.checkpoint_complete(epoch))
    }

    fn pending_records(&self) -> Option<u64> {
        self.current.as_ref().and_then(|current| current.reader.pending_records())
    }

    fn fetched_ms(&self) -> Option<i64> {
        self.current.as_ref().and_then(|current| current.reader.fetched_ms())
    }
}
