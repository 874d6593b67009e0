//! How long accesses to keyed state take: one in so many is measured, for each state and kind of access on its own (Flink's
//! `state.latency-track`). Off unless asked for: measuring costs two looks at the machine's clock.

use std::num::NonZeroU32;

use crate::runtime::metrics::Stopwatch;
use crate::stream::{Histogram, MetricGroup};

/// Measures accesses to the states of one operator in one subtask.
pub(super) struct Latencies {
    metrics: MetricGroup,
    interval: NonZeroU32,
    tracks: Vec<Track>,
}

/// One kind of access to one state.
struct Track {
    state: &'static str,
    access: &'static str,
    /// Accesses until the next one is measured.
    left: u32,
    /// None where the process has too many metrics already.
    histogram: Option<Histogram>,
}

/// An access that is measured until this is dropped.
pub(super) struct Measurement {
    begin: Stopwatch,
    histogram: Histogram,
}

impl Drop for Measurement {
    fn drop(&mut self) {
        self.histogram.update(self.begin.elapsed_ns());
    }
}

impl Latencies {
    pub fn new(metrics: MetricGroup, interval: NonZeroU32) -> Self {
        Latencies { metrics, interval, tracks: Vec::new() }
    }

    /// A measurement of the access that begins now if it is its turn. It becomes the histogram `<state>.<access>`, in ns.
    pub fn measure(&mut self, state: &'static str, access: &'static str) -> Option<Measurement> {
        let known = self.tracks.iter().position(|track| track.access == access && track.state == state);
        let at = known.unwrap_or_else(|| {
            let histogram = self.metrics.histogram(&format!("{state}.{access}")).ok();
            self.tracks.push(Track { state, access, left: self.interval.get(), histogram });
            self.tracks.len() - 1
        });
        let track = &mut self.tracks[at];
        track.left -= 1;
        if track.left > 0 {
            return None;
        }
        track.left = self.interval.get();
        track.histogram.clone().map(|histogram| Measurement { begin: Stopwatch::start(), histogram })
    }
}
