//! Flow control. timely's queues are unbounded, so each edge between tasks has credits: a sender may have at most
//! [`CREDIT_ROWS`] rows and about [`CREDIT_BYTES`] bytes under way to each receiver, and gets credit back when rows have been
//! *processed*. A task whose outputs have no credit takes no input, and so a slow sink is felt up to the sources.

use std::cell::{Cell, RefCell};
use std::rc::Rc;

use timely::bytes::arc::Bytes;
use timely::communication::{Bytesable, Pull, Push};
use timely::container::Accountable;
use timely::dataflow::channels::Message;
use timely::dataflow::channels::pact::ParallelizationContract;
use timely::logging::TimelyLogger;
use timely::worker::Worker;

use super::rows::Rows;
use super::timestamp::Ts;
use tidemill_core::Data;

/// Rows one sender may have under way to one receiver.
pub const CREDIT_ROWS: i64 = 32 * 1024;

/// Bytes of rows one sender may have under way to one receiver, by what it knows of its rows, and one batch more.
pub const CREDIT_BYTES: usize = 8 << 20;

/// Credit goes back in portions of at least so many rows or batches, or when the receiver has nothing left to do.
const CREDIT_PORTION: i64 = CREDIT_ROWS / 8;
const CREDIT_PORTION_BATCHES: u32 = 4;

/// A portion of credit on its way back to the sender.
#[derive(Clone, Copy)]
pub(crate) struct Credit {
    /// The receiver that processed the rows.
    by: u64,
    rows: u64,
}

impl Bytesable for Credit {
    fn from_bytes(bytes: Bytes) -> Self {
        let word = |at: usize| {
            bytes.get(at..at + 8).and_then(|word| word.try_into().ok()).map_or(u64::MAX, u64::from_le_bytes)
        };
        Credit { by: word(0), rows: word(8) }
    }

    fn length_in_bytes(&self) -> usize {
        16
    }

    fn into_bytes<W: std::io::Write>(&self, writer: &mut W) {
        writer
            .write_all(&self.by.to_le_bytes())
            .and_then(|()| writer.write_all(&self.rows.to_le_bytes()))
            .expect("timely hands out a buffer of the length asked for");
    }
}

/// The sender's side of an edge.
#[derive(Clone)]
pub struct Flow {
    under_way: Rc<Vec<Cell<i64>>>,
    most: Rc<Cell<i64>>,
    returned: Rc<RefCell<Option<Box<dyn Pull<Credit>>>>>,
}

impl Flow {
    pub(crate) fn new(peers: usize) -> Self {
        let most = Rc::new(Cell::new(CREDIT_ROWS));
        Flow { under_way: Rc::new(vec![Cell::new(0); peers]), most, returned: Rc::default() }
    }

    /// Credit comes back this way.
    pub(crate) fn returns_by(&self, puller: Box<dyn Pull<Credit>>) {
        *self.returned.borrow_mut() = Some(puller);
    }

    /// Takes in credit that has come back.
    pub(crate) fn absorb(&self) {
        if let Some(returned) = self.returned.borrow_mut().as_mut() {
            while let Some(credit) = returned.recv() {
                // Nobody gives back more than is under way to it; another process may say what it likes.
                if let Some(cell) = usize::try_from(credit.by).ok().and_then(|by| self.under_way.get(by)) {
                    let rows = i64::try_from(credit.rows).unwrap_or(i64::MAX);
                    cell.set(cell.get().saturating_sub(rows).max(0));
                }
            }
        }
    }

    /// Whether every receiver still takes rows.
    pub(crate) fn may_send(&self) -> bool {
        self.under_way.iter().all(|rows| rows.get() < self.most.get())
    }

    /// A row has about so many bytes.
    pub(crate) fn weigh(&self, row_bytes: usize) {
        self.most.set(((CREDIT_BYTES / row_bytes.max(1)) as i64).clamp(1, CREDIT_ROWS));
    }

    pub(crate) fn sent(&self, to: usize, rows: usize) {
        let cell = &self.under_way[to];
        cell.set(cell.get() + rows as i64);
    }
}

/// The receiver's side of an edge.
pub(crate) struct CreditReturn {
    senders: Vec<Pending>,
    me: u64,
}

/// Credit that has not gone back to its sender yet.
struct Pending {
    way: Box<dyn Push<Credit>>,
    rows: i64,
    batches: u32,
}

impl CreditReturn {
    /// Credit of worker `me` goes to each worker this way; those of the sending subtasks are `senders`.
    pub(crate) fn new(ways: Vec<Box<dyn Push<Credit>>>, senders: &[usize], me: usize) -> Self {
        let mut ways: Vec<_> = ways.into_iter().map(Some).collect();
        let way = |worker: &usize| ways.get_mut(*worker).and_then(Option::take);
        let senders = senders.iter().filter_map(way).map(|way| Pending { way, rows: 0, batches: 0 });
        CreditReturn { senders: senders.collect(), me: me as u64 }
    }

    /// A batch of `rows` of sending subtask `from` has been processed.
    pub(crate) fn processed(&mut self, from: usize, rows: usize) {
        let pending = &mut self.senders[from];
        pending.rows += rows as i64;
        pending.batches += 1;
        if pending.rows >= CREDIT_PORTION || pending.batches >= CREDIT_PORTION_BATCHES {
            self.give_back(from);
        }
    }

    /// Nothing is left to process: all credit goes back.
    pub(crate) fn settle(&mut self) {
        for from in 0..self.senders.len() {
            if self.senders[from].rows > 0 {
                self.give_back(from);
            }
        }
    }

    fn give_back(&mut self, from: usize) {
        let Pending { way, rows, batches } = &mut self.senders[from];
        *batches = 0;
        way.send(Credit { by: self.me, rows: std::mem::take(rows) as u64 });
        way.done();
    }
}

/// Connects the two sides of an edge; `sender_address` is the sending task, so that credit wakes it, and `senders` are the
/// workers of its subtasks.
pub(crate) fn connect(worker: &Worker, sender_address: Rc<[usize]>, flow: &Flow, senders: &[usize]) -> CreditReturn {
    let (pushers, puller) = worker.allocate::<Credit>(worker.new_identifier(), sender_address);
    flow.returns_by(puller);
    CreditReturn::new(pushers, senders, worker.index())
}

/// Delivers each batch to the worker it is addressed to.
pub(crate) struct Addressed;

impl<T: Data> ParallelizationContract<Ts, Rows<T>> for Addressed {
    type Pusher = AddressedPusher<T>;
    type Puller = BatchPull<T>;

    fn connect(
        self,
        worker: &Worker,
        identifier: usize,
        address: Rc<[usize]>,
        _logging: Option<TimelyLogger>,
    ) -> (Self::Pusher, Self::Puller) {
        let (pushers, puller) = worker.allocate::<Message<Ts, Rows<T>>>(identifier, address);
        (AddressedPusher { pushers: pushers.into_iter().map(|pusher| (pusher, false)).collect() }, puller)
    }
}

/// Sends batches to one worker.
type BatchPush<T> = Box<dyn Push<Message<Ts, Rows<T>>>>;

/// Takes in the batches sent to this worker.
pub(crate) type BatchPull<T> = Box<dyn Pull<Message<Ts, Rows<T>>>>;

/// The sending end of [`Addressed`].
pub(crate) struct AddressedPusher<T> {
    /// Each with a mark: something was sent since the last flush.
    pushers: Vec<(BatchPush<T>, bool)>,
}

impl<T> Push<Message<Ts, Rows<T>>> for AddressedPusher<T> {
    fn push(&mut self, element: &mut Option<Message<Ts, Rows<T>>>) {
        match element {
            Some(message) => {
                debug_assert!(message.data.record_count() > 0);
                let (pusher, used) = &mut self.pushers[message.data.to as usize];
                *used = true;
                pusher.push(element);
            }
            None => {
                for (pusher, used) in self.pushers.iter_mut().filter(|(_, used)| *used) {
                    *used = false;
                    pusher.done();
                }
            }
        }
    }
}
