//! Sections of a restored state on their way into an operator's tables: while it takes one in, a few threads read the next
//! ones. So a restore needs the memory of some sections beside the tables, and an object store is asked for several at once.
//!
//! Sections are normally taken in the order they stand in. One that nobody has read ahead is read by whoever takes it; so
//! all of it works without threads too.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError, Weak};

use tidemill_core::{Error, Result};

use super::folder::StateFiles;
use super::manifest::SectionPlace;
use crate::runtime::spawn;
use crate::state::StoredSections;

/// So many sections for each thread are read ahead of one subtask.
const AHEAD_PER_THREAD: usize = 2;

/// The threads that read a checkpoint for a process. They end with the last who may ask them.
#[derive(Clone)]
pub(crate) struct Readers {
    files: Arc<StateFiles>,
    threads: usize,
    /// At most what is read ahead of all subtasks waits in it.
    jobs: Option<Sender<Job>>,
}

/// A section to be read, by its number.
type Job = (Weak<ReadAhead>, usize);

impl Readers {
    /// As many threads as the storage serves well at once.
    pub fn start(files: Arc<StateFiles>) -> Result<Self> {
        let threads = files.reads_at_once();
        let (jobs, inbox) = channel();
        let inbox = Arc::new(Mutex::new(inbox));
        for _ in 0..threads {
            let inbox = inbox.clone();
            spawn("checkpoint-reader", move || read(&inbox))?;
        }
        Ok(Readers { files, threads, jobs: (threads > 0).then_some(jobs) })
    }

    /// Sections one subtask will take, in this order.
    pub fn ahead_of(&self, places: Vec<SectionPlace>) -> Arc<ReadAhead> {
        let slots = places.iter().map(|_| Slot::Unread).collect();
        let slots = Mutex::new(Slots { slots, waiting: 0 });
        let ahead = Arc::new(ReadAhead { readers: self.clone(), places, slots, changed: Condvar::new() });
        ahead.ask(&mut ahead.lock(), 0);
        ahead
    }
}

fn read(inbox: &Mutex<Receiver<Job>>) {
    loop {
        let next = inbox.lock().unwrap_or_else(PoisonError::into_inner).recv();
        let Ok((ahead, at)) = next else { return };
        // Who would take it may be gone.
        if let Some(ahead) = ahead.upgrade() {
            let read = catch_unwind(AssertUnwindSafe(|| ahead.read(at)));
            let read = read.unwrap_or_else(|_| Err(Error::bug("the thread `checkpoint-reader` panicked")));
            ahead.lock().slots[at] = Slot::Here(read);
            ahead.changed.notify_all();
        }
    }
}

/// The sections one subtask takes.
pub(crate) struct ReadAhead {
    readers: Readers,
    places: Vec<SectionPlace>,
    slots: Mutex<Slots>,
    changed: Condvar,
}

struct Slots {
    slots: Vec<Slot>,
    /// Slots that a thread was asked to fill, and whose bytes nobody has taken.
    waiting: usize,
}

enum Slot {
    Unread,
    /// Somebody is about to read it.
    Asked,
    Here(Result<Arc<Vec<u8>>>),
    /// Its bytes are not expected to be wanted again.
    Taken,
    /// Its bytes stay, since the files may go.
    Kept(Arc<Vec<u8>>),
}

impl ReadAhead {
    fn lock(&self) -> MutexGuard<'_, Slots> {
        self.slots.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn read(&self, at: usize) -> Result<Arc<Vec<u8>>> {
        self.readers.files.section(&self.places[at]).map(Arc::new)
    }

    /// Has the threads read what comes behind, as far as there is room.
    fn ask(self: &Arc<Self>, slots: &mut Slots, from: usize) {
        let Some(jobs) = &self.readers.jobs else { return };
        for (at, slot) in slots.slots.iter_mut().enumerate().skip(from) {
            if slots.waiting >= AHEAD_PER_THREAD * self.readers.threads {
                return;
            }
            if matches!(slot, Slot::Unread) && jobs.send((Arc::downgrade(self), at)).is_ok() {
                *slot = Slot::Asked;
                slots.waiting += 1;
            }
        }
    }
}

impl StoredSections for ReadAhead {
    fn bytes(self: Arc<Self>, at: usize, keep: bool) -> Result<Arc<Vec<u8>>> {
        let mut slots = self.lock();
        let bytes = loop {
            match std::mem::replace(&mut slots.slots[at], Slot::Asked) {
                Slot::Asked => slots = self.changed.wait(slots).unwrap_or_else(PoisonError::into_inner),
                Slot::Kept(bytes) => {
                    slots.slots[at] = Slot::Kept(bytes.clone());
                    return Ok(bytes);
                }
                Slot::Here(bytes) => {
                    slots.waiting -= 1;
                    self.ask(&mut slots, at + 1);
                    break bytes;
                }
                Slot::Unread | Slot::Taken => {
                    self.ask(&mut slots, at + 1);
                    drop(slots);
                    let bytes = self.read(at);
                    slots = self.lock();
                    break bytes;
                }
            }
        };
        slots.slots[at] = match &bytes {
            Ok(bytes) if keep => Slot::Kept(bytes.clone()),
            Ok(_) => Slot::Taken,
            Err(_) => Slot::Unread,
        };
        self.changed.notify_all();
        bytes
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;
    use crate::checkpoint::folder::StateFile;
    use crate::checkpoint::storage::{Storage, Storages};
    use crate::state::{Section, SectionKind};

    const SECTIONS: usize = 60;

    /// Section `at` holds `at` bytes `at`.
    fn written(folder: &Path) -> (Arc<dyn Storage>, Vec<SectionPlace>) {
        let storage = Storages::default().at(folder).unwrap();
        let mut file = StateFile::create(&*storage, folder, "a.state", "a.state").unwrap();
        let section = |at: usize| Section::new("s", SectionKind::Keyed, 1, vec![at as u8; at]);
        let places = (0..SECTIONS).map(|at| file.append(&section(at), 0).unwrap()).collect();
        file.finish().unwrap();
        (storage, places)
    }

    #[test]
    fn sections_come_in_any_order_and_few_wait() {
        let folder = tempfile::tempdir().unwrap();
        let (storage, places) = written(folder.path());
        let readers = Readers::start(Arc::new(StateFiles::new(storage, folder.path()))).unwrap();
        assert!(readers.threads > 0);
        // In order, backwards, and with strides, as states of several names are taken.
        for stride in [1, SECTIONS - 1, 7, 23] {
            let ahead = readers.ahead_of(places.clone());
            for step in 0..SECTIONS {
                let at = (step * stride) % SECTIONS;
                assert_eq!(*ahead.clone().bytes(at, step % 2 == 0).unwrap(), vec![at as u8; at]);
                assert!(ahead.lock().waiting <= AHEAD_PER_THREAD * readers.threads);
            }
            // Asked for again: kept, or read again.
            assert_eq!(*ahead.clone().bytes(0, false).unwrap(), Vec::<u8>::new());
            assert_eq!(*ahead.bytes(stride, false).unwrap(), vec![stride as u8; stride]);
        }
        let ahead = readers.ahead_of(places);
        ahead.clone().bytes(9, true).unwrap();
        std::fs::remove_file(folder.path().join("a.state")).unwrap();
        assert_eq!(*ahead.clone().bytes(9, false).unwrap(), vec![9; 9]);
        for _ in 0..2 {
            let gone = ahead.clone().bytes(SECTIONS - 1, false).unwrap_err();
            assert!(gone.to_string().contains("a.state"), "{gone}");
        }
    }

    #[test]
    fn two_who_want_the_same_section_both_get_it() {
        let folder = tempfile::tempdir().unwrap();
        let (storage, places) = written(folder.path());
        let readers = Readers::start(Arc::new(StateFiles::new(storage, folder.path()))).unwrap();
        for _ in 0..20 {
            let ahead = readers.ahead_of(places.clone());
            let all = |keep: bool| {
                let ahead = ahead.clone();
                move || (0..SECTIONS).for_each(|at| assert_eq!(ahead.clone().bytes(at, keep).unwrap().len(), at))
            };
            let writer = std::thread::spawn(all(true));
            all(false)();
            writer.join().unwrap();
        }
    }
}
