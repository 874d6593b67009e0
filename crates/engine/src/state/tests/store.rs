//! A store compared with a map, by random writes, looks for single keys, and looks at a moment that are read to their end
//! while writing goes on.

use std::collections::BTreeMap;

use super::*;
use crate::key::KEY_GROUPS;
use crate::state::disk::tests::scratch;
use crate::state::table::tests::Random;

const KEYS: u64 = 3_000;

type Reference = BTreeMap<Vec<u8>, Vec<u8>>;

fn key(random: &mut Random) -> Vec<u8> {
    let mut stored = Vec::new();
    put_group(random.below(KEY_GROUPS), &mut stored);
    // Of several lengths, so that some begin like others.
    let text = format!("{:x}", random.below(KEYS) * 0x1_0001_0001);
    stored.extend_from_slice(&text.as_bytes()[..text.len().min(1 + random.below(12) as usize)]);
    stored
}

fn value(random: &mut Random) -> Vec<u8> {
    let mut stored = i64::MAX.to_le_bytes().to_vec();
    stored.resize(LAPSE_BYTES + random.below(40) as usize, random.below(256) as u8);
    stored
}

fn content(entries: Entries) -> Vec<(Vec<u8>, Vec<u8>)> {
    entries.map(|entry| entry.map(|(key, value)| (key.to_vec(), value.to_vec())).unwrap()).collect()
}

fn expected(reference: &Reference, from: &[u8], to: Option<&[u8]>) -> Vec<(Vec<u8>, Vec<u8>)> {
    let before_end = |key: &[u8]| to.is_none_or(|to| key < to);
    let range = reference.iter().filter(|(key, _)| key.as_slice() >= from && before_end(key));
    range.map(|(key, value)| (key.clone(), value.clone())).collect()
}

#[test]
fn a_store_holds_what_a_map_holds_and_shows_it_as_it_was_at_a_moment() {
    for seed in 1..=6 {
        println!("seed {seed}");
        let mut random = Random(seed);
        let folder = scratch();
        let memory = [1024, 8 * 1024, 4 * 1024 * 1024][(seed % 3) as usize];
        let home = DiskHome::with(folder.path().join("scratch"), memory, 512).unwrap();
        let mut store = Store::new(&home, 0, None).unwrap();
        let (mut reference, mut looks) = (Reference::new(), Vec::new());
        for step in 0..10_000 {
            let (key, what) = (key(&mut random), format!("seed {seed}, step {step}"));
            match random.below(1_000) {
                0..=599 => {
                    let value = value(&mut random);
                    store.put(&key, &value).unwrap();
                    reference.insert(key, value);
                }
                600..=749 => {
                    store.remove(&key).unwrap();
                    reference.remove(&key);
                }
                750..=995 => {
                    let held = store.get(&key, |value| Ok(value.to_vec())).unwrap();
                    assert_eq!(held.as_ref(), reference.get(&key), "{what}");
                }
                996 => {
                    let to = [None, Some(self::key(&mut random))][random.below(2) as usize].take();
                    let shown = content(store.range(key.clone(), to.clone()));
                    assert_eq!(shown, expected(&reference, &key, to.as_deref()), "{what}");
                }
                997 => {
                    store.seal_for_copy().unwrap();
                    looks.push((store.range(key.clone(), None), expected(&reference, &key, None), what));
                }
                998 => {
                    if let Some((look, then, what)) = looks.pop() {
                        assert_eq!(content(look), then, "{what}, read at step {step}");
                    }
                }
                _ => assert!(store.buffer.memory() <= home.buffer_share() + KEY_BYTES_MAX, "{what}"),
            }
        }
        for (look, then, what) in looks {
            assert_eq!(content(look), then, "{what}, read at the end");
        }
        assert_eq!(content(store.range(Vec::new(), None)), expected(&reference, &[], None), "seed {seed}");
    }
}

#[test]
fn a_key_that_is_too_long_is_refused() {
    let folder = scratch();
    let home = DiskHome::tiny(folder.path().join("scratch")).unwrap();
    let mut store = Store::new(&home, 0, None).unwrap();
    let refused = store.put(&vec![1; KEY_BYTES_MAX + 1], b"value").unwrap_err().to_string();
    assert!(refused.contains("a key of state is 65536 bytes long, at most 65535 go"), "{refused}");
    store.put(&vec![1; KEY_BYTES_MAX], b"value").unwrap();
    assert_eq!(content(store.range(Vec::new(), None)).len(), 1);
}
