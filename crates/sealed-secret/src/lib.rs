//! A secret that one boot of one enclave can open, and nobody else.
//!
//! An enclave makes a [`SealingKey`] when it boots, and attests its public half in a
//! document. Whoever has verified that document seals a secret to it ([`seal_to`]): HPKE
//! (RFC 9180) encrypts it, bound to the secret's name, the module's id and every register
//! in the document, and the sender signs the result.
//!
//! HPKE's base mode keeps a secret from others and says nothing of who sent it: anybody
//! may encrypt to a public key. So an enclave opens only what the [`Sender`] has signed
//! that its measured configuration names.
//!
//! A seed that one enclave hands to another is encrypted in the same suite
//! ([`seal_seed`]), for another context, and without a sender: a document of the enclave
//! that gives it goes with it.
//!
//! ```
//! use measurements::Pcr;
//! use sealed_secret::{Binding, Sealed, Sender, SealingKey, SenderKey, seal};
//!
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! # let pem = include_str!("../tests/vectors/sender.key");
//! # let public_pem = include_str!("../tests/vectors/sender.pem");
//! // In the enclave; the public key leaves it in a document.
//! let key = SealingKey::generate()?;
//! // Where the secret is, once the document is verified.
//! let binding = Binding::new("i-1-enc1", [(0, Pcr::new([7; 48]))]);
//! let sender = SenderKey::from_pem(pem.as_bytes())?;
//! let sealed = seal(b"hunter2", "password", &key.public_key(), &binding, &sender)?;
//! // In the enclave.
//! let sealed = Sealed::parse(&sealed)?;
//! let sender = Sender::from_pem(public_pem.as_bytes())?;
//! assert_eq!(*key.open(&sealed, &sender, &binding)?, b"hunter2");
//! # Ok(())
//! # }
//! ```

#![forbid(unsafe_code)]

mod attested;
mod binding;
mod format;
mod hand_over;
mod key;
mod sender;
mod suite;

pub use attested::{SealToError, seal_to};
pub use binding::Binding;
pub use format::{FORMAT_VERSION, FormatError, MAX_NAME, MAX_SEALED, MAX_SECRET, Sealed};
pub use hand_over::seal_seed;
pub use key::{OpenError, SealError, SealingKey, seal};
pub use sender::{Sender, SenderError, SenderKey};
pub use suite::{PublicKey, PublicKeyError, RandomError, SUITE};
