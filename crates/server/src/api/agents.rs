//! `/api/agents`: the hosts of this server, and the beats of its agents.

use std::sync::Arc;

use axum::extract::State;
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use axum::{Json, Router};
use serde::Serialize;
use tidemill_core::Kind;
use utoipa::ToSchema;

use super::error::{ApiError, ApiResult};
use super::extract::RawBody;
use super::{App, Shared};
use crate::agents::hub::AgentView;
use crate::agents::message::MAC_HEADER;

/// The longest beat, in bytes.
const BEAT_BYTES_MAX: usize = 1 << 20;
/// Where agents send their beats. No call of users: it stands in no description.
pub(super) const BEAT_PATH: &str = "/api/agents/beat";

pub(super) fn routes() -> Router<Arc<App>> {
    Router::new().route("/api/agents", get(list)).route(BEAT_PATH, post(beat))
}

/// All hosts.
#[derive(Serialize, ToSchema)]
pub(super) struct AgentList {
    /// The server's own first; empty where the server takes no agents.
    pub agents: Vec<AgentView>,
}

/// The hosts jobs run on.
#[utoipa::path(get, path = "/api/agents", tag = "agents", responses((status = 200, body = AgentList)))]
pub(super) async fn list(State(app): Shared) -> Json<AgentList> {
    Json(AgentList { agents: app.supervisor.agents().map(|agents| agents.list()).unwrap_or_default() })
}

async fn beat(State(app): Shared, headers: HeaderMap, RawBody(body): RawBody<BEAT_BYTES_MAX>) -> ApiResult<Response> {
    let Some(agents) = app.supervisor.agents() else {
        let text = "this server takes no agents; start it with `--join-secret-file`";
        return Err(ApiError::new(StatusCode::FORBIDDEN, text));
    };
    let mac = headers.get(MAC_HEADER).and_then(|value| value.to_str().ok()).unwrap_or_default();
    let (answer, mac) = agents.beat(&body, mac).map_err(|e| match e.kind() {
        Kind::Input => ApiError::new(StatusCode::UNAUTHORIZED, e.to_string()),
        _ => e.into(),
    })?;
    Ok(([(MAC_HEADER, mac), (header::CONTENT_TYPE.as_str(), "application/json".to_string())], answer).into_response())
}
