//! A secret, and which enclave may have it: read from the operator's files alone.

use anyhow::{Context, anyhow, bail};
use attestation::{Addition, Nonce, Policy, Purpose, VerifiedClaims, Verifier, read_measurements};
use aws_lc_rs::rand::{SecureRandom, SystemRandom};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use command_input::read_pem;
use control_plane_model::item::{
    RUNTIME_CONFIGURATION_PCR, runtime_configuration, runtime_register,
};
use control_plane_model::sealing::NONCE_BYTES;
use sealed_secret::{MAX_SECRET, SenderKey, seal_to};
use zeroize::Zeroizing;

use crate::cli::PutSecret;

/// A secret, and the enclaves that may have it.
pub(super) struct Offer {
    secret: Zeroizing<Vec<u8>>,
    pub(super) name: String,
    sender: SenderKey,
    policy: Policy,
    verifier: Verifier,
    pub(super) nonce: [u8; NONCE_BYTES],
}

impl Offer {
    pub(super) fn read(arguments: &PutSecret) -> anyhow::Result<Self> {
        let sender = read_pem(&arguments.sender, SenderKey::from_pem)?;
        let mut nonce = [0; NONCE_BYTES];
        SystemRandom::new()
            .fill(&mut nonce)
            .map_err(|_| anyhow!("there are no random bytes"))?;
        let secret = command_input::read(&arguments.file, MAX_SECRET)?;
        if secret.is_empty() {
            bail!(
                "{} is empty: a secret has 1 to {MAX_SECRET} bytes",
                arguments.file.display()
            );
        }
        Ok(Self {
            secret,
            name: arguments.name.clone(),
            sender,
            policy: policy(arguments)?,
            verifier: Verifier::new(arguments.trust.roots()?),
            nonce,
        })
    }

    /// Verifies the document, and seals the secret to the key in it.
    pub(super) fn seal(&self, document: &str) -> anyhow::Result<(VerifiedClaims, Vec<u8>)> {
        let document = STANDARD
            .decode(document)
            .context("the enclave's document is not base64")?;
        let nonce = Nonce::Fresh(&self.nonce);
        let verification = self.verifier.verify(&document, &self.policy, nonce);
        let accepted = verification
            .outcome
            .context("the enclave's document is rejected")?;
        let claims = VerifiedClaims::from(accepted);
        let sealed = seal_to(&claims, &self.secret, &self.name, &self.sender)?;
        Ok((claims, sealed))
    }
}

/// What the document must say: what the operator demands, and what names the enclave.
fn policy(arguments: &PutSecret) -> anyhow::Result<Policy> {
    let mut images = Vec::new();
    for file in &arguments.measurements {
        images.push((file.display().to_string(), read_measurements(file)?));
    }
    let register = runtime_register(&runtime_configuration(&arguments.id));
    let addition = Addition {
        images,
        pcrs: vec![(RUNTIME_CONFIGURATION_PCR, register)],
        purpose: Some(Purpose::Sealing),
        ..Addition::default()
    };
    let policy = match &arguments.policy {
        Some(file) => Policy::read(file)?
            .with(&addition)
            .with_context(|| format!("{} and the options", file.display()))?,
        None => addition.policy()?,
    };
    if policy.fixes_nonce() {
        bail!(
            "the policy demands a nonce of its own, and each document has a new one: leave it out"
        );
    }
    Ok(policy)
}

#[cfg(test)]
mod tests {
    use clap::Parser;
    use measurements::{Measurements, Pcr};
    use nsm::{Request, Response};
    use sealed_secret::{Sealed, SealingKey};
    use software_nsm::{Identity, SoftwareNsm, TestRoot};

    use super::*;
    use crate::cli::{Cli, Command, SecretCommand};

    const SENDER: &[u8] = include_bytes!("../../../crates/sealed-secret/tests/vectors/sender.key");
    const NONCE: [u8; NONCE_BYTES] = [7; NONCE_BYTES];

    fn image(fill: u8) -> Measurements {
        let pcr = Pcr::new([fill; 48]);
        Measurements {
            pcr0: pcr,
            pcr1: pcr,
            pcr2: pcr,
            pcr8: None,
        }
    }

    fn arguments(line: &[&str]) -> PutSecret {
        let line = ["enclavectl", "secret", "put"].iter().chain(line);
        match Cli::try_parse_from(line).unwrap().command {
            Command::Secret {
                command: SecretCommand::Put(arguments),
            } => *arguments,
            other => panic!("{other:?}"),
        }
    }

    /// A folder with the root of this module, the measurements, a sender and a secret.
    fn folder(root: &TestRoot) -> tempfile::TempDir {
        let folder = tempfile::tempdir().unwrap();
        let write = |name: &str, bytes: &[u8]| {
            std::fs::write(folder.path().join(name), bytes).unwrap();
        };
        write("root.pem", root.certificate_pem().as_bytes());
        write("image.json", &serde_json::to_vec(&image(1)).unwrap());
        write("sender.key", SENDER);
        write("secret", b"hush-hunter2");
        folder
    }

    fn offer(root: &TestRoot) -> Offer {
        let folder = folder(root);
        let path = |name: &str| folder.path().join(name).display().to_string();
        let line = [
            "e-1",
            "password",
            &path("secret"),
            "--sender",
            &path("sender.key"),
            "--measurements",
            &path("image.json"),
            "--root",
            &path("root.pem"),
        ];
        let offer = Offer::read(&arguments(&line)).unwrap();
        Offer {
            nonce: NONCE,
            ..offer
        }
    }

    /// The document of an enclave of this image, with this id, for this nonce.
    fn document(root: &TestRoot, fill: u8, id: &str, nonce: &[u8], purpose: Purpose) -> String {
        let root = TestRoot::from_pem(root.certificate_pem(), &root.key_pem()).unwrap();
        let identity = Identity {
            instance_id: "i-0123456789abcdef0".to_owned(),
            enclave_id: "enc0123456789abcdef".to_owned(),
            measurements: Some(image(fill)),
        };
        let mut module = SoftwareNsm::new(identity, root).unwrap();
        let configuration = runtime_configuration(id);
        let data = aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA384, configuration.as_bytes());
        let data = data.as_ref().to_vec();
        module.answer(Request::ExtendPCR { index: 16, data });
        module.answer(Request::LockPCR { index: 16 });
        let key = SealingKey::generate().unwrap().public_key().to_spki();
        let request = Request::Attestation {
            user_data: purpose.user_data().map(Into::into),
            nonce: Some(nonce.to_vec().into()),
            public_key: (purpose == Purpose::Sealing).then(|| key.into()),
        };
        let Response::Attestation { document } = module.answer(request) else {
            panic!("no document");
        };
        STANDARD.encode(document)
    }

    #[test]
    fn secret_is_sealed_to_the_enclave_that_the_operator_means_and_to_no_other() {
        let root = TestRoot::generate().unwrap();
        let offer = offer(&root);
        let own = document(&root, 1, "e-1", &NONCE, Purpose::Sealing);
        let (claims, sealed) = offer.seal(&own).unwrap();
        assert!(claims.module_id().starts_with("i-0123456789abcdef0"));
        let sealed = Sealed::parse(&sealed).unwrap();
        assert_eq!(sealed.name(), "password");
        assert!(sealed.is_signed_by(&offer.sender.sender()));
        assert!(sealed.registers().any(|index| index == 16));
        let other_root = TestRoot::generate().unwrap();
        let made = |fill, id, nonce, purpose| document(&root, fill, id, nonce, purpose);
        for (document, rule) in [
            (made(2, "e-1", &NONCE, Purpose::Sealing), "policy.image"),
            (made(1, "e-2", &NONCE, Purpose::Sealing), "policy.pcr.16"),
            (made(1, "e-1", &[8; 32], Purpose::Sealing), "policy.nonce"),
            (
                made(1, "e-1", &NONCE, Purpose::RelayedChallenge),
                "policy.purpose",
            ),
            (
                document(&other_root, 1, "e-1", &NONCE, Purpose::Sealing),
                "chain.root",
            ),
            ("~".to_owned(), "base64"),
        ] {
            let error = format!("{:#}", offer.seal(&document).unwrap_err());
            assert!(error.contains(rule), "{rule}: {error}");
            assert!(!error.contains("hush"), "{error}");
        }
    }

    #[test]
    fn secret_needs_a_policy_that_names_code_and_files_that_can_be_read() {
        let line = [
            "enclavectl",
            "secret",
            "put",
            "e-1",
            "a",
            "f",
            "--sender",
            "s",
        ];
        let error = Cli::try_parse_from(line).unwrap_err().to_string();
        assert!(error.contains("--measurements"), "{error}");
        let root = TestRoot::generate().unwrap();
        let folder = folder(&root);
        let path = |name: &str| folder.path().join(name).display().to_string();
        std::fs::write(path("empty"), b"").unwrap();
        std::fs::write(path("large"), vec![0; MAX_SECRET + 1]).unwrap();
        for (file, sender, image, message) in [
            ("missing", "sender.key", "image.json", "cannot read"),
            ("empty", "sender.key", "image.json", "is empty"),
            ("large", "sender.key", "image.json", "more than 32768 bytes"),
            (
                "secret",
                "root.pem",
                "image.json",
                "not an Ed25519 private key",
            ),
            ("secret", "sender.key", "secret", "secret"),
        ] {
            let line = [
                "e-1",
                "password",
                &path(file),
                "--sender",
                &path(sender),
                "--measurements",
                &path(image),
            ];
            let Err(error) = Offer::read(&arguments(&line)) else {
                panic!("{file} {sender} {image}");
            };
            let error = format!("{error:#}");
            assert!(error.contains(message), "{message}: {error}");
            assert!(!error.contains("hush"), "{error}");
        }
    }
}
