//! Logging in over a connection that has just been opened (SASL): which mechanism, then its messages.

use bytes::Bytes;
use kafka_protocol::ResponseError;
use kafka_protocol::messages::{SaslAuthenticateRequest, SaslHandshakeRequest};
use kafka_protocol::protocol::StrBytes;
use ring::rand::{SecureRandom, SystemRandom};
use tidemill_core::{Error, Result};

use super::connection::Connection;
use super::failure::{error_of, is_code};
use super::scram::Scram;
use crate::kafka::security::{KafkaLogin, KafkaMechanism};

/// Random bytes of a nonce.
const NONCE_BYTES: usize = 18;

/// Logs in; nothing else may be asked of the broker before.
pub fn log_in(connection: &mut Connection, login: &KafkaLogin) -> Result<()> {
    let mechanism = login.mechanism.name();
    let chosen =
        connection.call(&SaslHandshakeRequest::default().with_mechanism(StrBytes::from_static_str(mechanism)))?;
    if is_code(chosen.error_code, &[ResponseError::UnsupportedSaslMechanism]) {
        let offered: Vec<&str> = chosen.mechanisms.iter().map(StrBytes::as_str).collect();
        return Err(Error::input(format!("the Kafka broker `{}` takes no login by {mechanism}", connection.address()))
            .hint(format!("this listener takes {}", offered.join(", "))));
    }
    if is_code(chosen.error_code, &[ResponseError::IllegalSaslState]) {
        return Err(Error::input(format!("the listener `{}` of Kafka takes no login", connection.address()))
            .hint("set `security.protocol` to PLAINTEXT or SSL, or name the port of a listener with SASL"));
    }
    error_of(chosen.error_code, || format!("log in at the Kafka broker `{}`", connection.address()))?;
    let password = login.password.read()?;
    match login.mechanism {
        KafkaMechanism::Plain => say(connection, login, format!("\0{}\0{password}", login.user)).map(drop),
        mechanism => {
            let cheated = |address: &str, why: String| {
                Error::input(format!("the Kafka broker `{address}` does not log us in as it should: {why}"))
            };
            let mut scram = Scram::new(mechanism, &login.user, nonce()?)
                .ok_or_else(|| Error::bug("a login by SCRAM that is none"))?;
            let server_first = say(connection, login, scram.first())?;
            let proof = scram.prove(&server_first, &password).map_err(|why| cheated(connection.address(), why))?;
            let server_last = say(connection, login, proof)?;
            scram.check(&server_last).map_err(|why| cheated(connection.address(), why))
        }
    }
}

/// Sends a message of the mechanism; what the broker says to it.
fn say(connection: &mut Connection, login: &KafkaLogin, message: String) -> Result<String> {
    let answer = connection.call(&SaslAuthenticateRequest::default().with_auth_bytes(Bytes::from(message)))?;
    if is_code(answer.error_code, &[ResponseError::SaslAuthenticationFailed]) {
        let why = answer.error_message.as_ref().map(|why| why.as_str()).unwrap_or("it does not say why");
        return Err(Error::input(format!(
            "the Kafka broker `{}` does not let `{}` in: {why}",
            connection.address(),
            login.user
        ))
        .hint("see that user, password and `sasl.mechanism` are those the broker has for this listener"));
    }
    error_of(answer.error_code, || format!("log in at the Kafka broker `{}`", connection.address()))?;
    Ok(String::from_utf8_lossy(&answer.auth_bytes).into_owned())
}

fn nonce() -> Result<String> {
    let mut bytes = [0; NONCE_BYTES];
    SystemRandom::new().fill(&mut bytes).map_err(|_| Error::external("the machine gives no random bytes"))?;
    Ok(bytes.iter().map(|byte| format!("{byte:02x}")).collect())
}
