//! The calls of one subtask in the order of their inputs, with the watermarks between them. It decides what may be handed on:
//! results in order, or as they come between two watermarks; a watermark only behind everything before it.

use std::collections::VecDeque;
use std::sync::Arc;

use super::async_io_pool::Call;

/// Where a call stands.
pub(super) enum State<O> {
    /// Not begun: the operator's capacity is used up.
    Waiting,
    /// Under way.
    Running(Arc<Call<O>>),
    /// To be begun again at this time of the job's clock.
    RetryAt(i64),
    /// Finished; its results wait for their turn.
    Done(Vec<O>),
}

/// One input and what has become of it.
pub(super) struct Entry<I, O> {
    pub timestamp_ms: i64,
    pub input: I,
    /// When the call, with all its retries, is given up; set when it is begun.
    pub deadline_ms: i64,
    pub retries: u32,
    pub state: State<O>,
}

enum Slot<I, O> {
    Record(Entry<I, O>),
    Watermark(i64),
    /// Handed on before its turn.
    Gone,
}

/// What may leave the queue.
pub(super) enum Next<O> {
    Results(i64, Vec<O>),
    Watermark(i64),
}

/// Entries have numbers that grow by one.
pub(super) struct Calls<I, O> {
    slots: VecDeque<Slot<I, O>>,
    /// The number of the first slot.
    first: u64,
    /// The number of the first entry that has not been begun.
    unbegun: u64,
    /// Entries begun and not handed on.
    begun: usize,
    /// Slots at the front in which `next` has found nothing to hand on.
    looked_at: usize,
    ordered: bool,
}

impl<I, O> Calls<I, O> {
    pub fn new(ordered: bool) -> Self {
        Calls { slots: VecDeque::new(), first: 0, unbegun: 0, begun: 0, looked_at: 0, ordered }
    }

    pub fn is_empty(&self) -> bool {
        self.slots.is_empty()
    }

    /// Entries begun and not handed on.
    pub fn begun(&self) -> usize {
        self.begun
    }

    /// Whether every entry has been begun.
    pub fn all_begun(&self) -> bool {
        self.unbegun >= self.end()
    }

    fn end(&self) -> u64 {
        self.first + self.slots.len() as u64
    }

    pub fn push(&mut self, timestamp_ms: i64, input: I) {
        let state = State::Waiting;
        self.slots.push_back(Slot::Record(Entry { timestamp_ms, input, deadline_ms: i64::MAX, retries: 0, state }));
    }

    /// A watermark behind everything so far; of several in a row the last counts.
    pub fn push_watermark(&mut self, watermark_ms: i64) {
        match self.slots.back_mut() {
            Some(Slot::Watermark(last)) => *last = watermark_ms.max(*last),
            _ => self.slots.push_back(Slot::Watermark(watermark_ms)),
        }
    }

    pub fn get(&mut self, number: u64) -> Option<&mut Entry<I, O>> {
        match self.slots.get_mut(usize::try_from(number.checked_sub(self.first)?).ok()?) {
            Some(Slot::Record(entry)) => Some(entry),
            _ => None,
        }
    }

    /// The next entry to begin, with its number; it counts as begun then.
    pub fn begin_next(&mut self) -> Option<(u64, &mut Entry<I, O>)> {
        self.unbegun = self.unbegun.max(self.first);
        while self.unbegun < self.end() {
            let number = self.unbegun;
            self.unbegun += 1;
            if matches!(self.slots[(number - self.first) as usize], Slot::Record(_)) {
                self.begun += 1;
                return self.get(number).map(|entry| (number, entry));
            }
        }
        None
    }

    /// Calls may have finished: `next` begins at the front again.
    pub fn look_again(&mut self) {
        self.looked_at = 0;
    }

    /// Takes what may be handed on now, one at a time.
    pub fn next(&mut self) -> Option<Next<O>> {
        while let Some(Slot::Gone) = self.slots.front() {
            self.pop();
        }
        if let Some(Slot::Watermark(watermark_ms)) = self.slots.front() {
            let watermark_ms = *watermark_ms;
            self.pop();
            return Some(Next::Watermark(watermark_ms));
        }
        // Behind the first entry that has not been begun none has.
        let reach = if self.ordered { 1 } else { self.unbegun.saturating_sub(self.first) as usize };
        while self.looked_at < reach {
            match self.slots.get_mut(self.looked_at) {
                None | Some(Slot::Watermark(_)) => return None,
                Some(slot @ Slot::Record(Entry { state: State::Done(_), .. })) => {
                    let Slot::Record(entry) = std::mem::replace(slot, Slot::Gone) else { return None };
                    let State::Done(results) = entry.state else { return None };
                    self.begun -= 1;
                    return Some(Next::Results(entry.timestamp_ms, results));
                }
                Some(_) => self.looked_at += 1,
            }
        }
        None
    }

    fn pop(&mut self) {
        self.slots.pop_front();
        self.first += 1;
        self.looked_at = self.looked_at.saturating_sub(1);
    }

    /// The inputs that are not handed on yet, in order.
    pub fn inputs(&self) -> impl Iterator<Item = (i64, &I)> {
        self.slots.iter().filter_map(|slot| match slot {
            Slot::Record(entry) => Some((entry.timestamp_ms, &entry.input)),
            _ => None,
        })
    }
}
