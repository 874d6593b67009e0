//! Waiting for a topic to change without asking all the time.
//!
//! Beside the database stands a file of one byte, the bell: every writer writes it after a commit, and watchers sleep in
//! the kernel (inotify) until somebody does. A timer that asks every few milliseconds would cost half a percent of a
//! core per reader on a small machine, mostly for waking up; this costs nothing while nothing happens. A writer killed
//! between its commit and the bell is found by asking now and then.
//!
//! A user may have only some hundred inotify instances (128 by default), so a process makes one, with one thread that
//! passes the rings on. Where there is none to be had, watchers ask every 8 ms.

use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::time::Duration;

use tidemill_core::Result;

use crate::topic::Topic;

/// The longest sleep of a watcher that hears the bell, and of one that does not.
const NAP_HEARING: Duration = Duration::from_millis(250);
const NAP_DEAF: Duration = Duration::from_millis(8);

/// The file of the bell for a topic's database.
pub(crate) fn bell_path(database: &Path) -> PathBuf {
    let mut path = database.as_os_str().to_owned();
    path.push("-bell");
    PathBuf::from(path)
}

/// The writers' side.
pub(crate) struct Bell(Option<File>);

impl Bell {
    /// A bell that cannot be opened is not worth failing an append: watchers then find out by asking.
    pub fn open(database: &Path) -> Bell {
        Bell(File::options().create(true).truncate(false).write(true).open(bell_path(database)).ok())
    }

    pub fn ring(&self) {
        if let Some(file) = &self.0 {
            let _ = file.write_at(b".", 0);
        }
    }
}

/// Waits for commits to a topic; made by [`Topic::watch`]. One thread waits, any number may wake it.
pub struct Watch {
    topic: Topic,
    version: i64,
    signal: Arc<Signal>,
}

/// Ends the wait of a [`Watch`] from another thread.
#[derive(Clone)]
pub struct WatchWaker(Arc<Signal>);

impl WatchWaker {
    /// Ends the present wait, or the next one when nobody waits.
    pub fn wake(&self) {
        self.0.wake();
    }
}

impl Topic {
    /// Begins to watch: the first [`Watch::wait`] returns when something was committed after this call.
    pub fn watch(&self) -> Result<Watch> {
        let signal = Signal::new(self.path());
        Ok(Watch { topic: self.clone(), version: self.change_version()?, signal })
    }
}

impl Watch {
    /// Waits until somebody commits, the waker is called, or `timeout` has passed; whether there was a commit since the
    /// last call that said so. Read after that until there is no more, then wait again: nothing is missed.
    pub fn wait(&mut self, timeout: Duration) -> Result<bool> {
        let mut left = timeout;
        loop {
            let version = self.topic.change_version()?;
            if version != self.version {
                self.version = version;
                return Ok(true);
            }
            let nap = left.min(self.signal.nap_max());
            let woken = self.signal.wait(nap);
            left = left.saturating_sub(nap);
            if woken || left.is_zero() {
                let version = self.topic.change_version()?;
                let changed = version != self.version;
                self.version = version;
                return Ok(changed);
            }
        }
    }

    /// Ends a wait from elsewhere.
    pub fn waker(&self) -> WatchWaker {
        WatchWaker(Arc::clone(&self.signal))
    }
}

/// What a watcher sleeps on.
struct Signal {
    state: Mutex<SignalState>,
    changed: Condvar,
    /// Keeps the bell listened to; `None` where that is not possible.
    listening: Option<bells::Listening>,
}

#[derive(Default)]
struct SignalState {
    rung: bool,
    woken: bool,
}

impl Signal {
    fn new(database: &Path) -> Arc<Signal> {
        Arc::new_cyclic(|signal| Signal {
            state: Mutex::default(),
            changed: Condvar::new(),
            listening: bells::listen(&bell_path(database), signal.clone()),
        })
    }

    fn nap_max(&self) -> Duration {
        if self.listening.is_some() { NAP_HEARING } else { NAP_DEAF }
    }

    fn wake(&self) {
        self.state.lock().unwrap_or_else(PoisonError::into_inner).woken = true;
        self.changed.notify_all();
    }

    fn ring(&self) {
        self.state.lock().unwrap_or_else(PoisonError::into_inner).rung = true;
        self.changed.notify_all();
    }

    /// Whether the waker was called; also returns when the bell rang or the time is over.
    fn wait(&self, timeout: Duration) -> bool {
        let state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        let (mut state, _) = self
            .changed
            .wait_timeout_while(state, timeout, |state| !state.rung && !state.woken)
            .unwrap_or_else(PoisonError::into_inner);
        std::mem::take(&mut *state).woken
    }
}

/// The bells a process listens to.
#[cfg(target_os = "linux")]
mod bells {
    use std::collections::HashMap;
    use std::fs::File;
    use std::mem::MaybeUninit;
    use std::os::fd::OwnedFd;
    use std::path::Path;
    use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError, Weak};

    use rustix::fs::inotify;

    use super::Signal;

    /// One for the process, made by the first watcher; its thread sleeps until a bell rings.
    static LISTENER: OnceLock<Option<Listener>> = OnceLock::new();

    type Signals = HashMap<i32, Vec<Weak<Signal>>>;

    struct Listener {
        instance: Arc<OwnedFd>,
        /// By the kernel's number of the watched file.
        signals: Arc<Mutex<Signals>>,
    }

    /// A signal that is rung; not any more when this is dropped.
    pub struct Listening {
        number: i32,
        signal: Weak<Signal>,
    }

    /// `None` where the kernel has no more to give.
    pub fn listen(bell: &Path, signal: Weak<Signal>) -> Option<Listening> {
        let listener = LISTENER.get_or_init(Listener::start).as_ref()?;
        File::options().create(true).truncate(false).write(true).open(bell).ok()?;
        let mut signals = lock(&listener.signals);
        let number = inotify::add_watch(&listener.instance, bell, inotify::WatchFlags::MODIFY).ok()?;
        signals.entry(number).or_default().push(signal.clone());
        Some(Listening { number, signal })
    }

    impl Drop for Listening {
        fn drop(&mut self) {
            let Some(Some(listener)) = LISTENER.get() else { return };
            let mut signals = lock(&listener.signals);
            let Some(of_bell) = signals.get_mut(&self.number) else { return };
            of_bell.retain(|signal| !signal.ptr_eq(&self.signal));
            if of_bell.is_empty() {
                signals.remove(&self.number);
                // Fails when the file is gone, and the watch with it.
                let _ = inotify::remove_watch(&listener.instance, self.number);
            }
        }
    }

    impl Listener {
        fn start() -> Option<Listener> {
            let instance = Arc::new(inotify::init(inotify::CreateFlags::CLOEXEC).ok()?);
            let signals: Arc<Mutex<Signals>> = Arc::default();
            let (theirs, rung) = (Arc::clone(&instance), Arc::clone(&signals));
            std::thread::Builder::new().name("topic bells".into()).spawn(move || hear(&theirs, &rung)).ok()?;
            Some(Listener { instance, signals })
        }
    }

    fn hear(instance: &OwnedFd, signals: &Mutex<Signals>) {
        let mut events = [MaybeUninit::uninit(); 4096];
        let mut rings = inotify::Reader::new(instance, &mut events);
        loop {
            let number = match rings.next() {
                Ok(event) => event.wd(),
                Err(rustix::io::Errno::INTR) => continue,
                // Watchers then find out by asking now and then.
                Err(_) => return,
            };
            let signals = lock(signals);
            // A negative number: events were lost, so it may have been any.
            let rung = signals.iter().filter(|(of, _)| number < 0 || **of == number);
            // Rung without the lock: dropping the last reference takes it.
            let rung: Vec<Arc<Signal>> = rung.flat_map(|(_, signals)| signals).filter_map(Weak::upgrade).collect();
            drop(signals);
            rung.iter().for_each(|signal| signal.ring());
        }
    }

    fn lock(signals: &Mutex<Signals>) -> MutexGuard<'_, Signals> {
        signals.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(not(target_os = "linux"))]
mod bells {
    use std::path::Path;
    use std::sync::Weak;

    use super::Signal;

    pub struct Listening;

    pub fn listen(_bell: &Path, _signal: Weak<Signal>) -> Option<Listening> {
        None
    }
}
