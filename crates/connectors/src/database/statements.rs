//! The SQL that is the same for all databases but for a few words.

use std::fmt::Write as _;

/// The words of a database's SQL.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Dialect {
    Postgres,
    MySql,
    Sqlite,
}

impl Dialect {
    /// A name of a column.
    pub(super) fn name(self, name: &str) -> String {
        match self {
            Dialect::MySql => format!("`{}`", name.replace('`', "``")),
            Dialect::Postgres | Dialect::Sqlite => format!("\"{}\"", name.replace('"', "\"\"")),
        }
    }

    /// A name of a table, which may stand in a schema: `schema.table`.
    pub(super) fn table(self, table: &str) -> String {
        table.split('.').map(|part| self.name(part)).collect::<Vec<_>>().join(".")
    }

    /// The parameter of this number, from 1.
    pub(super) fn parameter(self, number: usize) -> String {
        match self {
            Dialect::Postgres => format!("${number}"),
            Dialect::MySql | Dialect::Sqlite => "?".to_string(),
        }
    }

    /// The most parameters a statement can have.
    fn parameters_max(self) -> usize {
        match self {
            Dialect::Postgres | Dialect::MySql => 65_535,
            Dialect::Sqlite => 32_766,
        }
    }

    /// Begins a transaction.
    pub(super) fn begin(self) -> &'static str {
        match self {
            Dialect::Postgres => "BEGIN",
            Dialect::MySql => "START TRANSACTION",
            // Waits for its turn at once, not in the middle.
            Dialect::Sqlite => "BEGIN IMMEDIATE",
        }
    }

    /// How many of `rows` rows with so many columns one statement takes: a power of two, so that few different statements
    /// have to be prepared.
    pub(super) fn rows_at_once(self, rows: usize, columns: usize) -> usize {
        /// More make statements long and nothing faster.
        const ROWS_MAX: usize = 256;
        let most = rows.min(ROWS_MAX).min(self.parameters_max() / columns.max(1)).max(1);
        1 << most.ilog2()
    }

    /// `(?, ?), (?, ?)`, numbered from 1.
    fn tuples(self, rows: usize, columns: usize) -> String {
        let mut text = String::new();
        for row in 0..rows {
            text.push_str(if row == 0 { "(" } else { ", (" });
            for column in 0..columns {
                let comma = if column == 0 { "" } else { ", " };
                let _ = write!(text, "{comma}{}", self.parameter(row * columns + column + 1));
            }
            text.push(')');
        }
        text
    }

    /// Writes `rows` rows: new ones, or with a key those that have it. Parameters: the values, row by row.
    pub(super) fn insert(self, table: &str, columns: &[&str], key: &[String], rows: usize) -> String {
        let names: Vec<String> = columns.iter().map(|column| self.name(column)).collect();
        let (table, tuples) = (self.table(table), self.tuples(rows, columns.len()));
        let mut sql = format!("INSERT INTO {table} ({}) VALUES {tuples}", names.join(", "));
        if key.is_empty() {
            return sql;
        }
        let others: Vec<&String> = columns
            .iter()
            .zip(&names)
            .filter(|(column, _)| !key.iter().any(|key| key == *column))
            .map(|(_, n)| n)
            .collect();
        let keys: Vec<String> = key.iter().map(|key| self.name(key)).collect();
        let set = |new: &dyn Fn(&str) -> String, names: &[&String]| {
            names.iter().map(|name| format!("{name} = {}", new(name))).collect::<Vec<_>>().join(", ")
        };
        if self == Dialect::MySql {
            // A key alone is set to itself: there is nothing else to say of a row that is there.
            let names = if others.is_empty() { vec![&keys[0]] } else { others };
            let _ = write!(sql, " ON DUPLICATE KEY UPDATE {}", set(&|name| format!("VALUES({name})"), &names));
        } else if others.is_empty() {
            let _ = write!(sql, " ON CONFLICT ({}) DO NOTHING", keys.join(", "));
        } else {
            let new = set(&|name| format!("excluded.{name}"), &others);
            let _ = write!(sql, " ON CONFLICT ({}) DO UPDATE SET {new}", keys.join(", "));
        }
        sql
    }

    /// Deletes the rows that have one of `rows` keys. Parameters: the keys, each with its columns.
    pub(super) fn delete(self, table: &str, key: &[String], rows: usize) -> String {
        let mut sql = format!("DELETE FROM {} WHERE ", self.table(table));
        for row in 0..rows {
            sql.push_str(if row == 0 { "(" } else { " OR (" });
            for (column, name) in key.iter().enumerate() {
                let and = if column == 0 { "" } else { " AND " };
                let _ = write!(sql, "{and}{} = {}", self.name(name), self.parameter(row * key.len() + column + 1));
            }
            sql.push(')');
        }
        sql
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_database_has_its_words() {
        let key = ["id".to_string()];
        assert_eq!(
            Dialect::Postgres.insert("shop.orders", &["id", "fen"], &key, 2),
            r#"INSERT INTO "shop"."orders" ("id", "fen") VALUES ($1, $2), ($3, $4) ON CONFLICT ("id") DO UPDATE SET "fen" = excluded."fen""#
        );
        assert_eq!(
            Dialect::MySql.insert("orders", &["id", "fen"], &key, 1),
            "INSERT INTO `orders` (`id`, `fen`) VALUES (?, ?) ON DUPLICATE KEY UPDATE `fen` = VALUES(`fen`)"
        );
        assert_eq!(
            Dialect::MySql.insert("o`r", &["id"], &key, 1),
            "INSERT INTO `o``r` (`id`) VALUES (?) ON DUPLICATE KEY UPDATE `id` = VALUES(`id`)"
        );
        assert_eq!(
            Dialect::Sqlite.insert("orders", &["id"], &key, 1),
            r#"INSERT INTO "orders" ("id") VALUES (?) ON CONFLICT ("id") DO NOTHING"#
        );
        assert_eq!(Dialect::Sqlite.insert("orders", &["id"], &[], 2), r#"INSERT INTO "orders" ("id") VALUES (?), (?)"#);
        assert_eq!(
            Dialect::Postgres.delete("orders", &["a".into(), "b".into()], 2),
            r#"DELETE FROM "orders" WHERE ("a" = $1 AND "b" = $2) OR ("a" = $3 AND "b" = $4)"#
        );
    }

    #[test]
    fn statements_have_few_lengths_and_not_too_many_parameters() {
        assert_eq!(Dialect::Postgres.rows_at_once(1000, 3), 256);
        assert_eq!(Dialect::Postgres.rows_at_once(255, 3), 128);
        assert_eq!(Dialect::Sqlite.rows_at_once(1000, 300), 64);
        assert_eq!(Dialect::Sqlite.rows_at_once(1000, 40_000), 1);
        assert_eq!(Dialect::Sqlite.rows_at_once(1, 1), 1);
    }
}
