//! Pushes changes of live tables to subscribers. Everybody who asks for the same (tables, prefixes, rate) shares one
//! feed: its frames are rendered once and handed to all, so two hundred browsers cost little more than one.
//!
//! A feed sends a change at once when the last frame is long enough ago, and else collects until it is (newest value
//! per key). A subscriber too slow for its bounded queue loses frames, notices, and catches up from the tables.

use std::fmt::Write;
use std::sync::{Arc, PoisonError};
use std::time::Duration;

use axum::body::Bytes;
use tokio::sync::{broadcast, mpsc};
use tokio::time::Instant;

use super::hub::{Live, TableChange};

/// Frames a slow subscriber may be behind before it catches up from the tables.
const FRAMES_BEHIND_MAX: usize = 64;
/// Parts handed to a connection ahead of its socket.
const PARTS_AHEAD_MAX: usize = 4;
/// An event of more bytes than this is cut into several.
const EVENT_BYTES_MAX: usize = 512 << 10;
/// How often a subscriber hears that the server is there.
const HEARTBEAT: Duration = Duration::from_secs(5);

/// What a subscriber wants.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Subscription {
    /// Tables, each with the prefix its keys must have.
    pub tables: Vec<(String, String)>,
    /// Frames a second at most; 0: as many as come.
    pub fps: u32,
}

/// One rendered frame.
struct Frame {
    /// Whoever has seen this version has seen the frame.
    version: u64,
    bytes: Bytes,
}

/// A running feed. It ends when the last subscriber lets go of it.
pub struct Feed {
    frames: broadcast::Sender<Arc<Frame>>,
    task: tokio::task::AbortHandle,
}

impl Drop for Feed {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// Subscribes: parts of the event stream, beginning with what changed since `since` (or with snapshots), without end.
pub fn subscribe(live: &Arc<Live>, subscription: Subscription, since: Option<u64>) -> mpsc::Receiver<Bytes> {
    let (feed, frames) = join(live, &subscription);
    let (sender, receiver) = mpsc::channel(PARTS_AHEAD_MAX);
    let live = live.clone();
    tokio::spawn(async move {
        // A closed channel means that the client has gone, which ends the task and is no error.
        let _ = follow(&live, &subscription, since, frames, &sender).await;
        drop(feed);
    });
    receiver
}

/// The feed for this subscription, and its frames from now on.
fn join(live: &Arc<Live>, subscription: &Subscription) -> (Arc<Feed>, broadcast::Receiver<Arc<Frame>>) {
    let mut feeds = live.feeds.lock().unwrap_or_else(PoisonError::into_inner);
    feeds.retain(|_, feed| feed.strong_count() > 0);
    if let Some(feed) = feeds.get(subscription).and_then(std::sync::Weak::upgrade) {
        let frames = feed.frames.subscribe();
        return (feed, frames);
    }
    let (sender, frames) = broadcast::channel(FRAMES_BEHIND_MAX);
    let task = tokio::spawn(produce(live.clone(), subscription.clone(), live.version(), sender.clone())).abort_handle();
    let feed = Arc::new(Feed { frames: sender, task });
    feeds.insert(subscription.clone(), Arc::downgrade(&feed));
    (feed, frames)
}

/// The feed's task: renders what changed after `seen`, again and again.
async fn produce(live: Arc<Live>, subscription: Subscription, mut seen: u64, frames: broadcast::Sender<Arc<Frame>>) {
    let pause = match subscription.fps {
        0 => Duration::ZERO,
        fps => Duration::from_secs(1) / fps,
    };
    let mut changes = live.version.subscribe();
    let mut due = Instant::now();
    loop {
        if changes.wait_for(|version| *version > seen).await.is_err() {
            return;
        }
        tokio::time::sleep_until(due).await;
        let (version, told) = live.changes(&subscription, Some(seen));
        seen = version;
        if told.is_empty() {
            continue;
        }
        due = Instant::now() + pause;
        let bytes = render(&live.boot, version, &told);
        // Nobody there just now: the next subscriber begins with a snapshot.
        let _ = frames.send(Arc::new(Frame { version, bytes }));
    }
}

async fn follow(
    live: &Live,
    subscription: &Subscription,
    since: Option<u64>,
    mut frames: broadcast::Receiver<Arc<Frame>>,
    sender: &mpsc::Sender<Bytes>,
) -> Result<(), mpsc::error::SendError<Bytes>> {
    let (mut seen, told) = live.changes(subscription, since);
    sender.send(render(&live.boot, seen, &told)).await?;
    let mut heartbeat = tokio::time::interval(HEARTBEAT);
    heartbeat.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        tokio::select! {
            frame = frames.recv() => match frame {
                Ok(frame) if frame.version > seen => {
                    sender.send(frame.bytes.clone()).await?;
                    seen = frame.version;
                }
                Ok(_) => {}
                Err(broadcast::error::RecvError::Lagged(_)) => {
                    let (version, told) = live.changes(subscription, Some(seen));
                    seen = version;
                    if !told.is_empty() {
                        sender.send(render(&live.boot, version, &told)).await?;
                    }
                }
                Err(broadcast::error::RecvError::Closed) => return Ok(()),
            },
            _ = heartbeat.tick() => {
                let beat = format!("event: heartbeat\ndata: {{\"version\":{seen}}}\n\n");
                sender.send(beat.into()).await?;
            }
            () = sender.closed() => return Ok(()),
        }
    }
}

/// Events for these changes. Only the last one carries the id: a client that got part of them asks again from before.
fn render(boot: &str, version: u64, told: &[TableChange]) -> Bytes {
    let mut text = String::new();
    let mut last_event = 0;
    for change in told {
        let mut rows = change.rows.iter().peekable();
        let mut first = true;
        while first || rows.peek().is_some() {
            last_event = text.len();
            let event = if change.snapshot && first { "snapshot" } else { "delta" };
            first = false;
            // Writing to a `String` cannot fail.
            let _ = write!(
                text,
                "event: {event}\ndata: {{\"table\":{},\"version\":{version},\"rows\":[",
                quoted(&change.table)
            );
            let begun = text.len();
            while let Some((key, value)) = rows.next_if(|_| text.len() - begun < EVENT_BYTES_MAX) {
                if text.len() > begun {
                    text.push(',');
                }
                let _ = write!(text, "{{\"key\":{},\"value\":{}}}", quoted(key), value.as_deref().unwrap_or("null"));
            }
            text.push_str("]}\n\n");
        }
    }
    if !text.is_empty() {
        text.insert_str(last_event, &format!("id: {boot}.{version}\n"));
    }
    text.into()
}

/// Text as JSON.
fn quoted(text: &str) -> String {
    serde_json::Value::from(text).to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn change(table: &str, snapshot: bool, rows: &[(&str, Option<&str>)]) -> TableChange {
        let rows = rows.iter().map(|(key, value)| ((*key).into(), value.map(Into::into))).collect();
        TableChange { table: table.into(), snapshot, rows }
    }

    #[test]
    fn only_the_last_event_of_a_frame_carries_the_id() {
        let told = [change("a", true, &[]), change("b", false, &[("k\"", Some("{\"n\":1}")), ("l", None)])];
        let expected = "event: snapshot\ndata: {\"table\":\"a\",\"version\":7,\"rows\":[]}\n\n\
            id: B.7\nevent: delta\ndata: {\"table\":\"b\",\"version\":7,\"rows\":[{\"key\":\"k\\\"\",\"value\":{\"n\":1}},{\"key\":\"l\",\"value\":null}]}\n\n";
        assert_eq!(render("B", 7, &told), expected);
        assert_eq!(render("B", 7, &[]), "");
    }

    #[test]
    fn a_large_snapshot_comes_in_parts() {
        let value = format!("\"{}\"", "x".repeat(EVENT_BYTES_MAX / 2));
        let rows: Vec<(&str, Option<&str>)> = ["a", "b", "c"].map(|key| (key, Some(value.as_str()))).to_vec();
        let text = String::from_utf8(render("B", 1, &[change("t", true, &rows)]).to_vec()).unwrap();
        let events: Vec<&str> =
            text.lines().filter(|line| line.starts_with("event") || line.starts_with("id")).collect();
        assert_eq!(events, ["event: snapshot", "id: B.1", "event: delta"]);
    }
}
