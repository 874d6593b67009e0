//! The endless stream of order events in the sequence in which they arrive.
//!
//! Orders are placed one after the other in event time. Placing an order decides its whole life at once (never paid,
//! paid after some seconds, shipped, done, cancelled, paid back) and puts all its events into one queue by arrival:
//! arrival is event time plus a delay, mostly none, for some up to 3 s, for a few minutes. Whatever in the queue arrives
//! before the next order is placed comes first.

use std::cmp::Reverse;
use std::collections::BinaryHeap;

use crate::bad::{BadKind, write_bad};
use crate::config::GeneratorConfig;
use crate::curve::per_mille_at;
use crate::draft::{Draft, ORDER_ID_BYTES};
use crate::order::{Order, Status};
use crate::random::Random;

/// The most an event of the `out_of_order` share is delayed: the bound the order job's watermark allows for.
pub const OUT_OF_ORDERNESS_MS: i64 = 3_000;
/// The delay of late events.
const LATE_MS: (i64, i64) = (65_000, 600_000);
/// How much later a duplicate arrives.
const DUPLICATE_MS: (i64, i64) = (0, 5_000);
/// From order to payment, to cancellation, to shipping after payment, to delivery after shipping.
const PAID_AFTER_MS: (i64, i64) = (2_000, 60_000);
const CANCELLED_AFTER_MS: (i64, i64) = (30_000, 300_000);
const SHIPPED_AFTER_MS: (i64, i64) = (300_000, 1_200_000);
const DONE_AFTER_MS: (i64, i64) = (600_000, 2_400_000);
/// About how many orders wait for later events. At high rates all delays of an order's life are shortened by one
/// divisor to keep to it.
const PENDING_TARGET: i64 = 500_000;
/// The mean of the time from placing an order to each of its later events, summed over those events.
const MEAN_LIFE_MS: i64 = 750_000;

/// How an order's life goes; the weights are per mille.
const LIVES: [(&[Status], u32); 6] = [
    (&[Status::Unpaid], 70),
    (&[Status::Unpaid, Status::Cancelled], 60),
    (&[Status::Unpaid, Status::Paid], 470),
    (&[Status::Unpaid, Status::Paid, Status::Shipping], 200),
    (&[Status::Unpaid, Status::Paid, Status::Shipping, Status::Done], 180),
    (&[Status::Unpaid, Status::Paid, Status::Cancelled], 20),
];
/// About how many events an order has, from `LIVES`, in tenths.
const EVENTS_PER_TEN_ORDERS: i64 = 25;
const NS_PER_MS: i64 = 1_000_000;

/// What a generated event is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Note {
    /// A new order.
    Fresh,
    /// A later status of an order.
    StatusChange,
    /// An event that came before, word for word.
    Duplicate,
    /// A new order or status that arrives after its minute was closed.
    Late,
    /// Nothing a job can use.
    Bad(BadKind),
}

/// What is known about an event beside its bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct EventInfo {
    /// Its place in the sequence of arrival, from 0.
    pub arrival_order: u64,
    /// When it is to be sent, on the scale of event time.
    pub arrival_ms: i64,
    /// Its event time; for a bad event the time it is sent.
    pub event_time_ms: i64,
    /// What it is.
    pub note: Note,
}

/// An event with its bytes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct GeneratedEvent {
    /// What is known about it.
    pub info: EventInfo,
    /// Its JSON text, without a line end.
    pub json: Vec<u8>,
}

impl GeneratedEvent {
    /// The order event, or why there is none: `Err` exactly for [`Note::Bad`].
    pub fn order(&self) -> Result<Order, String> {
        Order::decode(&self.json)
    }
}

/// The order id in a generated JSON text: the key by which it goes to a partition. `None` for a bad event whose front is
/// spoilt.
pub fn key_of(json: &[u8]) -> Option<&[u8]> {
    let rest = json.strip_prefix(b"{\"orderId\":\"")?;
    let id = rest.split(|byte| *byte == b'"').next()?;
    (id.len() == ORDER_ID_BYTES && id.iter().all(u8::is_ascii_digit)).then_some(id)
}

/// An event that waits for its arrival. The order of the fields is the order of the queue.
#[derive(Debug, Clone)]
struct Waiting {
    arrival_ns: i64,
    sequence: u64,
    event_ms: i64,
    status: Status,
    note: Note,
    draft: Draft,
}

impl PartialEq for Waiting {
    fn eq(&self, other: &Self) -> bool {
        self.cmp(other).is_eq()
    }
}
impl Eq for Waiting {}
impl PartialOrd for Waiting {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}
impl Ord for Waiting {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        (self.arrival_ns, self.sequence).cmp(&(other.arrival_ns, other.sequence))
    }
}

/// The generator: an endless iterator of events in the sequence of arrival.
#[derive(Debug, Clone)]
pub struct OrderGenerator {
    config: GeneratorConfig,
    random: Random,
    waiting: BinaryHeap<Reverse<Waiting>>,
    next_order_ns: i64,
    now_ns: i64,
    orders: u64,
    sequence: u64,
    arrivals: u64,
    /// Mean time between two events at the peak.
    gap_ns: i64,
    /// By what the delays of an order's life are divided.
    haste: i64,
    scratch: Vec<u8>,
}

impl OrderGenerator {
    /// A generator at its beginning.
    pub fn new(config: GeneratorConfig) -> Self {
        let rate = i64::from(config.rate.max(1));
        let gap_ns = (i64::from(config.speed.max(1)) * 1_000_000_000 / rate).max(1);
        let waiting_at_peak = MEAN_LIFE_MS * NS_PER_MS / gap_ns * 10 / EVENTS_PER_TEN_ORDERS;
        OrderGenerator {
            random: Random::new(config.seed),
            waiting: BinaryHeap::new(),
            next_order_ns: config.start_ms * NS_PER_MS,
            now_ns: config.start_ms * NS_PER_MS,
            orders: 0,
            sequence: 0,
            arrivals: 0,
            gap_ns,
            haste: 1 + waiting_at_peak / PENDING_TARGET,
            scratch: Vec::new(),
            config,
        }
    }

    /// Appends the next event's JSON text to `out`, without a line end, and tells about it. This is what the iterator
    /// does, without a new vector for each event.
    pub fn write_next(&mut self, out: &mut Vec<u8>) -> EventInfo {
        let (event_time_ms, note) =
            if self.config.bad.happens(&mut self.random) { self.write_bad(out) } else { self.write_good(out) };
        let arrival_order = self.arrivals;
        self.arrivals += 1;
        EventInfo { arrival_order, arrival_ms: self.now_ns / NS_PER_MS, event_time_ms, note }
    }

    /// How many events wait for their arrival.
    pub fn waiting(&self) -> usize {
        self.waiting.len()
    }

    fn write_good(&mut self, out: &mut Vec<u8>) -> (i64, Note) {
        loop {
            if let Some(Reverse(first)) = self.waiting.peek()
                && first.arrival_ns <= self.next_order_ns
                && let Some(Reverse(first)) = self.waiting.pop()
            {
                self.now_ns = first.arrival_ns;
                first.draft.write(self.config.seed, first.status, first.event_ms, out);
                let told = (first.event_ms, first.note);
                if first.status != Status::Unpaid || first.note == Note::Duplicate {
                    self.take_turn();
                }
                if first.note != Note::Duplicate && self.config.duplicates.happens(&mut self.random) {
                    let delay_ms = self.random.between(DUPLICATE_MS.0, DUPLICATE_MS.1);
                    let arrival_ns = first.arrival_ns + delay_ms * NS_PER_MS;
                    self.enqueue(Waiting { arrival_ns, note: Note::Duplicate, ..first });
                }
                return told;
            }
            self.place_order();
        }
    }

    fn write_bad(&mut self, out: &mut Vec<u8>) -> (i64, Note) {
        let kind = BadKind::ALL[self.random.below(BadKind::ALL.len() as u64) as usize];
        let now_ms = self.now_ns / NS_PER_MS;
        let draft = self.draft(now_ms);
        let mut good = std::mem::take(&mut self.scratch);
        good.clear();
        draft.write(self.config.seed, Status::Paid, now_ms, &mut good);
        write_bad(kind, &good, now_ms, &mut self.random, out);
        self.scratch = good;
        self.take_turn();
        (now_ms, Note::Bad(kind))
    }

    fn draft(&mut self, placed_ms: i64) -> Draft {
        let serial = self.orders;
        self.orders += 1;
        Draft::new(&mut self.random, self.config.seed, self.config.users, placed_ms, serial)
    }

    /// Puts all events of the next order into the queue.
    fn place_order(&mut self) {
        let placed_ns = self.next_order_ns;
        let draft = self.draft(placed_ns / NS_PER_MS);
        let life = LIVES[self.random.weighted(LIVES.iter().map(|(_, weight)| *weight))].0;
        let mut event_ns = placed_ns;
        for &status in life {
            let (least, most) = match status {
                Status::Unpaid => (0, 0),
                Status::Paid => PAID_AFTER_MS,
                Status::Shipping => SHIPPED_AFTER_MS,
                Status::Done => DONE_AFTER_MS,
                Status::Cancelled => CANCELLED_AFTER_MS,
            };
            event_ns += self.random.skewed(least, most) * NS_PER_MS / self.haste;
            let note = if status == Status::Unpaid { Note::Fresh } else { Note::StatusChange };
            let (delay_ms, note) = self.delay(note);
            let event_ms = event_ns / NS_PER_MS;
            self.enqueue(Waiting {
                arrival_ns: event_ns + delay_ms * NS_PER_MS,
                sequence: 0,
                event_ms,
                status,
                note,
                draft,
            });
        }
        self.take_turn();
    }

    /// Puts the next order off by the time one event takes at this hour. A new order takes its turn when it is placed,
    /// every other event when it is sent, so that all together keep to the rate from the first second on, however
    /// many orders are on their way.
    fn take_turn(&mut self) {
        let per_mille = if self.config.curve { per_mille_at(self.next_order_ns / NS_PER_MS) } else { 1000 };
        let mean_ns = (i128::from(self.gap_ns) * 1000 / i128::from(per_mille)) as i64;
        self.next_order_ns += self.random.between(mean_ns / 2, mean_ns + mean_ns / 2);
    }

    /// How long an event is under way, and what it is then.
    fn delay(&mut self, note: Note) -> (i64, Note) {
        if self.config.late.happens(&mut self.random) {
            (self.random.between(LATE_MS.0, LATE_MS.1), Note::Late)
        } else if self.config.out_of_order.happens(&mut self.random) {
            (self.random.between(1, OUT_OF_ORDERNESS_MS), note)
        } else {
            (0, note)
        }
    }

    fn enqueue(&mut self, mut event: Waiting) {
        event.sequence = self.sequence;
        self.sequence += 1;
        self.waiting.push(Reverse(event));
    }
}

impl Iterator for OrderGenerator {
    type Item = GeneratedEvent;

    fn next(&mut self) -> Option<GeneratedEvent> {
        let mut json = Vec::with_capacity(420);
        let info = self.write_next(&mut json);
        Some(GeneratedEvent { info, json })
    }
}
