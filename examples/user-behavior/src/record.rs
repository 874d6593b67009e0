//! The lines of the logs as the jobs need them: what no job looks at is checked and left out.

use serde::{Deserialize, Serialize};
use tidemill::core::format::Decode;

use crate::reference::{is_static, parse_access};

/// A line of `user_behavior.csv`: user, item, category, behaviour, seconds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Action {
    /// Who.
    pub user: u64,
    /// On which item.
    pub item: u64,
    /// Whether the item was looked at; else it was bought, put into the cart or marked.
    pub is_view: bool,
    /// When, epoch ms.
    pub time_ms: i64,
}

/// Reads lines of `user_behavior.csv`.
#[derive(Debug, Clone, Copy, Default)]
pub struct ActionLine;

impl Decode for ActionLine {
    type Value = Action;

    fn decode(&mut self, bytes: &[u8]) -> Result<Action, String> {
        let text = std::str::from_utf8(bytes).map_err(|_| "not UTF-8".to_string())?;
        let mut columns = text.split(',');
        let mut column = |name: &'static str| columns.next().ok_or(format!("column `{name}` is missing"));
        let user = number(column("user")?, "user")?;
        let item = number(column("item")?, "item")?;
        number::<u64>(column("category")?, "category")?;
        let is_view = match column("behavior")? {
            "pv" => true,
            "buy" | "cart" | "fav" => false,
            other => return Err(format!("column `behavior`: `{other}` is none of pv, buy, cart, fav")),
        };
        let seconds: i64 = number(column("seconds")?, "seconds")?;
        let time_ms = seconds.checked_mul(1000).ok_or("column `seconds`: beyond all time")?;
        match columns.next() {
            None => Ok(Action { user, item, is_view, time_ms }),
            Some(_) => Err("more than 5 columns".to_string()),
        }
    }
}

fn number<N: std::str::FromStr>(text: &str, column: &str) -> Result<N, String> {
    text.parse().map_err(|_| format!("column `{column}`: `{text}` is no whole number in range"))
}

/// A line of `web_access.log`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Request {
    /// The path with its query.
    pub path: String,
    /// Whether a page was asked for: by `GET`, and no static file.
    pub is_page: bool,
    /// When, epoch ms.
    pub time_ms: i64,
}

/// Reads lines of `web_access.log`.
#[derive(Debug, Clone, Copy, Default)]
pub struct RequestLine;

impl Decode for RequestLine {
    type Value = Request;

    fn decode(&mut self, bytes: &[u8]) -> Result<Request, String> {
        let text = std::str::from_utf8(bytes).map_err(|_| "not UTF-8".to_string())?;
        let access = parse_access(text).ok_or("not `address - user dd/MM/yyyy:HH:mm:ss +0000 method path`")?;
        let is_page = access.method == "GET" && !is_static(&access.path);
        Ok(Request { path: access.path, is_page, time_ms: access.time_ms })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_is_read_or_its_column_is_named() {
        let read = |line: &str| ActionLine.decode(line.as_bytes());
        assert_eq!(
            read("7,42,3,pv,1511658000"),
            Ok(Action { user: 7, item: 42, is_view: true, time_ms: 1_511_658_000_000 })
        );
        assert_eq!(read("7,42,3,buy,0").map(|action| action.is_view), Ok(false));
        for (line, reason) in [
            ("", "`user`"),
            ("7,42,3,pv", "`seconds` is missing"),
            ("7,x,3,pv,1", "`item`: `x`"),
            ("7,42,3,look,1", "`look`"),
            ("7,42,3,pv,1,2", "more than 5"),
            ("7,42,3,pv,9223372036854775807", "beyond all time"),
        ] {
            let told = read(line).unwrap_err();
            assert!(told.contains(reason), "{line}: {told}");
        }
    }

    #[test]
    fn pages_are_gets_of_no_static_file() {
        let page = |method: &str, path: &str| {
            let line = format!("1.2.3.4 - - 17/05/2015:10:05:03 +0000 {method} {path}");
            RequestLine.decode(line.as_bytes()).map(|request| (request.is_page, request.time_ms))
        };
        assert_eq!(page("GET", "/"), Ok((true, 1_431_857_103_000)));
        assert_eq!(page("POST", "/"), Ok((false, 1_431_857_103_000)));
        assert_eq!(page("GET", "/a.css?v=1"), Ok((false, 1_431_857_103_000)));
        assert!(page("GET", "/a b").is_err());
    }
}
