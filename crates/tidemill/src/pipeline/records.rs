//! Records of a pipeline: bytes that are checked by their format and passed on as they came.

use tidemill_connectors::format::{Csv, Json, Raw, Text};
use tidemill_core::format::Decode;
use tidemill_core::{Error, Result};

use super::Taken;

/// A record, as it came.
pub(super) type Record = Vec<u8>;

/// What a record is checked for.
#[derive(Clone)]
pub(super) enum Checked {
    Text,
    /// With fields that must be there.
    Json {
        fields: Vec<String>,
    },
    Csv {
        line: Csv<Vec<String>>,
        columns: Vec<String>,
    },
    Raw,
}

impl Checked {
    /// By the options `format` and `columns`.
    pub fn new(options: &mut Taken<'_>) -> Result<Checked> {
        let columns: Option<Vec<String>> =
            options.optional("columns").map(|names| names.split(',').map(|name| name.trim().to_string()).collect());
        let format = options.optional("format");
        if let (Some(_), false) = (&columns, format.as_deref() == Some("csv")) {
            return Err(Error::input("[source]: `columns` are those of the format csv"));
        }
        match format.as_deref() {
            None | Some("text") => Ok(Checked::Text),
            Some("json") => Ok(Checked::Json { fields: Vec::new() }),
            Some("raw") => Ok(Checked::Raw),
            Some("csv") => {
                let line = match &columns {
                    Some(columns) => Csv::new().columns(columns),
                    None => Csv::new(),
                };
                Ok(Checked::Csv { line, columns: columns.unwrap_or_default() })
            }
            Some(other) => {
                Err(Error::input(format!("[source]: format `{other}` is not known"))
                    .hint("take text, json, csv or raw"))
            }
        }
    }

    /// Only records that are JSON and have these fields: the others cannot be read, and say so.
    pub fn requiring(self, wanted: Vec<String>) -> Result<Checked> {
        match self {
            Checked::Json { .. } => Ok(Checked::Json { fields: wanted }),
            _ => Err(Error::input("[sink]: only records of JSON will do here")
                .hint("take `format = \"json\"` for the source")),
        }
    }

    /// Takes a key from a record: a field of JSON, or a column of CSV. A record without it has no key.
    pub fn key(&self, field: String) -> Result<impl Fn(&Record, &mut Vec<u8>) + Send + Sync + 'static> {
        let column = match self {
            Checked::Json { .. } => None,
            Checked::Csv { columns, .. } => {
                let place = columns.iter().position(|column| *column == field).ok_or_else(|| {
                    Error::input(format!("[sink]: the source has no column `{field}` to take keys from"))
                        .hint("name the columns of its CSV in order, as `columns = \"id, user\"`")
                })?;
                Some(place)
            }
            Checked::Text | Checked::Raw => {
                return Err(Error::input("[sink]: there is no `key` in records that are text or raw")
                    .hint("take the format json or csv for the source"));
            }
        };
        Ok(move |record: &Record, key: &mut Vec<u8>| match column {
            Some(place) => {
                let values = Csv::<Vec<String>>::new().decode(record).unwrap_or_default();
                key.extend_from_slice(values.get(place).map_or(&[], |value| value.as_bytes()));
            }
            None => match serde_json::from_slice::<serde_json::Value>(record).unwrap_or_default().get(&field) {
                None | Some(serde_json::Value::Null) => {}
                Some(serde_json::Value::String(text)) => key.extend_from_slice(text.as_bytes()),
                Some(other) => key.extend_from_slice(other.to_string().as_bytes()),
            },
        })
    }
}

impl Decode for Checked {
    type Value = Record;

    fn decode(&mut self, bytes: &[u8]) -> Result<Record, String> {
        match self {
            Checked::Text => Text.decode(bytes).map(String::into_bytes),
            Checked::Json { fields } if fields.is_empty() => {
                Json::<serde::de::IgnoredAny>::new().decode(bytes).map(|_| bytes.to_vec())
            }
            Checked::Json { fields } => {
                let value = Json::<serde_json::Value>::new().decode(bytes)?;
                let missing = |field: &&String| value.get(field.as_str()).is_none_or(serde_json::Value::is_null);
                match fields.iter().find(missing) {
                    Some(field) => Err(format!("there is no field `{field}` to take the key from")),
                    None => Ok(bytes.to_vec()),
                }
            }
            Checked::Csv { line, .. } => line.decode(bytes).map(|_| bytes.to_vec()),
            Checked::Raw => Raw.decode(bytes),
        }
    }
}
