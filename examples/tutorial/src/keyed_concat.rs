//! Joins the texts of each key, in the order they come, and tells the whole with each of them.

use tidemill::prelude::*;

/// Key and text.
pub type Text = (String, String);

/// For each text all of its key so far.
pub fn build(_env: &Environment, texts: DataStream<Text>) -> DataStream<Text> {
    texts.key_by(|(key, _)| key.clone()).reduce(|(_, so_far), (_, text)| so_far.push_str(&text))
}
