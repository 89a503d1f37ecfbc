//! AWS KMS in software, for machines without AWS, as far as enclaves use it.
//!
//! It refuses what KMS refuses, for KMS's reasons and in its words: every request's
//! signature (Signature Version 4) is verified; what a key policy allows is evaluated, its
//! conditions on `kms:RecipientAttestation:…` against a document that has been verified
//! under given roots; ciphertexts are authenticated with their encryption context. A
//! request with a `Recipient` is answered in KMS's own encoding of CMS.
//!
//! ```
//! use attestation::Roots;
//! use software_kms::{Credentials, SoftwareKms};
//! use software_nsm::TestRoot;
//!
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let root = TestRoot::generate()?;
//! let roots = Roots::from_pem(root.certificate_pem().as_bytes())?;
//! let mut kms = SoftwareKms::new("eu-west-1", "123456789012".parse()?, roots);
//! kms.admit(Credentials {
//!     access_key_id: "AKIDEXAMPLE".to_owned(),
//!     secret_access_key: "a secret".to_owned(),
//!     session_token: None,
//!     arn: "arn:aws:iam::123456789012:role/Enclave".to_owned(),
//! })?;
//! let policy = r#"{
//!     "Version": "2012-10-17",
//!     "Statement": {
//!         "Effect": "Allow",
//!         "Principal": {"AWS": "arn:aws:iam::123456789012:role/Enclave"},
//!         "Action": "kms:Encrypt",
//!         "Resource": "*"
//!     }
//! }"#;
//! let key = kms.create_key(policy.parse()?)?;
//! assert_eq!(key.region(), "eu-west-1");
//! # Ok(())
//! # }
//! ```
//!
//! [`SoftwareKms::handle`] answers requests, [`serve`] puts it behind a socket. Keys
//! live in memory. There are no grants, no aliases and no IAM policies: what a key policy
//! leaves to IAM is refused, except `CreateKey` and `GenerateRandom`, which no key policy is
//! about and everybody who is known may call.
//!
//! # Calls
//!
//! | call | takes a `Recipient` | in the place of |
//! |---|---|---|
//! | `Decrypt`, `GenerateDataKey`, `GenerateRandom` | yes | `Plaintext`, which is empty then |
//! | `GenerateDataKeyPair` | yes | `PrivateKeyPlaintext`, which is absent then |
//! | `DeriveSharedSecret` | yes | `SharedSecret`, which is absent then |
//! | `CreateKey`, `DescribeKey`, `Encrypt`, `GetPublicKey`, `PutKeyPolicy`, `ReEncrypt`, and the two `…WithoutPlaintext` | no | |
//!
//! KMS says of all these members that they are null or empty; a client has to take both.
//!
//! # Time
//!
//! A request is refused unless it was signed within five minutes of now, and a document if
//! it is older than five minutes or from the future. [`SoftwareKms::with_clock`] says what
//! now is. Within its five minutes a document may come again, as with AWS: what a replay
//! gets is encrypted to the key in the document.

#![forbid(unsafe_code)]

mod administration;
mod agreement;
mod answer;
mod call;
mod data_key_pair;
mod description;
mod encryption;
mod error;
mod generation;
mod key;
mod key_id;
mod kms;
mod operation;
mod recipient;
mod server;
mod signature;
mod symmetric;
mod wire;

pub use key::{KeyError, KeySpec};
pub use kms::SoftwareKms;
pub use server::{MAX_REQUEST_BYTES, serve, serve_connection};
pub use signature::Credentials;
