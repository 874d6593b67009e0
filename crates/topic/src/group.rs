//! Appends of several threads at once share one transaction, and so one wait for the disk: whoever comes while another
//! writes is taken along by the next. With one thread this is a plain append.

use std::collections::HashMap;
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};

use tidemill_core::{Error, Result};

/// The most jobs that are done together.
const TOGETHER_MAX: usize = 256;

/// Jobs that wait to be done together.
pub(crate) struct Group<J, R> {
    state: Mutex<State<J, R>>,
    changed: Condvar,
}

struct State<J, R> {
    waiting: Vec<(u64, J)>,
    done: HashMap<u64, Result<R>>,
    /// Somebody does jobs just now.
    led: bool,
    next: u64,
}

impl<J, R> Group<J, R> {
    pub fn new() -> Self {
        let state = State { waiting: Vec::new(), done: HashMap::new(), led: false, next: 0 };
        Group { state: Mutex::new(state), changed: Condvar::new() }
    }

    /// Has `job` done, alone or with those of other threads. `work` does all it is given or, with an error, nothing;
    /// then each is done by itself, so that one that cannot be done does not take others with it.
    pub fn run(&self, job: J, work: impl Fn(&[(u64, J)]) -> Result<Vec<R>>) -> Result<R> {
        let mut state = self.lock();
        let id = state.next;
        state.next += 1;
        state.waiting.push((id, job));
        loop {
            if let Some(result) = state.done.remove(&id) {
                return result;
            }
            if state.led {
                state = self.changed.wait(state).unwrap_or_else(PoisonError::into_inner);
                continue;
            }
            state.led = true;
            let most = state.waiting.len().min(TOGETHER_MAX);
            let jobs: Vec<(u64, J)> = state.waiting.drain(..most).collect();
            drop(state);
            let mut lead = Lead { group: self, left: jobs.iter().map(|(id, _)| *id).collect() };
            lead.answer(all_or_each(&jobs, &work));
            drop(lead);
            state = self.lock();
        }
    }

    fn lock(&self) -> MutexGuard<'_, State<J, R>> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn all_or_each<J, R>(jobs: &[(u64, J)], work: &impl Fn(&[(u64, J)]) -> Result<Vec<R>>) -> Vec<Result<R>> {
    match work(jobs) {
        Ok(results) => results.into_iter().map(Ok).collect(),
        Err(error) if jobs.len() == 1 => vec![Err(error)],
        Err(_) => jobs.chunks(1).flat_map(|job| all_or_each(job, work)).collect(),
    }
}

/// The lead, given back whatever happens; jobs it leaves without a result are answered with an error.
struct Lead<'a, J, R> {
    group: &'a Group<J, R>,
    left: Vec<u64>,
}

impl<J, R> Lead<'_, J, R> {
    fn answer(&mut self, results: Vec<Result<R>>) {
        let answered = results.len().min(self.left.len());
        let mut state = self.group.lock();
        state.done.extend(self.left.drain(..answered).zip(results));
    }
}

impl<J, R> Drop for Lead<'_, J, R> {
    fn drop(&mut self) {
        let mut state = self.group.lock();
        for id in self.left.drain(..) {
            state.done.insert(id, Err(Error::bug("an append that was done together with others got no answer")));
        }
        state.led = false;
        drop(state);
        self.group.changed.notify_all();
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};
    use std::sync::{Arc, Barrier};

    use super::*;

    #[test]
    fn those_who_come_while_one_works_are_done_together() {
        let group: Group<u32, u32> = Group::new();
        let (calls, most) = (AtomicUsize::new(0), AtomicUsize::new(0));
        let begun = Barrier::new(2);
        let work = |jobs: &[(u64, u32)]| {
            if calls.fetch_add(1, Ordering::SeqCst) == 0 {
                begun.wait();
                while group.lock().waiting.len() < 8 {
                    std::thread::yield_now();
                }
            }
            most.fetch_max(jobs.len(), Ordering::SeqCst);
            Ok(jobs.iter().map(|(_, job)| job * 2).collect())
        };
        std::thread::scope(|scope| {
            scope.spawn(|| assert_eq!(group.run(100, work).unwrap(), 200));
            begun.wait();
            for job in 0..8 {
                let (group, work) = (&group, &work);
                scope.spawn(move || assert_eq!(group.run(job, work).unwrap(), job * 2));
            }
        });
        assert_eq!((calls.into_inner(), most.into_inner()), (2, 8));
    }

    #[test]
    fn one_that_cannot_be_done_does_not_take_others_with_it() {
        let group: Arc<Group<u32, u32>> = Arc::new(Group::new());
        let work = |jobs: &[(u64, u32)]| match jobs.iter().find(|(_, job)| job % 4 == 0) {
            Some((_, job)) => Err(Error::full(format!("{job} is too much"))),
            None => Ok(jobs.iter().map(|(_, job)| *job).collect()),
        };
        std::thread::scope(|scope| {
            for job in 0..40 {
                let group = Arc::clone(&group);
                scope.spawn(move || assert_eq!(group.run(job, work).is_err(), job % 4 == 0));
            }
        });
    }

    #[test]
    fn a_panic_does_not_leave_others_waiting() {
        let group: Group<u32, u32> = Group::new();
        let panicking = std::panic::AssertUnwindSafe(|| group.run(1, |_| panic!("as asked for")));
        assert!(std::panic::catch_unwind(panicking).is_err());
        assert_eq!(group.run(2, |jobs| Ok(jobs.iter().map(|(_, job)| *job).collect())).unwrap(), 2);
    }
}
