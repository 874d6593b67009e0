//! Restart strategies: whether a failed job is started again, and after how long. Pure: time and chance come in as
//! numbers, so that every sequence can be tested.

use std::collections::VecDeque;

use serde::{Deserialize, Serialize};
use tidemill_core::{Error, Result};
use utoipa::ToSchema;

/// What happens after a job's process has failed. Default: exponential delay without end, as in Flink.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
#[serde(tag = "strategy", rename_all = "kebab-case", deny_unknown_fields)]
pub enum RestartStrategy {
    /// Waits longer after each failure until the job has run well for a while.
    ExponentialDelay {
        /// First delay, ms; default 1000.
        #[serde(default = "default_initial_ms")]
        initial_ms: u64,
        /// Longest delay, ms; default 60000.
        #[serde(default = "default_max_ms")]
        max_ms: u64,
        /// Each delay is the last one times this; default 1.5, at least 1.
        #[serde(default = "default_multiplier")]
        multiplier: f64,
        /// Each delay is moved by up to this share of itself, either way; default 0.1, 0 to 1.
        #[serde(default = "default_jitter")]
        jitter: f64,
        /// After running this long without failure the delay starts anew, ms; default 1 h.
        #[serde(default = "default_reset_after_ms")]
        reset_after_ms: u64,
        /// How many restarts before the job is given up; default: without end.
        #[serde(default)]
        attempts: Option<u32>,
    },
    /// A number of restarts, each after the same delay.
    FixedDelay {
        /// How many restarts; default 1.
        #[serde(default = "default_fixed_attempts")]
        attempts: u32,
        /// Delay, ms; default 1000.
        #[serde(default = "default_delay_ms")]
        delay_ms: u64,
    },
    /// Restarts as long as failures are rare.
    FailureRate {
        /// More failures than this within the interval end the job; default 1.
        #[serde(default = "default_failures_max")]
        failures_max: u32,
        /// The interval, ms; default 60000.
        #[serde(default = "default_interval_ms")]
        interval_ms: u64,
        /// Delay, ms; default 1000.
        #[serde(default = "default_delay_ms")]
        delay_ms: u64,
    },
    /// The first failure ends the job.
    None {},
}

fn default_initial_ms() -> u64 {
    1_000
}
fn default_max_ms() -> u64 {
    60_000
}
fn default_multiplier() -> f64 {
    1.5
}
fn default_jitter() -> f64 {
    0.1
}
fn default_reset_after_ms() -> u64 {
    3_600_000
}
fn default_fixed_attempts() -> u32 {
    1
}
fn default_delay_ms() -> u64 {
    1_000
}
fn default_failures_max() -> u32 {
    1
}
fn default_interval_ms() -> u64 {
    60_000
}

impl Default for RestartStrategy {
    fn default() -> Self {
        RestartStrategy::ExponentialDelay {
            initial_ms: default_initial_ms(),
            max_ms: default_max_ms(),
            multiplier: default_multiplier(),
            jitter: default_jitter(),
            reset_after_ms: default_reset_after_ms(),
            attempts: None,
        }
    }
}

impl RestartStrategy {
    /// The longest delay that may be asked for: one day, ms.
    pub const DELAY_MS_MAX: u64 = 86_400_000;

    /// Refuses numbers that make no sense (`Kind::Input`).
    pub fn check(&self) -> Result<()> {
        let delay = match self {
            RestartStrategy::ExponentialDelay { initial_ms, max_ms, multiplier, jitter, .. } => {
                if !(1.0..=100.0).contains(multiplier) {
                    return Err(Error::input(format!("restart: `multiplier` must be from 1 to 100, not {multiplier}")));
                }
                if !(0.0..=1.0).contains(jitter) {
                    return Err(Error::input(format!("restart: `jitter` must be from 0 to 1, not {jitter}")));
                }
                if initial_ms > max_ms {
                    return Err(Error::input(format!("restart: `initial_ms` {initial_ms} is above `max_ms` {max_ms}")));
                }
                *max_ms
            }
            RestartStrategy::FixedDelay { delay_ms, .. } => *delay_ms,
            RestartStrategy::FailureRate { delay_ms, failures_max, .. } => {
                if *failures_max > Backoff::FAILURES_KEPT_MAX {
                    let most = Backoff::FAILURES_KEPT_MAX;
                    return Err(Error::input(format!("restart: `failures_max` must be at most {most}")));
                }
                *delay_ms
            }
            RestartStrategy::None {} => 0,
        };
        if delay > Self::DELAY_MS_MAX {
            return Err(Error::input(format!("restart: a delay of {delay} ms is longer than a day")));
        }
        Ok(())
    }
}

/// A strategy with its memory of earlier failures.
#[derive(Debug, Clone)]
pub struct Backoff {
    strategy: RestartStrategy,
    restarts: u32,
    delay_ms: f64,
    failures_ms: VecDeque<i64>,
}

impl Backoff {
    /// The most failures a failure-rate strategy may count.
    pub const FAILURES_KEPT_MAX: u32 = 10_000;

    /// Nothing has failed yet.
    pub fn new(strategy: RestartStrategy) -> Self {
        Backoff { strategy, restarts: 0, delay_ms: 0.0, failures_ms: VecDeque::new() }
    }

    /// A failure at `now_ms` after running for `ran_ms`: the delay in ms until the next start, or `None` to give up.
    /// `chance` is any number from 0 to 1; it moves the delay within the jitter.
    pub fn failed(&mut self, now_ms: i64, ran_ms: u64, chance: f64) -> Option<u64> {
        match self.strategy.clone() {
            RestartStrategy::ExponentialDelay { initial_ms, max_ms, multiplier, jitter, reset_after_ms, attempts } => {
                if ran_ms >= reset_after_ms {
                    self.restarts = 0;
                    self.delay_ms = 0.0;
                }
                if attempts.is_some_and(|most| self.restarts >= most) {
                    return None;
                }
                self.restarts = self.restarts.saturating_add(1);
                let next = if self.delay_ms == 0.0 { initial_ms as f64 } else { self.delay_ms * multiplier };
                self.delay_ms = next.min(max_ms as f64);
                let moved = self.delay_ms * (1.0 + jitter * (2.0 * chance - 1.0));
                Some(moved.min(max_ms as f64).round() as u64)
            }
            RestartStrategy::FixedDelay { attempts, delay_ms } => {
                if self.restarts >= attempts {
                    return None;
                }
                self.restarts += 1;
                Some(delay_ms)
            }
            RestartStrategy::FailureRate { failures_max, interval_ms, delay_ms } => {
                let interval_ms = i64::try_from(interval_ms).unwrap_or(i64::MAX);
                while self.failures_ms.front().is_some_and(|at| now_ms.saturating_sub(*at) > interval_ms) {
                    self.failures_ms.pop_front();
                }
                self.failures_ms.push_back(now_ms);
                (self.failures_ms.len() <= failures_max as usize).then_some(delay_ms)
            }
            RestartStrategy::None {} => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &str) -> RestartStrategy {
        serde_json::from_str(text).unwrap()
    }

    #[test]
    fn exponential_delay_grows_to_its_bound_and_starts_anew_after_a_good_hour() {
        let mut backoff = Backoff::new(RestartStrategy::default());
        let delays: Vec<u64> = (0..13).map(|_| backoff.failed(0, 10, 0.5).unwrap()).collect();
        assert_eq!(delays[..4], [1000, 1500, 2250, 3375]);
        assert_eq!(delays[11..], [60_000, 60_000]);
        assert_eq!(backoff.failed(0, 3_600_000, 0.5), Some(1000));
        assert_eq!(Backoff::new(RestartStrategy::default()).failed(0, 0, 1.0), Some(1100));
        assert_eq!(Backoff::new(RestartStrategy::default()).failed(0, 0, 0.0), Some(900));
    }

    #[test]
    fn fixed_delay_gives_up_after_its_attempts() {
        let mut backoff = Backoff::new(parse(r#"{"strategy":"fixed-delay","attempts":2,"delay_ms":5}"#));
        assert_eq!(
            [backoff.failed(0, 0, 0.5), backoff.failed(1, 0, 0.5), backoff.failed(2, 0, 0.5)],
            [Some(5), Some(5), None]
        );
    }

    #[test]
    fn failure_rate_forgets_what_is_long_ago() {
        let mut backoff = Backoff::new(parse(r#"{"strategy":"failure-rate"}"#));
        assert_eq!(backoff.failed(0, 0, 0.5), Some(1000));
        assert_eq!(backoff.failed(60_001, 0, 0.5), Some(1000));
        assert_eq!(backoff.failed(60_002, 0, 0.5), None);
    }

    #[test]
    fn none_gives_up_at_once_and_bad_numbers_are_refused() {
        assert_eq!(Backoff::new(parse(r#"{"strategy":"none"}"#)).failed(0, 0, 0.5), None);
        let bad = parse(r#"{"strategy":"exponential-delay","multiplier":0.5}"#).check().unwrap_err();
        assert!(bad.to_string().contains("multiplier"), "{bad}");
        assert!(serde_json::from_str::<RestartStrategy>(r#"{"strategy":"fixed-delay","atempts":1}"#).is_err());
    }
}
