//! What all word counts begin with.

use tidemill::prelude::*;

use crate::WordCount;

/// Every word of the lines, counted once.
pub(crate) fn words(lines: &DataStream<String>) -> DataStream<WordCount> {
    lines.flat_map(|line: String| line.split_whitespace().map(|word| (word.to_string(), 1)).collect::<Vec<_>>())
}
