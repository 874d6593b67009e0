//! Hot items, page views and visitors of a shop, and hot pages of a web site: what real logs of clicks can tell.
//!
//! [`reference`](mod@reference) computes the results the obvious way; the streaming job's tests compare with it.

pub mod reference;
