//! Counts words in windows of 5 s, which follow each other without overlap. The clock decides which window a word falls
//! into: the moment it arrives.

use tidemill::prelude::*;

use crate::WordCount;
use crate::words::words;

/// The windows' length.
pub const SIZE: Duration = Duration::from_secs(5);

/// For each window and word the count, when the window is over.
pub fn build(_env: &Environment, lines: DataStream<String>) -> DataStream<WordCount> {
    words(&lines).key_by(|(word, _)| word.clone()).window(Tumbling::processing_time(SIZE)).sum(|(_, count)| count)
}
