//! The programs of a DataStream tutorial, one module each; `src/bin/` runs them over a socket or a file.
//!
//! | module | shows |
//! |---|---|
//! | [`rolling_word_count`] | a running sum for each key |
//! | [`tumbling_word_count`] | windows of 5 s by the clock |
//! | [`sliding_word_count`] | windows of 10 s that begin every 5 s |
//! | [`count_window`] | a window for every 4 records of a key |
//! | [`sorted_window`] | all records of a window at once |
//! | [`event_time_sum`] | event time, watermarks, disorder |
//! | [`age_split`] | side outputs |
//! | [`keyed_concat`] | a rolling reduction of one's own |
//! | [`difference`] | keyed state |
//! | [`pair_average`] | a flat map with state |
//! | [`jump_filter`] | a filter with state |
//!
//! Each has a function `build` from the input stream to the result stream: `main` gives it lines from outside and prints
//! the results, a test gives it a collection and compares.

pub mod age_split;
pub mod count_window;
pub mod difference;
pub mod event_time_sum;
pub mod input;
pub mod jump_filter;
pub mod keyed_concat;
pub mod pair_average;
pub mod rolling_word_count;
pub mod sliding_word_count;
pub mod sorted_window;
pub mod tumbling_word_count;
mod words;

/// A word and how often it was seen.
pub type WordCount = (String, u64);

/// A line `key,number`.
pub type Reading = (String, i64);

/// A line `key,time,number`; the time in epoch ms.
pub type TimedReading = (String, i64, i64);
