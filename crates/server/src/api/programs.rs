//! `/api/programs`: the programs that may be run, and uploading one (which the guard allows to administrators only).

use std::sync::Arc;

use axum::extract::{Path, State};
use axum::http::StatusCode;
use axum::routing::{get, put};
use axum::{Json, Router};
use serde::Serialize;
use utoipa::ToSchema;

use super::error::{ApiResult, Errors};
use super::extract::RawBody;
use super::{App, Shared};
use crate::jobs::program::{self, ProgramInfo};
use crate::jobs::store::blocking;

/// The largest program, in bytes.
const PROGRAM_BYTES_MAX: usize = 512 << 20;

pub(super) fn routes() -> Router<Arc<App>> {
    Router::new().route("/api/programs", get(list)).route("/api/programs/{name}", put(upload))
}

/// Programs of the jobs folder.
#[derive(Serialize, ToSchema)]
pub(super) struct Programs {
    /// By name.
    programs: Vec<ProgramInfo>,
}

/// The programs that may be run.
#[utoipa::path(get, operation_id = "list_programs", path = "/api/programs", tag = "jobs", responses((status = 200, body = Programs)))]
pub(super) async fn list(State(app): Shared) -> ApiResult<Json<Programs>> {
    let folder = app.supervisor.programs().to_owned();
    let programs = blocking(move || Ok(program::list(&folder))).await?;
    Ok(Json(Programs { programs }))
}

/// Uploads a program or job file. Wants the administrator token.
#[utoipa::path(put, operation_id = "upload_program", path = "/api/programs/{name}", tag = "jobs", params(("name" = String, Path)),
    request_body(content = Vec<u8>, content_type = "application/octet-stream"),
    responses((status = 201), (status = 204), (status = 400, body = Errors), (status = 401, body = Errors), (status = 403, body = Errors)))]
pub(super) async fn upload(
    State(app): Shared,
    Path(name): Path<String>,
    RawBody(bytes): RawBody<PROGRAM_BYTES_MAX>,
) -> ApiResult<StatusCode> {
    let folder = app.supervisor.programs().to_owned();
    let new = blocking(move || program::store(&folder, &name, &bytes)).await?;
    Ok(if new { StatusCode::CREATED } else { StatusCode::NO_CONTENT })
}
