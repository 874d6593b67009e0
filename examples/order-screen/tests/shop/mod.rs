//! Orders written by hand, and runs of the job over them.

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use order_generator::money::Fen;
use order_generator::reference::Tables;
use order_generator::time::{parse_local, write_compact, write_local};
use order_screen::job::OrderScreen;
use order_screen::row::Row;
use serde_json::{Value, json};
use tidemill::core::report::Report;
use tidemill::engine::stream::JobHandle;
use tidemill::engine::{Environment, JobSettings};

use crate::support::{append, fill, newest, screen};

/// How long a running job may take for what a test waits for.
const DEADLINE: Duration = Duration::from_secs(60);

/// A local time of 2026-11-20 (`HH:mm:ss`), or of another day when that is named, as epoch ms.
pub fn at(text: &str) -> i64 {
    let text = if text.len() == 8 { format!("2026-11-20 {text}") } else { text.to_string() };
    parse_local(&text).unwrap()
}

/// An order event.
#[derive(Clone)]
pub struct Sale {
    /// The order's number.
    pub id: u32,
    /// When it was placed: the front of its id.
    pub placed_ms: i64,
    pub time_ms: i64,
    pub status: &'static str,
    pub fen: i64,
    pub num: u32,
    pub user: String,
    pub name: &'static str,
    pub gender: &'static str,
}

/// A paid order of one piece of 1.00, placed at that time.
pub fn sale(id: u32, time: &str) -> Sale {
    let time_ms = at(time);
    let (status, name, gender) = ("已支付", "王芳", "女");
    Sale { id, placed_ms: time_ms, time_ms, status, fen: 100, num: 1, user: "U1".into(), name, gender }
}

impl Sale {
    /// The event as it stands in the topic.
    pub fn json(&self) -> Vec<u8> {
        let (mut id, mut local) = (Vec::new(), Vec::new());
        write_compact(&mut id, self.placed_ms);
        write_local(&mut local, self.time_ms);
        let amount = Fen(self.fen).to_string();
        let rest = json!({
            "userId": self.user, "userName": self.name, "gender": self.gender, "goods": "美食商品3", "goodsType": "美食",
            "brand": "卫龙", "orderTime": String::from_utf8(local).unwrap(), "orderTimeSeries": self.time_ms,
            "price": amount, "num": self.num, "totalPrice": amount, "status": self.status, "address": "广东省",
            "phone": 13_800_000_000_u64,
        });
        // The id in front, where the topic's partition is decided by it.
        let id = String::from_utf8(id).unwrap();
        format!("{{\"orderId\":\"{id}{:06}\",{}", self.id, &rest.to_string()[1..]).into_bytes()
    }
}

/// The events of these sales.
pub fn events<'a>(sales: impl IntoIterator<Item = &'a Sale>) -> Vec<Vec<u8>> {
    sales.into_iter().map(Sale::json).collect()
}

/// What a run left.
pub struct Ran {
    /// All rows in the order in which they were written.
    pub rows: Vec<Row>,
    /// The newest of each key.
    pub tables: Tables,
    /// The job's last numbers.
    pub report: Report,
}

impl Ran {
    /// A row; `Null` when there is none.
    pub fn row(&self, table: &str, key: &str) -> Value {
        self.tables.get(table).and_then(|rows| rows.get(key)).cloned().unwrap_or_default()
    }

    /// A field of the total of 2026-11-20.
    pub fn total(&self, field: &str) -> i64 {
        self.row("orders.total", "2026-11-20")[field].as_i64().unwrap()
    }

    /// The keys of a table.
    pub fn keys(&self, table: &str) -> Vec<&str> {
        self.tables.get(table).map(|rows| rows.keys().map(String::as_str).collect()).unwrap_or_default()
    }
}

/// Records taken in by the chain that holds this operator.
pub fn records_in(report: &Report, uid: &str) -> u64 {
    let chain = report.vertices.iter().find(|vertex| vertex.operators.iter().any(|operator| operator.uid == uid));
    chain.map_or(0, |vertex| vertex.subtasks.iter().map(|subtask| subtask.records_in).sum())
}

/// Runs the job over these events to their end.
pub fn run(events: &[Vec<u8>]) -> Ran {
    let topics = tempfile::tempdir().unwrap();
    fill(topics.path(), 2, events);
    run_on(topics.path(), JobSettings { parallelism: Some(2), ..JobSettings::default() })
}

/// Runs the job to the topic's end.
pub fn run_on(topics: &Path, settings: JobSettings) -> Ran {
    let env = Environment::with_settings(settings);
    let rows = screen(topics, true).build(&env).rows.collect();
    let report = env.execute("order screen").unwrap().report;
    let rows = rows.take();
    Ran { tables: newest(rows.clone()), rows, report }
}

/// Runs the job over one partition that grows: each stage comes when event time has passed all before it, and every
/// change is written, however fast the next follows.
pub fn run_staged(stages: Vec<Vec<Sale>>) -> Ran {
    let (topics, savepoints) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    fill(topics.path(), 1, &[]);
    let env = Environment::with_settings(JobSettings { parallelism: Some(1), ..JobSettings::default() });
    let screen = OrderScreen { tick: Duration::ZERO, ..screen(topics.path(), false) };
    let rows = screen.build(&env).rows.collect();
    let (folder, savepoint) = (topics.path().to_path_buf(), savepoints.path().join("end"));
    let outcome = env.execute_with("order screen", move |job| {
        std::thread::spawn(move || {
            let (mut sent, mut newest_ms) = (0, i64::MIN);
            for stage in stages {
                append(&folder, &events(&stage));
                sent += stage.len() as u64;
                newest_ms = stage.iter().map(|sale| sale.time_ms).chain([newest_ms]).max().unwrap();
                wait(&job, |report| {
                    let mut subtasks = report.vertices.iter().flat_map(|vertex| &vertex.subtasks);
                    let reached = subtasks.all(|subtask| subtask.watermark_ms.is_some_and(|at| at >= newest_ms - 3001));
                    reached && records_in(report, "orders") == sent
                });
            }
            drain(&job, savepoint);
        });
    });
    let rows = rows.take();
    Ran { tables: newest(rows.clone()), rows, report: outcome.unwrap().report }
}

/// Waits until the job's numbers are as wanted; gives the job up when that takes too long.
pub fn wait(job: &JobHandle, wanted: impl Fn(&Report) -> bool) {
    let begin = Instant::now();
    while !wanted(&job.report()) {
        if begin.elapsed() > DEADLINE {
            job.fail("the test waited too long");
            return;
        }
        std::thread::park_timeout(Duration::from_millis(1));
    }
}

/// Ends the job with its event time, so that every pending row is written.
pub fn drain(job: &JobHandle, savepoint: PathBuf) {
    if let Err(error) = job.savepoint(Some(savepoint), true, true) {
        job.fail(&error.to_string());
    }
}
