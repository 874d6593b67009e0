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

use super::flow::{BatchPull, CreditReturn, Flow};
use super::rows::{BATCH_ROWS, Records, Rows};
use super::timestamp::Ts;
use crate::operator::{Link, Signal};
use crate::runtime::metrics::SubtaskMetrics;
use crate::stream::partition::Partition;

/// The sending end of an edge, on one worker.
pub(crate) struct OutputPort<T> {
    pub output: Output<Ts, Rows<T>>,
    pub capability: Option<Capability<Ts>>,
    pub partition: Box<dyn Partition<T>>,
    /// One buffer a receiving worker.
    pub buffers: Vec<Records<T>>,
    pub flow: Flow,
    pub me: u32,
    pub metrics: Arc<SubtaskMetrics>,
}

impl<T: Data> OutputPort<T> {
    /// Sends the buffers that hold at least `least` records.
    fn send(&mut self, least: usize) {
        let Some(capability) = &self.capability else { return };
        if self.buffers.iter().all(|buffer| buffer.len() < least.max(1)) {
            return;
        }
        let mut session = self.output.activate();
        for (to, buffer) in self.buffers.iter_mut().enumerate() {
            if buffer.len() >= least.max(1) {
                let records = std::mem::replace(buffer, Vec::with_capacity(if least > 1 { BATCH_ROWS } else { 0 }));
                self.flow.sent(to, records.len());
                self.metrics.records_out.add(records.len() as u64);
                session.give(capability, &mut Rows::new(records, self.me, to as u32));
            }
        }
    }

    fn downgrade(&mut self, epoch: Option<u64>, watermark_ms: Option<i64>) {
        self.send(0);
        if let Some(capability) = &mut self.capability {
            let now = *capability.time();
            let next = Ts::new(
                epoch.unwrap_or(now.epoch).max(now.epoch),
                watermark_ms.unwrap_or(i64::MIN).max(now.watermark()),
            );
            if next != now {
                capability.downgrade(&next);
            }
        }
    }
}

/// The port as the last link of a chain.
pub(crate) struct PortLink<T>(pub Rc<RefCell<OutputPort<T>>>);

impl<T: Data> Link<T> for PortLink<T> {
    fn push(&mut self, batch: Records<T>) -> Result<()> {
        let port = &mut *self.0.borrow_mut();
        port.partition.scatter(batch, &mut port.buffers)?;
        port.send(BATCH_ROWS);
        Ok(())
    }

    fn signal(&mut self, signal: &mut Signal<'_>) -> Result<()> {
        let mut port = self.0.borrow_mut();
        match signal {
            Signal::Watermark(watermark_ms) => port.downgrade(None, Some(*watermark_ms)),
            Signal::Barrier { epoch, .. } => port.downgrade(Some(*epoch + 1), None),
            Signal::Close => {
                port.send(0);
                port.capability = None;
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
    fn start(&self, capability: Capability<Ts>, epoch: u64);
    fn absorb_credit(&self);
    fn flush(&self);
    /// Gives up the capability without sending what is buffered.
    fn abandon(&self);
}

impl<T: Data> AnyOutput for RefCell<OutputPort<T>> {
    fn start(&self, mut capability: Capability<Ts>, epoch: u64) {
        capability.downgrade(&Ts::new(epoch, i64::MIN));
        self.borrow_mut().capability = Some(capability);
    }

    fn absorb_credit(&self) {
        self.borrow().flow.absorb();
    }

    fn flush(&self) {
        self.borrow_mut().send(0);
    }

    fn abandon(&self) {
        self.borrow_mut().capability = None;
    }
}

/// The head of a chain, shared by the input ports that feed it.
pub(crate) type Head<T> = Rc<RefCell<Box<dyn Link<T>>>>;

/// The receiving end of an edge, on one worker.
pub(crate) struct InputPort<T: Data> {
    pub handle: InputHandleCore<Ts, Rows<T>, BatchPull<T>>,
    pub head: Head<T>,
    pub credit: CreditReturn,
    /// Batches of the current epoch, then those of later ones. Bounded by the senders' credit.
    pub current: VecDeque<(Ts, Rows<T>)>,
    pub later: VecDeque<(Ts, Rows<T>)>,
    /// For each sending subtask, the watermark its records stand under by now.
    pub senders: Vec<i64>,
    pub metrics: Arc<SubtaskMetrics>,
}

/// An input port as its task sees it.
pub(crate) trait AnyInput {
    /// Takes in what has arrived. An error when it is not what was sent.
    fn pull(&mut self, epoch: u64) -> Result<()>;
    /// Processes one batch of the current epoch; false when there is none.
    fn process_one(&mut self) -> Result<bool>;
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
        let (current, later, senders) = (&mut self.current, &mut self.later, self.senders.len());
        let mut damage = None;
        self.handle.for_each(|capability, rows| {
            let (time, mut rows) = (*capability.time(), std::mem::take(rows));
            if let Some(why) = rows.damage.take() {
                damage = Some(why);
            } else if rows.from as usize >= senders {
                damage = Some(format!("a batch of subtask {}, but there are {senders}", rows.from));
            } else if time.epoch > epoch {
                later.push_back((time, rows));
            } else {
                current.push_back((time, rows));
            }
        });
        match damage {
            Some(why) => Err(Error::external(format!("input from another process is damaged: {why}"))),
            None => Ok(()),
        }
    }

    fn process_one(&mut self) -> Result<bool> {
        let Some((_, rows)) = self.current.pop_front() else { return Ok(false) };
        let count = rows.records.len();
        self.metrics.records_in.add(count as u64);
        self.head.borrow_mut().push(rows.records)?;
        self.credit.processed(rows.from as usize, count);
        Ok(true)
    }

    /// What the frontier says, held back by batches that wait; or, where progress lags behind the data, what the senders'
    /// batches say: a sender's watermarks only grow, so they take effect in the order in which they were sent.
    fn watermark(&mut self, frontier: Option<i64>) -> Option<i64> {
        if let Some((time, rows)) = self.current.front()
            && let Some(sender) = self.senders.get_mut(rows.from as usize)
        {
            *sender = time.watermark().max(*sender);
        }
        let waiting = self.current.iter().chain(&self.later).map(|(time, _)| time.watermark()).min();
        let told = frontier.into_iter().chain(waiting).min()?;
        Some(self.senders.iter().copied().min().map_or(told, |seen| seen.max(told)))
    }

    fn next_epoch(&mut self, epoch: u64) {
        let (current, later): (Vec<_>, Vec<_>) = self.later.drain(..).partition(|(time, _)| time.epoch <= epoch);
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
