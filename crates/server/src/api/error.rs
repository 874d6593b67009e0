//! One shape for every refusal: `{"errors": ["one clear line"]}` with a fitting status.

use axum::Json;
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use serde::Serialize;
use tidemill_core::{Error, Kind};
use utoipa::ToSchema;

use crate::jobs::supervisor::JobError;

/// A refused request.
#[derive(Debug)]
pub struct ApiError {
    /// The status.
    pub status: StatusCode,
    /// One line.
    pub message: String,
}

/// The body of a refusal, in Flink's shape.
#[derive(Debug, Serialize, ToSchema)]
pub struct Errors {
    /// What went wrong; one line each.
    pub errors: Vec<String>,
}

/// A result of the API.
pub type ApiResult<T> = std::result::Result<T, ApiError>;

impl ApiError {
    /// A refusal with a status.
    pub fn new(status: StatusCode, message: impl Into<String>) -> Self {
        ApiError { status, message: message.into() }
    }

    /// 400: the request is wrong.
    pub fn bad(message: impl Into<String>) -> Self {
        Self::new(StatusCode::BAD_REQUEST, message)
    }

    /// 404: the thing is not there.
    pub fn not_found(message: impl Into<String>) -> Self {
        Self::new(StatusCode::NOT_FOUND, message)
    }
}

impl From<Error> for ApiError {
    fn from(error: Error) -> Self {
        let status = match error.kind() {
            Kind::Input => StatusCode::BAD_REQUEST,
            Kind::External => StatusCode::SERVICE_UNAVAILABLE,
            Kind::Full => StatusCode::INSUFFICIENT_STORAGE,
            Kind::Corrupt | Kind::Bug => StatusCode::INTERNAL_SERVER_ERROR,
        };
        if status.is_server_error() {
            tracing::warn!(%error, "request failed");
        }
        Self::new(status, error.to_string())
    }
}

impl From<JobError> for ApiError {
    fn from(error: JobError) -> Self {
        match error {
            JobError::NotFound(text) => Self::not_found(text),
            JobError::Conflict(text) => Self::new(StatusCode::CONFLICT, text),
            JobError::Other(error) => error.into(),
        }
    }
}

impl IntoResponse for ApiError {
    fn into_response(self) -> Response {
        let message = self.message.replace(['\n', '\r'], " ");
        (self.status, Json(Errors { errors: vec![message] })).into_response()
    }
}
