//! The KMS that the enclave calls for its workload.

use std::fmt;
use std::path::{Path, PathBuf};
use std::str::FromStr;

use aws_endpoint::is_region;
use serde::{Deserialize, Serialize};
use thiserror::Error;

use crate::egress::{EgressError, EgressRule, HostPattern, Protocol};
use crate::network::Network;
use crate::process::Environment;

/// Largest file of root certificates, as PEM, in bytes.
pub const MAX_TLS_ROOTS_BYTES: usize = 32 * 1024;
/// Longest name of a region, in bytes.
const MAX_REGION_BYTES: usize = 32;
/// What an endpoint begins with.
const SCHEME: &str = "https://";
/// The port of an endpoint that names none.
const HTTPS_PORT: u16 = 443;
const PEM_START: &str = "-----BEGIN CERTIFICATE-----";
/// Variables by which an SDK calls another KMS than the enclave's, or none.
const OTHER_ENDPOINTS: [&str; 2] = [
    "AWS_ENDPOINT_URL_KMS",
    "AWS_IGNORE_CONFIGURED_ENDPOINT_URLS",
];

/// Why a value of the `[kms]` table was refused.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum KmsError {
    /// The endpoint does not begin with `https://`.
    #[error(
        "`{0}` is not an endpoint: write `https://` and a host, as in `https://kms.eu-west-1.amazonaws.com`"
    )]
    Scheme(String),
    /// What follows is not a host and a port.
    #[error(
        "`{0}` is not an endpoint: write one host, and a port if it is not 443, without a path, as in `https://kms.eu-west-1.amazonaws.com`"
    )]
    Host(String),
    /// The region has other characters than regions have.
    #[error(
        "`{0}` is not a region: write lower-case letters, digits and hyphens, as in `eu-west-1`"
    )]
    Region(String),
    /// Nothing says which region requests are signed for.
    #[error(
        "the endpoint {0} names no region, and requests are signed for one: add `region`, as in `region = \"eu-west-1\"`"
    )]
    NoRegion(HttpsEndpoint),
    /// The endpoint is another region's.
    #[error(
        "the endpoint is in {of_endpoint}, and `region` is {region}, for which it takes no request: remove `region`"
    )]
    OtherRegion {
        /// The region in the endpoint's host.
        of_endpoint: Region,
        /// The one that is given besides.
        region: Region,
    },
    /// There is nothing to sign with.
    #[error(
        "the enclave signs its calls to KMS with the workload's credentials: set `aws_credentials = true` in [workload]"
    )]
    NoCredentials,
    /// The endpoint cannot be reached.
    #[error(
        "the endpoint {host}:{port} is no destination that [network] allows: add \"{host}:{port}\" to its `egress`"
    )]
    NoEgress {
        /// The endpoint's host.
        host: String,
        /// Its port.
        port: u16,
    },
    /// The workload's environment has it call another KMS.
    #[error(
        "the workload is to call KMS through the enclave, and its environment sets {0}, by which AWS's SDKs call it elsewhere: remove one of the two"
    )]
    Environment(&'static str),
    /// The measured roots are no certificates.
    #[error("the roots are no certificates in PEM of at most {MAX_TLS_ROOTS_BYTES} bytes together")]
    Roots,
}

/// Where a service is, by HTTPS: a host in lower case, and a port.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct HttpsEndpoint {
    host: String,
    port: u16,
}

impl HttpsEndpoint {
    /// A DNS name or an IPv4 address.
    pub fn host(&self) -> &str {
        &self.host
    }

    /// The port.
    pub const fn port(&self) -> u16 {
        self.port
    }

    /// The region in the host's name, if there is one.
    pub fn region(&self) -> Option<Region> {
        let label = self.host.split('.').find(|label| is_region(label))?;
        label.parse().ok()
    }
}

impl FromStr for HttpsEndpoint {
    type Err = KmsError;

    fn from_str(text: &str) -> Result<Self, KmsError> {
        let authority = text
            .strip_prefix(SCHEME)
            .ok_or_else(|| KmsError::Scheme(text.to_owned()))?;
        let authority = authority.strip_suffix('/').unwrap_or(authority);
        let with_port = if authority.contains(':') {
            authority.to_owned()
        } else {
            format!("{authority}:{HTTPS_PORT}")
        };
        // The same hosts as egress has, but for patterns.
        let rule: Result<EgressRule, EgressError> = with_port.parse();
        let not_a_host = || KmsError::Host(text.to_owned());
        let rule = rule.map_err(|_| not_a_host())?;
        match (rule.host(), rule.protocol()) {
            (HostPattern::Exact(host), Protocol::Tcp) => Ok(Self {
                host: host.clone(),
                port: rule.port().get(),
            }),
            _ => Err(not_a_host()),
        }
    }
}

impl TryFrom<String> for HttpsEndpoint {
    type Error = KmsError;

    fn try_from(text: String) -> Result<Self, KmsError> {
        text.parse()
    }
}

/// As it is written: the port only if it is not HTTPS's.
impl fmt::Display for HttpsEndpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{SCHEME}{}", self.host)?;
        match self.port {
            HTTPS_PORT => Ok(()),
            port => write!(f, ":{port}"),
        }
    }
}

impl From<HttpsEndpoint> for String {
    fn from(endpoint: HttpsEndpoint) -> Self {
        endpoint.to_string()
    }
}

/// The name of a region of AWS, as far as one can be told from other texts.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Region(String);

impl FromStr for Region {
    type Err = KmsError;

    fn from_str(text: &str) -> Result<Self, KmsError> {
        let is_allowed =
            |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-';
        let is_region =
            (1..=MAX_REGION_BYTES).contains(&text.len()) && text.bytes().all(is_allowed);
        if is_region {
            Ok(Self(text.to_owned()))
        } else {
            Err(KmsError::Region(text.to_owned()))
        }
    }
}

impl TryFrom<String> for Region {
    type Error = KmsError;

    fn try_from(text: String) -> Result<Self, KmsError> {
        text.parse()
    }
}

impl From<Region> for String {
    fn from(region: Region) -> Self {
        region.0
    }
}

impl std::ops::Deref for Region {
    type Target = str;

    fn deref(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for Region {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// The `[kms]` table as a person writes it. In a [`Manifest`](crate::Manifest), a
/// relative path has been joined to the manifest's folder.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct KmsSource {
    /// Where KMS is.
    pub endpoint: HttpsEndpoint,
    /// The region that requests are signed for; the endpoint's unless given.
    pub region: Option<Region>,
    /// A PEM file of the certificates that the endpoint's must lead to; Amazon's roots
    /// unless given.
    pub roots: Option<PathBuf>,
    /// Whether the image gets the program `enclave-kms`, for scripts.
    #[serde(default)]
    pub command: bool,
}

impl KmsSource {
    pub(crate) fn join_to(&mut self, folder: &Path) {
        if let Some(path) = &mut self.roots {
            *path = folder.join(&*path);
        }
    }

    /// The region that requests are signed for.
    pub fn region(&self) -> Result<Region, KmsError> {
        match (self.endpoint.region(), &self.region) {
            (Some(of_endpoint), Some(region)) if of_endpoint != *region => {
                let region = region.clone();
                Err(KmsError::OtherRegion {
                    of_endpoint,
                    region,
                })
            }
            (_, Some(region)) => Ok(region.clone()),
            (Some(region), None) => Ok(region),
            (None, None) => Err(KmsError::NoRegion(self.endpoint.clone())),
        }
    }

    /// Checks the table beside the others; the error comes with the key that it is about.
    pub(crate) fn check(
        &self,
        aws_credentials: bool,
        network: &Network,
    ) -> Result<(), (&'static str, KmsError)> {
        self.region().map_err(|error| ("region", error))?;
        check_beside(&self.endpoint, aws_credentials, network).map_err(|error| ("endpoint", error))
    }
}

/// The `[kms]` table as it is measured: every default applied, and the content of the
/// file that it names instead of its name.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Kms {
    /// Where KMS is.
    pub endpoint: HttpsEndpoint,
    /// The region that requests are signed for.
    pub region: Region,
    /// What the endpoint's certificate must lead to; Amazon's roots unless given.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub roots: Option<TlsRoots>,
}

impl Kms {
    pub(crate) fn check(&self, aws_credentials: bool, network: &Network) -> Result<(), KmsError> {
        check_beside(&self.endpoint, aws_credentials, network)
    }
}

fn check_beside(
    endpoint: &HttpsEndpoint,
    aws_credentials: bool,
    network: &Network,
) -> Result<(), KmsError> {
    if !aws_credentials {
        return Err(KmsError::NoCredentials);
    }
    if !network.allows(endpoint.host(), endpoint.port()) {
        return Err(KmsError::NoEgress {
            host: endpoint.host().to_owned(),
            port: endpoint.port(),
        });
    }
    Ok(())
}

/// Refuses an environment in which a workload that is to call KMS through the enclave
/// would call it elsewhere.
pub fn check_kms_environment(environment: &Environment) -> Result<(), KmsError> {
    let mut others = OTHER_ENDPOINTS.into_iter();
    match others.find(|name| environment.contains_key(*name)) {
        Some(name) => Err(KmsError::Environment(name)),
        None => Ok(()),
    }
}

/// Whether SDKs are told by this variable where KMS is.
pub(crate) fn is_of_endpoint(variable: &str) -> bool {
    OTHER_ENDPOINTS.contains(&variable)
}

/// Root certificates in PEM, one after the other. They have the marks of PEM; whether
/// they are certificates is for whoever verifies with them to find out.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct TlsRoots(String);

impl TryFrom<String> for TlsRoots {
    type Error = KmsError;

    fn try_from(text: String) -> Result<Self, KmsError> {
        if text.starts_with(PEM_START) && text.len() <= MAX_TLS_ROOTS_BYTES {
            Ok(Self(text))
        } else {
            Err(KmsError::Roots)
        }
    }
}

impl From<TlsRoots> for String {
    fn from(roots: TlsRoots) -> Self {
        roots.0
    }
}

impl std::ops::Deref for TlsRoots {
    type Target = str;

    fn deref(&self) -> &str {
        &self.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Manifest;

    #[test]
    fn kms_endpoints_are_a_host_and_a_port_by_https() {
        for (text, host, port, region) in [
            (
                "https://kms.eu-west-1.amazonaws.com",
                "kms.eu-west-1.amazonaws.com",
                443,
                Some("eu-west-1"),
            ),
            (
                "https://KMS-FIPS.us-gov-west-1.amazonaws.com/",
                "kms-fips.us-gov-west-1.amazonaws.com",
                443,
                Some("us-gov-west-1"),
            ),
            (
                "https://vpce-1a-2b.kms.eu-west-1.vpce.amazonaws.com:443",
                "vpce-1a-2b.kms.eu-west-1.vpce.amazonaws.com",
                443,
                Some("eu-west-1"),
            ),
            ("https://localhost:8443", "localhost", 8443, None),
            ("https://127.0.0.1:8443", "127.0.0.1", 8443, None),
        ] {
            let endpoint: HttpsEndpoint = text.parse().unwrap();
            assert_eq!((endpoint.host(), endpoint.port()), (host, port), "{text}");
            assert_eq!(endpoint.region().as_deref(), region, "{text}");
            assert_eq!(endpoint.to_string().parse(), Ok(endpoint), "{text}");
        }
        for text in [
            "",
            "kms.eu-west-1.amazonaws.com",
            "http://kms.eu-west-1.amazonaws.com",
            "https://",
            "https://*.amazonaws.com",
            "https://a.test/path",
            "https://user@a.test",
            "https://a.test:0",
            "https://a.test:x",
            "https://a.test?x",
            "https://[::1]:443",
        ] {
            assert!(text.parse::<HttpsEndpoint>().is_err(), "{text}");
        }
    }

    /// What is said of a manifest with these tables; nothing if it is accepted.
    fn said(tables: &str) -> String {
        let text = format!("[enclave]\nname = \"a\"\nimage = \"oci:x\"\n{tables}\n");
        let manifest = Manifest::parse(&text, Path::new("e.toml"));
        manifest
            .err()
            .map(|error| error.to_string())
            .unwrap_or_default()
    }

    #[test]
    fn kms_is_refused_where_it_could_not_be_called() {
        let workload = "[workload]\naws_credentials = true";
        let services = "[network]\naws_services = [\"kms\"]";
        let kms = "[kms]\nendpoint = \"https://kms.eu-west-1.amazonaws.com\"";
        for network in [
            services,
            "[network]\negress = [\"kms.eu-west-1.amazonaws.com:443\"]",
            "[network]\negress = [\"*.amazonaws.com:443\"]",
        ] {
            assert_eq!(said(&format!("{workload}\n{network}\n{kms}")), "");
        }
        let local = "[network]\negress = [\"localhost:8443\"]\n[kms]\nendpoint = \"https://localhost:8443\"";
        assert_eq!(
            said(&format!("{workload}\n{local}\nregion = \"eu-west-1\"")),
            ""
        );
        for (tables, message) in [
            (
                format!("{services}\n{kms}"),
                "e.toml:7: the enclave signs its calls to KMS with the workload's credentials: set `aws_credentials = true`",
            ),
            (
                format!("{workload}\n{kms}"),
                "e.toml:7: the endpoint kms.eu-west-1.amazonaws.com:443 is no destination that [network] allows: add \"kms.eu-west-1.amazonaws.com:443\"",
            ),
            (
                format!("{workload}\n{local}"),
                "the endpoint https://localhost:8443 names no region",
            ),
            (
                format!("{workload}\n{services}\n{kms}\nregion = \"eu-west-2\""),
                "e.toml:10: the endpoint is in eu-west-1, and `region` is eu-west-2",
            ),
            (
                format!("{workload}\nenv = {{ AWS_ENDPOINT_URL_KMS = \"x\" }}\n{services}\n{kms}"),
                "its environment sets AWS_ENDPOINT_URL_KMS",
            ),
            (
                format!("{workload}\n{services}\n[kms]\nendpoint = \"http://a.test\""),
                "e.toml:9: `http://a.test` is not an endpoint",
            ),
            (
                format!("{workload}\n{services}\n[kms]\nregion = \"eu-west-1\""),
                "missing field `endpoint`",
            ),
        ] {
            let error = said(&tables);
            assert!(error.contains(message), "{tables}: {error}");
        }
    }

    #[test]
    fn kms_measured_reads_back_and_is_checked() {
        let value = serde_json::json!({
            "endpoint": "https://localhost:8443",
            "region": "eu-west-1",
            "roots": format!("{PEM_START}\nAA==\n-----END CERTIFICATE-----"),
        });
        let kms: Kms = serde_json::from_value(value.clone()).unwrap();
        assert_eq!(serde_json::to_value(&kms).unwrap(), value);
        for (key, wrong) in [
            ("endpoint", "localhost:8443"),
            ("region", "EU"),
            ("region", ""),
            ("roots", "x"),
        ] {
            let mut value = value.clone();
            value[key] = wrong.into();
            assert!(serde_json::from_value::<Kms>(value).is_err(), "{key}");
        }
        let network = Network::default();
        assert_eq!(kms.check(false, &network), Err(KmsError::NoCredentials));
        assert!(matches!(
            kms.check(true, &network),
            Err(KmsError::NoEgress { port: 8443, .. })
        ));
    }
}
