//! The naive reference: Flink's rules for windows, replayed on plain lists. Nothing is shared with the operators but the
//! types of the test.

use std::collections::BTreeSet;

use super::Event;

/// Window kinds, as the book has them. Times in ms.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Kind {
    Sliding {
        size: i64,
        slide: i64,
        offset: i64,
        event_time: bool,
    },
    Session {
        gap: i64,
        event_time: bool,
    },
    /// The gap is the record's value.
    DynamicSession {
        event_time: bool,
    },
    Global,
}

#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Rule {
    EventTime,
    ProcessingTime,
    Count(u64),
    ContinuousEventTime(i64),
    ContinuousProcessingTime(i64),
    /// The difference of values is compared.
    Delta(i64),
    Never,
}

#[derive(Debug, Clone, Copy)]
pub struct Timeout {
    pub after: i64,
    pub reset: bool,
    pub clear: bool,
}

#[derive(Debug, Clone, Copy)]
pub enum Evict {
    Count(usize),
    Time(i64),
    Delta(i64),
}

/// What is run.
#[derive(Debug, Clone, Copy)]
pub struct Book {
    pub kind: Kind,
    pub rule: Rule,
    pub purging: bool,
    pub timeout: Option<Timeout>,
    pub evict: Option<(Evict, bool)>,
    pub lateness: i64,
}

type Span = (i64, i64);
pub const GLOBAL: Span = (i64::MAX, i64::MAX);

struct Pane {
    key: u32,
    span: Span,
    /// In the order they came; of sessions that became one, the earlier session's first.
    elements: Vec<Event>,
    count: u64,
    next_fire: Option<i64>,
    last: Option<Event>,
    timeout_at: Option<i64>,
}

/// A result: key, window, ids, event time.
pub type Result = (u32, Span, Vec<u32>, i64);

pub struct Reference {
    book: Book,
    panes: Vec<Pane>,
    /// Timers: (event time, at, key, window).
    timers: BTreeSet<(bool, i64, u32, Span)>,
    watermark: i64,
    clock: i64,
    pub fired: Vec<Result>,
    pub late: Vec<u32>,
}

#[derive(Clone, Copy, PartialEq)]
enum Verdict {
    Continue,
    Fire,
    FireAndPurge,
}

fn last_ms(span: Span) -> i64 {
    if span == GLOBAL { i64::MAX - 1 } else { span.1 - 1 }
}

impl Kind {
    pub fn event_time(self) -> bool {
        match self {
            Kind::Sliding { event_time, .. } | Kind::Session { event_time, .. } => event_time,
            Kind::DynamicSession { event_time } => event_time,
            Kind::Global => false,
        }
    }

    pub fn merges(self) -> bool {
        matches!(self, Kind::Session { .. } | Kind::DynamicSession { .. })
    }

    /// Every window that covers a time, by trying them all.
    fn windows(self, event: &Event, time: i64) -> Vec<Span> {
        match self {
            Kind::Sliding { size, slide, offset, .. } => (time - size - slide..=time)
                .filter(|start| (start - offset).rem_euclid(slide) == 0 && *start <= time && time < start + size)
                .map(|start| (start, start + size))
                .collect(),
            Kind::Session { gap, .. } => vec![(time, time + gap)],
            Kind::DynamicSession { .. } => vec![(time, time + event.value)],
            Kind::Global => vec![GLOBAL],
        }
    }
}

impl Reference {
    pub fn new(book: Book, clock: i64) -> Self {
        Reference {
            book,
            panes: Vec::new(),
            timers: BTreeSet::new(),
            watermark: i64::MIN,
            clock,
            fired: Vec::new(),
            late: Vec::new(),
        }
    }

    fn cleanup(&self, span: Span) -> i64 {
        let lateness = if self.book.kind.event_time() { self.book.lateness } else { 0 };
        if span == GLOBAL { i64::MAX } else { last_ms(span) + lateness }
    }

    fn pane(&mut self, key: u32, span: Span) -> usize {
        self.panes.iter().position(|pane| pane.key == key && pane.span == span).unwrap_or_else(|| {
            let pane =
                Pane { key, span, elements: Vec::new(), count: 0, next_fire: None, last: None, timeout_at: None };
            self.panes.push(pane);
            self.panes.len() - 1
        })
    }

    pub fn record(&mut self, event: Event) {
        self.clock(self.clock);
        let time = if self.book.kind.event_time() { event.time_ms } else { self.clock };
        let mut skipped = true;
        for span in self.book.kind.windows(&event, time) {
            let span = if self.book.kind.merges() { self.merge(event.key, span) } else { span };
            if self.book.kind.event_time() && self.cleanup(span) <= self.watermark {
                continue;
            }
            skipped = false;
            let at = self.pane(event.key, span);
            self.panes[at].elements.push(event);
            let verdict = self.on_element(at, event);
            self.follow(at, verdict, event.time_ms);
            if self.cleanup(span) < i64::MAX {
                self.timers.insert((self.book.kind.event_time(), self.cleanup(span), event.key, span));
            }
        }
        if skipped && self.book.kind.event_time() && event.time_ms + self.book.lateness <= self.watermark {
            self.late.push(event.id);
        }
    }

    /// Joins a session with all it touches, two by two, until nothing touches.
    fn merge(&mut self, key: u32, span: Span) -> Span {
        let mut whole = span;
        let mut parts: Vec<usize> = Vec::new();
        while let Some(at) = (0..self.panes.len()).find(|at| {
            let pane = &self.panes[*at];
            pane.key == key && !parts.contains(at) && pane.span.0 <= whole.1 && pane.span.1 >= whole.0
        }) {
            parts.push(at);
            whole = (whole.0.min(self.panes[at].span.0), whole.1.max(self.panes[at].span.1));
        }
        if parts.is_empty() || (parts.len() == 1 && self.panes[parts[0]].span == whole) {
            return whole;
        }
        let mut old: Vec<Pane> = Vec::new();
        for at in (0..self.panes.len()).rev().filter(|at| parts.contains(at)) {
            old.push(self.panes.remove(at));
        }
        let at = self.pane(key, whole);
        old.sort_by_key(|part| part.span);
        for part in &old {
            self.panes[at].elements.extend(&part.elements);
            self.panes[at].count += part.count;
        }
        self.panes[at].next_fire = old.iter().filter_map(|part| part.next_fire).min();
        let (next, last) = (self.panes[at].next_fire, last_ms(whole));
        match (self.book.rule, next) {
            (Rule::EventTime, _) if last > self.watermark => drop(self.timers.insert((true, last, key, whole))),
            (Rule::ProcessingTime, _) if last > self.clock => drop(self.timers.insert((false, last, key, whole))),
            (Rule::ContinuousEventTime(_), Some(next)) => drop(self.timers.insert((true, next, key, whole))),
            (Rule::ContinuousProcessingTime(_), Some(next)) => drop(self.timers.insert((false, next, key, whole))),
            _ => {}
        }
        whole
    }

    fn on_element(&mut self, at: usize, event: Event) -> Verdict {
        let verdict = self.rule_on_element(at, event);
        let Some(timeout) = self.book.timeout else { return verdict };
        if verdict != Verdict::Continue {
            self.clear(at);
            return verdict;
        }
        let (key, span) = (self.panes[at].key, self.panes[at].span);
        if timeout.reset
            && let Some(old) = self.panes[at].timeout_at.take()
        {
            self.timers.remove(&(false, old, key, span));
        }
        if self.panes[at].timeout_at.is_none() {
            self.panes[at].timeout_at = Some(self.clock + timeout.after);
            self.timers.insert((false, self.clock + timeout.after, key, span));
        }
        verdict
    }

    fn rule_on_element(&mut self, at: usize, event: Event) -> Verdict {
        let (watermark, clock) = (self.watermark, self.clock);
        let pane = &mut self.panes[at];
        let last = last_ms(pane.span);
        let fires = match self.book.rule {
            Rule::EventTime | Rule::ContinuousEventTime(_) if last <= watermark => true,
            Rule::EventTime => {
                self.timers.insert((true, last, pane.key, pane.span));
                false
            }
            Rule::ProcessingTime => {
                self.timers.insert((false, last, pane.key, pane.span));
                false
            }
            Rule::Count(n) => {
                pane.count += 1;
                let full = pane.count >= n;
                if full {
                    pane.count = 0;
                }
                full
            }
            Rule::ContinuousEventTime(interval) => {
                self.timers.insert((true, last, pane.key, pane.span));
                if pane.next_fire.is_none() {
                    let next = (event.time_ms.div_euclid(interval) * interval + interval).min(last);
                    pane.next_fire = Some(next);
                    self.timers.insert((true, next, pane.key, pane.span));
                }
                false
            }
            Rule::ContinuousProcessingTime(interval) => {
                if pane.next_fire.is_none() {
                    let next = after(clock.div_euclid(interval) * interval, interval, last);
                    pane.next_fire = Some(next);
                    self.timers.insert((false, next, pane.key, pane.span));
                }
                false
            }
            Rule::Delta(threshold) => match pane.last {
                Some(before) if (before.value - event.value).abs() > threshold => {
                    pane.last = Some(event);
                    true
                }
                Some(_) => false,
                None => {
                    pane.last = Some(event);
                    false
                }
            },
            Rule::Never => false,
        };
        self.verdict(fires)
    }

    fn verdict(&self, fires: bool) -> Verdict {
        match fires {
            true if self.book.purging => Verdict::FireAndPurge,
            true => Verdict::Fire,
            false => Verdict::Continue,
        }
    }

    fn on_timer(&mut self, at: usize, event_time: bool, time: i64) -> Verdict {
        let pane = &mut self.panes[at];
        let last = last_ms(pane.span);
        let fires = match (self.book.rule, event_time) {
            (Rule::EventTime, true) => time == last,
            (Rule::ProcessingTime, false) => true,
            (Rule::ContinuousEventTime(_), true) if time == last => true,
            (Rule::ContinuousEventTime(interval), true) if pane.next_fire == Some(time) => {
                let next = (time + interval).min(last);
                pane.next_fire = Some(next);
                self.timers.insert((true, next, pane.key, pane.span));
                true
            }
            (Rule::ContinuousProcessingTime(interval), false) if pane.next_fire == Some(time) => {
                let next = after(time, interval, last);
                pane.next_fire = Some(next);
                self.timers.insert((false, next, pane.key, pane.span));
                true
            }
            _ => false,
        };
        let verdict = self.verdict(fires);
        let Some(timeout) = self.book.timeout else { return verdict };
        if timeout.clear {
            self.clear(at);
        }
        if verdict == Verdict::FireAndPurge { verdict } else { Verdict::Fire }
    }

    /// The trigger forgets a window.
    fn clear(&mut self, at: usize) {
        let pane = &mut self.panes[at];
        let (key, span, last) = (pane.key, pane.span, last_ms(pane.span));
        let timers = &mut self.timers;
        let mut delete = |event_time, time| timers.remove(&(event_time, time, key, span));
        if let Some(time) = pane.timeout_at.take() {
            delete(false, time);
        }
        match self.book.rule {
            Rule::EventTime => drop(delete(true, last)),
            Rule::ProcessingTime => drop(delete(false, last)),
            Rule::ContinuousEventTime(_) => drop(pane.next_fire.take().map(|next| delete(true, next))),
            Rule::ContinuousProcessingTime(_) => drop(pane.next_fire.take().map(|next| delete(false, next))),
            _ => {}
        }
        (pane.count, pane.last) = (0, None);
    }

    fn follow(&mut self, at: usize, verdict: Verdict, cause: i64) {
        let pane = &mut self.panes[at];
        if verdict != Verdict::Continue && !pane.elements.is_empty() {
            let time = if pane.span == GLOBAL { cause } else { last_ms(pane.span) };
            if let Some((evict, false)) = self.book.evict {
                evict.from(&mut pane.elements);
            }
            if !pane.elements.is_empty() {
                let mut ids: Vec<u32> = pane.elements.iter().map(|event| event.id).collect();
                if self.book.evict.is_none() {
                    ids.sort();
                }
                self.fired.push((pane.key, pane.span, ids, time));
            }
            if let Some((evict, true)) = self.book.evict {
                evict.from(&mut pane.elements);
            }
        }
        if verdict == Verdict::FireAndPurge {
            pane.elements.clear();
        }
    }

    pub fn watermark(&mut self, watermark: i64) {
        self.watermark = watermark;
        self.fire(true, watermark);
    }

    pub fn clock(&mut self, now: i64) {
        self.clock = now;
        self.fire(false, now - 1);
    }

    fn fire(&mut self, event_time: bool, due: i64) {
        while let Some(timer) = self.timers.iter().find(|timer| timer.0 == event_time && timer.1 <= due).copied() {
            self.timers.remove(&timer);
            let (_, time, key, span) = timer;
            let exists = self.panes.iter().any(|pane| pane.key == key && pane.span == span);
            if self.book.kind.merges() && !exists {
                continue;
            }
            let at = self.pane(key, span);
            let verdict = self.on_timer(at, event_time, time);
            self.follow(at, verdict, time);
            if event_time == self.book.kind.event_time() && time == self.cleanup(span) {
                self.clear(at);
                self.panes.remove(at);
            }
        }
    }
}

fn after(time: i64, interval: i64, last: i64) -> i64 {
    if time < last { (time + interval).min(last) } else { time + interval }
}

impl Evict {
    fn from(self, elements: &mut Vec<Event>) {
        let (len, newest) = (elements.len(), elements.iter().map(|event| event.time_ms).max());
        let Some(last) = elements.last().copied() else { return };
        let mut index = 0;
        elements.retain(|event| {
            index += 1;
            match self {
                Evict::Count(keep) => index + keep > len,
                Evict::Time(keep) => Some(event.time_ms + keep) > newest,
                Evict::Delta(threshold) => (event.value - last.value).abs() < threshold,
            }
        });
    }
}
