//! Options of Flink that people write into job files out of habit: each is refused with what stands here in its place.

use tidemill_core::Error;

/// Beginnings of option names, and the next step; the first that fits counts.
const NEXT_STEPS: &[(&str, &str)] = &[
    ("execution.checkpointing.interval", "write `checkpoint_interval_ms`"),
    ("execution.checkpointing.timeout", "write `timeout_ms` under [checkpoints]"),
    ("execution.checkpointing.min-pause", "write `min_pause_ms` under [checkpoints]"),
    ("execution.checkpointing.tolerable-failed-checkpoints", "write `tolerable_failures` under [checkpoints]"),
    ("execution.checkpointing.num-retained", "write `retained` under [checkpoints]"),
    ("execution.checkpointing.externalized-checkpoint-retention", "write `retention` under [checkpoints]"),
    ("execution.checkpointing.dir", "write `dir` under [checkpoints]"),
    ("execution.checkpointing.savepoint-dir", "write `savepoint_dir` under [checkpoints]"),
    ("state.checkpoints.dir", "write `dir` under [checkpoints]"),
    ("state.savepoints.dir", "write `savepoint_dir` under [checkpoints]"),
    (
        "execution.checkpointing.mode",
        "leave it out: checkpoints are exactly once, and with aligned epochs there is nothing that at-least-once would save",
    ),
    (
        "execution.checkpointing.unaligned",
        "leave it out: what lies between tasks is bounded by credit, so alignment is short also under backpressure",
    ),
    ("execution.checkpointing.aligned-checkpoint-timeout", "leave it out: there are no unaligned checkpoints"),
    ("execution.checkpointing.max-concurrent-checkpoints", "leave it out: there is one checkpoint at a time"),
    (
        "execution.checkpointing.storage",
        "leave it out: checkpoints go to the folder or URL of `dir` under [checkpoints]",
    ),
    ("execution.checkpointing.incremental", "leave it out: checkpoints always write only what has changed"),
    ("state.backend.incremental", "leave it out: checkpoints always write only what has changed"),
    ("state.backend", "write `state_backend = \"memory\"` for `hashmap`, or `\"disk\"` for `rocksdb` and `forst`"),
    ("state.latency-track.", "write `state_latency_sample_interval = 100`; without it nothing is measured"),
    ("state.storage.fs.memory-threshold", "leave it out: small state goes into one file a checkpoint by itself"),
    ("execution.buffer-timeout", "leave it out: an operator sends what it has whenever it has nothing more to do"),
    ("execution.runtime-mode", "call `set_runtime_mode` in the program"),
    ("execution.state-recovery.path", "write `savepoint`"),
    ("execution.savepoint.path", "write `savepoint`"),
    ("execution.state-recovery.claim-mode", "write `claim_mode`"),
    ("execution.state-recovery.ignore-unclaimed-state", "write `allow_non_restored_state`"),
    ("execution.savepoint.ignore-unclaimed-state", "write `allow_non_restored_state`"),
    ("parallelism.default", "write `parallelism`"),
    ("pipeline.name", "write `name`"),
    ("pipeline.max-parallelism", "call `set_max_parallelism` in the program; state does not depend on it"),
    ("pipeline.object-reuse", "leave it out: records are moved, not copied, along a chain"),
    ("pipeline.operator-chaining", "call `disable_operator_chaining` in the program"),
    ("pipeline.auto-watermark-interval", "set it in the program's `WatermarkStrategy`"),
    ("pipeline.", "set it in the program"),
    ("restart-strategy", "write `strategy` and its options under [restart]"),
    (
        "taskmanager.network.memory.buffer-debloat",
        "leave it out: what lies between tasks is counted in rows, at most 32768 from a subtask to another",
    ),
    ("taskmanager.numberOfTaskSlots", "give `--slots` to `tidemill serve` and `tidemill agent`"),
    ("taskmanager.", "hosts are set by the options of `tidemill agent`"),
    ("jobmanager.", "the server is set by the options of `tidemill serve`"),
    ("rest.", "the server is set by the options of `tidemill serve`"),
    ("execution.", "see docs/compatibility.md for what stands in its place"),
    ("state.", "see docs/operations/state.md"),
];

/// An error that names the first of Flink's options in a job file, and the next step.
pub fn refuse(file: &toml::Table) -> Option<Error> {
    let mut names = Vec::new();
    collect("", file, &mut names);
    names.iter().find_map(|name| {
        let fits = |beginning: &str| match name.strip_prefix(beginning) {
            Some(rest) => beginning.ends_with('.') || rest.is_empty() || rest.starts_with(['.', '-']),
            None => false,
        };
        let (_, next_step) = NEXT_STEPS.iter().find(|(beginning, _)| fits(beginning))?;
        Some(Error::input(format!("`{name}` is an option of Flink, not of a job file")).hint(*next_step))
    })
}

/// The names of all values, with their tables before them, whether they are quoted or not.
fn collect(before: &str, table: &toml::Table, names: &mut Vec<String>) {
    for (name, value) in table {
        let whole = if before.is_empty() { name.clone() } else { format!("{before}.{name}") };
        match value {
            toml::Value::Table(inner) => collect(&whole, inner, names),
            _ => names.push(whole),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn told(text: &str) -> Option<String> {
        refuse(&toml::from_str(text).unwrap()).map(|error| error.to_string())
    }

    #[test]
    fn flink_s_options_are_refused_with_what_stands_in_their_place() {
        for (text, next_step) in [
            ("execution.checkpointing.mode = \"AT_LEAST_ONCE\"", "checkpoints are exactly once"),
            ("\"execution.checkpointing.unaligned.enabled\" = true", "bounded by credit"),
            ("[execution.checkpointing]\ninterval = \"10 s\"", "write `checkpoint_interval_ms`"),
            ("state.backend.type = \"rocksdb\"", "`\"disk\"` for `rocksdb`"),
            ("state.backend.incremental = true", "only what has changed"),
            ("taskmanager.network.memory.buffer-debloat.enabled = true", "counted in rows"),
            ("state.latency-track.keyed-state-enabled = true", "`state_latency_sample_interval = 100`"),
            ("execution.buffer-timeout.interval = \"0 ms\"", "whenever it has nothing more to do"),
            ("execution.buffer-timeout = 100", "whenever it has nothing more to do"),
            ("pipeline.max-parallelism = 128", "`set_max_parallelism`"),
            ("restart-strategy.type = \"fixed-delay\"", "[restart]"),
            ("taskmanager.numberOfTaskSlots = 4", "`--slots`"),
            ("execution.checkpointing.dir = \"hdfs:///x\"", "`dir` under [checkpoints]"),
        ] {
            let told = told(text).unwrap_or_else(|| panic!("`{text}` is not refused"));
            assert!(told.contains("is an option of Flink") && told.contains(next_step), "{told}");
        }
    }

    #[test]
    fn what_is_no_option_of_flink_is_left_to_others() {
        for text in ["program = \"p\"", "[checkpoints]\ndir = \"x\"", "[restart]\nstrategy = \"none\"", "statement = 1"]
        {
            assert_eq!(told(text), None, "{text}");
        }
    }
}
