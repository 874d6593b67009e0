//! `/api/live`: reading live tables, and the writes of job sinks.

use std::borrow::Cow;
use std::sync::Arc;

use axum::extract::{Path, State};
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use axum::{Json, Router};
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;
use utoipa::{IntoParams, ToSchema};

use super::error::{ApiError, ApiResult, Errors};
use super::extract::{Params, RawBody, content_type};
use super::{App, Shared};
use crate::live::hub::{TableInfo, Upsert};
use crate::live::table::Row;

/// The largest write, in bytes.
const WRITE_BYTES_MAX: usize = 64 << 20;
/// Rows of an answer without `limit`.
const LIMIT_DEFAULT: usize = 1_000;
/// The most rows of an answer.
const LIMIT_MAX: usize = 100_000;

pub(super) fn routes() -> Router<Arc<App>> {
    Router::new()
        .route("/api/live", get(list))
        .route("/api/live/{name}", get(rows).post(write).delete(drop_table))
        .route("/api/live/{name}/{*key}", get(row))
}

/// All live tables.
#[derive(Serialize, ToSchema)]
pub(super) struct Tables {
    /// By name.
    tables: Vec<TableInfo>,
}

/// Which rows.
#[derive(Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
pub(super) struct Range {
    /// Only keys with this prefix.
    #[serde(default)]
    prefix: String,
    /// Keys from here on, inclusive.
    #[serde(default)]
    from: String,
    /// Keys up to here, exclusive.
    to: Option<String>,
    /// The most rows; default 1000, at most 100000.
    limit: Option<usize>,
    /// `asc` (default) or `desc`, by key.
    #[serde(default)]
    #[param(inline)]
    order: Order,
}

/// Order by key.
#[derive(Default, Clone, Copy, PartialEq, Deserialize, ToSchema)]
#[serde(rename_all = "lowercase")]
enum Order {
    #[default]
    Asc,
    Desc,
}

/// Rows of a live table.
#[derive(Serialize, ToSchema)]
pub(super) struct Rows {
    /// The table.
    name: String,
    /// The version of its last change.
    version: u64,
    /// By key.
    rows: Vec<LiveRow>,
}

/// A row of a live table.
#[derive(Serialize, ToSchema)]
pub(super) struct LiveRow {
    /// Its key.
    key: String,
    /// Its value.
    #[schema(value_type = serde_json::Value)]
    value: Box<RawValue>,
    /// When it changed last, epoch ms.
    updated_ms: i64,
}

/// What a job's sink writes.
#[derive(Deserialize, ToSchema)]
pub(super) struct Write<'a> {
    /// The job's id.
    #[serde(default)]
    job: String,
    /// The writing subtask.
    #[serde(default)]
    writer: serde_json::Value,
    /// The checkpoint epoch the rows belong to.
    #[serde(default)]
    epoch: u64,
    /// Upserts, in order.
    #[serde(borrow)]
    rows: Vec<WriteRow<'a>>,
}

/// One upsert.
#[derive(Deserialize, ToSchema)]
pub(super) struct WriteRow<'a> {
    /// Its key.
    #[serde(borrow)]
    key: Cow<'a, str>,
    /// Its value; null deletes the row.
    #[serde(borrow)]
    #[schema(value_type = serde_json::Value)]
    value: &'a RawValue,
}

/// How to write.
#[derive(Deserialize, IntoParams)]
pub(super) struct WriteHow {
    /// Answers only when the rows are stored, so that they survive a killed server; default true. Subscribers see them
    /// at once either way.
    durable: Option<bool>,
}

/// What a write did.
#[derive(Serialize, ToSchema)]
pub(super) struct Written {
    /// Rows taken in.
    rows: usize,
    /// The version of the live tables behind them.
    version: u64,
}

/// All live tables.
#[utoipa::path(get, operation_id = "list_live_tables", path = "/api/live", tag = "live", responses((status = 200, body = Tables)))]
pub(super) async fn list(State(app): Shared) -> Json<Tables> {
    Json(Tables { tables: app.live.list() })
}

/// Rows of a table, by key.
#[utoipa::path(get, operation_id = "live_rows", path = "/api/live/{name}", tag = "live", params(("name" = String, Path), Range),
    responses((status = 200, body = Rows), (status = 404, body = Errors)))]
pub(super) async fn rows(
    State(app): Shared,
    Path(name): Path<String>,
    Params(range): Params<Range>,
) -> ApiResult<Json<Rows>> {
    let limit = range.limit.unwrap_or(LIMIT_DEFAULT).min(LIMIT_MAX);
    let found = app.live.with_table(&name, |table| {
        let keep = |(key, row): (&Arc<str>, &Row)| (key.clone(), row.clone());
        let rows = table.range(&range.prefix, &range.from, range.to.as_deref());
        let rows: Vec<(Arc<str>, Row)> = match range.order {
            Order::Asc => rows.take(limit).map(keep).collect(),
            Order::Desc => rows.rev().take(limit).map(keep).collect(),
        };
        (table.version(), rows)
    });
    let (version, rows) = found.ok_or_else(|| no_table(&name))?;
    let rows = rows.iter().map(|(key, row)| live_row(key, row)).collect::<ApiResult<_>>()?;
    Ok(Json(Rows { name, version, rows }))
}

/// One row.
#[utoipa::path(get, operation_id = "live_row", path = "/api/live/{name}/{key}", tag = "live", params(("name" = String, Path), ("key" = String, Path)),
    responses((status = 200, body = LiveRow), (status = 404, body = Errors)))]
pub(super) async fn row(State(app): Shared, Path((name, key)): Path<(String, String)>) -> ApiResult<Json<LiveRow>> {
    let found = app.live.with_table(&name, |table| table.get(&key).cloned()).ok_or_else(|| no_table(&name))?;
    let row =
        found.ok_or_else(|| ApiError::not_found(format!("live table `{name}` has no row `{}`", key.escape_debug())))?;
    Ok(Json(live_row(&key, &row)?))
}

/// Writes rows: a job's sink calls this. A `null` value deletes.
#[utoipa::path(post, operation_id = "write_live_rows", path = "/api/live/{name}", tag = "live", params(("name" = String, Path), WriteHow,
    ("x-tidemill-token" = String, Header, description = "the writer token")), request_body = Write<'static>,
    responses((status = 200, body = Written), (status = 400, body = Errors), (status = 401, body = Errors), (status = 507, body = Errors)))]
pub(super) async fn write(
    State(app): Shared,
    Path(name): Path<String>,
    Params(how): Params<WriteHow>,
    headers: axum::http::HeaderMap,
    RawBody(body): RawBody<WRITE_BYTES_MAX>,
) -> ApiResult<Response> {
    if content_type(&headers) != "application/json" {
        return Err(ApiError::new(
            StatusCode::UNSUPPORTED_MEDIA_TYPE,
            "send the rows as `content-type: application/json`",
        ));
    }
    let written: Write<'_> =
        serde_json::from_slice(&body).map_err(|e| ApiError::bad(format!("the rows cannot be read: {e}")))?;
    tracing::trace!(table = name, job = written.job, writer = %written.writer, epoch = written.epoch, "live rows");
    let values: Vec<Cow<'_, str>> = written.rows.iter().map(|row| on_one_line(row.value.get())).collect();
    let mut upserts: Vec<Upsert<'_>> = Vec::with_capacity(values.len());
    for (row, value) in written.rows.iter().zip(&values) {
        upserts.push((&row.key, (value != "null").then_some(value)));
    }
    let version = app.live.write(&name, &upserts)?;
    if how.durable.unwrap_or(true) {
        app.live.flushed(version).await?;
    }
    Ok(Json(Written { rows: upserts.len(), version }).into_response())
}

/// Drops a table.
#[utoipa::path(delete, operation_id = "drop_live_table", path = "/api/live/{name}", tag = "live", params(("name" = String, Path)),
    responses((status = 204), (status = 404, body = Errors)))]
pub(super) async fn drop_table(State(app): Shared, Path(name): Path<String>) -> ApiResult<StatusCode> {
    match app.live.drop_table(&name) {
        true => Ok(StatusCode::NO_CONTENT),
        false => Err(no_table(&name)),
    }
}

fn no_table(name: &str) -> ApiError {
    ApiError::not_found(format!("there is no live table `{}`", name.escape_debug()))
}

fn live_row(key: &str, row: &Row) -> ApiResult<LiveRow> {
    let value = RawValue::from_string(row.value.to_string());
    let value = value.map_err(|e| tidemill_core::Error::bug(format!("the row `{key}` is no JSON: {e}")))?;
    Ok(LiveRow { key: key.to_owned(), value, updated_ms: row.updated_ms })
}

/// JSON text on one line, as an event's data must be. Inside of strings JSON has no line breaks: those that are there
/// stand between tokens.
fn on_one_line(json: &str) -> Cow<'_, str> {
    match json.contains(['\n', '\r']) {
        true => json.replace(['\n', '\r'], " ").into(),
        false => json.into(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn line_breaks_between_tokens_go() {
        assert_eq!(on_one_line(r#"{"a":"x\ny"}"#), r#"{"a":"x\ny"}"#);
        assert_eq!(on_one_line("{\n\"a\":\r\n1}"), "{ \"a\":  1}");
    }
}
