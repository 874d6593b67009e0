//! `GET /metrics`: the server and its jobs in Prometheus' text format. All metric names stand in this file.

use std::fmt::Write;
use std::sync::Arc;

use axum::Router;
use axum::extract::State;
use axum::http::header;
use axum::response::IntoResponse;
use axum::routing::get;

use super::{App, Shared};
use crate::jobs::job::Job;
use crate::jobs::model::{JobState, Vertex};

pub(super) fn routes() -> Router<Arc<App>> {
    Router::new().route("/metrics", get(metrics))
}

/// Metrics in Prometheus' text format.
#[utoipa::path(get, path = "/metrics", tag = "server", responses((status = 200, body = String, content_type = "text/plain")))]
pub(super) async fn metrics(State(app): Shared) -> impl IntoResponse {
    let mut text = Text::default();
    let jobs = app.supervisor.list();
    text.family("tidemill_uptime_seconds", "gauge", "time since the server started");
    text.sample("tidemill_uptime_seconds", &[], (app.clock.now_ms() - app.started_ms) as f64 / 1000.0);
    text.family("tidemill_jobs", "gauge", "jobs by state");
    for state in JobState::ALL {
        let count = jobs.iter().filter(|job| job.state() == state).count();
        text.sample("tidemill_jobs", &[("state", state.name())], count as f64);
    }
    text.family("tidemill_live_table_rows", "gauge", "rows of a live table");
    for table in app.live.list() {
        text.sample("tidemill_live_table_rows", &[("table", &table.name)], table.rows as f64);
    }
    let running: Vec<&Arc<Job>> = jobs.iter().filter(|job| !job.state().ended()).collect();
    per_job(&mut text, &running);
    per_vertex(&mut text, &running);
    ([(header::CONTENT_TYPE, "text/plain; version=0.0.4; charset=utf-8")], text.0)
}

fn per_job(text: &mut Text, jobs: &[&Arc<Job>]) {
    type Pick = fn(&crate::jobs::model::JobDetail) -> Option<f64>;
    let families: [(&str, &str, &str, Pick); 6] = [
        ("tidemill_job_restarts_total", "counter", "restarts after failures", |job| Some(job.summary.restarts as f64)),
        ("tidemill_job_lag_records", "gauge", "records waiting in the sources", |job| {
            job.summary.lag_records.map(|lag| lag as f64)
        }),
        ("tidemill_job_watermark_ms", "gauge", "least watermark, epoch ms", |job| {
            job.summary.watermark_ms.map(|at| at as f64)
        }),
        ("tidemill_job_checkpoints_completed_total", "counter", "checkpoints of the process", |job| {
            Some(job.checkpoints.completed as f64)
        }),
        ("tidemill_job_checkpoints_failed_total", "counter", "failed checkpoints of the process", |job| {
            Some(job.checkpoints.failed as f64)
        }),
        ("tidemill_job_last_checkpoint_duration_ms", "gauge", "duration of the newest checkpoint", |job| {
            job.checkpoints.latest.as_ref().map(|latest| latest.duration_ms as f64)
        }),
    ];
    let details: Vec<_> = jobs.iter().map(|job| job.detail()).collect();
    for (name, kind, help, pick) in families {
        text.family(name, kind, help);
        for job in &details {
            if let Some(value) = pick(job) {
                text.sample(name, &[("job", &job.summary.id), ("name", &job.summary.name)], value);
            }
        }
    }
}

fn per_vertex(text: &mut Text, jobs: &[&Arc<Job>]) {
    type Pick = fn(&Vertex) -> f64;
    let families: [(&str, &str, &str, Pick); 6] = [
        ("tidemill_vertex_records_in_total", "counter", "records in", |vertex| vertex.records_in as f64),
        ("tidemill_vertex_records_out_total", "counter", "records out", |vertex| vertex.records_out as f64),
        ("tidemill_vertex_late_dropped_total", "counter", "records dropped as late", |vertex| {
            vertex.late_dropped as f64
        }),
        ("tidemill_vertex_dead_letters_total", "counter", "records refused by the source", |vertex| {
            vertex.dead_letters as f64
        }),
        ("tidemill_vertex_busy_ratio", "gauge", "share of time spent working", |vertex| vertex.busy_ratio),
        ("tidemill_vertex_backpressured_ratio", "gauge", "share of time spent waiting for outputs", |vertex| {
            vertex.backpressured_ratio
        }),
    ];
    type Known = fn(&Vertex) -> Option<f64>;
    let sources: [(&str, &str, Known); 5] = [
        ("tidemill_source_pending_records", "records waiting in the source", |vertex| {
            vertex.pending_records.map(|count| count as f64)
        }),
        ("tidemill_source_fetch_lag_ms", "age by event time of the newest record when it was fetched", |vertex| {
            vertex.fetch_lag_ms.map(|ms| ms as f64)
        }),
        ("tidemill_source_emit_lag_ms", "age by event time of the newest record when it was emitted", |vertex| {
            vertex.emit_lag_ms.map(|ms| ms as f64)
        }),
        ("tidemill_source_watermark_lag_ms", "how far the watermark is behind now", |vertex| {
            vertex.watermark_lag_ms.map(|ms| ms as f64)
        }),
        ("tidemill_source_idle_ms", "time since the source has emitted anything", |vertex| {
            vertex.source_idle_ms.map(|ms| ms as f64)
        }),
    ];
    let details: Vec<_> = jobs.iter().map(|job| job.detail()).collect();
    for (name, help, pick) in sources {
        text.family(name, "gauge", help);
        for job in &details {
            for vertex in &job.vertices {
                if let Some(value) = pick(vertex) {
                    let labels = [("job", &job.summary.id), ("vertex", &vertex.id), ("vertex_name", &vertex.name)];
                    text.sample(name, &labels.map(|(label, text)| (label, text.as_str())), value);
                }
            }
        }
    }
    for (name, kind, help, pick) in families {
        text.family(name, kind, help);
        for job in &details {
            for vertex in &job.vertices {
                text.sample(
                    name,
                    &[("job", &job.summary.id), ("vertex", &vertex.id), ("vertex_name", &vertex.name)],
                    pick(vertex),
                );
            }
        }
    }
}

/// The text format. Writing to a `String` cannot fail.
#[derive(Default)]
struct Text(String);

impl Text {
    fn family(&mut self, name: &str, kind: &str, help: &str) {
        let _ = write!(self.0, "# HELP {name} {help}\n# TYPE {name} {kind}\n");
    }

    fn sample(&mut self, name: &str, labels: &[(&str, &str)], value: f64) {
        let labels: Vec<String> = labels.iter().map(|(label, text)| format!("{label}=\"{}\"", escaped(text))).collect();
        let _ = match labels.is_empty() {
            true => writeln!(self.0, "{name} {value}"),
            false => writeln!(self.0, "{name}{{{}}} {value}", labels.join(",")),
        };
    }
}

fn escaped(text: &str) -> String {
    text.replace('\\', "\\\\").replace('"', "\\\"").replace('\n', "\\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn labels_are_escaped() {
        let mut text = Text::default();
        text.sample("n", &[("a", "x\"y\\")], 1.5);
        assert_eq!(text.0, "n{a=\"x\\\"y\\\\\"} 1.5\n");
    }
}
