//! Counts what a job left out, and keeps the first few to be shown at the end.

use std::sync::{Arc, Mutex, PoisonError};

use tidemill::prelude::*;

/// Counts texts and keeps the first ones. Clones count together.
#[derive(Debug, Clone, Default)]
pub struct Tally(Arc<Mutex<Counted>>);

#[derive(Debug, Default)]
struct Counted {
    count: u64,
    first: Vec<String>,
}

impl Tally {
    /// How many texts are kept.
    pub const KEPT_MAX: usize = 5;

    /// Counts the texts of a stream.
    pub fn count(&self, texts: &DataStream<String>) {
        let tally = self.clone();
        texts.map(move |text| tally.add(text)).name("Tally");
    }

    fn add(&self, text: String) {
        let mut counted = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        counted.count += 1;
        if counted.first.len() < Self::KEPT_MAX {
            counted.first.push(text);
        }
    }

    /// How many there were, and the first of them.
    pub fn counted(&self) -> (u64, Vec<String>) {
        let counted = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        (counted.count, counted.first.clone())
    }

    /// Tells on standard error what was counted, if anything: `3 lines were …:` and the first of them.
    pub fn tell(&self, what: &str) {
        let (count, first) = self.counted();
        if count > 0 {
            eprintln!("{count} {}{what}:", if count == 1 { "line " } else { "lines " });
            first.iter().for_each(|text| eprintln!("  {text}"));
            if count > first.len() as u64 {
                eprintln!("  …");
            }
        }
    }
}
