//! Buffers of sections on their way in circles: a table fills them, the checkpoint writer gives them back when they are
//! written. A gigabyte of fresh ones with each checkpoint would have the kernel clear a gigabyte of pages.

use std::sync::{Arc, Mutex, PoisonError};

/// A section is closed when it has this many bytes.
pub(super) const SECTION_BYTES: usize = 1024 * 1024;

/// Room of a buffer: a section, and the entry that closes it, normally.
const BUFFER_BYTES: usize = SECTION_BYTES + SECTION_BYTES / 8;

/// So many buffers are kept at most, for one worker.
const KEPT_MAX: usize = 32;

/// Buffers that wait to be filled.
#[derive(Clone, Default)]
pub struct Buffers(Arc<Mutex<Vec<Vec<u8>>>>);

impl Buffers {
    /// An empty buffer with room for a section.
    pub(super) fn take(&self) -> Vec<u8> {
        let kept = self.0.lock().unwrap_or_else(PoisonError::into_inner).pop();
        kept.unwrap_or_else(|| Vec::with_capacity(BUFFER_BYTES))
    }

    /// A buffer that is not needed any more. Others than those of this size go.
    pub(crate) fn give_back(&self, mut buffer: Vec<u8>) {
        if (BUFFER_BYTES..2 * BUFFER_BYTES).contains(&buffer.capacity()) {
            buffer.clear();
            let mut kept = self.0.lock().unwrap_or_else(PoisonError::into_inner);
            if kept.len() < KEPT_MAX {
                kept.push(buffer);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_buffer_given_back_is_the_next_one_and_few_are_kept() {
        let buffers = Buffers::default();
        let mut buffer = buffers.take();
        buffer.push(1);
        let place = buffer.as_ptr();
        buffers.give_back(buffer);
        buffers.give_back(vec![0; 100]);
        let again = buffers.take();
        assert!(again.is_empty() && again.as_ptr() == place);
        (0..2 * KEPT_MAX).for_each(|_| buffers.give_back(Vec::with_capacity(BUFFER_BYTES)));
        assert_eq!(buffers.0.lock().unwrap().len(), KEPT_MAX);
    }
}
