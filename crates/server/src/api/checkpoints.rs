//! Checkpoints of a job, in the JSON of Flink 2.x below `/jobs/:id/checkpoints`, and one with all its parts for the page.

use std::sync::Arc;

use axum::extract::{Path, State};
use axum::routing::get;
use axum::{Json, Router};
use serde_json::{Map, Value, json};
use tidemill_core::report::{CheckpointReport, Report};

use super::error::{ApiError, ApiResult, Errors};
use super::{App, Shared};
use crate::jobs::checkpoints::{CheckpointDetail, CheckpointPart, CheckpointRetention, CheckpointVertex, detail};
use crate::jobs::model::{JobRecord, JobState};

/// The paths that Flink has.
pub(super) fn flink_routes() -> Router<Arc<App>> {
    Router::new()
        .route("/jobs/{id}/checkpoints", get(history))
        .route("/jobs/{id}/checkpoints/config", get(config))
        .route("/jobs/{id}/checkpoints/details/{checkpoint}", get(details))
        .route("/jobs/{id}/checkpoints/details/{checkpoint}/subtasks/{vertex}", get(subtasks))
}

/// The path that only the page uses.
pub(super) fn routes() -> Router<Arc<App>> {
    Router::new().route("/api/jobs/{id}/checkpoints/{checkpoint}", get(show))
}

/// Counts, summary, latest and history of checkpoints.
#[utoipa::path(get, operation_id = "flink_checkpoints", path = "/jobs/{id}/checkpoints", tag = "flink", params(("id" = String, Path)),
    responses((status = 200, body = Object), (status = 404, body = Errors)))]
pub(super) async fn history(State(app): Shared, Path(id): Path<String>) -> ApiResult<Json<Value>> {
    let (record, report) = app.supervisor.job(&id)?.snapshot();
    let seen = report.unwrap_or_default().checkpoints;
    let completed: Vec<&CheckpointReport> = seen.history.iter().filter(|one| one.status == "COMPLETED").collect();
    let of = |pick: fn(&CheckpointReport) -> u64| statistics(completed.iter().map(|one| pick(one)).collect());
    let find = |status: &str, kind: &str| {
        let found = seen.history.iter().find(|one| one.status == status && (kind.is_empty() || one.kind == kind));
        found.map_or(Value::Null, checkpoint_json)
    };
    let restored = seen.restored_epoch.map_or(Value::Null, |epoch| {
        let at = record.timestamps.get(JobState::Running.name()).copied().unwrap_or(-1);
        json!({"id": epoch, "restore_timestamp": at, "is_savepoint": false, "external_path": null})
    });
    Ok(Json(json!({
        "counts": {
            "restored": u64::from(seen.restored_epoch.is_some()),
            "total": seen.completed + seen.failed + seen.in_progress,
            "in_progress": seen.in_progress,
            "completed": seen.completed,
            "failed": seen.failed,
        },
        "summary": {
            "checkpointed_size": of(|one| one.written_bytes),
            "state_size": of(|one| one.bytes),
            "end_to_end_duration": of(|one| one.duration_ms),
            "alignment_buffered": of(|_| 0), "processed_data": of(|_| 0), "persisted_data": of(|_| 0),
        },
        "latest": {
            "completed": seen.latest.as_ref().map_or_else(|| find("COMPLETED", "checkpoint"), checkpoint_json),
            "savepoint": find("COMPLETED", "savepoint"),
            "failed": find("FAILED", ""),
            "restored": restored,
        },
        "history": seen.history.iter().map(checkpoint_json).collect::<Vec<_>>(),
    })))
}

/// How the job checkpoints, as far as it was told when it was submitted; what its program says itself is not known here.
#[utoipa::path(get, operation_id = "flink_checkpoint_config", path = "/jobs/{id}/checkpoints/config", tag = "flink",
    params(("id" = String, Path)), responses((status = 200, body = Object), (status = 404, body = Errors)))]
pub(super) async fn config(State(app): Shared, Path(id): Path<String>) -> ApiResult<Json<Value>> {
    let JobRecord { spec, .. } = app.supervisor.job(&id)?.record();
    let deleted = spec.checkpoints.retention == Some(CheckpointRetention::DeleteOnCancellation);
    Ok(Json(json!({
        "mode": "exactly_once",
        "interval": spec.checkpoint_interval_ms.unwrap_or(10_000),
        "timeout": spec.checkpoints.timeout_ms.unwrap_or(600_000),
        "min_pause": spec.checkpoints.min_pause_ms.unwrap_or(0),
        "max_concurrent": 1,
        "externalization": {"enabled": true, "delete_on_cancellation": deleted},
        "tolerable_failed_checkpoints": spec.checkpoints.tolerable_failures.map_or(i64::from(i32::MAX), i64::from),
        "unaligned_checkpoints": false,
        "aligned_checkpoint_timeout": 0,
        "checkpoints_after_tasks_finish": true,
        "state_changelog_enabled": false,
    })))
}

/// A checkpoint with its chains of operators.
#[utoipa::path(get, operation_id = "flink_checkpoint", path = "/jobs/{id}/checkpoints/details/{checkpoint}", tag = "flink",
    params(("id" = String, Path), ("checkpoint" = u64, Path)),
    responses((status = 200, body = Object), (status = 404, body = Errors)))]
pub(super) async fn details(State(app): Shared, Path((id, checkpoint)): Path<(String, u64)>) -> ApiResult<Json<Value>> {
    let (_, report) = app.supervisor.job(&id)?.snapshot();
    let report = report.unwrap_or_default();
    let found = found(&report, &id, checkpoint)?;
    let one = report.checkpoints.history.iter().find(|one| one.id == checkpoint);
    let mut answer = one.map_or(Value::Null, checkpoint_json);
    let tasks = found.vertices.iter().map(|vertex| (vertex.id.clone(), vertex_json(&found, vertex)));
    answer["tasks"] = tasks.collect::<Map<_, _>>().into();
    Ok(Json(answer))
}

/// The subtasks of one chain of operators in a checkpoint.
#[utoipa::path(get, operation_id = "flink_checkpoint_subtasks",
    path = "/jobs/{id}/checkpoints/details/{checkpoint}/subtasks/{vertex}", tag = "flink",
    params(("id" = String, Path), ("checkpoint" = u64, Path), ("vertex" = String, Path)),
    responses((status = 200, body = Object), (status = 404, body = Errors)))]
pub(super) async fn subtasks(
    State(app): Shared,
    Path((id, checkpoint, vertex)): Path<(String, u64, String)>,
) -> ApiResult<Json<Value>> {
    let (_, report) = app.supervisor.job(&id)?.snapshot();
    let found = found(&report.unwrap_or_default(), &id, checkpoint)?;
    let vertex = found.vertices.iter().find(|one| one.id == vertex).ok_or_else(|| {
        ApiError::not_found(format!("checkpoint {checkpoint} has no part of a vertex `{}`", vertex.escape_debug()))
    })?;
    let of = |pick: fn(&CheckpointPart) -> u64| statistics(vertex.parts.iter().map(pick).collect());
    let trigger_ms = found.summary.trigger_ms;
    let ends = vertex.parts.iter().map(|part| u64::try_from(part.acknowledged_ms - trigger_ms).unwrap_or(0)).collect();
    let zeros = statistics(vertex.parts.iter().map(|_| 0).collect());
    let subtask = |part: &CheckpointPart| {
        json!({
            "index": part.subtask,
            "status": "completed",
            "ack_timestamp": part.acknowledged_ms,
            "end_to_end_duration": part.acknowledged_ms - trigger_ms,
            "checkpointed_size": part.written_bytes,
            "state_size": part.bytes,
            "checkpoint": {"sync": part.sync_ms, "async": part.async_ms, "unaligned_checkpoint": false, "aborted": false},
            "alignment": {"buffered": 0, "processed": 0, "persisted": 0, "duration": part.alignment_ms},
            "start_delay": part.start_delay_ms,
        })
    };
    let mut answer = vertex_json(&found, vertex);
    answer["summary"] = json!({
        "checkpointed_size": of(|part| part.written_bytes),
        "state_size": of(|part| part.bytes),
        "end_to_end_duration": statistics(ends),
        "checkpoint_duration": {"sync": of(|part| part.sync_ms), "async": of(|part| part.async_ms)},
        "alignment": {"buffered": zeros, "processed": zeros, "persisted": zeros, "duration": of(|part| part.alignment_ms)},
        "start_delay": of(|part| part.start_delay_ms),
    });
    answer["subtasks"] = vertex.parts.iter().map(subtask).collect::<Vec<_>>().into();
    Ok(Json(answer))
}

/// A checkpoint of the history with its parts, by chain of operators and subtask.
#[utoipa::path(get, operation_id = "show_checkpoint", path = "/api/jobs/{id}/checkpoints/{checkpoint}", tag = "jobs",
    params(("id" = String, Path), ("checkpoint" = u64, Path)),
    responses((status = 200, body = CheckpointDetail), (status = 404, body = Errors)))]
pub(super) async fn show(
    State(app): Shared,
    Path((id, checkpoint)): Path<(String, u64)>,
) -> ApiResult<Json<CheckpointDetail>> {
    let (_, report) = app.supervisor.job(&id)?.snapshot();
    found(&report.unwrap_or_default(), &id, checkpoint).map(Json)
}

fn found(report: &Report, job: &str, checkpoint: u64) -> ApiResult<CheckpointDetail> {
    detail(report, checkpoint).ok_or_else(|| {
        ApiError::not_found(format!("the history of job {job} has no checkpoint {checkpoint}; it keeps the newest 32"))
    })
}

fn vertex_json(checkpoint: &CheckpointDetail, vertex: &CheckpointVertex) -> Value {
    let status = match (checkpoint.summary.status.as_str(), vertex.acknowledged == vertex.subtasks) {
        ("FAILED", false) => "failed",
        (_, false) => "in_progress",
        (_, true) => "completed",
    };
    json!({
        "id": checkpoint.summary.id,
        "status": status,
        "latest_ack_timestamp": vertex.latest_ack_ms,
        "checkpointed_size": vertex.written_bytes,
        "state_size": vertex.bytes,
        "end_to_end_duration": vertex.duration_ms,
        "alignment_buffered": 0,
        "processed_data": 0,
        "persisted_data": 0,
        "num_subtasks": vertex.subtasks,
        "num_acknowledged_subtasks": vertex.acknowledged,
    })
}

fn checkpoint_json(one: &CheckpointReport) -> Value {
    let completed = one.status == "COMPLETED";
    json!({
        "className": one.status.to_lowercase(),
        "id": one.id,
        "status": one.status,
        "is_savepoint": one.kind == "savepoint",
        "savepointFormat": if one.kind == "savepoint" { Value::from("CANONICAL") } else { Value::Null },
        "trigger_timestamp": one.trigger_ms,
        "latest_ack_timestamp": one.latest_ack_ms.unwrap_or(-1),
        "checkpointed_size": one.written_bytes,
        "state_size": one.bytes,
        "end_to_end_duration": one.duration_ms,
        "alignment_buffered": 0,
        "processed_data": 0,
        "persisted_data": 0,
        "num_subtasks": one.subtasks,
        "num_acknowledged_subtasks": one.acknowledged,
        "checkpoint_type": if one.kind == "savepoint" { "SAVEPOINT" } else { "CHECKPOINT" },
        "tasks": {},
        "external_path": if completed { Value::from(one.path.as_str()) } else { Value::Null },
        "discarded": false,
        "failure_message": one.failure,
    })
}

/// Least, most, average and percentiles (nearest rank) of the history.
fn statistics(mut values: Vec<u64>) -> Value {
    values.sort_unstable();
    let at = |share: f64| {
        let rank = (share * values.len() as f64).ceil() as usize;
        values.get(rank.saturating_sub(1)).copied().unwrap_or(0)
    };
    let average = values.iter().sum::<u64>() / (values.len() as u64).max(1);
    json!({
        "min": at(0.0), "max": at(1.0), "avg": average,
        "p50": at(0.5) as f64, "p90": at(0.9) as f64, "p95": at(0.95) as f64, "p99": at(0.99) as f64, "p999": at(0.999) as f64,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn statistics_take_the_nearest_rank() {
        let of = statistics((1..=100).rev().collect());
        assert_eq!(of, json!({"min":1,"max":100,"avg":50,"p50":50.0,"p90":90.0,"p95":95.0,"p99":99.0,"p999":100.0}));
        assert_eq!(statistics(vec![])["p99"], json!(0.0));
    }
}
