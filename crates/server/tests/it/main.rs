//! The server as its users see it: a real one in this process (or, to be killed, in another), spoken to over HTTP.
//!
//! | module | what it can catch |
//! |---|---|
//! | [`api`] | wrong shapes, unclear refusals, open doors |
//! | [`description`] | answers that differ from `/openapi.json` |
//! | [`jobs`] | wrong states, lost or doubled processes, restarts that do not come |
//! | [`recovery`] | anything lost when the server is killed |
//! | [`live`] | lost, doubled or late changes |
//! | [`topics`] | half-written appends, unclear refusals |

// A helper that breaks fails its test, as it should.
#![allow(clippy::unwrap_used)]

mod api;
mod description;
mod fake_job;
mod jobs;
mod live;
mod recovery;
mod support;
mod topics;
