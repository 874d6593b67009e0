//! Page views and visitors of each hour, both exact.
//!
//! An hour's visitors are not gathered in one large set on one key. The first step counts the views of each user and hour:
//! its window *is* the set, spread over all workers by user. Each user then comes out once, as one visitor with so many
//! views, and the second step only adds two numbers an hour.

use std::fmt::{self, Display};

use serde::{Deserialize, Serialize};
use tidemill::prelude::*;

use crate::ranking::Count;
use crate::record::Action;
use crate::reference::PageViews;
use crate::utc::Utc;

/// The windows' length.
pub const SIZE: Duration = Duration::from_secs(60 * 60);

/// Page views and visitors of an hour.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct HourViews {
    /// The hour, by its end in epoch ms.
    pub window_end_ms: i64,
    /// Its page views and visitors.
    pub views: PageViews,
}

impl Display for HourViews {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}  pv {}  uv {}", Utc(self.window_end_ms), self.views.pv, self.views.uv)
    }
}

/// One row for each hour, when it is complete.
pub fn build(actions: &DataStream<Action>) -> DataStream<HourViews> {
    actions
        .filter(|action| action.is_view)
        .key_by(|action| action.user)
        .window(Tumbling::event_time(SIZE))
        .aggregate_with(Count, |_: &u64, window: Window, pv| {
            Some(HourViews { window_end_ms: window.end_ms, views: PageViews { pv, uv: 1 } })
        })
        .name("Visitors")
        // The results of a window carry its last millisecond, so they fall into the same hour again.
        .key_by(|visitor| visitor.window_end_ms)
        .window(Tumbling::event_time(SIZE))
        .reduce(|hour, visitor| {
            hour.views.pv += visitor.views.pv;
            hour.views.uv += visitor.views.uv;
        })
}
