//! Kafka's two ends of a pipeline, by their options.

use std::path::Path;

use tidemill_connectors::format::Raw;
use tidemill_connectors::kafka::{
    KafkaCompression, KafkaDelivery, KafkaOffsets, KafkaReset, KafkaSecurity, KafkaSink, KafkaSource, KafkaStart,
    KafkaStop, Values,
};
use tidemill_core::{Error, Result};

use super::Taken;
use super::records::{Checked, Record};

/// What is read, and from where to where.
pub(super) fn source(format: Checked, folder: &Path, options: &mut Taken<'_>) -> Result<KafkaSource<Values<Checked>>> {
    let source = KafkaSource::values(options.required("servers")?, format);
    let mut source = match (options.optional("topic"), options.optional("topic_pattern")) {
        (Some(topics), None) => source.topics(topics.split(',').map(str::trim)),
        (None, Some(pattern)) => source.topic_pattern(&pattern)?,
        _ => return Err(Error::input("[source] `kafka` needs either `topic` or `topic_pattern`")),
    };
    if let Some(group) = options.optional("group") {
        source = source.group_id(group);
    }
    let offsets = options.optional("offsets").map(|text| offsets(&text)).transpose()?;
    let start = match (options.optional("start").as_deref(), offsets) {
        (None | Some("offsets"), Some(offsets)) => KafkaStart::Offsets(offsets, KafkaReset::Earliest),
        (Some("offsets"), None) => {
            return Err(Error::input("[source] `kafka`: `start` is offsets, and none are given")
                .hint("give `offsets = \"orders/0:42, orders/1:17\"`: topic, partition and the first offset to read"));
        }
        (_, Some(_)) => return Err(Error::input("[source] `kafka`: `offsets` go with `start = \"offsets\"`")),
        (None | Some("earliest"), None) => KafkaStart::Earliest,
        (Some("latest"), None) => KafkaStart::Latest,
        (Some("group"), None) => KafkaStart::GroupOffsets(KafkaReset::Earliest),
        (Some(at), None) => KafkaStart::Timestamp(at.parse().map_err(|_| {
            Error::input(format!("[source] `kafka`: `start` cannot be `{at}`"))
                .hint("take earliest, latest, group, offsets or a timestamp in epoch ms")
        })?),
    };
    source = source.start(start).security(security("source", folder, options)?);
    Ok(if options.parsed("bounded", false)? { source.bounded(KafkaStop::Latest) } else { source })
}

/// `topic/partition:offset`, with commas between.
fn offsets(text: &str) -> Result<KafkaOffsets> {
    let one = |part: &str| {
        let (partition, offset) = part.trim().rsplit_once(':')?;
        let (topic, partition) = partition.rsplit_once('/')?;
        Some(((topic.to_string(), partition.parse().ok()?), offset.parse().ok()?))
    };
    text.split(',')
        .map(|part| {
            one(part).ok_or_else(|| {
                Error::input(format!("[source] `kafka`: `{}` is no offset to start at", part.trim()))
                    .hint("write topic, partition and offset, as `orders/0:42`")
            })
        })
        .collect()
}

/// Where records go, and what is promised.
pub(super) fn sink(format: &Checked, folder: &Path, options: &mut Taken<'_>) -> Result<KafkaSink<Record, Raw>> {
    let mut sink = KafkaSink::new(options.required("servers")?, options.required("topic")?, Raw)
        .security(security("sink", folder, options)?);
    if let Some(prefix) = options.optional("transactional_id_prefix") {
        sink = sink.transactional_id_prefix(prefix);
    }
    if let Some(field) = options.optional("key") {
        sink = sink.key(format.key(field)?);
    }
    sink = sink.transaction_timeout_ms(options.parsed("transaction_timeout_ms", 15 * 60_000)?);
    let compression = match options.optional("compression").as_deref() {
        None | Some("none") => KafkaCompression::None,
        Some("gzip") => KafkaCompression::Gzip,
        Some("snappy") => KafkaCompression::Snappy,
        Some("lz4") => KafkaCompression::Lz4,
        Some("zstd") => KafkaCompression::Zstd,
        Some(other) => {
            return Err(Error::input(format!("[sink] `kafka`: `compression` cannot be `{other}`"))
                .hint("take none, gzip, snappy, lz4 or zstd"));
        }
    };
    let delivery = match options.optional("delivery").as_deref() {
        None | Some("exactly-once") => KafkaDelivery::ExactlyOnce,
        Some("at-least-once") => KafkaDelivery::AtLeastOnce,
        Some("none") => KafkaDelivery::None,
        Some(other) => {
            return Err(Error::input(format!("[sink] `kafka`: `delivery` cannot be `{other}`"))
                .hint("take exactly-once, at-least-once or none"));
        }
    };
    Ok(sink.compression(compression).delivery(delivery))
}

fn security(part: &str, folder: &Path, options: &mut Taken<'_>) -> Result<KafkaSecurity> {
    KafkaSecurity::from_options(folder, |name| options.optional(name))
        .map_err(|error| error.context(format!("[{part}] `kafka`")))
}
