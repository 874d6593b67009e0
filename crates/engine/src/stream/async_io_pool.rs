//! Threads that run the futures of one operator's subtask, so that the worker never waits. As small as it can be: a queue of
//! futures that may go on, and threads that poll them. It has no timers and no I/O of its own; a future brings those from
//! the library it uses, or waits on a blocking call and then keeps one of the threads.

use std::collections::VecDeque;
use std::future::Future;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError, TryLockError};
use std::task::{Context, Poll, Wake, Waker};

use tidemill_core::{Error, Result};

/// What an asynchronous call gives in the end: any number of results, or an error.
pub type AsyncResult<O> = Pin<Box<dyn Future<Output = Result<Vec<O>>> + Send>>;

/// Runs futures on threads of its own. Dropping it lets go of all futures; a thread inside a blocking call ends behind it.
pub(crate) struct Pool<O> {
    shared: Arc<Shared<O>>,
}

struct Shared<O> {
    queue: Mutex<Queue<O>>,
    changed: Condvar,
    finished: Mutex<Vec<(u64, Result<Vec<O>>)>>,
    /// Wakes the operator's task when something has finished.
    waker: Waker,
}

/// Futures that may go on. Each stands in it once at most, so it is as short as the calls under way are few.
struct Queue<O> {
    ready: VecDeque<Arc<Call<O>>>,
    closed: bool,
}

/// One future, from its submission to its end.
pub(crate) struct Call<O> {
    ticket: u64,
    future: Mutex<Option<AsyncResult<O>>>,
    queued: AtomicBool,
    cancelled: AtomicBool,
    shared: Arc<Shared<O>>,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl<O: Send + 'static> Pool<O> {
    /// Starts `threads` threads; `waker` wakes the operator's task.
    pub fn start(threads: usize, waker: Waker) -> Result<Self> {
        let shared = Arc::new(Shared {
            queue: Mutex::new(Queue { ready: VecDeque::new(), closed: false }),
            changed: Condvar::new(),
            finished: Mutex::new(Vec::new()),
            waker,
        });
        let pool = Pool { shared };
        for _ in 0..threads {
            let shared = pool.shared.clone();
            std::thread::Builder::new()
                .name("async-io".to_string())
                .spawn(move || shared.work())
                .map_err(|e| Error::io("start the thread `async-io`", e))?;
        }
        Ok(pool)
    }

    /// Begins a call; what it gives is found under its ticket.
    pub fn submit(&self, ticket: u64, future: AsyncResult<O>) -> Arc<Call<O>> {
        let call = Arc::new(Call {
            ticket,
            future: Mutex::new(Some(future)),
            queued: AtomicBool::new(false),
            cancelled: AtomicBool::new(false),
            shared: self.shared.clone(),
        });
        call.clone().wake();
        call
    }

    /// Takes what has finished since the last time.
    pub fn finished(&self) -> Vec<(u64, Result<Vec<O>>)> {
        std::mem::take(&mut *lock(&self.shared.finished))
    }
}

impl<O> Drop for Pool<O> {
    fn drop(&mut self) {
        let mut queue = lock(&self.shared.queue);
        queue.closed = true;
        let ready = std::mem::take(&mut queue.ready);
        drop(queue);
        self.shared.changed.notify_all();
        drop(ready);
    }
}

impl<O: Send + 'static> Shared<O> {
    fn work(&self) {
        loop {
            let mut queue = lock(&self.queue);
            let call = loop {
                if queue.closed {
                    return;
                }
                match queue.ready.pop_front() {
                    Some(call) => break call,
                    None => queue = self.changed.wait(queue).unwrap_or_else(PoisonError::into_inner),
                }
            };
            drop(queue);
            if let Some(outcome) = call.advance() {
                lock(&self.finished).push((call.ticket, outcome));
                self.waker.wake_by_ref();
            }
        }
    }
}

impl<O: Send + 'static> Call<O> {
    /// Lets the future go on; its outcome if it has come to its end.
    fn advance(self: &Arc<Self>) -> Option<Result<Vec<O>>> {
        let mut slot = lock(&self.future);
        self.queued.store(false, Ordering::Release);
        let waker = Waker::from(self.clone());
        let polled = {
            let future = slot.as_mut()?;
            catch_unwind(AssertUnwindSafe(|| future.as_mut().poll(&mut Context::from_waker(&waker))))
        };
        let outcome = match polled {
            Ok(Poll::Pending) => None,
            Ok(Poll::Ready(outcome)) => Some(outcome),
            Err(panic) => {
                Some(Err(Error::input(format!("an asynchronous call panicked: {}", text_of(panic.as_ref())))))
            }
        };
        let cancelled = self.cancelled.load(Ordering::Acquire);
        if outcome.is_some() || cancelled {
            *slot = None;
        }
        outcome.filter(|_| !cancelled)
    }

    /// Nobody wants the outcome any more: the future is dropped, by the thread that runs it if there is one.
    pub fn cancel(&self) {
        self.cancelled.store(true, Ordering::Release);
        match self.future.try_lock() {
            Ok(mut slot) => *slot = None,
            Err(TryLockError::Poisoned(slot)) => *slot.into_inner() = None,
            Err(TryLockError::WouldBlock) => {}
        }
    }
}

impl<O: Send + 'static> Wake for Call<O> {
    fn wake(self: Arc<Self>) {
        if self.queued.swap(true, Ordering::AcqRel) {
            return;
        }
        let shared = self.shared.clone();
        let mut queue = lock(&shared.queue);
        if !queue.closed {
            queue.ready.push_back(self);
            drop(queue);
            shared.changed.notify_one();
        }
    }
}

fn text_of(panic: &(dyn std::any::Any + Send)) -> &str {
    let owned = panic.downcast_ref::<String>().map(String::as_str);
    panic.downcast_ref::<&str>().copied().or(owned).unwrap_or("no message")
}
