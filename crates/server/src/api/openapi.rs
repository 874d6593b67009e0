//! `GET /openapi.json`: the machine-readable description, made from the handlers themselves.

use std::sync::Arc;

use axum::routing::get;
use axum::{Json, Router};
use utoipa::OpenApi;

use super::{
    App, agents, checkpoints, events, flink, health, jobs, live, live_events, metrics, programs, savepoints, topics,
};

#[derive(OpenApi)]
#[openapi(
    info(title = "Tidemill", description = "Real-time event processing: jobs, live tables, topics."),
    paths(
        health::healthz,
        metrics::metrics,
        flink::overview,
        flink::config,
        flink::ids,
        flink::jobs_overview,
        flink::job,
        flink::exceptions,
        checkpoints::history,
        checkpoints::config,
        checkpoints::details,
        checkpoints::subtasks,
        checkpoints::show,
        savepoints::dispose,
        savepoints::state,
        jobs::list,
        jobs::submit,
        jobs::show,
        jobs::cancel,
        jobs::stop,
        jobs::savepoint,
        jobs::restart,
        jobs::rescale,
        jobs::delete,
        jobs::job_log,
        agents::list,
        programs::list,
        programs::upload,
        events::all,
        events::one,
        live::list,
        live::rows,
        live::row,
        live::write,
        live::drop_table,
        live_events::events,
        topics::list,
        topics::create,
        topics::remove,
        topics::append,
        topics::read,
    )
)]
struct Document;

/// The description of the API.
pub fn document() -> utoipa::openapi::OpenApi {
    Document::openapi()
}

pub(super) fn routes() -> Router<Arc<App>> {
    Router::new().route("/openapi.json", get(async || Json(document())))
}
