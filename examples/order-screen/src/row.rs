//! Rows of the live tables: what the page reads, and the same for Redis.

use serde::{Deserialize, Serialize};
use serde_json::Value;
use tidemill::connectors::redis::RedisCommand;

/// The live tables, in the order of the page.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum Table {
    /// `orders.total`.
    Total,
    /// `orders.minute`.
    Minute,
    /// `orders.category`.
    Category,
    /// `orders.brand`.
    Brand,
    /// `orders.user`.
    User,
    /// `orders.gender`.
    Gender,
    /// `orders.gender_10min`.
    GenderWindow,
    /// `orders.province`.
    Province,
}

impl Table {
    /// All tables.
    pub const ALL: [Table; 8] = [
        Table::Total,
        Table::Minute,
        Table::Category,
        Table::Brand,
        Table::User,
        Table::Gender,
        Table::GenderWindow,
        Table::Province,
    ];

    /// The table's name in the server.
    pub fn name(self) -> &'static str {
        match self {
            Table::Total => "orders.total",
            Table::Minute => "orders.minute",
            Table::Category => "orders.category",
            Table::Brand => "orders.brand",
            Table::User => "orders.user",
            Table::Gender => "orders.gender",
            Table::GenderWindow => "orders.gender_10min",
            Table::Province => "orders.province",
        }
    }
}

/// A row as it is now. The value is JSON text: rows travel and are kept as it is written.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Row {
    /// The table.
    pub table: Table,
    /// The row's key.
    pub key: String,
    /// The row's value; `None` deletes it.
    pub json: Option<String>,
    /// In the ranking: the user who stood in this row and stands in none any more.
    pub left: Option<String>,
}

impl Row {
    /// A row with a value.
    pub fn new(table: Table, key: String, value: &Value) -> Self {
        Row { table, key, json: Some(value.to_string()), left: None }
    }

    /// The value, to be handed to the server.
    pub fn value(&self) -> Option<Value> {
        self.json.as_ref().and_then(|json| serde_json::from_str(json).ok())
    }

    /// The same row in Redis: a string for the total, a sorted set for the ranking, hashes for the rest.
    pub fn redis(&self, ttl_ms: Option<u64>) -> Vec<RedisCommand> {
        let name = self.table.name().replace('.', ":");
        let (front, field) = self.key.split_once('/').unwrap_or(("all", &self.key));
        let value = |json: &String| json.clone().into_bytes();
        match (self.table, &self.json) {
            (Table::Total, Some(json)) => {
                vec![RedisCommand::Set { key: format!("{name}:{}", self.key), value: value(json), ttl_ms }]
            }
            (Table::Total, None) => vec![RedisCommand::Delete { key: format!("{name}:{}", self.key) }],
            (Table::User, _) => {
                let key = format!("{name}:{front}");
                let remove = self
                    .left
                    .iter()
                    .map(|member| RedisCommand::SortedSetRemove { key: key.clone(), member: member.clone() });
                let add = self.value().map(|row| {
                    let member = row["user_id"].as_str().unwrap_or_default().to_string();
                    // Exact up to 2^53 fen; the exact amount stands in the live table.
                    let score = row["fen"].as_i64().unwrap_or(0) as f64;
                    RedisCommand::SortedSetAdd { key: key.clone(), member, score, ttl_ms }
                });
                remove.chain(add).collect()
            }
            (_, Some(json)) => {
                vec![RedisCommand::HashSet {
                    key: format!("{name}:{front}"),
                    field: field.to_string(),
                    value: value(json),
                    ttl_ms,
                }]
            }
            (_, None) => vec![RedisCommand::HashDelete { key: format!("{name}:{front}"), field: field.to_string() }],
        }
    }
}
