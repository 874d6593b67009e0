//! Counting and ranking: the two-step top N.
//!
//! ```text
//! views --by item--> windows, one running count a key ------> (window end, item, count), all at the window's last ms
//!       --by window end--> the best N so far, kept in order --timer at the window's end--> ranking
//! ```
//!
//! Everything a watermark makes the windows emit arrives before that watermark does, so when the timer fires at the
//! window's end all its counts are there. The second step keeps N entries a window, not all counts.

use std::cmp::Reverse;
use std::fmt::{self, Display};

use serde::{Deserialize, Serialize};
use tidemill::core::Data;
use tidemill::prelude::*;

use crate::reference::Views;
use crate::utc::Utc;

/// Counts records.
#[derive(Debug, Clone, Copy, Default)]
pub struct Count;

impl<T> Aggregate<T> for Count {
    type Accumulator = u64;
    type Output = u64;

    fn create(&self) -> u64 {
        0
    }

    fn add(&mut self, count: &mut u64, _value: T) {
        *count += 1;
    }

    fn merge(&mut self, count: &mut u64, other: u64) {
        *count += other;
    }

    fn result(&mut self, count: u64) -> u64 {
        count
    }
}

/// How often something was viewed in a window.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct WindowViews<T> {
    /// The window, by its end in epoch ms.
    pub window_end_ms: i64,
    /// The thing and its views.
    pub views: Views<T>,
}

/// The best of a window, most views first, equal ones by themselves.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Ranking<T> {
    /// The window, by its end in epoch ms.
    pub window_end_ms: i64,
    /// The best.
    pub best: Vec<Views<T>>,
}

impl<T: Display> Display for Ranking<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", Utc(self.window_end_ms))?;
        self.best.iter().try_for_each(|entry| write!(f, "  {} ({})", entry.of, entry.views))
    }
}

/// The `length` best of each window. Takes each thing of a window once.
pub fn top<T: Data + Ord>(views: &DataStream<WindowViews<T>>, length: usize) -> DataStream<Ranking<T>> {
    views.key_by(|views| views.window_end_ms).process(Top { length, best: ValueState::new("best") }).name("Top")
}

struct Top<T> {
    length: usize,
    /// The best of the current window so far, in order.
    best: ValueState<Vec<Views<T>>>,
}

impl<T> Clone for Top<T> {
    fn clone(&self) -> Self {
        Top { length: self.length, best: self.best.clone() }
    }
}

impl<T: Data + Ord> KeyedProcessFunction<i64, WindowViews<T>, Ranking<T>> for Top<T> {
    fn process(&mut self, views: WindowViews<T>, context: &mut KeyedContext<'_, i64, Ranking<T>>) -> Result<()> {
        let (window_end_ms, views) = (views.window_end_ms, views.views);
        let best = self.best.get_or(context, Vec::new)?;
        let is_new = best.is_empty();
        let place = best.partition_point(|held| (Reverse(held.views), &held.of) < (Reverse(views.views), &views.of));
        if place < self.length {
            best.insert(place, views);
            best.truncate(self.length);
        }
        if is_new {
            context.register_event_timer(window_end_ms);
        }
        Ok(())
    }

    fn on_timer(&mut self, _domain: TimeDomain, context: &mut KeyedContext<'_, i64, Ranking<T>>) -> Result<()> {
        let Some(best) = self.best.take(context)? else { return Ok(()) };
        let window_end_ms = *context.key();
        context.emit(Ranking { window_end_ms, best })
    }
}
