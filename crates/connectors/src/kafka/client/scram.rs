//! SCRAM (RFC 5802, RFC 7677) on the primitives of `ring`: the client shows that it knows the password, the server that it
//! knows it too, and neither says it.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use ring::{digest, hmac, pbkdf2};

use crate::kafka::security::KafkaMechanism;

/// More rounds than this are no protection any more but an attack; brokers take 4,096 to 16,384.
const ROUNDS_MAX: u32 = 1_000_000;

/// The algorithms of one mechanism.
struct Hashes {
    mac: hmac::Algorithm,
    digest: &'static digest::Algorithm,
    derive: pbkdf2::Algorithm,
}

impl Hashes {
    fn mac(&self, key: &[u8], message: &[u8]) -> hmac::Tag {
        hmac::sign(&hmac::Key::new(self.mac, key), message)
    }
}

/// One login under way.
pub struct Scram {
    hashes: Hashes,
    nonce: String,
    first_bare: String,
    /// What the server has to show, once it is known.
    expected: Vec<u8>,
}

impl Scram {
    /// Begins; `nonce` must never come again. `None` for a mechanism that is not SCRAM.
    pub fn new(mechanism: KafkaMechanism, user: &str, nonce: String) -> Option<Scram> {
        let hashes = match mechanism {
            KafkaMechanism::Plain => return None,
            KafkaMechanism::ScramSha256 => {
                Hashes { mac: hmac::HMAC_SHA256, digest: &digest::SHA256, derive: pbkdf2::PBKDF2_HMAC_SHA256 }
            }
            KafkaMechanism::ScramSha512 => {
                Hashes { mac: hmac::HMAC_SHA512, digest: &digest::SHA512, derive: pbkdf2::PBKDF2_HMAC_SHA512 }
            }
        };
        let user = user.replace('=', "=3D").replace(',', "=2C");
        let first_bare = format!("n={user},r={nonce}");
        Some(Scram { hashes, nonce, first_bare, expected: Vec::new() })
    }

    /// The first message of the client.
    pub fn first(&self) -> String {
        format!("n,,{}", self.first_bare)
    }

    /// The client's answer to the server's first message, or what is wrong with that.
    pub fn prove(&mut self, server_first: &str, password: &str) -> Result<String, String> {
        let nonce = field(server_first, 'r')?;
        if !nonce.starts_with(&self.nonce) || nonce.len() == self.nonce.len() {
            return Err("the server's nonce does not go on from ours".into());
        }
        let salt = STANDARD.decode(field(server_first, 's')?).map_err(|error| format!("its salt: {error}"))?;
        let rounds: u32 = field(server_first, 'i')?.parse().map_err(|error| format!("its rounds: {error}"))?;
        let rounds = std::num::NonZeroU32::new(rounds).filter(|rounds| rounds.get() <= ROUNDS_MAX);
        let rounds = rounds.ok_or("its number of rounds makes no sense")?;
        let mut salted = vec![0; self.hashes.digest.output_len()];
        pbkdf2::derive(self.hashes.derive, rounds, &salt, password.as_bytes(), &mut salted);
        // `biws` are the two commas of the first message.
        let without_proof = format!("c=biws,r={nonce}");
        let said = format!("{},{server_first},{without_proof}", self.first_bare);
        let client_key = self.hashes.mac(&salted, b"Client Key");
        let stored = digest::digest(self.hashes.digest, client_key.as_ref());
        let signature = self.hashes.mac(stored.as_ref(), said.as_bytes());
        let proof: Vec<u8> = client_key.as_ref().iter().zip(signature.as_ref()).map(|(a, b)| a ^ b).collect();
        let server_key = self.hashes.mac(&salted, b"Server Key");
        self.expected = self.hashes.mac(server_key.as_ref(), said.as_bytes()).as_ref().to_vec();
        Ok(format!("{without_proof},p={}", STANDARD.encode(proof)))
    }

    /// Whether the server knows the password, too.
    pub fn check(&self, server_last: &str) -> Result<(), String> {
        if let Ok(error) = field(server_last, 'e') {
            return Err(error.to_string());
        }
        let shown = STANDARD.decode(field(server_last, 'v')?).map_err(|error| format!("its proof: {error}"))?;
        match !self.expected.is_empty() && shown == self.expected {
            true => Ok(()),
            false => Err("the server does not know the password itself".into()),
        }
    }
}

/// The field of a message with this name.
fn field(message: &str, name: char) -> Result<&str, String> {
    let mut fields = message.split(',');
    let found = fields.find_map(|field| field.strip_prefix(name)?.strip_prefix('='));
    found.ok_or_else(|| format!("`{name}` is missing in its message"))
}

#[cfg(test)]
mod tests {
    use super::*;

    const NONCE: &str = "rOprNGfwEbeRWgbNEkqO";
    const SERVER_FIRST: &str = "r=rOprNGfwEbeRWgbNEkqO%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0,s=W22ZaJ0SNY7soEsUEjb6gQ==,i=4096";

    #[test]
    fn the_exchange_of_rfc_7677_comes_out() {
        let mut scram = Scram::new(KafkaMechanism::ScramSha256, "user", NONCE.into()).expect("SCRAM");
        assert_eq!(scram.first(), "n,,n=user,r=rOprNGfwEbeRWgbNEkqO");
        let last = scram.prove(SERVER_FIRST, "pencil").expect("proves");
        assert_eq!(
            last,
            "c=biws,r=rOprNGfwEbeRWgbNEkqO%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0,\
             p=dHzbZapWIk4jUhN+Ute9ytag9zjfMHgsqmmiz7AndVQ="
        );
        scram.check("v=6rriTRBi23WpRR/wtup+mMhUZUn/dB5nLTJRsjl95G4=").expect("the server knows it");
        assert!(scram.check("v=7rriTRBi23WpRR/wtup+mMhUZUn/dB5nLTJRsjl95G4=").is_err());
        assert_eq!(scram.check("e=invalid-proof").expect_err("refused"), "invalid-proof");
    }

    #[test]
    fn a_server_that_cheats_is_found_out() {
        let mut scram = Scram::new(KafkaMechanism::ScramSha512, "a=b,c", NONCE.into()).expect("SCRAM");
        assert!(scram.first().contains("n=a=3Db=2Cc,"));
        let mut told = |message: &str| scram.prove(message, "pencil").expect_err("refused");
        assert!(told("r=other,s=W22Z,i=4096").contains("nonce"));
        assert!(told(&format!("r={NONCE},s=W22Z,i=4096")).contains("nonce"), "it has to add something");
        assert!(told(&format!("r={NONCE}x,s=W22Z,i=4000000000")).contains("rounds"));
        assert!(told(&format!("r={NONCE}x,i=4096")).contains("`s` is missing"));
        assert!(scram.check("v=").is_err(), "nothing was proven yet");
        assert!(Scram::new(KafkaMechanism::Plain, "u", NONCE.into()).is_none());
    }
}
