//! `GET /api/live-events`: live tables as they change, resumable.

use std::sync::Arc;

use axum::Router;
use axum::extract::State;
use axum::http::HeaderMap;
use axum::response::Response;
use axum::routing::get;
use utoipa::ToSchema;

use super::error::{ApiError, ApiResult, Errors};
use super::extract::{Params, event_stream};
use super::{App, Shared};
use crate::live::feed::{self, Subscription};
use crate::live::hub::check_name;

/// Frames a second without `fps`.
const FPS_DEFAULT: u32 = 20;
/// The most frames a second that can be asked for (0 asks for as many as come).
const FPS_MAX: u32 = 1000;
/// The most tables of one stream.
const TABLES_MAX: usize = 64;

pub(super) fn routes() -> Router<Arc<App>> {
    Router::new().route("/api/live-events", get(events))
}

/// What events `snapshot` and `delta` carry. `live/feed.rs` writes it as text; the type stands here to be described.
#[derive(ToSchema)]
#[expect(dead_code, reason = "never made: events are rendered once for all who watch")]
pub(super) struct LiveEvent {
    /// The table.
    table: String,
    /// The version of the live tables behind this event.
    version: u64,
    /// All rows, or those that changed.
    rows: Vec<LiveChange>,
}

/// A row in an event.
#[derive(ToSchema)]
#[expect(dead_code, reason = "as above")]
pub(super) struct LiveChange {
    /// Its key.
    key: String,
    /// Its value; null: the row is gone.
    value: serde_json::Value,
}

/// Events `snapshot`, `delta` and `heartbeat` of the tables asked for.
#[utoipa::path(get, operation_id = "watch_live_tables", path = "/api/live-events", tag = "live",
    params(("tables" = String, Query, description = "names, separated by commas"),
        ("prefix.<table>" = Option<String>, Query, description = "only keys of that table with this prefix"),
        ("fps" = Option<u32>, Query, description = "frames a second at most; default 20, 0: as many as come"),
        ("Last-Event-ID" = Option<String>, Header, description = "where to go on")),
    responses((status = 200, body = LiveEvent, content_type = "text/event-stream"), (status = 400, body = Errors)))]
pub(super) async fn events(
    State(app): Shared,
    Params(query): Params<Vec<(String, String)>>,
    headers: HeaderMap,
) -> ApiResult<Response> {
    let mut subscription = Subscription { tables: Vec::new(), fps: FPS_DEFAULT };
    let mut last_seen = headers.get("last-event-id").and_then(|id| id.to_str().ok()).map(str::to_owned);
    let mut prefixes = Vec::new();
    for (name, value) in query {
        match name.as_str() {
            "tables" => {
                for table in value.split(',').map(str::trim).filter(|table| !table.is_empty()) {
                    check_name(table)?;
                    subscription.tables.push((table.to_owned(), String::new()));
                }
            }
            "fps" => match value.parse() {
                Ok(fps) if fps <= FPS_MAX => subscription.fps = fps,
                _ => {
                    return Err(ApiError::bad(format!("`fps` must be a number from 0 to {FPS_MAX}")));
                }
            },
            // Browsers cannot set the header on a first connection.
            "last_event_id" => last_seen = last_seen.or(Some(value)),
            other => match other.strip_prefix("prefix.") {
                Some(table) => prefixes.push((table.to_owned(), value)),
                None => {
                    return Err(ApiError::bad(format!("`{}` is no parameter of this call", other.escape_debug())));
                }
            },
        }
    }
    for (table, prefix) in prefixes {
        let found = subscription.tables.iter_mut().find(|(name, _)| *name == table);
        let (_, wanted) = found.ok_or_else(|| {
            ApiError::bad(format!("`prefix.{}` is for a table not in `tables`", table.escape_debug()))
        })?;
        *wanted = prefix;
    }
    subscription.tables.sort();
    subscription.tables.dedup();
    if subscription.tables.is_empty() || subscription.tables.len() > TABLES_MAX {
        return Err(ApiError::bad(format!("name 1 to {TABLES_MAX} tables: `?tables=a,b`")));
    }
    // An id of an earlier start of the server, or of nonsense, means starting with snapshots.
    let since = last_seen.and_then(|id| id.strip_prefix(&app.live.boot)?.strip_prefix('.')?.parse().ok());
    event_stream(&app, feed::subscribe(&app.live, subscription, since))
}
