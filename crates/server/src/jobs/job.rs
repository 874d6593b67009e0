//! One job in memory: its record, its newest report, what somebody wishes of it, and the views the API asks for.

use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tidemill_core::report::Report;
use tokio::sync::watch;

use super::ending::Wish;
use super::model::{Checkpoints, JobDetail, JobRecord, JobState, JobSummary, Vertex};
use super::rates::{self, Totals};

/// A job. The worker (`jobs::worker`) alone changes its state; everybody else reads, or wishes.
pub struct Job {
    /// 32 hex digits.
    pub id: String,
    /// Its folder.
    pub dir: PathBuf,
    inner: Mutex<Inner>,
    /// What somebody wants it to do.
    pub(super) wish: watch::Sender<Wish>,
    /// Counts changes of any kind; whoever shows the job waits on it.
    version: watch::Sender<u64>,
    /// Set while no worker runs: the job has ended and its last record is on disk.
    pub(super) idle: watch::Sender<bool>,
    /// Counts changes of any job.
    any: watch::Sender<u64>,
    /// Held while a savepoint is taken: one at a time.
    pub(super) savepoint: tokio::sync::Mutex<()>,
}

struct Inner {
    record: JobRecord,
    report: Option<Report>,
    vertices: Vec<Vertex>,
    totals: Totals,
    rendered: Option<(u64, Arc<str>)>,
}

impl Job {
    /// A job with this record; `any` is told about its changes.
    pub(super) fn new(record: JobRecord, dir: PathBuf, any: watch::Sender<u64>) -> Arc<Job> {
        let report = record.last_report.clone();
        let vertices = report.as_ref().map(|report| rates::vertices(None, report)).unwrap_or_default();
        let idle = record.state.ended();
        Arc::new(Job {
            id: record.id.clone(),
            dir,
            inner: Mutex::new(Inner { record, report, vertices, totals: Totals::default(), rendered: None }),
            wish: watch::Sender::new(Wish::Run),
            version: watch::Sender::new(0),
            idle: watch::Sender::new(idle),
            any,
            savepoint: tokio::sync::Mutex::new(()),
        })
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        // Every change below is a plain assignment: a panic between them cannot leave nonsense.
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Where it is in its life.
    pub fn state(&self) -> JobState {
        self.lock().record.state
    }

    /// A copy of its record.
    pub fn record(&self) -> JobRecord {
        self.lock().record.clone()
    }

    /// Waits for changes: the receiver has seen all up to now.
    pub fn changes(&self) -> watch::Receiver<u64> {
        self.version.subscribe()
    }

    /// Changes the record and tells everybody; a copy of the record as it is now.
    pub(super) fn change(&self, change: impl FnOnce(&mut JobRecord)) -> JobRecord {
        let record = {
            let mut inner = self.lock();
            change(&mut inner.record);
            inner.record.clone()
        };
        self.tell();
        self.any.send_modify(|count| *count += 1);
        record
    }

    /// Takes in a report of the process.
    pub(super) fn reported(&self, report: Report) {
        {
            let mut inner = self.lock();
            inner.vertices = rates::vertices(inner.report.as_ref(), &report);
            inner.totals = rates::totals(&report, &inner.vertices);
            inner.report = Some(report);
        }
        self.tell();
    }

    /// The process is gone: what it had reported stays visible, its rates do not.
    pub(super) fn process_gone(&self) -> Option<Report> {
        let mut inner = self.lock();
        inner.totals = Totals { watermark_ms: inner.totals.watermark_ms, ..Totals::default() };
        for vertex in &mut inner.vertices {
            (vertex.records_in_per_s, vertex.records_out_per_s) = (0.0, 0.0);
            (vertex.busy_ratio, vertex.backpressured_ratio) = (0.0, 0.0);
        }
        inner.report.clone()
    }

    fn tell(&self) {
        self.version.send_modify(|version| *version += 1);
    }

    /// The newest report, and the record.
    pub fn snapshot(&self) -> (JobRecord, Option<Report>) {
        let inner = self.lock();
        (inner.record.clone(), inner.report.clone())
    }

    /// As a list shows it.
    pub fn summary(&self) -> JobSummary {
        self.lock().summary()
    }

    /// With everything about it.
    pub fn detail(&self) -> JobDetail {
        self.lock().detail()
    }

    /// The detail as JSON, made once for everybody who asks between two changes.
    pub fn detail_json(&self) -> Arc<str> {
        let version = *self.version.borrow();
        let mut inner = self.lock();
        if let Some((of, text)) = &inner.rendered
            && *of == version
        {
            return text.clone();
        }
        let text: Arc<str> = serde_json::to_string(&inner.detail()).unwrap_or_else(|_| "null".into()).into();
        inner.rendered = Some((version, text.clone()));
        text
    }
}

impl Inner {
    fn summary(&self) -> JobSummary {
        let (record, report) = (&self.record, self.report.as_ref());
        let latest = report.and_then(|report| report.checkpoints.latest.as_ref());
        JobSummary {
            id: record.id.clone(),
            name: record.shown_name(report).to_owned(),
            state: record.state,
            start_ms: record.created_ms,
            end_ms: record.end_ms,
            parallelism: report.map(|report| report.parallelism).or(record.spec.parallelism).unwrap_or(0),
            slots: report.map(|report| report.slots).or(record.spec.parallelism).unwrap_or(0),
            restarts: record.restarts,
            records_in_per_s: self.totals.records_in_per_s,
            records_out_per_s: self.totals.records_out_per_s,
            lag_records: self.totals.lag_records,
            watermark_ms: self.totals.watermark_ms,
            last_checkpoint_ms: latest
                .map(|checkpoint| checkpoint.trigger_ms.saturating_add_unsigned(checkpoint.duration_ms)),
            failure: record.failure.clone(),
        }
    }

    fn detail(&self) -> JobDetail {
        let report = self.report.as_ref();
        JobDetail {
            summary: self.summary(),
            spec: self.record.spec.clone(),
            vertices: self.vertices.clone(),
            edges: report.map(|report| report.edges.iter().map(Into::into).collect()).unwrap_or_default(),
            checkpoints: report.map(|report| Checkpoints::from(&report.checkpoints)).unwrap_or_default(),
            exceptions: self.record.exceptions.iter().cloned().collect(),
            timestamps: self.record.timestamps.clone(),
        }
    }
}
