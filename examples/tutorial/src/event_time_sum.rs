//! Sums numbers in windows of 3 s of *event* time: the time a line carries, not the time it arrives. The watermark follows
//! 1 s behind the newest line, so lines out of order by up to 1 s are still counted.
//!
//! Windows are aligned to 1970, not to the first line: 1645844000 lies in `[1645842000, 1645845000)`. Of
//!
//! ```text
//! hello,1645844000,1     first window
//! hello,1645845000,2     second window, [1645845000, 1645848000)
//! hello,1645846000,1     second; the watermark passes the end of the first window: its sum 1 is told
//! hello,1645847000,3     second
//! hello,1645849000,1     third; the sum 6 of the second is told
//! ```
//!
//! the answers are 1, then 6.

use tidemill::prelude::*;

use crate::TimedReading;

/// The windows' length.
pub const SIZE: Duration = Duration::from_secs(3);
/// How long to wait for lines that come late.
pub const DELAY: Duration = Duration::from_secs(1);

/// For each window and key the sum, in the place of the number of the window's first line.
pub fn build(_env: &Environment, readings: DataStream<TimedReading>) -> DataStream<TimedReading> {
    readings
        .assign_timestamps_and_watermarks(
            WatermarkStrategy::bounded_out_of_orderness(DELAY).with_timestamps(|reading: &TimedReading, _| reading.1),
        )
        // One subtask sees all lines in order; several would each wait for the time of the others' lines.
        .set_parallelism(1)
        .key_by(|reading| reading.0.clone())
        .window(Tumbling::event_time(SIZE))
        .sum(|reading| &mut reading.2)
}
