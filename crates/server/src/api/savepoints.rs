//! `/savepoint-disposal`: savepoints are disposed of, as Flink 2.x has it.

use std::sync::Arc;

use axum::extract::{Path, State};
use axum::http::StatusCode;
use axum::routing::{get, post};
use axum::{Json, Router};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use utoipa::ToSchema;

use super::error::{ApiError, ApiResult, Errors};
use super::extract::JsonBody;
use super::{App, Shared};
use crate::jobs::disposal::Disposal;

pub(super) fn routes() -> Router<Arc<App>> {
    Router::new().route("/savepoint-disposal", post(dispose)).route("/savepoint-disposal/{id}", get(state))
}

/// Which savepoint.
#[derive(Deserialize, ToSchema)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub(super) struct DisposalRequest {
    /// Its folder or URL.
    savepoint_path: String,
}

/// By what to ask how it went.
#[derive(Serialize, ToSchema)]
#[serde(rename_all = "kebab-case")]
pub(super) struct DisposalBegun {
    /// 32 hex digits.
    request_id: String,
}

/// Begins to dispose of a savepoint. What is none, or is a job's own checkpoint, stays.
#[utoipa::path(post, operation_id = "dispose_savepoint", path = "/savepoint-disposal", tag = "flink", request_body = DisposalRequest,
    responses((status = 202, body = DisposalBegun), (status = 400, body = Errors)))]
pub(super) async fn dispose(
    State(app): Shared,
    JsonBody(request): JsonBody<DisposalRequest>,
) -> ApiResult<(StatusCode, Json<DisposalBegun>)> {
    let request_id = app.disposals.begin(request.savepoint_path)?;
    Ok((StatusCode::ACCEPTED, Json(DisposalBegun { request_id })))
}

/// How a disposal went; remembered for five minutes.
#[utoipa::path(get, operation_id = "savepoint_disposal", path = "/savepoint-disposal/{id}", tag = "flink", params(("id" = String, Path)),
    responses((status = 200, body = Object), (status = 404, body = Errors)))]
pub(super) async fn state(State(app): Shared, Path(id): Path<String>) -> ApiResult<Json<Value>> {
    let state = app.disposals.state(&id);
    let state = state.ok_or_else(|| ApiError::not_found(format!("there is no disposal `{}`", id.escape_debug())))?;
    Ok(Json(match state {
        Disposal::InProgress => json!({"status": {"id": "IN_PROGRESS"}, "operation": null}),
        Disposal::Done => json!({"status": {"id": "COMPLETED"}, "operation": {}}),
        Disposal::Failed(why) => {
            json!({"status": {"id": "COMPLETED"}, "operation": {"failure-cause": {"class": "failure", "stack-trace": why}}})
        }
    }))
}
