//! The checkpoint protocol in one thread: sources, tasks, checkpoint writers, coordinator, control links and sinks make
//! their steps in an order chosen by a seed, on a disk in memory that fails and tears writes, and the machine is lost at any
//! of its effects. Whatever happens, what was published in the end is what a naive reference computes, and the invariants of
//! `world` hold at every step. See docs/adr/0017-simulated-checkpoints.md.
//!
//! | module | holds |
//! |---|---|
//! | `run` | one run of a seed: its actors and their steps |
//! | `network` | what stands in for timely: channels and frontiers |
//! | `world` | disk and publishing, faults and losses, the invariants |
//! | `job` | the jobs that run, and what they must publish |
//!
//! `make simulate SEEDS=100000` runs more seeds; `TIDEMILL_SEED=7` repeats one and tells its story.

mod chance;
mod job;
pub(crate) mod network;
mod run;
mod world;

use chance::Chance;
use run::{Moment, run};
use world::Loss;

/// Seeds of a run in CI.
const SEEDS: u64 = 200;

/// For so many of them the machine is lost at every effect there is, in a run of its own.
const WHOLE_SEEDS: u64 = 12;

/// So many lines of a story are told unless its seed is asked for.
const STORY_LINES: usize = 150;

fn number(name: &str) -> Option<u64> {
    std::env::var(name).ok().filter(|text| !text.is_empty()).map(|text| text.parse().unwrap())
}

/// The first `usual` seeds, or as many as are asked for in its proportion, or the one that is asked for.
fn seeds(usual: u64) -> std::ops::Range<u64> {
    match (number("TIDEMILL_SEED"), number("TIDEMILL_SIMULATE_SEEDS")) {
        (Some(seed), _) => seed..seed + 1,
        (None, wanted) => 0..wanted.map_or(usual, |wanted| (wanted * usual).div_ceil(SEEDS)),
    }
}

/// Runs a seed with these losses; its effects, and the starts it took.
fn check(seed: u64, losses: &[Moment]) -> (usize, usize) {
    let outcome = run(seed, losses, false);
    if let Some(wrong) = outcome.wrong {
        let story = run(seed, losses, true).story;
        let lines: Vec<&str> = story.lines().collect();
        let from = if number("TIDEMILL_SEED").is_some() { 0 } else { lines.len().saturating_sub(STORY_LINES) };
        let story = lines[from..].join("\n");
        panic!("{story}\nseed {seed}, lost at {losses:?}: {wrong}\nTIDEMILL_SEED={seed} make simulate repeats it");
    }
    (outcome.effects, outcome.starts)
}

fn loss(chance: &mut Chance, effects: usize) -> Moment {
    (1 + chance.below(effects), if chance.once_in(2) { Loss::Power } else { Loss::Kill })
}

#[test]
fn in_whatever_order_steps_are_made_all_is_published_once_and_no_invariant_broken() {
    let (mut runs, mut starts, mut effects) = (0, 0, 0);
    for seed in seeds(SEEDS) {
        let mut chance = Chance::new(seed ^ 0x1055);
        let mut add = |(more_effects, more_starts): (usize, usize)| {
            (runs, starts, effects) = (runs + 1, starts + more_starts, effects + more_effects);
            more_effects
        };
        let whole = add(check(seed, &[]));
        let first = loss(&mut chance, whole);
        add(check(seed, &[first]));
        let first = loss(&mut chance, whole);
        let second = loss(&mut chance, 40);
        add(check(seed, &[first, second, loss(&mut chance, 10)]));
    }
    eprintln!("simulation: {runs} runs, {starts} starts, {effects} effects");
}

#[test]
fn at_every_effect_the_machine_may_be_lost() {
    let mut runs = 0;
    for seed in seeds(WHOLE_SEEDS) {
        let (effects, _) = check(seed, &[]);
        for at in 1..=effects + 1 {
            check(seed, &[(at, Loss::Kill)]);
            check(seed, &[(at, Loss::Power)]);
            runs += 2;
        }
    }
    eprintln!("simulation: lost at each of {runs} moments");
}

#[test]
fn a_run_can_be_repeated() {
    for seed in [3, 4, 5] {
        let losses = [(6, Loss::Power), (5, Loss::Kill)];
        let (one, other) = (run(seed, &losses, true), run(seed, &losses, true));
        assert!(one.story.lines().count() > 100 && one.starts > 1, "{}", one.story);
        assert_eq!(one.story, other.story, "seed {seed}");
    }
}
