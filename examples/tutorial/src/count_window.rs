//! Tells of a word once it was seen four times, and begins anew. What is left at the end of the input is not told.

use tidemill::prelude::*;

use crate::WordCount;
use crate::words::words;

/// The windows' length, in words.
pub const SIZE: u64 = 4;

/// Each word at every fourth time.
pub fn build(_env: &Environment, lines: DataStream<String>) -> DataStream<WordCount> {
    words(&lines).key_by(|(word, _)| word.clone()).count_window(SIZE).sum(|(_, count)| count)
}
