//! Who may do what, decided in one place before any handler runs.
//!
//! * On loopback, requests must be addressed to loopback (or a configured name): a foreign page whose name was bound to
//!   127.0.0.1 is refused. Changing calls of a page must come from the page this server serves.
//! * With an administrator token, every changing call wants it as `Authorization: Bearer`.
//! * Live rows are written by job processes, which present the writer token (the administrator's will do as well).
//! * Programs can be uploaded only where an administrator token exists.

use std::sync::Arc;

use axum::extract::{Request, State};
use axum::http::{HeaderMap, Method, StatusCode, header};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};

use super::App;
use super::error::{ApiError, ApiResult};

/// The header job processes present the writer token in.
pub const WRITER_TOKEN_HEADER: &str = "x-tidemill-token";

/// What the guard knows.
#[derive(Debug, Clone)]
pub struct Guard {
    /// Listening on loopback only.
    pub loopback: bool,
    /// Further host names, while on loopback.
    pub allowed_hosts: Vec<String>,
    /// The administrator token.
    pub admin_token: Option<String>,
    /// The token of live sinks.
    pub writer_token: String,
}

/// The middleware.
pub async fn guard(State(app): State<Arc<App>>, request: Request, next: Next) -> Response {
    match app.guard.check(request.method(), request.uri().path(), request.headers()) {
        Ok(()) => next.run(request).await,
        Err(refused) => {
            let wants_token = refused.status == StatusCode::UNAUTHORIZED;
            let mut response = refused.into_response();
            if wants_token {
                response.headers_mut().insert(header::WWW_AUTHENTICATE, header::HeaderValue::from_static("Bearer"));
            }
            response
        }
    }
}

impl Guard {
    /// Refuses what is not allowed.
    pub fn check(&self, method: &Method, path: &str, headers: &HeaderMap) -> ApiResult<()> {
        if self.loopback {
            self.check_host(headers)?;
        }
        if matches!(*method, Method::GET | Method::HEAD | Method::OPTIONS) {
            return Ok(());
        }
        self.check_origin(headers)?;
        // An agent proves the join secret in each message.
        if *method == Method::POST && path == super::agents::BEAT_PATH {
            return Ok(());
        }
        let admin =
            self.admin_token.as_deref().is_some_and(|token| bearer(headers).is_some_and(|given| same(given, token)));
        if *method == Method::POST && path.starts_with("/api/live/") {
            let given = headers.get(WRITER_TOKEN_HEADER).and_then(|value| value.to_str().ok());
            if admin || given.is_some_and(|given| same(given, &self.writer_token)) {
                return Ok(());
            }
            return Err(ApiError::new(
                StatusCode::UNAUTHORIZED,
                "live rows are written by jobs: send the token of `<data>/writer.token` as header `x-tidemill-token`",
            ));
        }
        if path.starts_with("/api/programs/") && self.admin_token.is_none() {
            return Err(ApiError::new(
                StatusCode::FORBIDDEN,
                "programs are uploaded only with an administrator token; start the server with TIDEMILL_ADMIN_TOKEN, or copy the file into the jobs folder",
            ));
        }
        if self.admin_token.is_some() && !admin {
            let text = match headers.contains_key(header::AUTHORIZATION) {
                true => "the administrator token is wrong: send the one the server was started with",
                false => "this call changes something: send the administrator token as `Authorization: Bearer <token>`",
            };
            return Err(ApiError::new(StatusCode::UNAUTHORIZED, text));
        }
        Ok(())
    }

    fn check_host(&self, headers: &HeaderMap) -> ApiResult<()> {
        let host = headers.get(header::HOST).and_then(|value| value.to_str().ok()).unwrap_or_default();
        if is_loopback_name(host_name(host))
            || self.allowed_hosts.iter().any(|name| name.eq_ignore_ascii_case(host_name(host)))
        {
            return Ok(());
        }
        let shown: String = host.chars().take(80).collect();
        Err(ApiError::new(
            StatusCode::FORBIDDEN,
            format!(
                "this server listens for this machine only and is not called `{}`; add the name with `--allow-host`",
                shown.escape_debug()
            ),
        ))
    }

    /// A browser says where a changing call comes from: only our own page may make one.
    fn check_origin(&self, headers: &HeaderMap) -> ApiResult<()> {
        let text = |name| headers.get(name).and_then(|value: &header::HeaderValue| value.to_str().ok());
        let host = text(header::HOST).unwrap_or_default();
        let foreign_origin = headers.contains_key(header::ORIGIN)
            && text(header::ORIGIN)
                .and_then(|origin| origin.split_once("://"))
                .is_none_or(|(_, origin)| !origin.eq_ignore_ascii_case(host));
        if foreign_origin || headers.get("sec-fetch-site").is_some_and(|site| site == "cross-site") {
            return Err(ApiError::new(StatusCode::FORBIDDEN, "a page of another origin may not change anything here"));
        }
        Ok(())
    }
}

fn bearer(headers: &HeaderMap) -> Option<&str> {
    let value = headers.get(header::AUTHORIZATION)?.to_str().ok()?;
    let (scheme, token) = value.split_once(' ')?;
    scheme.eq_ignore_ascii_case("bearer").then(|| token.trim())
}

/// Compares without telling by its duration how much was right.
fn same(given: &str, expected: &str) -> bool {
    let differing = given.bytes().zip(expected.bytes()).fold(0, |differing, (a, b)| differing | (a ^ b));
    given.len() == expected.len() && differing == 0
}

/// The name of a `Host` header, without its port.
fn host_name(host: &str) -> &str {
    match host.strip_prefix('[').and_then(|rest| rest.split_once(']')) {
        Some((address, _)) => address,
        None => host.rsplit_once(':').map_or(host, |(name, _)| name),
    }
}

fn is_loopback_name(name: &str) -> bool {
    let loopback = |address: std::net::IpAddr| address.is_loopback();
    name.eq_ignore_ascii_case("localhost")
        || name.to_ascii_lowercase().ends_with(".localhost")
        || name.parse().is_ok_and(loopback)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn guard(admin: Option<&str>, loopback: bool) -> Guard {
        Guard {
            loopback,
            allowed_hosts: vec!["mill.example".into()],
            admin_token: admin.map(str::to_owned),
            writer_token: "writer".into(),
        }
    }

    fn checked(guard: &Guard, method: &Method, path: &str, headers: &[(&str, &str)]) -> ApiResult<()> {
        let mut map = HeaderMap::new();
        for (name, value) in headers {
            map.insert(header::HeaderName::from_bytes(name.as_bytes()).unwrap(), value.parse().unwrap());
        }
        guard.check(method, path, &map)
    }

    fn status(guard: &Guard, method: Method, path: &str, headers: &[(&str, &str)]) -> u16 {
        checked(guard, &method, path, headers).map_or_else(|e| e.status.as_u16(), |()| 200)
    }

    #[test]
    fn foreign_names_and_pages_are_refused_on_loopback() {
        let guard = guard(None, true);
        let get = |host| status(&guard, Method::GET, "/api/jobs", &[("host", host)]);
        assert_eq!(
            [get("localhost:8081"), get("127.0.0.1"), get("[::1]:8081"), get("a.localhost"), get("mill.example:80")],
            [200; 5]
        );
        assert_eq!([get("evil.example:8081"), get("127.0.0.1.evil.example"), get("")], [403; 3]);
        let post = |more: &[(&str, &str)]| {
            status(&guard, Method::POST, "/api/jobs", &[&[("host", "localhost:8081")], more].concat())
        };
        assert_eq!(post(&[]), 200);
        assert_eq!(post(&[("origin", "http://localhost:8081")]), 200);
        assert_eq!(post(&[("origin", "http://localhost:9999")]), 403);
        assert_eq!(post(&[("origin", "null")]), 403);
        assert_eq!(post(&[("sec-fetch-site", "cross-site")]), 403);
    }

    #[test]
    fn changing_wants_the_token_once_there_is_one() {
        let guard = guard(Some("administrator-token"), false);
        let post = |more: &[(&str, &str)]| status(&guard, Method::POST, "/api/jobs", more);
        assert_eq!(status(&guard, Method::GET, "/api/jobs", &[("host", "any.example")]), 200);
        assert_eq!(
            [post(&[]), post(&[("authorization", "Bearer wrong")]), post(&[("authorization", "administrator-token")])],
            [401; 3]
        );
        assert_eq!(post(&[("authorization", "bearer administrator-token")]), 200);
        let said = |headers: &[(&str, &str)]| checked(&guard, &Method::POST, "/api/jobs", headers).unwrap_err().message;
        assert!(said(&[]).contains("send the administrator token as"));
        assert!(said(&[("authorization", "Bearer wrong")]).contains("the administrator token is wrong"));
        assert_eq!(post(&[("x-tidemill-token", "writer")]), 401);
    }

    #[test]
    fn live_rows_want_the_writer_token_and_uploads_an_administrator() {
        let open = guard(None, false);
        let live = |headers: &[(&str, &str)]| status(&open, Method::POST, "/api/live/orders", headers);
        assert_eq!(
            [live(&[]), live(&[("x-tidemill-token", "write")]), live(&[("x-tidemill-token", "writer")])],
            [401, 401, 200]
        );
        assert_eq!(status(&open, Method::PUT, "/api/programs/x", &[]), 403);
        let closed = guard(Some("administrator-token"), false);
        assert_eq!(status(&closed, Method::PUT, "/api/programs/x", &[]), 401);
        assert_eq!(
            status(&closed, Method::PUT, "/api/programs/x", &[("authorization", "Bearer administrator-token")]),
            200
        );
    }
}
