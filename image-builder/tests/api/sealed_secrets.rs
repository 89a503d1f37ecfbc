//! Sealed secrets, and the keys of the senders that it names.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use manifest::{MEASURED_CONFIG_PATH, MeasuredConfig, SecretOrigin};

use crate::project::Project;
use crate::ramdisk::{file, ramdisks};

/// By OpenSSL.
const KEY: &str = include_str!("../../../crates/sealed-secret/tests/vectors/sender.key");
const PUBLIC: &str = include_str!("../../../crates/sealed-secret/tests/vectors/sender.pem");
const DECLARED: &str =
    "[[secrets]]\nname = \"password\"\nsealed = { sender = \"operator.pem\" }\napi = true\n";

#[test]
fn sealed_secrets_are_measured_with_their_senders_keys() {
    let project = Project::new();
    project.manifest(DECLARED);
    // A comment, or another system's line ends, must not change what is measured.
    let lines = PUBLIC.replace('\n', "\r\n");
    for text in [PUBLIC.to_owned(), format!("a comment\r\n{lines}")] {
        project.write("operator.pem", text);
        let [_, application] = ramdisks(&project.build()).try_into().unwrap();
        let config = file(&application, MEASURED_CONFIG_PATH);
        let config = MeasuredConfig::from_json(&config).unwrap();
        let [secret] = config.secrets.as_slice() else {
            panic!("{config:?}");
        };
        let SecretOrigin::Sealed(sealed) = &secret.origin else {
            panic!("{secret:?}");
        };
        assert_eq!(secret.name.as_str(), "password");
        let body: String = PUBLIC.lines().filter(|line| !line.contains('-')).collect();
        assert_eq!(sealed.sender, body);
        assert_eq!(STANDARD.decode(&sealed.sender).unwrap().len(), 44);
    }
}

#[test]
fn sealed_secrets_of_unknown_senders_are_refused_with_the_line() {
    let project = Project::new();
    project.manifest(DECLARED);
    let line = "enclave.toml:7: the secret `password`: operator.pem: ";
    project.refused(2, &[line, "it cannot be read: No such file"]);
    for text in ["", "no key", KEY, &PUBLIC[..40]] {
        project.write("operator.pem", text);
        project.refused(2, &[line, "not an Ed25519 public key", "openssl pkey"]);
    }
    project.write("operator.pem", PUBLIC);
    project.manifest(&format!("{DECLARED}{DECLARED}"));
    project.refused(2, &["enclave.toml:10: ", "`password` is declared twice"]);
}
