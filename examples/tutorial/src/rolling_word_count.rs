//! Counts words and tells the new count with each of them.

use tidemill::prelude::*;

use crate::WordCount;
use crate::words::words;

/// For each word its count so far.
pub fn build(_env: &Environment, lines: DataStream<String>) -> DataStream<WordCount> {
    words(&lines).key_by(|(word, _)| word.clone()).sum(|(_, count)| count)
}
