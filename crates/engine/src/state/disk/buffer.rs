//! What a store has taken in and not yet written out: entries in one piece of memory, found by their hash, and put in
//! order only when they are written out or read one behind the other.
//!
//! One worker fills a buffer, so it needs neither locks nor versions. A full one is sealed: from then on nobody changes it,
//! and the worker, the thread that writes it out and iterators read it side by side. Who reads the one that is being filled
//! has it as it was: the worker that changes it then goes on with a copy.

use std::hash::BuildHasher;
use std::ops::Range;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock};

use hashbrown::HashTable;

use crate::state::TableHasher;

/// What an entry takes beside its bytes: its place, a number in the index at that one's usual load, a place in the order.
const OVERHEAD_BYTES: usize = size_of::<Place>() + 2 * size_of::<u32>() + size_of::<Ordered>();

/// A buffer's memory grows from here, in bytes.
const BEGIN_BYTES: usize = 4 * 1024;

/// The length of a value that says that the key was removed.
const REMOVED: u32 = u32::MAX;

/// Values may be so long, in bytes.
pub(super) const VALUE_BYTES_MAX: usize = REMOVED as usize - 1;

/// Keys may be so long, in bytes.
pub(super) const KEY_BYTES_MAX: usize = u16::MAX as usize;

/// Where an entry stands: its key and behind that its value.
#[derive(Clone, Copy)]
struct Place {
    begin: usize,
    key_len: u16,
    value_len: u32,
}

/// A key's first bytes, which decide most comparisons, and the number of its place.
type Ordered = (u64, u32);

/// Keys, and their values or that they were removed.
#[derive(Clone, Default)]
struct Contents {
    places: Vec<Place>,
    bytes: Vec<u8>,
    index: HashTable<u32>,
    /// The first places, in order of their keys.
    order: Vec<Ordered>,
}

/// A buffer that is being filled.
#[derive(Default)]
pub(super) struct Buffer(Arc<Contents>);

/// A buffer that nobody changes any more.
pub(super) struct Sealed {
    contents: Arc<Contents>,
    /// The order, if the contents do not have it.
    order: OnceLock<Vec<Ordered>>,
    written: AtomicBool,
}

/// Goes over the entries of a sealed buffer from one key up to another.
pub(super) struct Cursor {
    sealed: Arc<Sealed>,
    from: Vec<u8>,
    to: Option<Vec<u8>>,
    /// What is left, in order.
    left: Range<usize>,
}

fn hash(key: &[u8]) -> u64 {
    TableHasher::default().hash_one(key)
}

/// The first bytes of a key, as a number in the same order.
fn first_bytes(key: &[u8]) -> u64 {
    let mut first = [0; 8];
    let len = key.len().min(first.len());
    first[..len].copy_from_slice(&key[..len]);
    u64::from_be_bytes(first)
}

impl Contents {
    fn key(&self, at: u32) -> &[u8] {
        let place = self.places[at as usize];
        &self.bytes[place.begin..place.begin + usize::from(place.key_len)]
    }

    fn value(&self, at: u32) -> Option<&[u8]> {
        let place = self.places[at as usize];
        let begin = place.begin + usize::from(place.key_len);
        (place.value_len != REMOVED).then(|| &self.bytes[begin..begin + place.value_len as usize])
    }

    #[inline]
    fn find(&self, hash: u64, key: &[u8]) -> Option<u32> {
        self.index.find(hash, |at| self.key(*at) == key).copied()
    }

    #[inline]
    fn get(&self, key: &[u8]) -> Option<Option<&[u8]>> {
        Some(self.value(self.find(hash(key), key)?))
    }

    fn set(&mut self, key: &[u8], value: Option<&[u8]>, room: usize) {
        let hash = hash(key);
        let Some(at) = self.find(hash, key) else { return self.add(hash, key, value, room) };
        let place = &mut self.places[at as usize];
        match value {
            Some(value) if place.value_len != REMOVED && value.len() <= place.value_len as usize => {
                let begin = place.begin + usize::from(place.key_len);
                self.bytes[begin..begin + value.len()].copy_from_slice(value);
                place.value_len = value.len() as u32;
            }
            Some(_) => self.places[at as usize] = self.append(key, value, room),
            None => place.value_len = REMOVED,
        }
    }

    /// Adds an entry whose key it does not have.
    fn add(&mut self, hash: u64, key: &[u8], value: Option<&[u8]>, room: usize) {
        let (at, place) = (self.places.len() as u32, self.append(key, value, room));
        self.places.push(place);
        let mut index = std::mem::take(&mut self.index);
        index.insert_unique(hash, at, |at| self::hash(self.key(*at)));
        self.index = index;
    }

    fn append(&mut self, key: &[u8], value: Option<&[u8]>, room: usize) -> Place {
        let (begin, value_len) = (self.bytes.len(), value.map_or(REMOVED, |value| value.len() as u32));
        let value = value.unwrap_or_default();
        let end = begin + key.len() + value.len();
        if self.bytes.capacity() < end {
            // Twice as much, as vectors grow, but not beyond what it will ever hold.
            self.bytes.reserve_exact((2 * begin).max(BEGIN_BYTES).min(room).max(end) - begin);
        }
        self.bytes.extend_from_slice(key);
        self.bytes.extend_from_slice(value);
        Place { begin, key_len: key.len() as u16, value_len }
    }

    fn is_in_order(&self) -> bool {
        self.order.len() == self.places.len()
    }

    /// Completes an order with the places that are not in it yet.
    fn complete(&self, order: &mut Vec<Ordered>) {
        let in_order = order.len();
        order.extend((in_order as u32..self.places.len() as u32).map(|at| (first_bytes(self.key(at)), at)));
        let compare = |a: &Ordered, b: &Ordered| a.0.cmp(&b.0).then_with(|| self.key(a.1).cmp(self.key(b.1)));
        // A stable sort finds what is in order already and merges the rest into it.
        if in_order > 0 { order.sort_by(compare) } else { order.sort_unstable_by(compare) }
    }

    /// Where keys from one on, up to another, stand in a complete order.
    fn range(&self, order: &[Ordered], from: &[u8], to: Option<&[u8]>) -> Range<usize> {
        let first_from = |bound: &[u8]| order.partition_point(|(_, at)| self.key(*at) < bound);
        let end = to.map_or(order.len(), first_from);
        first_from(from).min(end)..end
    }
}

impl Buffer {
    /// An empty one, in the memory of one that has been written out if nobody reads that any more.
    pub fn reusing(written: Sealed) -> Self {
        let Some(mut contents) = Arc::into_inner(written.contents) else { return Buffer::default() };
        let Contents { places, bytes, index, order } = &mut contents;
        places.clear();
        bytes.clear();
        index.clear();
        order.clear();
        Buffer(Arc::new(contents))
    }

    /// Memory in use, in bytes.
    #[inline]
    pub fn memory(&self) -> usize {
        self.0.bytes.len() + self.0.places.len() * OVERHEAD_BYTES
    }

    pub fn len(&self) -> usize {
        self.0.places.len()
    }

    /// What it holds of a key: `None` for nothing, `Some(None)` for that it was removed.
    #[inline]
    pub fn get(&self, key: &[u8]) -> Option<Option<&[u8]>> {
        self.0.get(key)
    }

    /// Sets the value of a key, or that it was removed; neither is longer than it may be. A buffer that holds `room` bytes
    /// is to be sealed.
    pub fn set(&mut self, key: &[u8], value: Option<&[u8]>, room: usize) {
        Arc::make_mut(&mut self.0).set(key, value, room);
    }

    /// Its entries as they are now.
    pub fn look(&mut self) -> Sealed {
        if !self.0.is_in_order() {
            let contents = Arc::make_mut(&mut self.0);
            let mut order = std::mem::take(&mut contents.order);
            contents.complete(&mut order);
            contents.order = order;
        }
        Sealed::new(Buffer(self.0.clone()))
    }
}

impl Sealed {
    pub fn new(buffer: Buffer) -> Self {
        Sealed { contents: buffer.0, order: OnceLock::new(), written: AtomicBool::new(false) }
    }

    pub fn len(&self) -> usize {
        self.contents.places.len()
    }

    /// See [`Buffer::get`].
    #[inline]
    pub fn get(&self, key: &[u8]) -> Option<Option<&[u8]>> {
        self.contents.get(key)
    }

    fn order(&self) -> &[Ordered] {
        if self.contents.is_in_order() {
            return &self.contents.order;
        }
        self.order.get_or_init(|| {
            let mut order = self.contents.order.clone();
            self.contents.complete(&mut order);
            order
        })
    }

    /// All entries in order of key: values, or `None` for those that were removed.
    pub fn entries(&self) -> impl Iterator<Item = (&[u8], Option<&[u8]>)> {
        self.order().iter().map(|(_, at)| (self.contents.key(*at), self.contents.value(*at)))
    }

    /// Whoever sees that it is written out finds its entries in files.
    #[inline]
    pub fn is_written(&self) -> bool {
        self.written.load(Ordering::Acquire)
    }

    /// Its entries are in files.
    pub fn set_written(&self) {
        self.written.store(true, Ordering::Release);
    }
}

impl Cursor {
    /// One that has not begun: putting entries in order takes time that who makes it may not have.
    pub fn new(sealed: Arc<Sealed>, from: &[u8], to: Option<&[u8]>) -> Self {
        Cursor { sealed, from: from.to_vec(), to: to.map(<[u8]>::to_vec), left: 0..0 }
    }

    /// Goes to the first entry.
    pub fn begin(&mut self) {
        self.left = self.sealed.contents.range(self.sealed.order(), &self.from, self.to.as_deref());
    }

    /// The entry it stands at.
    pub fn entry(&self) -> Option<(&[u8], Option<&[u8]>)> {
        let at = self.left.clone().next()?;
        let (_, at) = self.sealed.order()[at];
        Some((self.sealed.contents.key(at), self.sealed.contents.value(at)))
    }

    /// Goes on to the next entry.
    pub fn advance(&mut self) {
        self.left.next();
    }
}
