//! `/api/events` and `/api/jobs/:id/events`: jobs as they change. The list is rendered once for everybody who watches.

use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::body::Bytes;
use axum::extract::{Path, State};
use axum::response::Response;
use axum::routing::get;
use serde::Serialize;
use tokio::sync::{mpsc, watch};
use tokio::time::MissedTickBehavior;
use utoipa::ToSchema;

use super::error::{ApiResult, Errors};
use super::extract::event_stream;
use super::flink::{self, Overview};
use super::{App, Shared};
use crate::jobs::model::{JobDetail, JobSummary};
use crate::jobs::supervisor::Supervisor;
use crate::live::persist::stopped;

/// How often the list is sent without a change.
const EVERY: Duration = Duration::from_secs(1);
/// Changes closer together than this go out as one.
const GATHER: Duration = Duration::from_millis(50);
/// Events handed to a connection ahead of its socket.
const EVENTS_AHEAD_MAX: usize = 2;

pub(super) fn routes() -> Router<Arc<App>> {
    Router::new().route("/api/events", get(all)).route("/api/jobs/{id}/events", get(one))
}

/// What an event `jobs` carries.
#[derive(Serialize, ToSchema)]
pub(super) struct JobsEvent {
    /// Newest first.
    jobs: Vec<JobSummary>,
    /// As `/overview`.
    overview: Overview,
}

/// Renders the list of jobs while somebody watches.
pub(super) struct JobsFeed {
    newest: watch::Sender<Bytes>,
    supervisor: Arc<Supervisor>,
}

impl JobsFeed {
    /// Starts the task that renders.
    pub fn start(supervisor: Arc<Supervisor>, mut stop: watch::Receiver<bool>) -> Arc<JobsFeed> {
        let mut changes = supervisor.changes();
        let feed = Arc::new(JobsFeed { newest: watch::Sender::new(Bytes::new()), supervisor });
        let rendering = feed.clone();
        tokio::spawn(async move {
            let mut tick = tokio::time::interval(EVERY);
            tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
            loop {
                tokio::select! {
                    _ = tick.tick() => {}
                    changed = changes.changed() => {
                        if changed.is_err() {
                            return;
                        }
                        tokio::time::sleep(GATHER).await;
                        changes.mark_unchanged();
                    }
                    () = stopped(&mut stop) => return,
                }
                if rendering.newest.receiver_count() > 0 {
                    rendering.newest.send_replace(rendering.render());
                }
            }
        });
        feed
    }

    fn render(&self) -> Bytes {
        let jobs = self.supervisor.list().iter().map(|job| job.summary()).collect();
        let data = JobsEvent { jobs, overview: flink::overview_of(&self.supervisor) };
        event("jobs", &serde_json::to_string(&data).unwrap_or_else(|_| "null".into()))
    }
}

fn event(name: &str, data: &str) -> Bytes {
    format!("event: {name}\ndata: {data}\n\n").into()
}

/// Events `jobs` with `{"jobs":[JobSummary],"overview":{…}}`, once a second and on change.
#[utoipa::path(get, operation_id = "watch_jobs", path = "/api/events", tag = "jobs", responses((status = 200, body = JobsEvent, content_type = "text/event-stream")))]
pub(super) async fn all(State(app): Shared) -> ApiResult<Response> {
    let (sender, receiver) = mpsc::channel(EVENTS_AHEAD_MAX);
    let mut newest = app.jobs_feed.newest.subscribe();
    let first = app.jobs_feed.render();
    tokio::spawn(async move {
        let mut sent = sender.send(first).await;
        // A client slower than the events gets the newest one next.
        while sent.is_ok() {
            tokio::select! {
                changed = newest.changed() => {
                    if changed.is_err() {
                        return;
                    }
                }
                () = sender.closed() => return,
            }
            let next = newest.borrow_and_update().clone();
            sent = sender.send(next).await;
        }
    });
    event_stream(&app, receiver)
}

/// Events `job` with the job's detail, once a second and on change.
#[utoipa::path(get, operation_id = "watch_job", path = "/api/jobs/{id}/events", tag = "jobs", params(("id" = String, Path)),
    responses((status = 200, body = JobDetail, content_type = "text/event-stream"), (status = 404, body = Errors)))]
pub(super) async fn one(State(app): Shared, Path(id): Path<String>) -> ApiResult<Response> {
    let job = app.supervisor.job(&id)?;
    let (sender, receiver) = mpsc::channel(EVENTS_AHEAD_MAX);
    let supervisor = app.supervisor.clone();
    tokio::spawn(async move {
        let mut changes = job.changes();
        let mut tick = tokio::time::interval(EVERY);
        tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                _ = tick.tick() => {}
                changed = changes.changed() => {
                    if changed.is_err() {
                        return;
                    }
                    tokio::time::sleep(GATHER).await;
                    changes.mark_unchanged();
                    tick.reset();
                }
                () = sender.closed() => return,
            }
            // A deleted job has nothing more to tell.
            if supervisor.job(&job.id).is_err() || sender.send(event("job", &job.detail_json())).await.is_err() {
                return;
            }
        }
    });
    event_stream(&app, receiver)
}
