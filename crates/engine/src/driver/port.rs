//! The ends of an edge between tasks: the output port, which spreads records over workers and holds the task's
//! capability for the edge, and the input port, which keeps what has arrived until its epoch is there.

use std::cell::RefCell;
use std::collections::VecDeque;
use std::rc::Rc;
use std::sync::Arc;

use tidemill_core::{Data, Error, Result};
use timely::dataflow::channels::pushers::Output;
use timely::dataflow::operators::Capability;
use timely::dataflow::operators::generic::InputHandleCore;

use super::codec::{Codec, Decoder};
use super::flow::{BatchPull, CreditReturn, Flow};
use super::rows::{Channel, Records, RowBytes, Rows};
use super::timestamp::Ts;
use crate::operator::{Link, Signal};
use crate::runtime::metrics::SubtaskMetrics;
use crate::stream::partition::Partition;

/// What an output port sends through and holds its time by: timely's output and capability, or what stands in for them in
/// the simulation.
pub(crate) trait Outlet<T> {
    /// Begins at `time`; timely gives each output its capability then.
    fn start(&mut self, capability: Option<Capability<Ts>>, time: Ts);
    /// The time held; `None` before the start and when it was let go.
    fn time(&self) -> Option<Ts>;
    /// Sends batches under the time held.
    fn send(&mut self, batches: &mut dyn Iterator<Item = Rows<T>>);
    /// Moves the time held on.
    fn downgrade(&mut self, time: Ts);
    /// Lets go: nothing more is sent.
    fn close(&mut self);
}

/// What an input port receives from: timely's handle, or what stands in for it in the simulation.
pub(crate) trait Inlet<T> {
    /// Takes what has arrived, each batch with its time.
    fn take(&mut self, each: &mut dyn FnMut(Ts, Rows<T>));
}

/// An output of a timely operator.
pub(crate) struct TimelyOutlet<T: 'static> {
    pub output: Output<Ts, Rows<T>>,
    pub capability: Option<Capability<Ts>>,
}

impl<T: Data> Outlet<T> for TimelyOutlet<T> {
    fn start(&mut self, capability: Option<Capability<Ts>>, time: Ts) {
        self.capability = capability;
        self.downgrade(time);
    }

    fn time(&self) -> Option<Ts> {
        self.capability.as_ref().map(|capability| *capability.time())
    }

    fn send(&mut self, batches: &mut dyn Iterator<Item = Rows<T>>) {
        let Some(capability) = &self.capability else { return };
        let mut session = self.output.activate();
        batches.for_each(|mut batch| session.give(capability, &mut batch));
    }

    fn downgrade(&mut self, time: Ts) {
        if let Some(capability) = &mut self.capability {
            capability.downgrade(&time);
        }
    }

    fn close(&mut self) {
        self.capability = None;
    }
}

impl<T: Data> Inlet<T> for InputHandleCore<Ts, Rows<T>, BatchPull<T>> {
    fn take(&mut self, each: &mut dyn FnMut(Ts, Rows<T>)) {
        self.for_each(|capability, rows| each(*capability.time(), std::mem::take(rows)));
    }
}

/// The sending end of an edge, on one worker.
pub(crate) struct OutputPort<T: 'static> {
    pub outlet: Box<dyn Outlet<T>>,
    pub partition: Box<dyn Partition<T>>,
    /// One buffer a receiving subtask.
    pub buffers: Vec<Records<T>>,
    /// One a receiving subtask.
    pub channels: Vec<Arc<Channel<T>>>,
    /// The workers of the receiving subtasks.
    pub receivers: Vec<usize>,
    pub codec: &'static dyn Codec<T>,
    pub row_bytes: RowBytes,
    pub flow: Flow,
    /// The sending subtask.
    pub me: u32,
    pub metrics: Arc<SubtaskMetrics>,
}

/// Which buffers an output port sends.
#[derive(Clone, Copy)]
enum Buffers {
    Full,
    All,
}

impl<T: Data> OutputPort<T> {
    /// Sends the buffers that are full, or all that hold something.
    fn send(&mut self, what: Buffers) {
        if self.outlet.time().is_none() {
            return;
        }
        let OutputPort { outlet, buffers, channels, receivers, codec, row_bytes, flow, metrics, me, .. } = self;
        let goes = |buffer: &Records<T>, channel: &Channel<T>| match what {
            Buffers::Full => codec.rows(buffer) >= row_bytes.rows_together(channel.batch_rows()),
            Buffers::All => codec.rows(buffer) > 0,
        };
        if !buffers.iter().zip(&*channels).any(|(buffer, channel)| goes(buffer, channel)) {
            return;
        }
        let all = buffers.iter_mut().zip(channels).zip(receivers);
        let going = all.filter(|((buffer, channel), _)| goes(buffer, channel));
        outlet.send(&mut going.map(|((buffer, channel), worker)| {
            let rows = codec.rows(buffer);
            flow.sent(*worker, rows);
            metrics.records_out.add(rows as u64);
            Rows::new(std::mem::take(buffer), rows, (*me, *worker as u32), channel.clone())
        }));
    }

    fn downgrade(&mut self, epoch: Option<u64>, watermark_ms: Option<i64>) {
        self.send(Buffers::All);
        if let Some(now) = self.outlet.time() {
            let next = Ts::new(
                epoch.unwrap_or(now.epoch).max(now.epoch),
                watermark_ms.unwrap_or(i64::MIN).max(now.watermark()),
            );
            if next != now {
                self.outlet.downgrade(next);
            }
        }
    }
}

/// The port as the last link of a chain.
pub(crate) struct PortLink<T: 'static>(pub Rc<RefCell<OutputPort<T>>>);

impl<T: Data> Link<T> for PortLink<T> {
    fn push(&mut self, batch: Records<T>) -> Result<()> {
        let port = &mut *self.0.borrow_mut();
        port.flow.weigh(port.row_bytes.note(port.codec.row_bytes(&batch)));
        port.partition.scatter(batch, &mut port.buffers)?;
        port.send(Buffers::Full);
        Ok(())
    }

    fn signal(&mut self, signal: &mut Signal<'_>) -> Result<()> {
        let mut port = self.0.borrow_mut();
        match signal {
            Signal::Watermark(watermark_ms) => port.downgrade(None, Some(*watermark_ms)),
            Signal::Barrier { epoch, .. } => port.downgrade(Some(*epoch + 1), None),
            Signal::Close => {
                port.send(Buffers::All);
                port.outlet.close();
            }
            Signal::ProcessingTime(_)
            | Signal::NextProcessingTime(_)
            | Signal::Wake
            | Signal::UnderWay(_)
            | Signal::Copy(_)
            | Signal::LateDropped(_) => {}
        }
        Ok(())
    }

    fn ready(&mut self) -> bool {
        self.0.borrow().flow.may_send()
    }
}

/// An output port as its task sees it.
pub(crate) trait AnyOutput {
    fn start(&self, capability: Option<Capability<Ts>>, epoch: u64);
    fn absorb_credit(&self);
    fn flush(&self);
    /// Gives up the capability without sending what is buffered.
    fn abandon(&self);
}

impl<T: Data> AnyOutput for RefCell<OutputPort<T>> {
    fn start(&self, capability: Option<Capability<Ts>>, epoch: u64) {
        self.borrow_mut().outlet.start(capability, Ts::new(epoch, i64::MIN));
    }

    fn absorb_credit(&self) {
        self.borrow().flow.absorb();
    }

    fn flush(&self) {
        self.borrow_mut().send(Buffers::All);
    }

    fn abandon(&self) {
        self.borrow_mut().outlet.close();
    }
}

/// The head of a chain, shared by the input ports that feed it.
pub(crate) type Head<T> = Rc<RefCell<Box<dyn Link<T>>>>;

/// The receiving end of an edge, on one worker.
pub(crate) struct InputPort<T: Data> {
    pub inlet: Box<dyn Inlet<T>>,
    pub head: Head<T>,
    pub credit: CreditReturn,
    /// Batches of the current epoch, then those of later ones. Bounded by the senders' credit.
    pub current: VecDeque<Arrived<T>>,
    pub later: VecDeque<Arrived<T>>,
    pub senders: Vec<Sender<T>>,
    pub metrics: Arc<SubtaskMetrics>,
}

/// A batch that waits.
pub(crate) struct Arrived<T> {
    time: Ts,
    from: usize,
    rows: usize,
    records: Records<T>,
}

/// A sending subtask, as an input port knows it.
pub(crate) struct Sender<T> {
    /// The watermark its records stand under by now.
    pub watermark_ms: i64,
    /// The receiving end of its channel.
    pub decoder: Box<dyn Decoder<T>>,
}

/// An input port as its task sees it.
pub(crate) trait AnyInput {
    /// Takes in what has arrived. An error when it is not what was sent.
    fn pull(&mut self, epoch: u64) -> Result<()>;
    /// Processes one batch of the current epoch; its rows, or `None` when there is no batch.
    fn process_one(&mut self) -> Result<Option<usize>>;
    /// The watermark before the next batch; `frontier` is that of the input's frontier. `None` when nothing can come.
    fn watermark(&mut self, frontier: Option<i64>) -> Option<i64>;
    /// The current epoch is over: batches of `epoch` become current.
    fn next_epoch(&mut self, epoch: u64);
    /// Whether batches of later epochs wait.
    fn has_later(&self) -> bool;
    /// Returns all credit for what was processed.
    fn settle(&mut self);
}

impl<T: Data> AnyInput for InputPort<T> {
    fn pull(&mut self, epoch: u64) -> Result<()> {
        let (current, later, senders) = (&mut self.current, &mut self.later, &mut self.senders);
        let mut damage = None;
        self.inlet.take(&mut |time, rows| {
            let (from, count, known) = (rows.from as usize, rows.count(), senders.len());
            let opened = match senders.get_mut(from) {
                Some(sender) => rows.open(sender.decoder.as_mut()),
                None => Err(format!("a batch of subtask {from}, but there are {known}")),
            };
            match opened {
                Ok(records) if time.epoch > epoch => later.push_back(Arrived { time, from, rows: count, records }),
                Ok(records) => current.push_back(Arrived { time, from, rows: count, records }),
                Err(why) => damage = Some(why),
            }
        });
        match damage {
            Some(why) => Err(Error::external(format!("input from another process is damaged: {why}"))),
            None => Ok(()),
        }
    }

    fn process_one(&mut self) -> Result<Option<usize>> {
        let Some(Arrived { from, rows, records, .. }) = self.current.pop_front() else { return Ok(None) };
        self.metrics.records_in.add(rows as u64);
        self.head.borrow_mut().push(records)?;
        self.credit.processed(from, rows);
        Ok(Some(rows))
    }

    /// What the frontier says, held back by batches that wait; or, where progress lags behind the data, what the senders'
    /// batches say: a sender's watermarks only grow, so they take effect in the order in which they were sent.
    fn watermark(&mut self, frontier: Option<i64>) -> Option<i64> {
        if let Some(next) = self.current.front()
            && let Some(sender) = self.senders.get_mut(next.from)
        {
            sender.watermark_ms = next.time.watermark().max(sender.watermark_ms);
        }
        let waiting = self.current.iter().chain(&self.later).map(|batch| batch.time.watermark()).min();
        let told = frontier.into_iter().chain(waiting).min()?;
        Some(self.senders.iter().map(|sender| sender.watermark_ms).min().map_or(told, |seen| seen.max(told)))
    }

    fn next_epoch(&mut self, epoch: u64) {
        let (current, later): (Vec<_>, Vec<_>) = self.later.drain(..).partition(|batch| batch.time.epoch <= epoch);
        self.current.extend(current);
        self.later.extend(later);
    }

    fn has_later(&self) -> bool {
        !self.later.is_empty()
    }

    fn settle(&mut self) {
        if self.current.is_empty() {
            self.credit.settle();
        }
    }
}

/// The chain of a task, for everything but records.
pub(crate) trait AnyHead {
    fn signal(&self, signal: &mut Signal<'_>) -> Result<()>;
    fn ready(&self) -> bool;
}

impl<T> AnyHead for RefCell<Box<dyn Link<T>>> {
    fn signal(&self, signal: &mut Signal<'_>) -> Result<()> {
        self.borrow_mut().signal(signal)
    }

    fn ready(&self) -> bool {
        self.borrow_mut().ready()
    }
}

#[cfg(test)]
mod tests {
    use super::super::codec::codec;
    use super::super::flow::{CREDIT_BYTES, CREDIT_ROWS};
    use super::super::rows::{BATCH_BYTES, BATCH_ROWS};
    use super::*;
    use crate::stream::partition::{Global, PartitionFactory};

    /// Notes the rows of each batch.
    struct Counted(Rc<RefCell<Vec<usize>>>);

    impl Outlet<String> for Counted {
        fn start(&mut self, _: Option<Capability<Ts>>, _: Ts) {}
        fn time(&self) -> Option<Ts> {
            Some(Ts::new(1, i64::MIN))
        }
        fn send(&mut self, batches: &mut dyn Iterator<Item = Rows<String>>) {
            self.0.borrow_mut().extend(batches.map(|batch| batch.count()));
        }
        fn downgrade(&mut self, _: Ts) {}
        fn close(&mut self) {}
    }

    /// The batches that leave a port for one receiver, which processes nothing, until the port has no credit left. It is given
    /// texts of so many bytes, so many at a time.
    fn sent(text_bytes: usize, at_a_time: usize) -> Vec<usize> {
        let sent = Rc::<RefCell<Vec<usize>>>::default();
        let port = OutputPort {
            outlet: Box::new(Counted(sent.clone())),
            partition: Global.make(0, 1, 1),
            buffers: vec![Vec::new()],
            channels: vec![Arc::new(Channel::new(codec::<String>().encoder()))],
            receivers: vec![0],
            codec: codec::<String>(),
            row_bytes: RowBytes::default(),
            flow: Flow::new(1),
            me: 0,
            metrics: Arc::default(),
        };
        let mut link = PortLink(Rc::new(RefCell::new(port)));
        while link.ready() {
            link.push((0..at_a_time as i64).map(|time| (time, "a".repeat(text_bytes))).collect()).unwrap();
        }
        sent.take()
    }

    #[test]
    fn what_is_under_way_is_bounded_by_rows_and_by_bytes() {
        let small = sent(10, 100);
        assert!(small.iter().all(|rows| (BATCH_ROWS..BATCH_ROWS + 100).contains(rows)), "{small:?}");
        assert!((CREDIT_ROWS as usize..CREDIT_ROWS as usize + BATCH_ROWS + 100).contains(&small.iter().sum()));
        for (text_bytes, at_a_time) in [(10_000, 10), (1_000_000, 1), (20_000_000, 1)] {
            let large = sent(text_bytes, at_a_time);
            let (most, bytes) = (large.iter().max().unwrap() * text_bytes, large.iter().sum::<usize>() * text_bytes);
            assert!(most <= BATCH_BYTES + at_a_time * text_bytes, "{large:?}");
            assert!(bytes <= CREDIT_BYTES + BATCH_BYTES + at_a_time * text_bytes, "{large:?}");
        }
    }
}
