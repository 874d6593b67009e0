//! Read paths in the JSON of Flink 2.x, also under `/v1`, so that existing monitors work. A browser that navigates to
//! one of them (it asks for `text/html`) gets the page instead.

use std::sync::Arc;

use axum::extract::{Path, Request, State};
use axum::http::header;
use axum::middleware::{self, Next};
use axum::response::Response;
use axum::routing::get;
use axum::{Json, Router};
use serde::Serialize;
use serde_json::{Map, Value, json};
use tidemill_core::report::{Report, VertexReport};
use utoipa::ToSchema;

use super::error::{ApiResult, Errors};
use super::{App, Shared, checkpoints, ui};
use crate::jobs::model::{JobRecord, JobState};
use crate::jobs::supervisor::Supervisor;

/// Flink's default number of key groups, which is ours.
const MAX_PARALLELISM: usize = 32_768;

pub(super) fn routes() -> Router<Arc<App>> {
    Router::new()
        .route("/overview", get(overview))
        .route("/config", get(config))
        .route("/jobs", get(ids))
        .route("/jobs/overview", get(jobs_overview))
        .route("/jobs/{id}", get(job))
        .route("/jobs/{id}/exceptions", get(exceptions))
        .merge(checkpoints::flink_routes())
        .layer(middleware::from_fn(page_for_browsers))
}

async fn page_for_browsers(request: Request, next: Next) -> Response {
    let accept = request.headers().get(header::ACCEPT).and_then(|value| value.to_str().ok());
    if accept.is_some_and(|accept| accept.contains("text/html")) {
        return ui::page(request.headers());
    }
    next.run(request).await
}

/// The cluster in numbers.
#[derive(Serialize, ToSchema)]
#[serde(rename_all = "kebab-case")]
pub(super) struct Overview {
    /// 1: this server.
    taskmanagers: usize,
    /// Cores.
    slots_total: usize,
    /// Cores less the workers of all jobs that have not ended.
    slots_available: usize,
    /// Jobs that have not ended.
    jobs_running: usize,
    /// Jobs whose input is done.
    jobs_finished: usize,
    /// Jobs ended by somebody, with or without a savepoint.
    jobs_cancelled: usize,
    /// Jobs given up.
    jobs_failed: usize,
    /// `tidemill-` and the version.
    flink_version: &'static str,
    /// `unknown`.
    flink_commit: &'static str,
}

/// The cluster in numbers, as `/overview` answers it.
pub(super) fn overview_of(supervisor: &Supervisor) -> Overview {
    let jobs = supervisor.list();
    let count = |wanted: &[JobState]| jobs.iter().filter(|job| wanted.contains(&job.state())).count();
    let slots = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
    let used: usize = jobs.iter().filter(|job| !job.state().ended()).map(|job| job.summary().slots).sum();
    Overview {
        taskmanagers: 1,
        slots_total: slots,
        slots_available: slots.saturating_sub(used),
        jobs_running: count(&[JobState::Running, JobState::Restarting, JobState::Created]),
        jobs_finished: count(&[JobState::Finished]),
        jobs_cancelled: count(&[JobState::Canceled, JobState::Suspended]),
        jobs_failed: count(&[JobState::Failed]),
        flink_version: concat!("tidemill-", env!("CARGO_PKG_VERSION")),
        flink_commit: "unknown",
    }
}

/// The cluster in numbers.
#[utoipa::path(get, path = "/overview", tag = "flink", responses((status = 200, body = Overview)))]
pub(super) async fn overview(State(app): Shared) -> Json<Overview> {
    Json(overview_of(&app.supervisor))
}

/// What a dashboard wants to know first.
#[utoipa::path(get, path = "/config", tag = "flink", responses((status = 200, body = Object)))]
pub(super) async fn config() -> Json<Value> {
    Json(json!({
        "refresh-interval": 1000,
        "timezone-name": "UTC",
        "timezone-offset": 0,
        "flink-version": concat!("tidemill-", env!("CARGO_PKG_VERSION")),
        "flink-revision": "unknown",
        "features": {"web-submit": false, "web-cancel": true, "web-rescale": false, "web-history": false},
    }))
}

/// Ids and states.
#[utoipa::path(get, operation_id = "flink_jobs", path = "/jobs", tag = "flink", responses((status = 200, body = Object)))]
pub(super) async fn ids(State(app): Shared) -> Json<Value> {
    let jobs: Vec<Value> =
        app.supervisor.list().iter().map(|job| json!({"id": job.id, "status": job.state()})).collect();
    Json(json!({"jobs": jobs}))
}

/// All jobs with their tasks by state.
#[utoipa::path(get, operation_id = "flink_jobs_overview", path = "/jobs/overview", tag = "flink", responses((status = 200, body = Object)))]
pub(super) async fn jobs_overview(State(app): Shared) -> Json<Value> {
    let now_ms = app.clock.now_ms();
    let jobs: Vec<Value> = app
        .supervisor
        .list()
        .iter()
        .map(|job| {
            let (record, report) = job.snapshot();
            let subtasks = report.iter().flat_map(|report| &report.vertices).map(|vertex| vertex.parallelism).sum();
            let mut tasks = tasks(record.state, subtasks);
            tasks.insert("total".into(), subtasks.into());
            json!({
                "jid": record.id,
                "name": record.shown_name(report.as_ref()),
                "start-time": record.created_ms,
                "end-time": record.end_ms.unwrap_or(-1),
                "duration": record.end_ms.unwrap_or(now_ms) - record.created_ms,
                "state": record.state,
                "last-modification": record.timestamps.values().max().copied().unwrap_or(record.created_ms),
                "tasks": tasks,
                "job-type": "STREAMING",
                "pending-operators": 0,
            })
        })
        .collect();
    Json(json!({"jobs": jobs}))
}

/// A job with its vertices and plan.
#[utoipa::path(get, operation_id = "flink_job", path = "/jobs/{id}", tag = "flink", params(("id" = String, Path)),
    responses((status = 200, body = Object), (status = 404, body = Errors)))]
pub(super) async fn job(State(app): Shared, Path(id): Path<String>) -> ApiResult<Json<Value>> {
    let (record, report) = app.supervisor.job(&id)?.snapshot();
    let report = report.unwrap_or_default();
    let now_ms = app.clock.now_ms();
    let started = record.timestamps.get(JobState::Running.name()).copied().unwrap_or(-1);
    let timestamps: Map<String, Value> = [
        "INITIALIZING",
        "CREATED",
        "RUNNING",
        "FAILING",
        "FAILED",
        "CANCELLING",
        "CANCELED",
        "FINISHED",
        "RESTARTING",
        "SUSPENDED",
        "RECONCILING",
    ]
    .into_iter()
    .map(|state| (state.to_owned(), record.timestamps.get(state).copied().unwrap_or(0).into()))
    .collect();
    let vertices: Vec<Value> =
        report.vertices.iter().map(|vertex| vertex_json(&record, vertex, started, now_ms)).collect();
    let counts = tasks(record.state, report.vertices.len());
    Ok(Json(json!({
        "jid": record.id,
        "name": record.shown_name(Some(&report)),
        "isStoppable": false,
        "state": record.state,
        "job-type": "STREAMING",
        "start-time": record.created_ms,
        "end-time": record.end_ms.unwrap_or(-1),
        "duration": record.end_ms.unwrap_or(now_ms) - record.created_ms,
        "maxParallelism": MAX_PARALLELISM,
        "now": now_ms,
        "timestamps": timestamps,
        "vertices": vertices,
        "status-counts": counts.into_iter().map(|(state, count)| (state.to_uppercase(), count)).collect::<Map<_, _>>(),
        "plan": plan(&record, &report),
        "stream-graph": {},
        "pending-operators": 0,
    })))
}

/// The newest failures.
#[utoipa::path(get, operation_id = "flink_exceptions", path = "/jobs/{id}/exceptions", tag = "flink", params(("id" = String, Path)),
    responses((status = 200, body = Object), (status = 404, body = Errors)))]
pub(super) async fn exceptions(State(app): Shared, Path(id): Path<String>) -> ApiResult<Json<Value>> {
    let record = app.supervisor.job(&id)?.record();
    let entry = |one: &crate::jobs::model::JobException| {
        json!({"exceptionName": "failure", "stacktrace": one.message, "timestamp": one.time_ms, "taskName": null,
            "endpoint": null, "taskManagerId": null, "failureLabels": {}, "concurrentExceptions": []})
    };
    let entries: Vec<Value> = record.exceptions.iter().map(entry).collect();
    Ok(Json(
        json!({"exceptionHistory": {"entries": entries, "truncated": record.exceptions.len() == JobRecord::EXCEPTIONS_MAX}}),
    ))
}

/// Tasks by state, in Flink's lower-case names: all of a job's tasks are in the job's own state.
fn tasks(state: JobState, count: usize) -> Map<String, Value> {
    let names = [
        "created",
        "scheduled",
        "deploying",
        "initializing",
        "running",
        "finished",
        "canceling",
        "canceled",
        "failed",
        "reconciling",
    ];
    let own = task_state(state).to_lowercase();
    names.into_iter().map(|name| (name.to_owned(), Value::from(if name == own { count } else { 0 }))).collect()
}

fn task_state(state: JobState) -> &'static str {
    match state {
        JobState::Created => "CREATED",
        JobState::Restarting => "SCHEDULED",
        JobState::Suspended => "FINISHED",
        state => state.name(),
    }
}

fn vertex_json(record: &JobRecord, vertex: &VertexReport, started: i64, now_ms: i64) -> Value {
    let sum = |pick: fn(&tidemill_core::report::SubtaskReport) -> u64| vertex.subtasks.iter().map(pick).sum::<u64>();
    let (busy, waiting) = (sum(|s| s.busy_ms), sum(|s| s.backpressured_ms));
    let duration = if started < 0 { -1 } else { record.end_ms.unwrap_or(now_ms) - started };
    let lived = u64::try_from(duration).unwrap_or(0) * vertex.subtasks.len() as u64;
    json!({
        "id": vertex.id,
        "slotSharingGroupId": record.id,
        "name": vertex.name,
        "maxParallelism": MAX_PARALLELISM,
        "parallelism": vertex.parallelism,
        "status": task_state(record.state),
        "start-time": started,
        "end-time": record.end_ms.unwrap_or(-1),
        "duration": duration,
        "tasks": tasks(record.state, vertex.parallelism).into_iter().map(|(state, count)| (state.to_uppercase(), count)).collect::<Map<_, _>>(),
        "metrics": {
            "read-bytes": 0, "read-bytes-complete": false,
            "write-bytes": 0, "write-bytes-complete": false,
            "read-records": sum(|s| s.records_in), "read-records-complete": true,
            "write-records": sum(|s| s.records_out), "write-records-complete": true,
            "accumulated-backpressured-time": waiting,
            "accumulated-idle-time": lived.saturating_sub(busy + waiting),
            "accumulated-busy-time": busy as f64,
        },
    })
}

fn plan(record: &JobRecord, report: &Report) -> Value {
    let node = |vertex: &VertexReport| {
        let edges = report.edges.iter().filter(|edge| edge.to == vertex.id).enumerate();
        let inputs: Vec<Value> = edges
            .map(|(num, edge)| json!({"num": num, "id": edge.from, "ship_strategy": edge.ship, "exchange": "pipelined_bounded"}))
            .collect();
        let mut node = json!({
            "id": vertex.id, "parallelism": vertex.parallelism, "operator": "", "operator_strategy": "",
            "description": vertex.name, "optimizer_properties": {},
        });
        if !inputs.is_empty() {
            node["inputs"] = inputs.into();
        }
        node
    };
    let nodes: Vec<Value> = report.vertices.iter().map(node).collect();
    json!({"jid": record.id, "name": record.shown_name(Some(report)), "type": "STREAMING", "nodes": nodes})
}
