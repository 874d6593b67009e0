//! `/api/jobs`: submitting jobs, looking at them, and everything that can be asked of one.

use std::sync::Arc;

use axum::extract::{Path, State};
use axum::http::{StatusCode, header};
use axum::response::IntoResponse;
use axum::routing::{get, post};
use axum::{Json, Router};
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};

use super::error::{ApiResult, Errors};
use super::extract::{JsonBody, OptionalBody, Params};
use super::{App, Shared};
use crate::jobs::log;
use crate::jobs::model::{JobDetail, JobState, JobSummary};
use crate::jobs::spec::JobSpec;
use crate::jobs::store::blocking;

/// Lines of a job's log without `tail`.
const TAIL_DEFAULT: usize = 200;
/// The most lines of a job's log.
const TAIL_MAX: usize = 10_000;

pub(super) fn routes() -> Router<Arc<App>> {
    Router::new()
        .route("/api/jobs", get(list).post(submit))
        .route("/api/jobs/{id}", get(show).delete(delete))
        .route("/api/jobs/{id}/cancel", post(cancel))
        .route("/api/jobs/{id}/stop", post(stop))
        .route("/api/jobs/{id}/savepoints", post(savepoint))
        .route("/api/jobs/{id}/restart", post(restart))
        .route("/api/jobs/{id}/rescale", post(rescale))
        .route("/api/jobs/{id}/log", get(job_log))
}

/// All jobs.
#[derive(Serialize, ToSchema)]
pub(super) struct JobList {
    /// Newest first.
    pub jobs: Vec<JobSummary>,
}

/// A job's id.
#[derive(Serialize, ToSchema)]
pub(super) struct JobId {
    /// 32 hex digits.
    id: String,
}

/// A job's state.
#[derive(Serialize, ToSchema)]
pub(super) struct StateNow {
    /// As it is now.
    state: JobState,
}

/// A savepoint.
#[derive(Serialize, ToSchema)]
pub(super) struct Savepoint {
    /// Its folder.
    savepoint: String,
}

/// How to stop.
#[derive(Default, Deserialize, ToSchema)]
#[serde(default, deny_unknown_fields)]
pub(super) struct Stop {
    /// Event time is brought to its end first: windows fire, and the job counts as finished.
    drain: bool,
}

/// Another parallelism.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct Rescale {
    /// How many workers.
    parallelism: usize,
}

/// How much of the log.
#[derive(Deserialize, IntoParams)]
pub(super) struct Tail {
    /// The last lines; default 200, at most 10000.
    tail: Option<usize>,
}

/// All jobs.
#[utoipa::path(get, operation_id = "list_jobs", path = "/api/jobs", tag = "jobs", responses((status = 200, body = JobList)))]
pub(super) async fn list(State(app): Shared) -> Json<JobList> {
    Json(JobList { jobs: app.supervisor.list().iter().map(|job| job.summary()).collect() })
}

/// Submits a job.
#[utoipa::path(post, operation_id = "submit_job", path = "/api/jobs", tag = "jobs", request_body = JobSpec,
    responses((status = 201, body = JobId), (status = 400, body = Errors), (status = 507, body = Errors)))]
pub(super) async fn submit(State(app): Shared, JsonBody(spec): JsonBody<JobSpec>) -> ApiResult<impl IntoResponse> {
    let id = app.supervisor.submit(spec).await?;
    Ok((StatusCode::CREATED, Json(JobId { id })))
}

/// A job with everything about it.
#[utoipa::path(get, operation_id = "show_job", path = "/api/jobs/{id}", tag = "jobs", params(("id" = String, Path)),
    responses((status = 200, body = JobDetail), (status = 404, body = Errors)))]
pub(super) async fn show(State(app): Shared, Path(id): Path<String>) -> ApiResult<impl IntoResponse> {
    let text = app.supervisor.job(&id)?.detail_json();
    Ok(([(header::CONTENT_TYPE, "application/json")], text.to_string()))
}

/// Ends a job without a savepoint; answers when it has ended.
#[utoipa::path(post, operation_id = "cancel_job", path = "/api/jobs/{id}/cancel", tag = "jobs", params(("id" = String, Path)),
    responses((status = 200, body = StateNow), (status = 404, body = Errors), (status = 409, body = Errors)))]
pub(super) async fn cancel(State(app): Shared, Path(id): Path<String>) -> ApiResult<Json<StateNow>> {
    // The work goes on when the client leaves: it is not this request's any more.
    let cancelled = detached(async move { app.supervisor.cancel(&id).await }).await?;
    Ok(Json(StateNow { state: cancelled }))
}

/// Takes a savepoint and ends the job behind it.
#[utoipa::path(post, operation_id = "stop_job", path = "/api/jobs/{id}/stop", tag = "jobs", params(("id" = String, Path)), request_body = Option<Stop>,
    responses((status = 200, body = Savepoint), (status = 404, body = Errors), (status = 409, body = Errors)))]
pub(super) async fn stop(
    State(app): Shared,
    Path(id): Path<String>,
    OptionalBody(how): OptionalBody<Stop>,
) -> ApiResult<Json<Savepoint>> {
    let Stop { drain } = how;
    let savepoint = detached(async move { app.supervisor.stop(&id, drain).await }).await?;
    Ok(Json(Savepoint { savepoint }))
}

/// Takes a savepoint while the job runs on.
#[utoipa::path(post, operation_id = "take_savepoint", path = "/api/jobs/{id}/savepoints", tag = "jobs", params(("id" = String, Path)),
    responses((status = 200, body = Savepoint), (status = 404, body = Errors), (status = 409, body = Errors)))]
pub(super) async fn savepoint(State(app): Shared, Path(id): Path<String>) -> ApiResult<Json<Savepoint>> {
    let savepoint = detached(async move { app.supervisor.savepoint(&id).await }).await?;
    Ok(Json(Savepoint { savepoint }))
}

/// Starts an ended job again from its newest checkpoint.
#[utoipa::path(post, operation_id = "restart_job", path = "/api/jobs/{id}/restart", tag = "jobs", params(("id" = String, Path)),
    responses((status = 200, body = StateNow), (status = 404, body = Errors), (status = 409, body = Errors)))]
pub(super) async fn restart(State(app): Shared, Path(id): Path<String>) -> ApiResult<Json<StateNow>> {
    app.supervisor.restart(&id).await?;
    Ok(Json(StateNow { state: app.supervisor.job(&id)?.state() }))
}

/// Stops a job with a savepoint and starts it again from it with another parallelism.
#[utoipa::path(post, path = "/api/jobs/{id}/rescale", tag = "jobs", params(("id" = String, Path)), request_body = Rescale,
    responses((status = 200, body = StateNow), (status = 400, body = Errors), (status = 404, body = Errors),
        (status = 409, body = Errors), (status = 507, body = Errors)))]
pub(super) async fn rescale(
    State(app): Shared,
    Path(id): Path<String>,
    JsonBody(Rescale { parallelism }): JsonBody<Rescale>,
) -> ApiResult<Json<StateNow>> {
    let state = detached(async move {
        app.supervisor.rescale(&id, parallelism).await?;
        app.supervisor.job(&id).map(|job| job.state())
    });
    Ok(Json(StateNow { state: state.await? }))
}

/// Forgets an ended job and deletes its folder with its checkpoints; savepoints stay.
#[utoipa::path(delete, operation_id = "delete_job", path = "/api/jobs/{id}", tag = "jobs", params(("id" = String, Path)),
    responses((status = 204), (status = 404, body = Errors), (status = 409, body = Errors)))]
pub(super) async fn delete(State(app): Shared, Path(id): Path<String>) -> ApiResult<StatusCode> {
    detached(async move { app.supervisor.delete(&id).await }).await?;
    Ok(StatusCode::NO_CONTENT)
}

/// The last lines of the job's output.
#[utoipa::path(get, operation_id = "job_log", path = "/api/jobs/{id}/log", tag = "jobs", params(("id" = String, Path), Tail),
    responses((status = 200, body = String, content_type = "text/plain"), (status = 404, body = Errors)))]
pub(super) async fn job_log(
    State(app): Shared,
    Path(id): Path<String>,
    Params(tail): Params<Tail>,
) -> ApiResult<String> {
    let job = app.supervisor.job(&id)?;
    let lines = tail.tail.unwrap_or(TAIL_DEFAULT).min(TAIL_MAX);
    Ok(blocking(move || log::tail(&job.dir, lines)).await?)
}

/// Runs to its end even when the client hangs up half-way.
async fn detached<T: Send + 'static, E: Into<super::ApiError> + Send + 'static>(
    work: impl Future<Output = Result<T, E>> + Send + 'static,
) -> ApiResult<T> {
    match tokio::spawn(work).await {
        Ok(done) => done.map_err(Into::into),
        Err(e) => Err(tidemill_core::Error::bug(format!("a request broke: {e}")).into()),
    }
}
