//! Counts the words of the last 10 s, every 5 s: each word falls into two windows.

use tidemill::prelude::*;

use crate::WordCount;
use crate::words::words;

/// The windows' length.
pub const SIZE: Duration = Duration::from_secs(10);
/// How far apart windows begin.
pub const SLIDE: Duration = Duration::from_secs(5);

/// For each window and word the count, when the window is over.
pub fn build(_env: &Environment, lines: DataStream<String>) -> DataStream<WordCount> {
    words(&lines).key_by(|(word, _)| word.clone()).window(Sliding::processing_time(SIZE, SLIDE)).sum(|(_, count)| count)
}
