//! Reading requests with our own clear refusals, and answering with event streams.

use axum::body::{Body, Bytes};
use axum::extract::{FromRequest, FromRequestParts, Query, Request};
use axum::http::request::Parts;
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::{IntoResponse, Response};
use serde::de::DeserializeOwned;
use tokio::sync::mpsc;
use tokio_stream::StreamExt;
use tokio_stream::wrappers::{ReceiverStream, WatchStream};

use super::App;
use super::error::{ApiError, ApiResult};

const JSON_WANTED: &str = "send the body as `content-type: application/json`";

/// The type of a request's body, without parameters, in lower case.
pub fn content_type(headers: &HeaderMap) -> String {
    let value = headers.get(header::CONTENT_TYPE).and_then(|value| value.to_str().ok()).unwrap_or_default();
    value.split(';').next().unwrap_or_default().trim().to_ascii_lowercase()
}

/// The largest JSON body, in bytes.
const JSON_BYTES_MAX: usize = 2 << 20;
/// How much of a body that is too large is read and thrown away, in bytes: a client that still sends would not see the
/// refusal otherwise, but a broken connection.
const DRAINED_BYTES_MAX: usize = 256 << 20;

/// The whole body, at most `MAX` bytes.
pub struct RawBody<const MAX: usize>(pub Bytes);

impl<S: Send + Sync, const MAX: usize> FromRequest<S> for RawBody<MAX> {
    type Rejection = ApiError;

    async fn from_request(request: Request, _: &S) -> Result<Self, ApiError> {
        let mut parts = request.into_body().into_data_stream();
        let (mut kept, mut seen) = (Vec::new(), 0);
        while let Some(part) = parts.next().await {
            let part = part.map_err(|e| ApiError::bad(format!("the body cannot be read: {e}")))?;
            seen += part.len();
            if seen <= MAX {
                kept.extend_from_slice(&part);
            } else if seen > DRAINED_BYTES_MAX {
                break;
            } else {
                kept = Vec::new();
            }
        }
        if seen > MAX {
            let text = format!("the body is larger than the {MAX} bytes this call takes; send it in parts");
            return Err(ApiError::new(StatusCode::PAYLOAD_TOO_LARGE, text));
        }
        Ok(RawBody(kept.into()))
    }
}

/// A JSON body. Wants `content-type: application/json`, which also keeps simple forms of foreign pages out.
pub struct JsonBody<T>(pub T);

impl<S: Send + Sync, T: DeserializeOwned> FromRequest<S> for JsonBody<T> {
    type Rejection = ApiError;

    async fn from_request(request: Request, state: &S) -> Result<Self, ApiError> {
        let kind = content_type(request.headers());
        if kind != "application/json" && !kind.ends_with("+json") {
            return Err(ApiError::new(StatusCode::UNSUPPORTED_MEDIA_TYPE, JSON_WANTED));
        }
        let RawBody(bytes) = RawBody::<JSON_BYTES_MAX>::from_request(request, state).await?;
        serde_json::from_slice(&bytes)
            .map(JsonBody)
            .map_err(|e| ApiError::bad(format!("the body is not what this call takes: {e}")))
    }
}

/// A JSON body that may be left out.
pub struct OptionalBody<T>(pub T);

impl<S: Send + Sync, T: DeserializeOwned + Default> FromRequest<S> for OptionalBody<T> {
    type Rejection = ApiError;

    async fn from_request(request: Request, state: &S) -> Result<Self, ApiError> {
        if request.headers().get(header::CONTENT_TYPE).is_none() {
            let RawBody(bytes) = RawBody::<JSON_BYTES_MAX>::from_request(request, state).await?;
            return match bytes.is_empty() {
                true => Ok(OptionalBody(T::default())),
                false => Err(ApiError::new(StatusCode::UNSUPPORTED_MEDIA_TYPE, JSON_WANTED)),
            };
        }
        JsonBody::from_request(request, state).await.map(|JsonBody(body)| OptionalBody(body))
    }
}

/// The query, typed.
pub struct Params<T>(pub T);

impl<S: Send + Sync, T: DeserializeOwned> FromRequestParts<S> for Params<T> {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, ApiError> {
        let query = Query::<T>::try_from_uri(&parts.uri);
        query
            .map(|Query(query)| Params(query))
            .map_err(|e| ApiError::bad(format!("the query cannot be read: {}", e.body_text())))
    }
}

/// The most event streams open at once.
pub const STREAMS_MAX: usize = 1000;

/// An event stream of rendered parts, which ends with the server. 503 when too many are open.
pub fn event_stream(app: &App, parts: mpsc::Receiver<Bytes>) -> ApiResult<Response> {
    let place = app.streams.clone().try_acquire_owned().map_err(|_| {
        ApiError::new(StatusCode::SERVICE_UNAVAILABLE, format!("{STREAMS_MAX} event streams are open already"))
    })?;
    let stopped = WatchStream::new(app.stop.clone());
    let ends = stopped.filter_map(|stop| stop.then_some(None));
    let parts = ReceiverStream::new(parts).map(Some).chain(tokio_stream::once(None));
    let stream = parts.merge(ends).map_while(move |part| {
        // Given back when the stream is dropped.
        let _held = &place;
        part.map(Ok::<Bytes, std::convert::Infallible>)
    });
    let headers = [
        (header::CONTENT_TYPE, "text/event-stream"),
        (header::CACHE_CONTROL, "no-cache, no-transform"),
        (header::HeaderName::from_static("x-accel-buffering"), "no"),
    ];
    Ok((headers, Body::from_stream(stream)).into_response())
}
