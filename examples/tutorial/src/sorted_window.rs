//! Brings readings into the order of their event time: each window is handed over whole, sorted, and told reading by
//! reading. Sorting needs all records of a window, so they are kept until it ends; a sum would keep only itself.

use tidemill::prelude::*;

use crate::TimedReading;

/// The windows' length.
pub const SIZE: Duration = Duration::from_secs(5);
/// How long to wait for readings that come late.
pub const DELAY: Duration = Duration::from_secs(2);

/// The readings of each key, in order.
pub fn build(_env: &Environment, readings: DataStream<TimedReading>) -> DataStream<TimedReading> {
    readings
        .assign_timestamps_and_watermarks(
            WatermarkStrategy::bounded_out_of_orderness(DELAY).with_timestamps(|reading: &TimedReading, _| reading.1),
        )
        // One subtask sees all lines in order; several would each wait for the time of the others' lines.
        .set_parallelism(1)
        .key_by(|reading| reading.0.clone())
        .window(Tumbling::event_time(SIZE))
        .apply(|_: &String, _: Window, mut readings: Vec<TimedReading>| {
            // Stable: readings of the same time stay in the order they came.
            readings.sort_by_key(|reading| reading.1);
            readings
        })
}
