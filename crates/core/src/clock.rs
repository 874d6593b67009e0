//! Time as an argument: code below the edge of the process asks a [`Clock`], never the operating system.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::task::Waker;
use std::time::Instant;

/// Tells the time in milliseconds since 1970-01-01 UTC.
pub trait Clock: Send + Sync + 'static {
    /// Now, in epoch milliseconds.
    fn now_ms(&self) -> i64;

    /// Milliseconds since some moment, for intervals, time-outs and rates: the machine's time may be set while a job runs,
    /// this one only goes on. The default is for clocks that never jump.
    fn steady_ms(&self) -> i64 {
        self.now_ms()
    }

    /// The same in microseconds, for shares of a millisecond.
    fn steady_us(&self) -> i64 {
        self.steady_ms().saturating_mul(1000)
    }

    /// Has `waker` called once the clock shows `at_ms` (at once when it does already). `false`, the default, says that
    /// this clock runs with the machine's: whoever waits then sleeps for the time that is left.
    fn wake_at(&self, at_ms: i64, waker: &Waker) -> bool {
        let _ = (at_ms, waker);
        false
    }
}

/// A shared clock.
pub type SharedClock = Arc<dyn Clock>;

/// The machine's clock. Only the edge of a process (its `main`, the job runtime, tests of the edge) makes one.
#[derive(Debug, Clone, Copy, Default)]
pub struct SystemClock;

impl Clock for SystemClock {
    fn now_ms(&self) -> i64 {
        match std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH) {
            Ok(since) => i64::try_from(since.as_millis()).unwrap_or(i64::MAX),
            Err(before) => -i64::try_from(before.duration().as_millis()).unwrap_or(i64::MAX),
        }
    }

    fn steady_ms(&self) -> i64 {
        self.steady_us() / 1000
    }

    fn steady_us(&self) -> i64 {
        static BEGIN: OnceLock<Instant> = OnceLock::new();
        i64::try_from(BEGIN.get_or_init(Instant::now).elapsed().as_micros()).unwrap_or(i64::MAX)
    }
}

/// A clock that moves only when it is told to. Who waits for a time is woken when it gets there.
#[derive(Debug, Default)]
pub struct ManualClock {
    state: Mutex<ManualState>,
}

#[derive(Debug, Default)]
struct ManualState {
    now_ms: i64,
    /// Who waits, by the time waited for. Bounded by the tasks that wait, each of which waits for one time.
    sleepers: BTreeMap<i64, Vec<Waker>>,
}

impl ManualClock {
    /// A clock that stands at `now_ms`.
    pub fn new(now_ms: i64) -> Self {
        ManualClock { state: Mutex::new(ManualState { now_ms, sleepers: BTreeMap::new() }) }
    }

    /// Moves the clock to `now_ms` and wakes who waited for that.
    pub fn set(&self, now_ms: i64) {
        self.change(|_| now_ms);
    }

    /// Moves the clock on by `by_ms` and wakes who waited for that.
    pub fn advance(&self, by_ms: i64) {
        self.change(|now_ms| now_ms.saturating_add(by_ms));
    }

    /// The earliest time anybody waits for: a test can wait until its job waits, then move the clock there.
    pub fn next_wake_ms(&self) -> Option<i64> {
        self.lock().sleepers.keys().next().copied()
    }

    fn lock(&self) -> MutexGuard<'_, ManualState> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn change(&self, to: impl FnOnce(i64) -> i64) {
        let mut state = self.lock();
        state.now_ms = to(state.now_ms);
        let later = match state.now_ms.checked_add(1) {
            Some(behind) => state.sleepers.split_off(&behind),
            None => BTreeMap::new(),
        };
        let due = std::mem::replace(&mut state.sleepers, later);
        // The woken look at the clock.
        drop(state);
        due.into_values().flatten().for_each(Waker::wake);
    }
}

impl Clock for ManualClock {
    fn now_ms(&self) -> i64 {
        self.lock().now_ms
    }

    fn wake_at(&self, at_ms: i64, waker: &Waker) -> bool {
        let mut state = self.lock();
        if at_ms <= state.now_ms {
            drop(state);
            waker.wake_by_ref();
            return true;
        }
        let sleepers = state.sleepers.entry(at_ms).or_default();
        if !sleepers.iter().any(|other| other.will_wake(waker)) {
            sleepers.push(waker.clone());
        }
        true
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};

    use super::*;

    #[derive(Default)]
    struct Woken(AtomicUsize);
    impl std::task::Wake for Woken {
        fn wake(self: Arc<Self>) {
            self.0.fetch_add(1, Ordering::SeqCst);
        }
    }

    #[test]
    fn a_manual_clock_wakes_each_sleeper_once_when_it_gets_there() {
        let (clock, woken) = (ManualClock::new(100), Arc::new(Woken::default()));
        let waker = Waker::from(woken.clone());
        let count = || woken.0.load(Ordering::SeqCst);
        assert!(clock.wake_at(100, &waker), "now already");
        assert_eq!(count(), 1);
        for at_ms in [150, 200, 200] {
            assert!(clock.wake_at(at_ms, &waker));
        }
        assert_eq!((count(), clock.next_wake_ms()), (1, Some(150)));
        clock.advance(50);
        assert_eq!((count(), clock.next_wake_ms()), (2, Some(200)));
        clock.set(i64::MAX);
        assert_eq!((count(), clock.next_wake_ms(), clock.now_ms()), (3, None, i64::MAX));
        assert!(!SystemClock.wake_at(0, &waker), "who waits for the machine's clock sleeps");
    }
}
