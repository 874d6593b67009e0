//! The 5 items viewed most in an hour, every 5 minutes.

use tidemill::prelude::*;

use crate::ranking::{Count, Ranking, WindowViews, top};
use crate::record::Action;
use crate::reference::{HOT_ITEMS_TOP, Views};

/// The windows' length.
pub const SIZE: Duration = Duration::from_secs(60 * 60);
/// How far apart windows begin.
pub const SLIDE: Duration = Duration::from_secs(5 * 60);

/// A ranking for each window, when it is complete.
pub fn build(actions: &DataStream<Action>) -> DataStream<Ranking<u64>> {
    let views = actions
        .filter(|action| action.is_view)
        .key_by(|action| action.item)
        .window(Sliding::event_time(SIZE, SLIDE))
        .aggregate_with(Count, |item: &u64, window: Window, views| {
            Some(WindowViews { window_end_ms: window.end_ms, views: Views { of: *item, views } })
        });
    top(&views, HOT_ITEMS_TOP)
}
