//! What an enclave found when it verified its own document, as far as that can be
//! relied on here.
//!
//! The agent says what the outcome was, and anybody may say so. But the document is
//! signed: that the check passed is written only if the document shows it.

use attestation::{AuditTime, Verifier};
use control_plane_model::item::Image;
use serde::Deserialize;
use tracing::warn;

use super::verdict::{UnusableImage, self_check_policy};

/// Longest rule of the agent's telling that is kept, in bytes.
const MAX_RULE: usize = 64;

/// What the agent passes on.
#[derive(Debug, Clone, Deserialize)]
pub(super) struct SelfCheck {
    outcome: Outcome,
    #[serde(default)]
    rule: String,
    /// In base64.
    document: String,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
enum Outcome {
    Passed,
    Failed,
    Unsigned,
    /// Of a later agent.
    #[serde(other)]
    Unknown,
}

impl SelfCheck {
    /// The outcome for the item: `passed` if the document shows it for this image,
    /// `not shown: RULE` if it does not, otherwise what the agent says.
    pub(super) fn judge(
        &self,
        image: &Image,
        verifier: &Verifier,
    ) -> Result<String, UnusableImage> {
        Ok(match self.outcome {
            Outcome::Passed => {
                let policy = self_check_policy(image)?;
                let document = super::decode(&self.document).unwrap_or_default();
                // It says what was found when the enclave booted, whenever that was.
                let audit = verifier.audit(&document, &policy, AuditTime::OfDocument);
                match audit.outcome {
                    Ok(_) => "passed".to_owned(),
                    Err(rejection) => {
                        warn!(%rejection, "the document does not show what the agent says of the self-check");
                        format!("not shown: {}", rejection.rule)
                    }
                }
            }
            Outcome::Failed => {
                let rule: String = self
                    .rule
                    .chars()
                    .filter(char::is_ascii_graphic)
                    .take(MAX_RULE)
                    .collect();
                format!("failed: {rule}")
            }
            Outcome::Unsigned => "unsigned".to_owned(),
            Outcome::Unknown => "unknown".to_owned(),
        })
    }
}

#[cfg(test)]
mod tests {
    use attestation::Roots;
    use aws_lc_rs::digest::{SHA384, digest};
    use base64::Engine;
    use base64::engine::general_purpose::STANDARD;
    use measurements::{Measurements, Pcr};
    use nsm::{Request, Response};
    use serde_json::json;
    use software_nsm::{Identity, SoftwareNsm, TestRoot};

    use super::*;
    use control_plane_model::item::{PublishedImage, runtime_configuration};

    fn measurements(fill: u8) -> Measurements {
        Measurements {
            pcr0: Pcr::new([fill; 48]),
            pcr1: Pcr::new([fill; 48]),
            pcr2: Pcr::new([fill; 48]),
            pcr8: None,
        }
    }

    fn image() -> Image {
        Image {
            published: PublishedImage {
                reference: "app:1".to_owned(),
                bucket: "b".to_owned(),
                key: "k".to_owned(),
                sha256: "s".to_owned(),
                size: 1,
                measurements: serde_json::to_string(&measurements(1)).unwrap(),
                architecture: "x86_64".to_owned(),
            },
            runtime_configuration: runtime_configuration("e-1"),
            enable_debug: false,
        }
    }

    /// The document of an enclave that runs image `fill`, for this purpose.
    fn document(root: &TestRoot, fill: u8, user_data: &[u8]) -> String {
        let root = TestRoot::from_pem(root.certificate_pem(), &root.key_pem()).unwrap();
        let identity = Identity {
            instance_id: "i-0123456789abcdef0".to_owned(),
            enclave_id: "enc0123456789abcdef".to_owned(),
            measurements: Some(measurements(fill)),
        };
        let mut module = SoftwareNsm::new(identity, root).unwrap();
        let configuration = runtime_configuration("e-1");
        let data = digest(&SHA384, configuration.as_bytes()).as_ref().to_vec();
        module.answer(Request::ExtendPCR { index: 16, data });
        module.answer(Request::LockPCR { index: 16 });
        match module.answer(Request::Attestation {
            user_data: Some(user_data.to_vec().into()),
            nonce: Some(vec![1; 32].into()),
            public_key: None,
        }) {
            Response::Attestation { document } => STANDARD.encode(document),
            other => panic!("{other:?}"),
        }
    }

    fn judged(told: serde_json::Value, root: &TestRoot) -> String {
        let told: SelfCheck = serde_json::from_value(told).unwrap();
        let roots = Roots::from_pem(root.certificate_pem().as_bytes()).unwrap();
        told.judge(&image(), &Verifier::new(roots)).unwrap()
    }

    #[test]
    fn that_it_passed_is_believed_only_if_the_document_shows_it() {
        let root = TestRoot::generate().unwrap();
        let other = TestRoot::generate().unwrap();
        let purpose = b"enclave-purpose:self-check";
        for (document, expected) in [
            (document(&root, 1, purpose), "passed"),
            (document(&root, 2, purpose), "not shown: policy.image"),
            (
                document(&root, 1, b"the workload's"),
                "not shown: policy.purpose",
            ),
            (document(&other, 1, purpose), "not shown: chain.root"),
            (String::new(), "not shown: cbor.encoding"),
            ("§".to_owned(), "not shown: cbor.encoding"),
        ] {
            let told = json!({"outcome": "passed", "rule": "", "document": document});
            let found = judged(told, &root);
            assert!(found.starts_with(expected), "{found}");
        }
    }

    #[test]
    fn anything_else_is_what_the_agent_says_within_bounds() {
        let root = TestRoot::generate().unwrap();
        let told = |outcome: &str, rule: &str| {
            judged(
                json!({"outcome": outcome, "rule": rule, "detail": "x", "document": ""}),
                &root,
            )
        };
        assert_eq!(told("failed", "chain.root"), "failed: chain.root");
        assert_eq!(told("failed", "a\n\u{1b}b"), "failed: ab");
        assert_eq!(
            told("failed", &"x".repeat(100)).len(),
            "failed: ".len() + 64
        );
        assert_eq!(told("unsigned", ""), "unsigned");
        assert_eq!(told("later", ""), "unknown");
    }
}
