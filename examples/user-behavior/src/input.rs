//! Where the lines come from: the log's file, or the small sample built in. Lines that are not understood and lines that
//! come too late are counted.
//!
//! A line is late when the watermark has passed the end of a window it belongs to: that window was told without it. It
//! still counts in windows that are open.

use std::fmt::Debug;
use std::path::{Path, PathBuf};

use tidemill::connectors::file::FileSource;
use tidemill::connectors::generator::GeneratorSource;
use tidemill::core::Data;
use tidemill::core::format::Decode;
use tidemill::core::source::Source;
use tidemill::prelude::*;

use crate::record::{Action, ActionLine, Request, RequestLine};
use crate::tally::Tally;
use crate::{hot_items, hot_pages, page_views};

/// The file of user actions.
pub const ACTIONS: &str = "user_behavior.csv";
/// The file of requests.
pub const REQUESTS: &str = "web_access.log";

/// Lines of [`ACTIONS`] are in order.
pub const ACTIONS_DELAY: Duration = Duration::ZERO;
/// Lines of [`REQUESTS`] are out of order by up to 59 s.
pub const REQUESTS_DELAY: Duration = Duration::from_secs(60);

/// Some lines of the form of [`ACTIONS`].
pub const ACTIONS_SAMPLE: &str = include_str!("../sample/user_behavior.csv");
/// Some lines of the form of [`REQUESTS`].
pub const REQUESTS_SAMPLE: &str = include_str!("../sample/web_access.log");

/// Where lines come from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Input {
    /// A file; `.gz` is unpacked.
    File(PathBuf),
    /// The lines built in.
    Sample,
}

impl Input {
    /// The file of this name in a folder, packed or not.
    pub fn in_folder(folder: &Path, name: &str) -> Option<Input> {
        [name.to_string(), format!("{name}.gz")]
            .iter()
            .map(|file| folder.join(file))
            .find(|path| path.is_file())
            .map(Input::File)
    }
}

/// What was left out or came too late.
#[derive(Debug, Clone, Default)]
pub struct Missed {
    /// Lines that are not understood.
    pub dead: Tally,
    /// Lines that came after a window of theirs was told.
    pub late: Tally,
}

/// The actions for [`hot_items`].
pub fn item_actions(env: &Environment, input: &Input, delay: Duration, missed: &Missed) -> Result<DataStream<Action>> {
    let actions = read(env, input, ActionLine, ACTIONS_SAMPLE, delay, |action| action.time_ms, &missed.dead)?;
    Ok(tell_late(&actions, hot_items::SLIDE, &missed.late))
}

/// The actions for [`page_views`].
pub fn hour_actions(env: &Environment, input: &Input, delay: Duration, missed: &Missed) -> Result<DataStream<Action>> {
    let actions = read(env, input, ActionLine, ACTIONS_SAMPLE, delay, |action| action.time_ms, &missed.dead)?;
    Ok(tell_late(&actions, page_views::SIZE, &missed.late))
}

/// The requests for [`hot_pages`].
pub fn requests(env: &Environment, input: &Input, delay: Duration, missed: &Missed) -> Result<DataStream<Request>> {
    let requests = read(env, input, RequestLine, REQUESTS_SAMPLE, delay, |request| request.time_ms, &missed.dead)?;
    Ok(tell_late(&requests, hot_pages::SLIDE, &missed.late))
}

fn read<D: Decode>(
    env: &Environment,
    input: &Input,
    mut format: D,
    sample: &'static str,
    delay: Duration,
    time_ms: fn(&D::Value) -> i64,
    dead: &Tally,
) -> Result<DataStream<D::Value>>
where
    D::Value: Data + Sync,
{
    // Files are read faster than the clock goes: the watermark follows the lines, not the clock.
    let strategy = WatermarkStrategy::bounded_out_of_orderness(delay)
        .with_timestamps(move |record: &D::Value, _| time_ms(record))
        .with_interval(Duration::ZERO);
    let records = match input {
        Input::File(path) => {
            let source = FileSource::new(path, format);
            // A wrong path ends the program here, before there is a job.
            source.splits()?;
            env.from_source(source, strategy, &path.display().to_string())
        }
        Input::Sample => {
            let decode = |line: &str| format.decode(line.as_bytes()).map_err(Error::bug);
            let records: Vec<D::Value> = sample.lines().map(decode).collect::<Result<_>>()?;
            let count = records.len() as u64;
            let source = GeneratorSource::new("sample", move |at| records[at as usize].clone()).count(count);
            env.from_source(source, strategy, "sample")
        }
    };
    dead.count(
        &records
            .dead_letters()
            .map(|letter: DeadLetter| format!("{}: {}: `{}`", letter.position, letter.reason, letter.payload)),
    );
    Ok(records)
}

const LATE: OutputTag<String> = OutputTag::new("late");

/// Counts records whose first window is over; `slide` says how far apart windows begin (and divides their length).
fn tell_late<T: Data + Debug>(records: &DataStream<T>, slide: Duration, late: &Tally) -> DataStream<T> {
    let slide_ms = i64::try_from(slide.as_millis()).unwrap_or(i64::MAX);
    let records = records.process(TellLate { slide_ms }).name("Late?");
    late.count(&records.side_output(LATE));
    records
}

#[derive(Clone)]
struct TellLate {
    slide_ms: i64,
}

impl<T: Data + Debug> ProcessFunction<T, T> for TellLate {
    fn process(&mut self, record: T, context: &mut ProcessContext<'_, T>) -> Result<()> {
        let time_ms = context.timestamp_ms();
        let last_ms = time_ms - time_ms.rem_euclid(self.slide_ms) + self.slide_ms - 1;
        if last_ms <= context.watermark_ms() {
            let behind_ms = context.watermark_ms() - time_ms + 1;
            context.side_output(LATE, format!("{behind_ms} ms behind the watermark: {record:?}"))?;
        }
        context.emit(record)
    }
}
