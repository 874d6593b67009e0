//! `/api/topics`: embedded topics over HTTP.

use std::borrow::Cow;
use std::collections::HashMap;
use std::sync::Arc;

use axum::body::Bytes;
use axum::extract::{Path, State};
use axum::http::{HeaderMap, StatusCode};
use axum::routing::{delete, get};
use axum::{Json, Router};
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;
use tidemill_topic::{ReadOutcome, Topic, TopicConfig, TopicInfo};
use utoipa::{IntoParams, ToSchema};

use super::error::{ApiError, ApiResult, Errors};
use super::extract::{JsonBody, Params, RawBody, content_type};
use super::{App, Shared};
use crate::jobs::store::blocking;
use crate::topics::Incoming;

/// The largest append, in bytes.
const APPEND_BYTES_MAX: usize = 32 << 20;
/// The most records of one append.
const APPEND_RECORDS_MAX: usize = 1_000_000;
/// The longest idempotency key, in bytes.
const IDEMPOTENCY_KEY_BYTES_MAX: usize = 200;
/// Records read without `limit`.
const LIMIT_DEFAULT: usize = 100;
/// The most records read at once.
const LIMIT_MAX: usize = 10_000;
/// About how many bytes are read at once.
const READ_BYTES_MAX: usize = 8 << 20;

pub(super) fn routes() -> Router<Arc<App>> {
    Router::new()
        .route("/api/topics", get(list).post(create))
        .route("/api/topics/{name}", delete(remove))
        .route("/api/topics/{name}/records", get(read).post(append))
}

/// All topics.
#[derive(Serialize, ToSchema)]
pub(super) struct TopicList {
    /// By name.
    topics: Vec<TopicView>,
}

/// A topic.
#[derive(Serialize, ToSchema)]
pub(super) struct TopicView {
    /// Its name.
    name: String,
    /// How many partitions.
    partitions: u32,
    /// Records kept.
    records: u64,
    /// Bytes kept.
    bytes: u64,
    /// How long records are kept, ms; null: for ever.
    #[schema(required)]
    retention_ms: Option<i64>,
    /// How many bytes are kept; null: no limit.
    #[schema(required)]
    retention_bytes: Option<u64>,
}

impl From<TopicInfo> for TopicView {
    fn from(info: TopicInfo) -> Self {
        let TopicInfo { name, partitions, records, bytes, retention_ms, retention_bytes } = info;
        TopicView { name, partitions, records, bytes, retention_ms, retention_bytes }
    }
}

/// A topic to create.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct NewTopic {
    /// Letters, digits, `.`, `_`, `-`.
    name: String,
    /// Default 4.
    partitions: Option<u32>,
    /// Default: for ever.
    retention_ms: Option<i64>,
    /// Default: no limit.
    retention_bytes: Option<u64>,
}

/// How to append.
#[derive(Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
pub(super) struct AppendHow {
    /// The field that chooses the partition; default: round robin.
    key: Option<String>,
}

/// What an append did.
#[derive(Serialize, ToSchema)]
pub(super) struct Appended {
    /// Records stored.
    records: u64,
    /// The idempotency key was seen before: nothing was stored now.
    duplicate: bool,
}

/// Where to read.
#[derive(Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
pub(super) struct ReadHow {
    /// Default 0.
    #[serde(default)]
    partition: u32,
    /// A number, `earliest` (default), or `latest`: the last `limit` records.
    offset: Option<String>,
    /// Default 100, at most 10000.
    limit: Option<usize>,
}

/// Records of a partition.
#[derive(Serialize, ToSchema)]
pub(super) struct Records {
    /// By offset.
    records: Vec<RecordView>,
    /// Where to read on.
    next_offset: u64,
}

/// A record.
#[derive(Serialize, ToSchema)]
pub(super) struct RecordView {
    /// Its partition.
    partition: u32,
    /// Its place in the partition.
    offset: u64,
    /// When it was appended, or the time it was given, epoch ms.
    timestamp_ms: i64,
    /// Its key as text.
    #[schema(required)]
    key: Option<String>,
    /// Its value: as JSON when it is, else as text.
    #[schema(value_type = serde_json::Value)]
    value: Box<RawValue>,
}

/// All topics.
#[utoipa::path(get, operation_id = "list_topics", path = "/api/topics", tag = "topics", responses((status = 200, body = TopicList)))]
pub(super) async fn list(State(app): Shared) -> ApiResult<Json<TopicList>> {
    let topics = app.topics.list().await?.into_iter().map(Into::into).collect();
    Ok(Json(TopicList { topics }))
}

/// Creates a topic.
#[utoipa::path(post, operation_id = "create_topic", path = "/api/topics", tag = "topics", request_body = NewTopic,
    responses((status = 201), (status = 400, body = Errors), (status = 409, body = Errors)))]
pub(super) async fn create(State(app): Shared, JsonBody(new): JsonBody<NewTopic>) -> ApiResult<StatusCode> {
    if app.topics.exists(&new.name).await? {
        return Err(ApiError::new(StatusCode::CONFLICT, format!("topic `{}` exists already", new.name)));
    }
    let config = TopicConfig {
        partitions: new.partitions.unwrap_or(TopicConfig::default().partitions),
        retention_ms: new.retention_ms,
        retention_bytes: new.retention_bytes,
    };
    app.topics.create(new.name, config).await?;
    Ok(StatusCode::CREATED)
}

/// Deletes a topic with all its records.
#[utoipa::path(delete, operation_id = "delete_topic", path = "/api/topics/{name}", tag = "topics", params(("name" = String, Path)),
    responses((status = 204), (status = 404, body = Errors)))]
pub(super) async fn remove(State(app): Shared, Path(name): Path<String>) -> ApiResult<StatusCode> {
    found(&app, &name).await?;
    app.topics.delete(name).await?;
    Ok(StatusCode::NO_CONTENT)
}

/// Appends records, all or none: `application/json` (one value, or an array of records) or `application/x-ndjson`.
#[utoipa::path(post, operation_id = "append_records", path = "/api/topics/{name}/records", tag = "topics", params(("name" = String, Path), AppendHow,
    ("Idempotency-Key" = Option<String>, Header, description = "makes sending the same again harmless")),
    request_body(content = String, content_type = "application/x-ndjson"),
    responses((status = 200, body = Appended), (status = 400, body = Errors), (status = 404, body = Errors), (status = 413, body = Errors)))]
pub(super) async fn append(
    State(app): Shared,
    Path(name): Path<String>,
    Params(how): Params<AppendHow>,
    headers: HeaderMap,
    RawBody(body): RawBody<APPEND_BYTES_MAX>,
) -> ApiResult<Json<Appended>> {
    let lines = match content_type(&headers).as_str() {
        "application/x-ndjson" | "application/ndjson" | "application/jsonl" => true,
        "application/json" => false,
        _ => {
            let text = "send records as `content-type: application/json` or `application/x-ndjson`";
            return Err(ApiError::new(StatusCode::UNSUPPORTED_MEDIA_TYPE, text));
        }
    };
    let idempotency_key = match headers.get("idempotency-key").map(|key| key.to_str()) {
        None => None,
        Some(Ok(key)) if !key.is_empty() && key.len() <= IDEMPOTENCY_KEY_BYTES_MAX => Some(key.to_owned()),
        Some(_) => {
            return Err(ApiError::bad("the `Idempotency-Key` must be 1 to 200 printable characters"));
        }
    };
    found(&app, &name).await?;
    let records = blocking(move || Ok(parse(&body, lines, how.key.as_deref()))).await?.map_err(ApiError::bad)?;
    if records.len() > APPEND_RECORDS_MAX {
        let text = format!("{} records are more than one append takes ({APPEND_RECORDS_MAX})", records.len());
        return Err(ApiError::new(StatusCode::PAYLOAD_TOO_LARGE, text));
    }
    if records.is_empty() {
        return Ok(Json(Appended { records: 0, duplicate: false }));
    }
    let done = app.topics.append(&name, records, idempotency_key).await?;
    Ok(Json(Appended { records: done.records, duplicate: done.duplicate }))
}

/// Reads records of one partition.
#[utoipa::path(get, operation_id = "read_records", path = "/api/topics/{name}/records", tag = "topics", params(("name" = String, Path), ReadHow),
    responses((status = 200, body = Records), (status = 404, body = Errors), (status = 410, body = Errors)))]
pub(super) async fn read(
    State(app): Shared,
    Path(name): Path<String>,
    Params(how): Params<ReadHow>,
) -> ApiResult<Json<Records>> {
    found(&app, &name).await?;
    let topic = app.topics.topic(&name).await?;
    if how.partition >= topic.partitions() {
        let text = format!("topic `{name}` has partitions 0 to {}, not {}", topic.partitions() - 1, how.partition);
        return Err(ApiError::not_found(text));
    }
    blocking(move || Ok(read_from(&topic, &how))).await?.map(Json)
}

async fn found(app: &App, name: &str) -> ApiResult<()> {
    match app.topics.exists(name).await? {
        true => Ok(()),
        false => Err(ApiError::not_found(format!("there is no topic `{name}`; create it with `POST /api/topics`"))),
    }
}

fn read_from(topic: &Topic, how: &ReadHow) -> ApiResult<Records> {
    let (partition, limit) = (how.partition, how.limit.unwrap_or(LIMIT_DEFAULT).min(LIMIT_MAX));
    let offset = match how.offset.as_deref() {
        None | Some("earliest") => topic.earliest(partition)?,
        Some("latest") => topic.latest(partition)?.saturating_sub(limit as u64).max(topic.earliest(partition)?),
        Some(text) => text.parse().map_err(|_| ApiError::bad("`offset` must be a number, `earliest` or `latest`"))?,
    };
    let (mut records, mut next_offset, mut bytes) = (Vec::new(), offset, 0);
    while records.len() < limit && bytes < READ_BYTES_MAX {
        let batches = match topic.read(partition, next_offset, READ_BYTES_MAX - bytes)? {
            ReadOutcome::Batches(batches) if batches.is_empty() => break,
            ReadOutcome::Batches(batches) => batches,
            ReadOutcome::BelowEarliest { earliest } => {
                let text = format!("offset {next_offset} was deleted by retention; the oldest kept is {earliest}");
                return Err(ApiError::new(StatusCode::GONE, text));
            }
            ReadOutcome::AboveLatest { latest } => {
                return Err(ApiError::bad(format!(
                    "offset {next_offset} is beyond the end of partition {partition}, which is {latest}"
                )));
            }
        };
        for record in batches.iter().flat_map(|batch| batch.iter()).take(limit - records.len()) {
            next_offset = record.offset + 1;
            bytes += record.value.len() + record.key.map_or(0, <[u8]>::len) + 1;
            let key = record.key.map(|key| String::from_utf8_lossy(key).into_owned());
            let (offset, timestamp_ms) = (record.offset, record.timestamp_ms);
            records.push(RecordView { partition, offset, timestamp_ms, key, value: as_json(record.value)? });
        }
    }
    Ok(Records { records, next_offset })
}

/// A value as JSON when it is, else as a JSON string.
fn as_json(bytes: &[u8]) -> ApiResult<Box<RawValue>> {
    if let Ok(value) = serde_json::from_slice::<Box<RawValue>>(bytes) {
        return Ok(value);
    }
    let text = serde_json::value::to_raw_value(&String::from_utf8_lossy(bytes));
    text.map_err(|e| tidemill_core::Error::bug(format!("a text is no JSON: {e}")).into())
}

/// The records of a body, or the one reason why there are none, naming the line or element.
fn parse(body: &Bytes, lines: bool, key: Option<&str>) -> Result<Vec<Incoming>, String> {
    if lines {
        let numbered = body.split(|byte| *byte == b'\n').enumerate().map(|(i, line)| (i + 1, line.trim_ascii()));
        let records = numbered.filter(|(_, line)| !line.is_empty()).map(|(number, line)| {
            let checked = serde_json::from_slice::<&RawValue>(line).map_err(|e| without_line(&e));
            let record = checked.and_then(|value| incoming(body, value, key));
            record.map_err(|why| format!("line {number}: {why}"))
        });
        return records.collect();
    }
    let whole: &RawValue = serde_json::from_slice(body).map_err(|e| format!("the body is no JSON: {e}"))?;
    if !whole.get().starts_with('[') {
        return Ok(vec![incoming(body, whole, key)?]);
    }
    let elements: Vec<&RawValue> =
        serde_json::from_str(whole.get()).map_err(|e| format!("the body is no JSON: {e}"))?;
    let records = elements.into_iter().enumerate();
    records.map(|(i, value)| incoming(body, value, key).map_err(|why| format!("record {}: {why}", i + 1))).collect()
}

/// What is wrong with a single line, where serde would say "line 1".
fn without_line(error: &serde_json::Error) -> String {
    let text = error.to_string();
    let said = text.rsplit_once(" at line ").map_or(text.as_str(), |(said, _)| said);
    format!("{said} at column {}", error.column())
}

fn incoming(body: &Bytes, value: &RawValue, key: Option<&str>) -> Result<Incoming, String> {
    let key = match key {
        None => None,
        Some(field) => Some(key_of(value, field)?),
    };
    // The value is part of the body: no copy.
    Ok(Incoming { key, value: body.slice_ref(value.get().as_bytes()) })
}

/// The key: the field's text, or its JSON when it is no text.
fn key_of(value: &RawValue, field: &str) -> Result<Bytes, String> {
    let no_field = || format!("there is no field `{field}` to take the key from");
    let fields: HashMap<Cow<'_, str>, &RawValue> = serde_json::from_str(value.get()).map_err(|_| no_field())?;
    let found = fields.get(field).map(|value| value.get()).filter(|text| *text != "null").ok_or_else(no_field)?;
    match found.starts_with('"') {
        true => serde_json::from_str::<String>(found).map(Bytes::from).map_err(|e| e.to_string()),
        false => Ok(Bytes::copy_from_slice(found.as_bytes())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parsed(body: &str, lines: bool, key: Option<&str>) -> Result<Vec<(String, String)>, String> {
        let text = |bytes: &Bytes| String::from_utf8(bytes.to_vec()).unwrap();
        let records = parse(&Bytes::from(body.to_owned()), lines, key)?;
        Ok(records.iter().map(|r| (r.key.as_ref().map(text).unwrap_or_default(), text(&r.value))).collect())
    }

    #[test]
    fn a_body_is_a_value_an_array_or_lines() {
        let pair = |key: &str, value: &str| (key.to_owned(), value.to_owned());
        assert_eq!(parsed(" {\"a\": 1} ", false, None), Ok(vec![pair("", "{\"a\": 1}")]));
        assert_eq!(parsed("[1, \"x\"]", false, None), Ok(vec![pair("", "1"), pair("", "\"x\"")]));
        assert_eq!(
            parsed("{\"a\":\"k\\u0041\"}\r\n\n{\"a\":7}\n", true, Some("a")),
            Ok(vec![pair("kA", "{\"a\":\"k\\u0041\"}"), pair("7", "{\"a\":7}")])
        );
        assert_eq!(parsed("[]", false, None), Ok(vec![]));
    }

    #[test]
    fn what_cannot_be_read_is_named_with_its_line() {
        assert_eq!(parsed("{}\n\n{\"a\":}\n", true, None).unwrap_err(), "line 3: expected value at column 6");
        assert_eq!(
            parsed("{}\n", true, Some("id")).unwrap_err(),
            "line 1: there is no field `id` to take the key from"
        );
        assert_eq!(
            parsed("[{\"id\":1},{\"id\":null}]", false, Some("id")).unwrap_err(),
            "record 2: there is no field `id` to take the key from"
        );
        assert!(parsed("", false, None).unwrap_err().starts_with("the body is no JSON: EOF"));
        assert!(parsed("[1,", false, None).unwrap_err().contains("line 1 column"));
        assert!(parsed("{}\n\u{1}\n", true, None).unwrap_err().starts_with("line 2:"));
    }
}
