//! State as it was written when windows over columns stood in the typed lane's tables: the same bytes are read, and
//! written again.

use std::cell::RefCell;
use std::rc::Rc;
use std::time::Duration;

use arrow_array::StringArray;
use arrow_schema::{DataType, Field, Schema, TimeUnit};

use super::*;
use crate::columnar::AggregateCall;
use crate::columnar::aggregate::Layout;
use crate::operator::{Link, Sides, Signal, snapshot_whole};
use crate::state::{RestoredSection, Section};
use crate::window::Tumbling;
use crate::window::progress::PROGRESS;

/// Of a count and a sum. In the slice of 1000: key (258, "ab"), 3 rows, a sum of 200; in that of 0: key (null, "c"), one
/// row, a sum of 5.
const VALUES_THEN: [u8; 35] = [
    16, 4, 2, 1, 0, 0, 0, 0, 0, 0, 5, 2, 0, 0, 0, b'a', b'b', 0xd0, 0x0f, 2, 3, 0xc8, 1, // the first
    7, 0, 5, 1, 0, 0, 0, b'c', 0, 2, 1, 5,
];
const CONTENT_THEN: &str = "keys [\"Int64\", \"Utf8\"], [Part { origin: Rows, merge: Sum, number: Whole }, \
                            Part { origin: Value(2), merge: Sum, number: Whole }]";

fn operator() -> SlicesOperator {
    let fields = [("key", DataType::Int64, true), ("word", DataType::Utf8, false), ("value", DataType::Int64, false)];
    let fields = fields.map(|(name, data_type, nullable)| Field::new(name, data_type, nullable));
    let schema: SchemaRef = Arc::new(Schema::new(fields.to_vec()));
    let calls = [AggregateCall::count("rows"), AggregateCall::sum("value", "sum")];
    let (layout, results) = Layout::new(&schema, &calls).unwrap();
    let moment = || DataType::Timestamp(TimeUnit::Millisecond, None);
    let mut output = fields[..2].to_vec();
    output.extend([Field::new("window_start", moment(), false), Field::new("window_end", moment(), false)]);
    output.extend(results);
    let windows = Tumbling::event_time(Duration::from_millis(100));
    let grouping = Grouping::new(&schema, vec![0, 1], windows, layout).unwrap();
    SlicesOperator::new(Arc::new(grouping), Arc::new(Schema::new(output)))
}

fn written(name: &str, entry: &impl serde::Serialize) -> Section {
    let mut writer = Writer::new(name, SectionKind::Operator);
    writer.entry(entry).unwrap();
    writer.finish()
}

fn restored(values: &[u8], content: &str) -> Restored {
    let values = Section::new(VALUES, SectionKind::Keyed, 2, values.to_vec());
    let sections = [written(CONTENT, &content), values, written(PROGRESS, &4i64)];
    let sections: Vec<RestoredSection> = sections.into_iter().map(|section| section.into_restored(0)).collect();
    Restored { uid: "totals".into(), subtask: 0, parallelism: 1, sections, ..Restored::default() }
}

#[derive(Clone, Default)]
struct Capture(Rc<RefCell<Vec<ColumnBatch>>>);

impl Link<ColumnBatch> for Capture {
    fn push(&mut self, batches: Records<ColumnBatch>) -> Result<()> {
        self.0.borrow_mut().extend(batches.into_iter().map(|(_, batch)| batch));
        Ok(())
    }
    fn signal(&mut self, _: &mut Signal<'_>) -> Result<()> {
        Ok(())
    }
    fn ready(&mut self) -> bool {
        true
    }
}

#[test]
fn state_written_before_is_read_and_written_the_same() {
    let mut operator = operator();
    operator.restore(restored(&VALUES_THEN, CONTENT_THEN)).unwrap();
    let mut parts = SnapshotParts::default();
    snapshot_whole(&mut operator, 1, &mut parts).unwrap();
    let bytes = |name: &str| parts.sections.iter().find(|section| section.name == name).unwrap().bytes.clone();
    // The slices are in order now.
    assert_eq!(bytes(VALUES), [&VALUES_THEN[23..], &VALUES_THEN[..23]].concat());
    assert_eq!(bytes(CONTENT), written(CONTENT, &CONTENT_THEN).bytes);
    assert_eq!(bytes(PROGRESS), written(PROGRESS, &4i64).bytes);
    let left = Capture::default();
    let mut out = Out::new(Box::new(left.clone()), Sides::default());
    operator.on_watermark(5_000, &mut out).unwrap();
    let fired = ColumnBatch::concat(&left.0.take()).unwrap().unwrap();
    assert_eq!(fired.times_ms(), [99, 1099]);
    assert_eq!(fired.column("key").unwrap().as_ref(), &Int64Array::from(vec![None, Some(258)]));
    assert_eq!(fired.column("word").unwrap().as_ref(), &StringArray::from(vec!["c", "ab"]));
    assert_eq!(fired.column("rows").unwrap().as_ref(), &Int64Array::from(vec![1, 3]));
    assert_eq!(fired.column("sum").unwrap().as_ref(), &Int64Array::from(vec![5, 200]));
}

#[test]
fn damaged_or_other_state_is_refused() {
    let other = CONTENT_THEN.replace("Value(2)", "Value(1)");
    let error = operator().restore(restored(&VALUES_THEN, &other)).unwrap_err().to_string();
    assert!(error.contains("but now hold"), "{error}");
    let mut damaged = VALUES_THEN;
    damaged[1] = 3;
    assert!(operator().restore(restored(&damaged, CONTENT_THEN)).is_err());
}
