//! Checkpoints and savepoints in an object store, against a real server that speaks S3.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use tidemill_engine::checkpoint::{Manifest, SavepointReader, SavepointWriter, dispose_savepoint};
use tidemill_engine::stream::JobClient;
use tidemill_engine::{Environment, JobSettings};

use crate::comes_about;
use crate::recovery::{self, Crashes, Ledger};
use crate::s3_server::S3Server;

fn settings_of(server: &S3Server, prefix: &str, parallelism: usize) -> JobSettings {
    JobSettings {
        checkpoint_dir: Some(server.place(prefix)),
        storage_options: server.options(),
        checkpoint_interval_ms: Some(3),
        parallelism: Some(parallelism),
        ..JobSettings::default()
    }
}

/// The last part of a fresh folder's name.
fn name(folder: &Path) -> &str {
    folder.file_name().unwrap().to_str().unwrap()
}

fn files(folder: &Path) -> BTreeSet<String> {
    let entries = std::fs::read_dir(folder).into_iter().flatten().flatten();
    entries.map(|entry| entry.file_name().to_string_lossy().into_owned()).collect()
}

#[test]
fn crashes_of_a_job_that_checkpoints_to_s3_lose_and_double_nothing() {
    let expected = recovery::undisturbed();
    let settings = |folder: &Path, parallelism| settings_of(S3Server::shared(), name(folder), parallelism);
    let folders =
        Crashes { seeds: 4, crashes_max: 5, parallelism_max: 3, settings }.survive(&expected, recovery::build);
    // What is left: three checkpoints at most, all they name, and nothing else.
    for folder in folders {
        let place = S3Server::shared().files(name(folder.path()));
        let checkpoints: Vec<PathBuf> =
            files(&place).iter().filter(|name| name.starts_with("chk-")).map(|name| place.join(name)).collect();
        assert!((1..=3).contains(&checkpoints.len()), "{checkpoints:?}");
        let mut named = BTreeSet::new();
        for checkpoint in &checkpoints {
            let bytes = std::fs::read(checkpoint.join("_metadata")).unwrap();
            let manifest = Manifest::parse(&bytes, "it").unwrap();
            let places = manifest.operators.values().flat_map(|operator| &operator.sections);
            named.extend(places.map(|place| place.file.clone()));
        }
        let shared: BTreeSet<String> =
            files(&place.join("shared")).iter().map(|name| format!("../shared/{name}")).collect();
        assert!(shared.is_subset(&named), "{shared:?} {named:?}");
        assert_eq!(files(&place.join("attempts")).len(), 1);
    }
}

/// A job with keyed state that goes on until it is cancelled.
fn endless(settings: JobSettings) -> JobClient {
    let env = Environment::with_settings(JobSettings { checkpoint_interval_ms: None, ..settings });
    let numbers = env.from_sequence(1, 1 << 40).uid("numbers");
    let _nobody_reads = numbers.key_by(|n| n % 1000).reduce(|held, next| *held = (*held).max(next)).uid("largest");
    env.execute_async("endless").unwrap()
}

fn records(job: &JobClient) -> u64 {
    job.handle().report().vertices.iter().flat_map(|vertex| &vertex.subtasks).map(|subtask| subtask.records_in).sum()
}

#[test]
fn while_the_object_store_is_away_checkpoints_fail_and_the_job_goes_on() {
    let mut server = S3Server::start();
    let settings = settings_of(&server, "away", 2);
    let job = endless(settings.clone());
    job.handle().checkpoint().unwrap();

    server.kill();
    let error = job.handle().checkpoint().unwrap_err().to_string();
    assert!(error.contains("s3://checkpoints/jobs/away"), "{error}");
    let before = records(&job);
    assert!(comes_about(|| records(&job) > before), "the job stands still");
    assert_eq!(job.handle().report().checkpoints.failed, 1);

    server.restart();
    let checkpoint = job.handle().checkpoint().unwrap();
    job.handle().fail("crash");
    assert!(job.wait().is_err());
    let again = endless(settings);
    let restored = again.handle().report().checkpoints.restored_epoch.unwrap();
    assert_eq!(name(&checkpoint), format!("chk-{restored}"));
    again.cancel().unwrap();
}

#[test]
fn of_two_starts_of_a_job_only_the_newer_one_publishes() {
    let settings = settings_of(S3Server::shared(), "twice", 1);
    let old = endless(settings.clone());
    old.handle().checkpoint().unwrap();
    // As after a network that was cut: somebody believes the old one dead.
    let new = endless(settings);
    assert!(old.handle().checkpoint().is_err());
    let error = old.wait().unwrap_err().to_string();
    assert!(error.contains("start 2 of the job has taken over"), "{error}");
    new.handle().checkpoint().unwrap();
    new.cancel().unwrap();
}

/// Runs the job of `recovery` until a savepoint has stopped it.
fn stopped(settings: JobSettings, savepoints: &Path, ledger: &Ledger) -> PathBuf {
    let env = Environment::with_settings(settings);
    recovery::build(&env, ledger);
    let job = env.execute_async("first").unwrap();
    let savepoint = job.handle().savepoint(Some(savepoints.to_path_buf()), true, false).unwrap();
    job.wait().unwrap();
    savepoint
}

#[test]
fn savepoints_go_to_an_object_store_and_come_from_there() {
    let server = S3Server::shared();
    let expected = recovery::undisturbed();
    let local = |folder: &Path| JobSettings { storage_options: server.options(), ..recovery::settings(folder, 2) };
    for (from_s3, as_itself) in [(false, false), (false, true), (true, false), (true, true)] {
        let prefix = format!("savepoint-{from_s3}-{as_itself}");
        let (folder, other) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let ledger = Ledger::default();
        let first = if from_s3 { settings_of(server, &prefix, 2) } else { local(folder.path()) };
        let savepoint = stopped(first.clone(), &server.place(&format!("{prefix}-saved")), &ledger);
        assert!(savepoint.to_str().unwrap().starts_with("s3://checkpoints/"), "{}", savepoint.display());
        // The job itself goes on from its own copy, another job from a copy that was written without any.
        let copied = server.place(&format!("{prefix}-copied"));
        let reader = SavepointReader::open_with(&savepoint, server.options()).unwrap();
        let mut writer = SavepointWriter::create_with(&copied, server.options()).unwrap();
        reader.operators().for_each(|uid| writer.copy(&reader, uid, uid).unwrap());
        writer.finish().unwrap();
        dispose_savepoint(&savepoint, server.options()).unwrap();
        let another = JobSettings { restore_from: Some(copied), ..local(other.path()) };
        let env = Environment::with_settings(if as_itself { first } else { another });
        recovery::build(&env, &ledger);
        env.execute("second").unwrap();
        assert_eq!(ledger.rows(), expected, "{prefix}");
    }
}

#[test]
fn state_of_many_parts_comes_back_from_an_object_store() {
    const KEYS: i64 = 120_000;
    let settings = |parallelism| settings_of(S3Server::shared(), "large", parallelism);
    let build = |env: &Environment| {
        let text = env.from_sequence(1, 2 * KEYS).uid("numbers").map(|n| (n % KEYS, format!("{n:0>200}"))).uid("text");
        text.key_by(|pair| pair.0).reduce(|held, next| held.1 = next.1.max(held.1.clone())).uid("newest").collect()
    };
    let env = Environment::with_settings(JobSettings { checkpoint_interval_ms: None, ..settings(1) });
    let _rows = build(&env);
    env.execute("first").unwrap();
    let restored = Environment::with_settings(settings(2));
    let _rows = build(&restored);
    let result = restored.execute("again").unwrap();
    let state = |report: &tidemill_core::report::Report| {
        let newest = report.checkpoints.history[0].operators.iter().find(|operator| operator.uid == "newest").cloned();
        newest.map(|newest| (newest.entries, newest.bytes)).unwrap()
    };
    let (entries, bytes) = state(&result.report);
    assert!(entries >= KEYS as u64 && bytes > 20 << 20, "{entries} entries, {bytes} bytes");
}

#[test]
fn what_cannot_be_reached_or_is_not_built_is_an_error_at_the_start() {
    let why = |place: &str, change: fn(&mut JobSettings)| {
        let mut settings =
            JobSettings { checkpoint_dir: Some(place.into()), ..settings_of(S3Server::shared(), "x", 1) };
        change(&mut settings);
        let env = Environment::with_settings(settings);
        env.from_sequence(1, 10).collect();
        env.execute("refused").unwrap_err().to_string()
    };
    assert!(why("gs://name/checkpoints", |_| {}).contains("`gs://` are not built"));
    assert!(why("s3://no-such-bucket/x", |_| {}).contains("no-such-bucket"));
    let wrong_secret = why("s3://checkpoints/x", |settings| {
        settings.storage_options.insert("secret_access_key".into(), "wrong".into());
    });
    assert!(wrong_secret.contains("AWS_SECRET_ACCESS_KEY"), "{wrong_secret}");
    let nobody = why("s3://checkpoints/x", |settings| {
        settings.storage_options.insert("endpoint".into(), "http://127.0.0.1:1".into());
    });
    assert!(nobody.contains("s3://checkpoints/x"), "{nobody}");
}
