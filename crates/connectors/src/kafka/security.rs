//! How brokers are spoken to: in the open or through TLS, without a name or with a login. By calls, or by the names of
//! options that Kafka's own clients have.

use std::fmt;
use std::path::{Path, PathBuf};

use tidemill_core::{Error, Result};

/// Where the brokers are, and how they are spoken to.
#[derive(Debug, Clone)]
pub(super) struct Access {
    /// `host:port`, comma separated.
    pub servers: String,
    pub security: KafkaSecurity,
}

/// How brokers are spoken to; by default in the open and without a login.
#[derive(Debug, Clone, Default)]
pub struct KafkaSecurity {
    pub(super) tls: Option<KafkaTls>,
    pub(super) login: Option<KafkaLogin>,
}

/// TLS: whom to believe, and who we are.
#[derive(Debug, Clone, Default)]
pub struct KafkaTls {
    pub(super) ca_file: Option<PathBuf>,
    pub(super) client_file: Option<PathBuf>,
    pub(super) any_host: bool,
}

/// How a login is proven.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum KafkaMechanism {
    /// The password itself; only sensible through TLS.
    Plain,
    /// A proof that one knows the password, with SHA-256.
    ScramSha256,
    /// The same with SHA-512.
    ScramSha512,
}

/// Where a password stands. It is read at every login, so it may change while a job runs, and never shown.
#[derive(Clone)]
pub enum KafkaPassword {
    /// In a file; a line's end behind it does not count.
    File(PathBuf),
    /// In a variable of the environment.
    Environment(String),
    /// Here.
    Given(String),
}

/// A user with a password.
#[derive(Debug, Clone)]
pub(super) struct KafkaLogin {
    pub mechanism: KafkaMechanism,
    pub user: String,
    pub password: KafkaPassword,
}

impl KafkaMechanism {
    /// What Kafka calls it.
    pub fn name(self) -> &'static str {
        match self {
            KafkaMechanism::Plain => "PLAIN",
            KafkaMechanism::ScramSha256 => "SCRAM-SHA-256",
            KafkaMechanism::ScramSha512 => "SCRAM-SHA-512",
        }
    }

    fn of(name: &str) -> Result<KafkaMechanism> {
        let all = [KafkaMechanism::Plain, KafkaMechanism::ScramSha256, KafkaMechanism::ScramSha512];
        all.into_iter().find(|mechanism| mechanism.name() == name).ok_or_else(|| {
            Error::input(format!("`sasl.mechanism` cannot be `{name}`")).hint(
                "Tidemill knows PLAIN, SCRAM-SHA-256 and SCRAM-SHA-512; Kerberos (GSSAPI) and OAUTHBEARER are not \
                 built: give the job a SCRAM user of its own, or a client certificate",
            )
        })
    }
}

impl KafkaPassword {
    pub(super) fn read(&self) -> Result<String> {
        match self {
            KafkaPassword::Given(password) => Ok(password.clone()),
            KafkaPassword::Environment(name) => std::env::var(name).map_err(|_| {
                Error::input(format!("the password for Kafka should stand in `{name}`, which is not set"))
                    .hint("set it in the environment of the job")
            }),
            KafkaPassword::File(path) => {
                let shown = path.display();
                let text = std::fs::read_to_string(path).map_err(|error| {
                    Error::input(format!("the password for Kafka cannot be read from `{shown}`: {error}"))
                        .hint("the file has to be there and readable for the user of the job")
                })?;
                Ok(text.trim_end_matches(['\r', '\n']).to_string())
            }
        }
    }
}

impl fmt::Debug for KafkaPassword {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            KafkaPassword::File(path) => f.debug_tuple("File").field(path).finish(),
            KafkaPassword::Environment(name) => f.debug_tuple("Environment").field(name).finish(),
            KafkaPassword::Given(_) => f.write_str("Given(…)"),
        }
    }
}

impl KafkaTls {
    /// Believes the authorities this machine believes, checks the broker's host name, and has no certificate of its own.
    pub fn new() -> Self {
        KafkaTls::default()
    }

    /// Believes the authorities of a PEM file, and no others.
    pub fn ca_file(mut self, path: impl Into<PathBuf>) -> Self {
        self.ca_file = Some(path.into());
        self
    }

    /// Shows brokers a certificate: a PEM file with the private key (PKCS #8) and the chain of certificates.
    pub fn client_certificate(mut self, path: impl Into<PathBuf>) -> Self {
        self.client_file = Some(path.into());
        self
    }

    /// Accepts a certificate that was made out to another host. **Anybody with a certificate of the same authority can then pass
    /// for the broker.**
    pub fn any_host(mut self) -> Self {
        self.any_host = true;
        self
    }
}

/// The options, and those that tell a wrong place of something.
const PROTOCOL: &str = "security.protocol";
const SASL: [&str; 4] = ["sasl.mechanism", "sasl.username", "sasl.password.file", "sasl.password.env"];
const TLS: [&str; 5] = [
    "ssl.truststore.location",
    "ssl.truststore.type",
    "ssl.keystore.location",
    "ssl.keystore.type",
    "ssl.endpoint.identification.algorithm",
];

impl KafkaSecurity {
    /// In the open, without a login.
    pub fn new() -> Self {
        KafkaSecurity::default()
    }

    /// Through TLS.
    pub fn tls(mut self, tls: KafkaTls) -> Self {
        self.tls = Some(tls);
        self
    }

    /// With a login.
    pub fn login(mut self, mechanism: KafkaMechanism, user: impl Into<String>, password: KafkaPassword) -> Self {
        self.login = Some(KafkaLogin { mechanism, user: user.into(), password });
        self
    }

    /// By options with the names Kafka's own clients give them: `security.protocol`, `sasl.mechanism`, `sasl.username`, the
    /// password by `sasl.password.file` or `sasl.password.env`, `ssl.truststore.location` and `ssl.keystore.location` (PEM
    /// files), `ssl.endpoint.identification.algorithm`. Files are below `folder`.
    pub fn from_options(folder: &Path, mut option: impl FnMut(&'static str) -> Option<String>) -> Result<Self> {
        let protocol = option(PROTOCOL).unwrap_or_else(|| "PLAINTEXT".into());
        let (with_login, with_tls) = match protocol.as_str() {
            "PLAINTEXT" => (false, false),
            "SSL" => (false, true),
            "SASL_PLAINTEXT" => (true, false),
            "SASL_SSL" => (true, true),
            other => {
                return Err(Error::input(format!("`{PROTOCOL}` cannot be `{other}`"))
                    .hint("take PLAINTEXT, SSL, SASL_PLAINTEXT or SASL_SSL"));
            }
        };
        for refused in ["sasl.jaas.config", "sasl.password"] {
            if option(refused).is_some() {
                return Err(Error::input(format!("`{refused}` would put a password among the options")).hint(
                    "give `sasl.username`, and where the password stands by `sasl.password.file` or `sasl.password.env`",
                ));
            }
        }
        let mut given = |names: &[&'static str], used: bool| {
            let values: Vec<Option<String>> = names.iter().map(|name| option(name)).collect();
            match values.iter().position(Option::is_some).filter(|_| !used) {
                Some(at) => Err(Error::input(format!("`{}` has no meaning with {protocol}", names[at]))
                    .hint(format!("leave it out, or take another `{PROTOCOL}`"))),
                None => Ok(values),
            }
        };
        let (sasl, tls) = (given(&SASL, with_login)?, given(&TLS, with_tls)?);
        let mut security = KafkaSecurity::new();
        if with_login {
            security.login = Some(login(folder, sasl)?);
        }
        if with_tls {
            security.tls = Some(tls_of(folder, tls)?);
        }
        Ok(security)
    }
}

fn login(folder: &Path, given: Vec<Option<String>>) -> Result<KafkaLogin> {
    let mut given = given.into_iter().zip(SASL);
    let mut next = || given.next().unwrap_or((None, ""));
    let ((mechanism, _), (user, named), (file, _), (variable, _)) = (next(), next(), next(), next());
    let mechanism = KafkaMechanism::of(mechanism.as_deref().unwrap_or("GSSAPI"))?;
    let user = user.ok_or_else(|| Error::input(format!("a login at Kafka needs `{named}`")))?;
    let password = match (file, variable) {
        (Some(file), None) => KafkaPassword::File(folder.join(file)),
        (None, Some(variable)) => KafkaPassword::Environment(variable),
        _ => {
            return Err(Error::input(format!("it is not said where the password of `{user}` for Kafka stands"))
                .hint("give one of `sasl.password.file` and `sasl.password.env`"));
        }
    };
    Ok(KafkaLogin { mechanism, user, password })
}

fn tls_of(folder: &Path, given: Vec<Option<String>>) -> Result<KafkaTls> {
    let mut given = given.into_iter();
    let mut next = || given.next().flatten();
    let (ca_file, ca_type, client_file, client_type, hosts) = (next(), next(), next(), next(), next());
    if let Some(other) = ca_type.iter().chain(&client_type).find(|kind| kind.as_str() != "PEM") {
        return Err(Error::input(format!("stores of certificates cannot be of the type `{other}`"))
            .hint("only PEM is read; `keytool -exportcert -rfc` and `openssl pkcs12` make PEM of Java's stores"));
    }
    let any_host = match hosts.as_deref() {
        None | Some("https") => false,
        Some("") => true,
        Some(other) => {
            return Err(Error::input(format!("`{}` cannot be `{other}`", TLS[4]))
                .hint("take `https`, or nothing at all to accept certificates of any host"));
        }
    };
    let below = |file: Option<String>| file.map(|file| folder.join(file));
    Ok(KafkaTls { ca_file: below(ca_file), client_file: below(client_file), any_host })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(options: &[(&str, &str)]) -> Result<KafkaSecurity> {
        let find = |name: &str| options.iter().find(|(key, _)| *key == name).map(|(_, value)| value.to_string());
        KafkaSecurity::from_options(Path::new("jobs"), find)
    }

    fn told(options: &[(&str, &str)]) -> String {
        read(options).expect_err("refused").to_string()
    }

    #[test]
    fn options_have_the_names_and_meanings_of_kafkas_own() {
        let open = read(&[]).expect("reads");
        assert!(open.tls.is_none() && open.login.is_none());
        let tls = read(&[("security.protocol", "SSL"), ("ssl.truststore.location", "ca.pem")]).expect("reads");
        let tls = tls.tls.expect("through TLS");
        assert_eq!((tls.ca_file, tls.client_file, tls.any_host), (Some("jobs/ca.pem".into()), None, false));
        let both = read(&[
            ("security.protocol", "SASL_SSL"),
            ("sasl.mechanism", "SCRAM-SHA-512"),
            ("sasl.username", "u"),
            ("sasl.password.env", "SECRET"),
            ("ssl.keystore.location", "/k.pem"),
            ("ssl.endpoint.identification.algorithm", ""),
        ]);
        let both = both.expect("reads");
        let (tls, login) = (both.tls.expect("through TLS"), both.login.expect("a login"));
        assert_eq!((tls.client_file, tls.any_host), (Some("/k.pem".into()), true));
        assert_eq!((login.user.as_str(), login.mechanism), ("u", KafkaMechanism::ScramSha512));
    }

    #[test]
    fn what_is_wrong_or_not_built_is_told_with_the_next_step() {
        let sasl = ("security.protocol", "SASL_PLAINTEXT");
        for mechanism in ["OAUTHBEARER", "GSSAPI", "AWS_MSK_IAM"] {
            let error = told(&[sasl, ("sasl.mechanism", mechanism)]);
            assert!(error.contains(mechanism) && error.contains("SCRAM-SHA-256"), "{error}");
        }
        assert!(told(&[("security.protocol", "TLS")]).contains("take PLAINTEXT, SSL"));
        assert!(told(&[("ssl.truststore.location", "ca.pem")]).contains("no meaning with PLAINTEXT"));
        assert!(told(&[sasl, ("sasl.mechanism", "PLAIN")]).contains("`sasl.username`"));
        let user = ("sasl.username", "u");
        assert!(told(&[sasl, ("sasl.mechanism", "PLAIN"), user]).contains("`sasl.password.file`"));
        assert!(told(&[sasl, ("sasl.password", "secret")]).contains("`sasl.password.env`"));
        let error = told(&[sasl, ("sasl.jaas.config", "… password=\"secret\"")]);
        assert!(error.contains("`sasl.username`") && !error.contains("secret"), "{error}");
        assert!(told(&[("security.protocol", "SSL"), ("ssl.truststore.type", "JKS")]).contains("only PEM"));
    }

    #[test]
    fn a_password_is_read_and_never_shown() {
        let file = tempfile::NamedTempFile::new().expect("a file");
        std::fs::write(file.path(), "secret\n").expect("written");
        assert_eq!(KafkaPassword::File(file.path().into()).read().expect("reads"), "secret");
        assert!(KafkaPassword::Environment("TIDEMILL_NO_SUCH".into()).read().is_err());
        let security =
            KafkaSecurity::new().login(KafkaMechanism::Plain, "u", KafkaPassword::Given("secret".to_string()));
        assert!(!format!("{security:?}").contains("secret"));
    }
}
