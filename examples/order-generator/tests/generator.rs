//! The generator as its users see it: the same bytes for the same seed, and each fault in about the share asked for.

use std::collections::{BTreeMap, BTreeSet};

use order_generator::generator::{OUT_OF_ORDERNESS_MS, key_of};
use order_generator::time::{MINUTE_MS, parse_local};
use order_generator::{Fraction, GeneratedEvent, GeneratorConfig, Group, Note, OrderGenerator};

fn events(config: GeneratorConfig, count: usize) -> Vec<GeneratedEvent> {
    OrderGenerator::new(config).take(count).collect()
}

fn faulty() -> GeneratorConfig {
    GeneratorConfig { rate: 200, bad: Fraction::per_million(10_000), ..GeneratorConfig::default() }
}

#[test]
fn the_same_seed_gives_the_same_bytes_and_another_seed_others() {
    assert_eq!(events(faulty(), 20_000), events(faulty(), 20_000));
    assert_ne!(events(faulty(), 100), events(GeneratorConfig { seed: 2, ..faulty() }, 100));
}

#[test]
fn the_bytes_of_seed_one_never_change() {
    // FNV-1a over the first ten thousand events: figures and golden files of others rest on them.
    let all = events(faulty(), 10_000);
    let bytes = all.iter().flat_map(|event| &event.json);
    let hash =
        bytes.fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| (hash ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3));
    assert_eq!(format!("{hash:016x}"), "9bc6e9ca95b3a3c1");
}

#[test]
fn the_note_says_what_an_event_is() {
    let mut seen: BTreeMap<Vec<u8>, usize> = BTreeMap::new();
    let mut states = BTreeSet::new();
    let mut greatest_ms = i64::MIN;
    let mut arrival_ms = i64::MIN;
    for (index, event) in events(faulty(), 200_000).iter().enumerate() {
        let info = event.info;
        assert_eq!(info.arrival_order, index as u64);
        assert!(info.arrival_ms >= arrival_ms);
        arrival_ms = info.arrival_ms;
        let order = match event.order() {
            Ok(order) => order,
            Err(reason) => {
                assert!(matches!(info.note, Note::Bad(_)), "{:?}: {reason}", info.note);
                continue;
            }
        };
        assert_eq!(order.order_time_series, info.event_time_ms);
        assert_eq!(key_of(&event.json), Some(order.order_id.as_bytes()));
        let again = seen.insert(event.json.clone(), index).is_some();
        assert_eq!(again, info.note == Note::Duplicate);
        assert_eq!(states.insert((order.order_id.clone(), order.status)), !again);
        match info.note {
            Note::Late => assert!(info.event_time_ms + MINUTE_MS < greatest_ms),
            Note::Fresh | Note::StatusChange => {
                assert!(greatest_ms <= info.event_time_ms + OUT_OF_ORDERNESS_MS);
                assert_eq!(info.note == Note::Fresh, order.status.group() == Group::Unpaid);
            }
            Note::Duplicate | Note::Bad(_) => {}
        }
        greatest_ms = greatest_ms.max(info.event_time_ms);
    }
}

#[test]
fn every_share_is_about_what_was_asked_for() {
    let all = events(faulty(), 200_000);
    let share =
        |wanted: fn(&Note) -> bool| all.iter().filter(|event| wanted(&event.info.note)).count() * 1_000_000 / all.len();
    let near = |got: usize, wanted: usize| assert!(got * 4 > wanted * 3 && got * 3 < wanted * 4, "{got} for {wanted}");
    near(share(|note| *note == Note::Duplicate), 2_000);
    near(share(|note| *note == Note::Late), 500);
    near(share(|note| matches!(note, Note::Bad(_))), 10_000);
    let mut greatest_ms = i64::MIN;
    let mut overtaken = 0;
    for event in all.iter().filter(|event| matches!(event.info.note, Note::Fresh | Note::StatusChange)) {
        overtaken += usize::from(event.info.event_time_ms < greatest_ms);
        greatest_ms = greatest_ms.max(event.info.event_time_ms);
    }
    near(overtaken * 1_000_000 / all.len(), 50_000);
}

#[test]
fn without_faults_everything_is_in_order_and_new() {
    let none = Fraction::NONE;
    let config = GeneratorConfig { duplicates: none, out_of_order: none, late: none, ..GeneratorConfig::default() };
    let mut before_ms = i64::MIN;
    for event in events(config, 50_000) {
        assert!(matches!(event.info.note, Note::Fresh | Note::StatusChange));
        assert!(event.info.event_time_ms >= before_ms);
        before_ms = event.info.event_time_ms;
    }
}

#[test]
fn the_rate_is_that_of_the_hour_from_the_first_minute_on() {
    let per_minute = |start: &str, rate: u32, speed: u32, curve: bool, from: i64, to: i64| {
        let start_ms = parse_local(start).unwrap();
        let config = GeneratorConfig { start_ms, rate, speed, curve, ..GeneratorConfig::default() };
        OrderGenerator::new(config)
            .map(|event| event.info.arrival_ms - start_ms)
            .skip_while(|after_ms| *after_ms < from * MINUTE_MS)
            .take_while(|after_ms| *after_ms < to * MINUTE_MS)
            .count() as i64
            / (to - from)
    };
    let near = |got: i64, wanted: i64| assert!(got * 20 > wanted * 19 && got * 20 < wanted * 21, "{got} for {wanted}");
    for (from, to) in [(0, 2), (2, 10), (10, 30), (60, 90)] {
        near(per_minute("2026-11-20 02:00:00", 50, 1, false, from, to), 3000);
    }
    near(per_minute("2026-11-20 02:00:00", 500, 10, false, 0, 10), 3000);
    // At the evening's peak, and in the quietest hour when many orders of the evening are still on their way.
    near(per_minute("2026-11-20 19:55:00", 50, 1, true, 0, 10), 2990);
    near(per_minute("2026-11-20 00:00:00", 50, 1, true, 239, 241), 135);
}

#[test]
fn a_high_rate_keeps_the_waiting_orders_few_by_making_haste() {
    let config = GeneratorConfig { rate: 1_000_000, curve: false, ..GeneratorConfig::default() };
    let mut generator = OrderGenerator::new(config);
    let mut bytes = Vec::new();
    let paid = (0..600_000)
        .filter(|_| {
            bytes.clear();
            generator.write_next(&mut bytes).note == Note::StatusChange
        })
        .count();
    assert!(paid > 50_000, "{paid} status changes");
    assert!(generator.waiting() < 600_000, "{} events wait", generator.waiting());
}
