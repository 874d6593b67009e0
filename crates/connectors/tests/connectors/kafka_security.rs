//! Kafka through TLS and with logins: against a real broker with a listener for each, whose certificates an authority of
//! the test has signed.

use std::sync::OnceLock;

use tidemill_connectors::conformance::{Alarm, scope, write, writer_context};
use tidemill_connectors::format::Text;
use tidemill_connectors::kafka::{
    KafkaMechanism, KafkaPassword, KafkaSecurity, KafkaSink, KafkaSource, KafkaStop, KafkaTls,
};
use tidemill_core::sink::Sink;
use tidemill_core::source::Source;
use tidemill_core::{Error, Kind};

use crate::kafka_broker::Broker;
use crate::kafka_source::read_all;

/// The listeners, in the order of scripts/kafka.sh.
const TLS: usize = 0;
const MUTUAL: usize = 1;
const EXPIRED: usize = 2;
const LOGIN: usize = 3;
const SECURE: usize = 4;
const STRANGER: usize = 5;
const SHA512: usize = 6;

fn broker() -> &'static Broker {
    static BROKER: OnceLock<Broker> = OnceLock::new();
    BROKER.get_or_init(Broker::secure)
}

fn tls() -> KafkaTls {
    KafkaTls::new().ca_file(broker().tls_file("ca.pem"))
}

fn login(mechanism: KafkaMechanism, password: &str) -> KafkaSecurity {
    KafkaSecurity::new().login(mechanism, "alice", KafkaPassword::Given(password.to_string()))
}

/// Writes a record exactly once and reads it, all through one listener.
fn there_and_back(listener: usize, security: &KafkaSecurity) {
    let broker = broker();
    let topic = broker.topic("secure", 1);
    let servers = broker.secure_servers(listener, "localhost");
    let sink = KafkaSink::new(&servers, &topic, Text).transactional_id_prefix(&topic).security(security.clone());
    sink.recover(&scope(), &[]).unwrap();
    let (alarm, waker) = Alarm::new();
    let mut writer = sink.writer(writer_context(0, 1, 1, 1, waker)).unwrap();
    // Longer than a message of TLS, which has 16 KiB.
    let long = "x".repeat(100_000);
    write(&mut *writer, &alarm, vec![(0, "hello".to_string()), (1, long.clone())]);
    let tokens = writer.pre_commit(1).unwrap()().unwrap();
    Sink::<String>::committer(&sink, &scope()).unwrap().unwrap().commit(&tokens).unwrap();
    let source = KafkaSource::values(&servers, Text)
        .topics([&topic])
        .group_id(&topic)
        .bounded(KafkaStop::Latest)
        .security(security.clone());
    assert_eq!(read_all(&source), ["hello".to_string(), long]);
}

/// What a source says that cannot get through. All of it is told at once, without trying for long.
fn told(listener: usize, host: &str, security: KafkaSecurity) -> Error {
    let servers = broker().secure_servers(listener, host);
    let error = KafkaSource::values(servers, Text).topics(["any"]).security(security).splits().unwrap_err();
    assert_eq!(error.kind(), Kind::Input, "{error}");
    error
}

#[test]
fn every_listener_is_read_and_written_exactly_once() {
    let scram = KafkaMechanism::ScramSha256;
    there_and_back(TLS, &KafkaSecurity::new().tls(tls()));
    let client = broker().tls_file("client.pem");
    there_and_back(MUTUAL, &KafkaSecurity::new().tls(tls().client_certificate(client)));
    there_and_back(LOGIN, &login(KafkaMechanism::Plain, "alice-plain"));
    there_and_back(LOGIN, &login(scram, "alice-scram"));
    there_and_back(LOGIN, &login(KafkaMechanism::ScramSha512, "alice-scram"));
    there_and_back(SECURE, &login(KafkaMechanism::Plain, "alice-plain").tls(tls()));
    there_and_back(SECURE, &login(scram, "alice-scram").tls(tls()));
    there_and_back(SHA512, &login(KafkaMechanism::ScramSha512, "alice-scram"));
    there_and_back(STRANGER, &KafkaSecurity::new().tls(tls().any_host()));
}

#[test]
fn a_login_that_is_refused_says_what_to_do_and_no_password() {
    for mechanism in [KafkaMechanism::Plain, KafkaMechanism::ScramSha256, KafkaMechanism::ScramSha512] {
        let error = told(LOGIN, "localhost", login(mechanism, "wrong-secret")).to_string();
        assert!(error.contains("does not let `alice` in") && error.contains("see that user, password"), "{error}");
        assert!(!error.contains("wrong-secret"), "{error}");
    }
    let error = told(SHA512, "localhost", login(KafkaMechanism::Plain, "alice-plain")).to_string();
    assert!(error.contains("no login by PLAIN") && error.contains("takes SCRAM-SHA-512"), "{error}");
    let file = broker().tls_file("no-such-password");
    let missing = KafkaSecurity::new().login(KafkaMechanism::Plain, "alice", KafkaPassword::File(file));
    let error = told(LOGIN, "localhost", missing).to_string();
    assert!(error.contains("cannot be read from") && error.contains("no-such-password"), "{error}");
}

#[test]
fn a_certificate_that_is_not_right_is_told_with_the_reason() {
    let through = |tls: KafkaTls| KafkaSecurity::new().tls(tls);
    let expect = |error: Error, reason: &str, next: &str| {
        let error = error.to_string();
        assert!(error.contains(reason) && error.contains(next), "{error}");
    };
    expect(told(EXPIRED, "localhost", through(tls())), "it has expired", "new certificate");
    // What is expired stays so for whoever does not look at the host.
    expect(told(EXPIRED, "localhost", through(tls().any_host())), "it has expired", "new certificate");
    let other = KafkaTls::new().ca_file(broker().tls_file("other.pem"));
    expect(told(TLS, "localhost", through(other)), "nobody this job believes", "`ssl.truststore.location`");
    expect(told(STRANGER, "localhost", through(tls())), "made out to another host", "advertised.listeners");
    expect(told(MUTUAL, "localhost", through(tls())), "refuses to talk", "`ssl.keystore.location`");
    let foreign = tls().client_certificate(broker().tls_file("ca.cnf"));
    expect(told(MUTUAL, "localhost", through(foreign)), "ca.cnf", "private key");
    let none = KafkaTls::new().ca_file(broker().tls_file("ca.key"));
    expect(told(TLS, "localhost", through(none)), "no certificate in it", "PEM");
}

#[test]
fn whoever_speaks_otherwise_than_the_listener_is_told_so() {
    let error = told(TLS, "localhost", KafkaSecurity::new()).to_string();
    assert!(error.contains("speaks TLS there") && error.contains("SSL or SASL_SSL"), "{error}");
    let error = told(TLS, "localhost", login(KafkaMechanism::Plain, "alice-plain").tls(tls())).to_string();
    assert!(error.contains("takes no login"), "{error}");
}
