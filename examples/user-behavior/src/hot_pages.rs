//! The 3 pages asked for most in 10 minutes, every 5 seconds. The log's lines are out of order by up to 59 s.

use tidemill::prelude::*;

use crate::ranking::{Count, Ranking, WindowViews, top};
use crate::record::Request;
use crate::reference::{HOT_PAGES_TOP, Views};

/// The windows' length.
pub const SIZE: Duration = Duration::from_secs(10 * 60);
/// How far apart windows begin.
pub const SLIDE: Duration = Duration::from_secs(5);

/// A ranking for each window, when it is complete.
pub fn build(requests: &DataStream<Request>) -> DataStream<Ranking<String>> {
    let views = requests
        .filter(|request| request.is_page)
        .key_by(|request| request.path.clone())
        .window(Sliding::event_time(SIZE, SLIDE))
        .aggregate_with(Count, |path: &String, window: Window, views| {
            Some(WindowViews { window_end_ms: window.end_ms, views: Views { of: path.clone(), views } })
        });
    top(&views, HOT_PAGES_TOP)
}
