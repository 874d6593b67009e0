//! The HTTP interface. One resource, one file; the list in `router` is the only place that joins them.

mod agents;
mod checkpoints;
mod error;
mod events;
mod extract;
mod flink;
mod guard;
mod health;
mod jobs;
mod live;
mod live_events;
mod metrics;
mod openapi;
mod programs;
mod savepoints;
mod topics;
mod ui;

use std::net::SocketAddr;
use std::sync::Arc;

use axum::Router;
use axum::http::StatusCode;
use tidemill_core::SharedClock;
use tokio::sync::{Semaphore, watch};

use crate::config::ServerConfig;
use crate::jobs::disposal::Disposals;
use crate::jobs::supervisor::Supervisor;
use crate::live::hub::Live;
use crate::topics::TopicService;
use error::ApiError;
use events::JobsFeed;
use guard::Guard;

pub use openapi::document;

/// What every handler can reach.
pub struct App {
    pub(crate) supervisor: Arc<Supervisor>,
    pub(crate) live: Arc<Live>,
    pub(crate) topics: TopicService,
    disposals: Arc<Disposals>,
    pub(crate) writer_token: String,
    guard: Guard,
    clock: SharedClock,
    started_ms: i64,
    jobs_feed: Arc<JobsFeed>,
    stop: watch::Receiver<bool>,
    /// One place for each event stream that may be open.
    streams: Arc<Semaphore>,
}

type Shared = axum::extract::State<Arc<App>>;

impl App {
    /// Everything of a server that listens on `address`.
    pub(crate) fn new(
        config: &ServerConfig,
        address: SocketAddr,
        supervisor: Arc<Supervisor>,
        live: Arc<Live>,
        topics: TopicService,
        writer_token: String,
        stop: watch::Receiver<bool>,
    ) -> Arc<App> {
        let guard = Guard {
            loopback: address.ip().is_loopback(),
            allowed_hosts: config.allowed_hosts.clone(),
            admin_token: config.admin_token.clone(),
            writer_token: writer_token.clone(),
        };
        let jobs_feed = JobsFeed::start(supervisor.clone(), stop.clone());
        let streams = Arc::new(Semaphore::new(extract::STREAMS_MAX));
        let disposals = Disposals::new(supervisor.runner().to_path_buf(), config.clock.clone());
        let (clock, started_ms) = (config.clock.clone(), config.clock.now_ms());
        Arc::new(App {
            supervisor,
            live,
            topics,
            disposals,
            writer_token,
            guard,
            clock,
            started_ms,
            jobs_feed,
            stop,
            streams,
        })
    }
}

/// All routes.
pub(crate) fn router(app: Arc<App>) -> Router {
    let flink = flink::routes().merge(savepoints::routes());
    Router::new()
        .merge(health::routes())
        .merge(flink.clone())
        .nest("/v1", flink)
        .merge(jobs::routes())
        .merge(checkpoints::routes())
        .merge(agents::routes())
        .merge(programs::routes())
        .merge(events::routes())
        .merge(live::routes())
        .merge(live_events::routes())
        .merge(topics::routes())
        .merge(metrics::routes())
        .merge(openapi::routes())
        .route("/api/{*rest}", axum::routing::any(no_such_call))
        .method_not_allowed_fallback(wrong_method)
        .fallback(ui::asset)
        .layer(axum::middleware::from_fn_with_state(app.clone(), guard::guard))
        .with_state(app)
}

async fn no_such_call(uri: axum::http::Uri) -> ApiError {
    ApiError::not_found(format!("there is no call `{}`; see /openapi.json", uri.path()))
}

async fn wrong_method(method: axum::http::Method, uri: axum::http::Uri) -> ApiError {
    ApiError::new(StatusCode::METHOD_NOT_ALLOWED, format!("`{}` does not take {method}; see /openapi.json", uri.path()))
}
