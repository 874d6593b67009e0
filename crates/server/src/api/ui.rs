//! The page: the files of `web/dist`, built into the binary. Without them a notice says how to get them.

use std::collections::HashMap;
use std::io::Write;
use std::sync::{Mutex, PoisonError};

use axum::body::Bytes;
use axum::http::{HeaderMap, HeaderValue, Method, StatusCode, Uri, header};
use axum::response::{IntoResponse, Response};
use rust_embed::Embed;

use super::error::ApiError;

#[derive(Embed)]
#[folder = "../../web/dist"]
#[allow_missing = true]
struct Web;

const PLACEHOLDER: &str = include_str!("placeholder.html");
/// Files smaller than this are sent as they are, in bytes.
const COMPRESS_FROM_BYTES: usize = 1024;

/// Compressed files, each made at its first request. Bounded by the number of files in the binary.
static COMPRESSED: Mutex<Option<HashMap<String, Bytes>>> = Mutex::new(None);

/// A file of the page; `index.html` for any other path, since the page knows its own addresses.
pub(super) async fn asset(method: Method, uri: Uri, headers: HeaderMap) -> Response {
    if !matches!(method, Method::GET | Method::HEAD) {
        return ApiError::not_found(format!("there is no call `{}`; see /openapi.json", uri.path())).into_response();
    }
    let path = uri.path().trim_start_matches('/');
    match Web::get(path) {
        Some(file) if !path.is_empty() => answer(path, file, &headers),
        // A file that is asked for by name and not there is an error, not a page.
        _ if path.starts_with("assets/") => ApiError::not_found(format!("there is no file `{path}`")).into_response(),
        _ => page(&headers),
    }
}

/// The page itself.
pub(super) fn page(headers: &HeaderMap) -> Response {
    match Web::get("index.html") {
        Some(file) => answer("index.html", file, headers),
        None => {
            ([(header::CONTENT_TYPE, "text/html; charset=utf-8"), (header::CACHE_CONTROL, "no-cache")], PLACEHOLDER)
                .into_response()
        }
    }
}

fn answer(path: &str, file: rust_embed::EmbeddedFile, headers: &HeaderMap) -> Response {
    let tag: String = file.metadata.sha256_hash().iter().take(16).map(|byte| format!("{byte:02x}")).collect();
    let tag = format!("\"{tag}\"");
    // The build puts a hash into the names below `assets/`: those never change.
    let cache = if path.starts_with("assets/") { "public, max-age=31536000, immutable" } else { "no-cache" };
    let mut response = Response::new(axum::body::Body::empty());
    let set = |response: &mut Response, name, value: &str| {
        if let Ok(value) = HeaderValue::from_str(value) {
            response.headers_mut().insert(name, value);
        }
    };
    set(&mut response, header::CACHE_CONTROL, cache);
    set(&mut response, header::ETAG, &tag);
    set(&mut response, header::VARY, "accept-encoding");
    if headers.get(header::IF_NONE_MATCH).is_some_and(|seen| seen.as_bytes() == tag.as_bytes()) {
        *response.status_mut() = StatusCode::NOT_MODIFIED;
        return response;
    }
    set(&mut response, header::CONTENT_TYPE, content_type(path));
    set(&mut response, header::X_CONTENT_TYPE_OPTIONS, "nosniff");
    let plain = match file.data {
        std::borrow::Cow::Borrowed(bytes) => Bytes::from_static(bytes),
        std::borrow::Cow::Owned(bytes) => Bytes::from(bytes),
    };
    let accepted = headers.get(header::ACCEPT_ENCODING).and_then(|value| value.to_str().ok());
    let worth_it = plain.len() >= COMPRESS_FROM_BYTES
        && compressible(path)
        && accepted.is_some_and(|value| value.contains("gzip"));
    let body = match worth_it.then(|| compressed(&tag, &plain)).flatten() {
        Some(smaller) => {
            set(&mut response, header::CONTENT_ENCODING, "gzip");
            smaller
        }
        None => plain,
    };
    *response.body_mut() = body.into();
    response
}

fn compressed(tag: &str, plain: &Bytes) -> Option<Bytes> {
    let mut kept = COMPRESSED.lock().unwrap_or_else(PoisonError::into_inner);
    let kept = kept.get_or_insert_default();
    if let Some(smaller) = kept.get(tag) {
        return Some(smaller.clone());
    }
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::new(6));
    encoder.write_all(plain).ok()?;
    let smaller = Bytes::from(encoder.finish().ok()?);
    kept.insert(tag.to_owned(), smaller.clone());
    Some(smaller)
}

fn ending(path: &str) -> &str {
    path.rsplit_once('.').map_or("", |(_, ending)| ending)
}

fn compressible(path: &str) -> bool {
    matches!(ending(path), "html" | "js" | "mjs" | "css" | "svg" | "json" | "map" | "txt" | "wasm")
}

fn content_type(path: &str) -> &'static str {
    match ending(path) {
        "html" => "text/html; charset=utf-8",
        "js" | "mjs" => "text/javascript; charset=utf-8",
        "css" => "text/css; charset=utf-8",
        "json" | "map" => "application/json",
        "svg" => "image/svg+xml",
        "png" => "image/png",
        "jpg" | "jpeg" => "image/jpeg",
        "webp" => "image/webp",
        "ico" => "image/x-icon",
        "woff2" => "font/woff2",
        "woff" => "font/woff",
        "ttf" => "font/ttf",
        "wasm" => "application/wasm",
        "txt" => "text/plain; charset=utf-8",
        _ => "application/octet-stream",
    }
}
