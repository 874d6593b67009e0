//! What we write and read against postcard, for random values of all shapes serde knows.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet, VecDeque};

use serde::{Deserialize, Serialize, Serializer};

use super::encode;
use crate::state::decode::{decode, decode_only};
use crate::state::table::tests::Random;

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
struct Named {
    text: String,
    number: i64,
    parts: Vec<Shape>,
    bytes: Vec<u8>,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
struct Wrapped(Vec<u8>);

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
struct Nothing;

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
struct Pair(u16, Box<[u8]>);

/// Serialises as a byte, and is none.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
struct Level(u8);

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
enum Shape {
    Unit,
    Small(bool, i8, u8, u16, i16),
    Whole(u32, i32, u64, i64, u128, i128, usize, isize),
    Float(f32, f64),
    Char(char),
    Text(String),
    Bytes(Vec<u8>),
    Array([u8; 7], [u8; 0], [u64; 3]),
    Option(Option<Vec<u8>>, Option<()>, Option<Option<u8>>),
    Queue(VecDeque<u8>, BTreeSet<u8>, Vec<i8>, Vec<bool>, Vec<u16>),
    Levels(Vec<Level>, BTreeMap<Level, u8>),
    Nested(Vec<Vec<u8>>, Vec<(u8, Vec<u8>)>, BTreeMap<String, Vec<u8>>),
    Wrapped(Wrapped),
    Pair(Pair, Nothing, ()),
    Named(Box<Named>),
    Struct { a: u8, b: Vec<u8>, c: Box<Shape> },
}

fn number(random: &mut Random) -> u64 {
    // All lengths of a number are as likely.
    let bits = random.below(65);
    let value = (random.below(1 << 31) << 33) ^ (random.below(1 << 31) << 16) ^ random.below(1 << 31);
    if bits == 0 { 0 } else { value >> (64 - bits) }
}

fn bytes(random: &mut Random) -> Vec<u8> {
    let length = [0, 1, 5, 127, 128, 300, 20_000][random.below(7) as usize];
    (0..length).map(|_| random.below(256) as u8).collect()
}

fn text(random: &mut Random) -> String {
    (0..random.below(200)).filter_map(|_| char::from_u32(random.below(0x11_0000) as u32)).collect()
}

fn shape(random: &mut Random, depth: u32) -> Shape {
    let kinds = if depth == 0 { 14 } else { 16 };
    let mut n = |_: ()| number(random);
    match n(()) % kinds {
        0 => Shape::Unit,
        1 => Shape::Small(n(()) % 2 == 0, n(()) as i8, n(()) as u8, n(()) as u16, n(()) as i16),
        2 => {
            let wide = (u128::from(n(())) << 64) | u128::from(n(()));
            let (a, b) = (n(()) as u32, n(()) as i32);
            Shape::Whole(a, b, n(()), n(()) as i64, wide, !wide as i128, n(()) as usize, n(()) as isize)
        }
        3 => Shape::Float(f32::from_bits(n(()) as u32 & 0x7f7f_ffff), n(()) as f64),
        4 => Shape::Char(char::from_u32(random.below(0xd800) as u32).unwrap()),
        5 => Shape::Text(text(random)),
        6 => Shape::Bytes(bytes(random)),
        7 => Shape::Array([n(()) as u8; 7], [], [n(()); 3]),
        8 => {
            let some = n(()) % 2 == 0;
            Shape::Option(some.then(|| bytes(random)), (!some).then_some(()), Some(some.then_some(3)))
        }
        9 => {
            let mut queue: VecDeque<u8> = bytes(random).into();
            // In two pieces.
            queue.push_front(1);
            let signed = bytes(random).into_iter().map(|byte| byte as i8).collect();
            let words = bytes(random).into_iter().map(|byte| u16::from(byte) << 3).collect();
            let flags = bytes(random).into_iter().map(|byte| byte > 100).collect();
            Shape::Queue(queue, bytes(random).into_iter().collect(), signed, flags, words)
        }
        10 => {
            let levels: Vec<Level> = bytes(random).into_iter().map(Level).collect();
            Shape::Levels(levels.clone(), levels.into_iter().map(|level| (level, level.0)).collect())
        }
        11 => {
            let lists: Vec<Vec<u8>> = (0..random.below(5)).map(|_| bytes(random)).collect();
            let pairs = lists.iter().map(|list| (list.len() as u8, list.clone())).collect();
            let map = lists.iter().map(|list| (text(random), list.clone())).collect();
            Shape::Nested(lists, pairs, map)
        }
        12 => Shape::Wrapped(Wrapped(bytes(random))),
        13 => Shape::Pair(Pair(number(random) as u16, bytes(random).into()), Nothing, ()),
        14 => Shape::Named(Box::new(Named {
            text: text(random),
            number: number(random) as i64,
            parts: (0..random.below(4)).map(|_| shape(random, depth - 1)).collect(),
            bytes: bytes(random),
        })),
        _ => Shape::Struct { a: number(random) as u8, b: bytes(random), c: Box::new(shape(random, depth - 1)) },
    }
}

fn same<T: Serialize + ?Sized>(value: &T, told: &str) {
    let mut ours = vec![9];
    encode(value, &mut ours).unwrap();
    assert!(ours[1..] == postcard::to_allocvec(value).unwrap(), "{told}");
}

#[test]
fn the_bytes_are_those_of_postcard() {
    for seed in 0..4_000 {
        let mut random = Random(seed);
        let value = shape(&mut random, 3);
        same(&value, &format!("seed {seed}: {value:?}"));
        let mut bytes = Vec::new();
        encode(&(seed, &value, "end"), &mut bytes).unwrap();
        let (key, read, end): (u64, Shape, String) = postcard::from_bytes(&bytes).unwrap();
        assert_eq!((key, &read, end.as_str()), (seed, &value, "end"));
        bytes.push(7);
        let ((key, read, end), rest) = decode::<(u64, Shape, &str)>(&bytes).unwrap();
        assert_eq!((key, &read, end, rest), (seed, &value, "end", &[7][..]));
    }
}

/// Whatever the bytes are, what postcard reads is read alike, and nothing panics or claims memory that is not there.
#[test]
fn damaged_bytes_are_read_as_postcard_reads_them_or_refused() {
    let (mut read, mut refused) = (0, 0);
    for seed in 0..4_000 {
        let mut random = Random(seed);
        let mut bytes = Vec::new();
        encode(&shape(&mut random, 2), &mut bytes).unwrap();
        for _ in 0..=random.below(3) {
            let at = random.below(bytes.len() as u64) as usize;
            match random.below(3) {
                0 => bytes[at] = random.below(256) as u8,
                1 => bytes.truncate(at + 1),
                _ => bytes.insert(at, random.below(256) as u8),
            }
        }
        match (postcard::take_from_bytes::<Shape>(&bytes), decode::<Shape>(&bytes)) {
            (Ok((theirs, left)), Ok((ours, rest))) => {
                assert_eq!((format!("{theirs:?}"), left), (format!("{ours:?}"), rest), "seed {seed}");
                read += 1;
            }
            (Err(_), Err(_)) => refused += 1,
            // A number that is longer than it has to be.
            (Err(postcard::Error::DeserializeBadVarint), Ok(_)) => {}
            (theirs, ours) => panic!("seed {seed}: postcard says {theirs:?}, we say {ours:?}"),
        }
    }
    assert!(read > 500 && refused > 500, "{read} read, {refused} refused");
}

#[test]
fn numbers_of_every_length_are_written_and_read_at_any_distance_from_the_end() {
    for bits in 0..=64u32 {
        for value in [1u64.checked_shl(bits).map_or(u64::MAX, |bit| bit - 1), 1u64.checked_shl(bits).unwrap_or(1 << 63)]
        {
            same(&value, &format!("{value}"));
            let mut bytes = Vec::new();
            encode(&value, &mut bytes).unwrap();
            for behind in 0..10 {
                assert_eq!(decode(&bytes).unwrap(), (value, &vec![0xff; behind][..]), "{value} before {behind}");
                assert_eq!(decode_only::<u32>(&bytes).ok(), u32::try_from(value).ok());
                bytes.push(0xff);
            }
        }
    }
}

#[test]
fn so_are_those_of_edges_and_of_what_other_types_serialise_as() {
    for value in [i64::MIN, -1, 0, 1, 63, 64, -64, -65, i64::MAX] {
        same(&value, "i64");
        same(&(value as i32, value as i16, value as i8, value as u64, value as u128, i128::from(value)), "numbers");
    }
    same(&(u128::MAX, i128::MIN, f32::NAN, f64::INFINITY, char::MAX), "extremes");
    same("a text alone", "str");
    same(&[1u8, 2, 200][..], "slice");
    same(&[&1u8, &2, &200], "array of references");
    same(&vec![&1u8, &2], "vector of references");
    same(&vec![&&1u8], "vector of references to references");
    same(&HashSet::from([7u8]), "set");
    same(&HashMap::from([(7u8, vec![1u8])]), "map");
    same(&std::time::Duration::from_millis(1_234), "duration");
    same(&std::net::IpAddr::from([127, 0, 0, 1]), "address");
}

#[test]
fn what_cannot_be_written_leaves_no_bytes() {
    struct Unsized;
    impl Serialize for Unsized {
        fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
            serializer.collect_seq([1, 2, 3].iter().filter(|number| **number > 1))
        }
    }
    struct Refuses;
    impl Serialize for Refuses {
        fn serialize<S: Serializer>(&self, _: S) -> Result<S::Ok, S::Error> {
            Err(serde::ser::Error::custom("it is a secret"))
        }
    }
    let mut bytes = vec![1, 2];
    assert!(encode(&("before", Unsized), &mut bytes).unwrap_err().to_string().contains("its length"));
    assert_eq!(encode(&("before", Refuses), &mut bytes).unwrap_err().to_string(), "it is a secret");
    assert_eq!(bytes, [1, 2]);
    assert!(postcard::to_allocvec(&Unsized).is_err());
}
