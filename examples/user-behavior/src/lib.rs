//! Hot items, page views and visitors of a shop, and hot pages of a web site: what real logs of clicks can tell.
//!
//! | module | holds |
//! |---|---|
//! | [`hot_items`] | the 5 items viewed most in an hour, every 5 minutes |
//! | [`page_views`] | page views and visitors of each hour |
//! | [`hot_pages`] | the 3 pages asked for most in 10 minutes, every 5 seconds, from lines out of order |
//! | [`ranking`] | counting and the two-step top N |
//! | [`record`] | the lines of the logs |
//! | [`input`] | where the lines come from, and which came too late |
//! | [`tally`] | what was left out, for the end |
//! | [`reference`](mod@reference) | the same results the obvious way: the tests compare with it |

pub mod hot_items;
pub mod hot_pages;
pub mod input;
pub mod page_views;
pub mod ranking;
pub mod record;
pub mod reference;
pub mod tally;
mod utc;
