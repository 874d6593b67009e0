//! Waiting for a topic to change without asking all the time.
//!
//! Beside the database stands a file of one byte, the bell: every writer writes it after a commit, and watchers sleep in
//! the kernel (inotify) until somebody does. A timer that asks every few milliseconds would cost half a percent of a
//! core per reader on a small machine, mostly for waking up; this costs nothing while nothing happens. A writer killed
//! between its commit and the bell is found by asking now and then.
//!
//! Where there is no inotify, watchers ask every 8 ms.

use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use tidemill_core::{Error, Result};

use crate::topic::Topic;

/// The longest sleep of a watcher that hears the bell.
const ASK_AT_LEAST_EVERY: Duration = Duration::from_millis(250);

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
    waiting: Arc<signal::Signal>,
}

/// Ends the wait of a [`Watch`] from another thread.
#[derive(Clone)]
pub struct WatchWaker(Arc<signal::Signal>);

impl WatchWaker {
    /// Ends the present wait, or the next one when nobody waits.
    pub fn wake(&self) {
        self.0.wake();
    }
}

impl Topic {
    /// Begins to watch: the first [`Watch::wait`] returns when something was committed after this call.
    pub fn watch(&self) -> Result<Watch> {
        let signal = signal::Signal::new(self.path())
            .map_err(|error| Error::io(format!("watch topic `{}`", self.name()), error))?;
        Ok(Watch { topic: self.clone(), version: self.change_version()?, waiting: Arc::new(signal) })
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
            let nap = left.min(signal::NAP_MAX);
            let woken = self
                .waiting
                .wait(nap)
                .map_err(|error| Error::io(format!("watch topic `{}`", self.topic.name()), error))?;
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
        WatchWaker(Arc::clone(&self.waiting))
    }
}

#[cfg(target_os = "linux")]
mod signal {
    use std::io;
    use std::mem::MaybeUninit;
    use std::os::fd::OwnedFd;
    use std::path::Path;
    use std::time::Duration;

    use rustix::event::{EventfdFlags, PollFd, PollFlags, Timespec, eventfd, poll};
    use rustix::fs::inotify;

    pub const NAP_MAX: Duration = super::ASK_AT_LEAST_EVERY;

    /// The bell and the waker, as things to poll.
    pub struct Signal {
        bell: OwnedFd,
        waker: OwnedFd,
    }

    impl Signal {
        pub fn new(database: &Path) -> io::Result<Signal> {
            drop(super::Bell::open(database));
            let bell = inotify::init(inotify::CreateFlags::NONBLOCK | inotify::CreateFlags::CLOEXEC)?;
            inotify::add_watch(&bell, super::bell_path(database), inotify::WatchFlags::MODIFY)?;
            let waker = eventfd(0, EventfdFlags::NONBLOCK | EventfdFlags::CLOEXEC)?;
            Ok(Signal { bell, waker })
        }

        pub fn wake(&self) {
            // Fails only when the counter is at its maximum, and then the waiter is awake anyway.
            let _ = rustix::io::write(&self.waker, &1u64.to_ne_bytes());
        }

        /// Whether the waker was called; also returns when the bell rang or the time is over.
        pub fn wait(&self, timeout: Duration) -> io::Result<bool> {
            let timeout = Timespec { tv_sec: timeout.as_secs() as i64, tv_nsec: i64::from(timeout.subsec_nanos()) };
            let mut polled = [PollFd::new(&self.bell, PollFlags::IN), PollFd::new(&self.waker, PollFlags::IN)];
            match poll(&mut polled, Some(&timeout)) {
                Ok(_) | Err(rustix::io::Errno::INTR) => {}
                Err(error) => return Err(error.into()),
            }
            let woken = polled[1].revents().contains(PollFlags::IN);
            if woken {
                let _ = rustix::io::read(&self.waker, &mut [0u8; 8]);
            }
            if polled[0].revents().contains(PollFlags::IN) {
                let mut events = [MaybeUninit::uninit(); 512];
                let mut rings = inotify::Reader::new(&self.bell, &mut events);
                while rings.next().is_ok() {}
            }
            Ok(woken)
        }
    }
}

#[cfg(not(target_os = "linux"))]
mod signal {
    use std::io;
    use std::path::Path;
    use std::sync::{Condvar, Mutex, PoisonError};
    use std::time::Duration;

    pub const NAP_MAX: Duration = Duration::from_millis(8);

    #[derive(Default)]
    pub struct Signal {
        woken: Mutex<bool>,
        changed: Condvar,
    }

    impl Signal {
        pub fn new(_database: &Path) -> io::Result<Signal> {
            Ok(Signal::default())
        }

        pub fn wake(&self) {
            *self.woken.lock().unwrap_or_else(PoisonError::into_inner) = true;
            self.changed.notify_all();
        }

        pub fn wait(&self, timeout: Duration) -> io::Result<bool> {
            let woken = self.woken.lock().unwrap_or_else(PoisonError::into_inner);
            let (mut woken, _) = self
                .changed
                .wait_timeout_while(woken, timeout, |woken| !*woken)
                .unwrap_or_else(PoisonError::into_inner);
            Ok(std::mem::take(&mut *woken))
        }
    }
}
