//! When an event is to be sent: the mapping of event time to real time, and the waiting.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

/// The shortest wait. What falls due meanwhile goes into one batch: at high rates fewer, larger writes.
const TICK: Duration = Duration::from_millis(20);
/// The longest sleep without a look at the stop flag.
const NAP: Duration = Duration::from_millis(100);

/// Event time moves `speed` times as fast as real time, from `live_start_ms` at the moment this is made. What lies
/// before is due at once: the backfill, and whatever could not be written in time.
#[derive(Debug)]
pub struct Pace {
    began: Instant,
    live_start_ms: i64,
    speed: u32,
    /// Everything up to here is known to be due, without a look at the clock.
    due_until_ms: i64,
}

impl Pace {
    /// Live events begin now.
    pub fn new(live_start_ms: i64, speed: u32) -> Self {
        Pace { began: Instant::now(), live_start_ms, speed, due_until_ms: live_start_ms }
    }

    /// Whether an event that arrives at `arrival_ms` of event time is to be sent now.
    pub fn is_due(&mut self, arrival_ms: i64) -> bool {
        if arrival_ms > self.due_until_ms {
            let elapsed_us = self.began.elapsed().as_micros() as i64;
            self.due_until_ms = self.live_start_ms + elapsed_us * i64::from(self.speed) / 1000;
        }
        arrival_ms <= self.due_until_ms
    }

    /// Waits until the event is due; `false` when `stop` was set meanwhile.
    pub fn wait_for(&mut self, arrival_ms: i64, stop: &AtomicBool) -> bool {
        while !self.is_due(arrival_ms) {
            let left_ms = (arrival_ms - self.due_until_ms).unsigned_abs().div_ceil(u64::from(self.speed));
            std::thread::sleep(Duration::from_millis(left_ms).clamp(TICK, NAP));
            if stop.load(Ordering::Relaxed) {
                return false;
            }
        }
        true
    }
}
