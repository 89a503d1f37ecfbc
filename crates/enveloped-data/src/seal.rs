//! Messages as KMS writes them, and as a writer of DER does.

use aws_lc_rs::cipher::{AES_256, DecryptionContext, PaddedBlockEncryptingKey, UnboundCipherKey};
use aws_lc_rs::digest::{SHA256, digest};
use aws_lc_rs::error::{KeyRejected, Unspecified};
use aws_lc_rs::rand;
use aws_lc_rs::rsa::{OAEP_SHA256_MGF1SHA256, OaepPublicEncryptingKey, PublicEncryptingKey};
use thiserror::Error;
use zeroize::Zeroizing;

use crate::ber::Tag;
use crate::object_identifier;
use crate::size::{BLOCK_BYTES, CONTENT_KEY_BYTES, MAX_PLAINTEXT_BYTES};

/// Size in bytes of the pieces that KMS writes a content in.
const FRAGMENT_BYTES: usize = 1000;
/// The version of structures that name the recipient by its key (RFC 5652, sections 6.1
/// and 6.2.1).
const VERSION: u8 = 2;

/// How a message is encoded.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Encoding {
    /// As KMS: BER, indefinite lengths around a content in pieces of 1000 bytes.
    Kms,
    /// DER, as OpenSSL writes without streaming.
    Der,
}

/// Why there is no message.
#[derive(Debug, Error)]
pub enum SealError {
    /// The key that it was to be encrypted to cannot be used.
    #[error(
        "the recipient's key cannot be used ({0}): SubjectPublicKeyInfo of an RSA key of 2048 to 8192 bits can"
    )]
    PublicKey(KeyRejected),
    /// The plaintext is larger than any that KMS returns.
    #[error("a plaintext of {0} bytes is not sealed: {MAX_PLAINTEXT_BYTES} are the most")]
    TooLong(usize),
    /// AWS-LC did not encrypt.
    #[error("the plaintext cannot be encrypted: the random number generator or the memory fails")]
    Encrypt(#[from] Unspecified),
}

/// Encrypts a plaintext to a public key: `SubjectPublicKeyInfo`, DER. As with KMS, the
/// recipient's identifier is the key's SHA-256.
pub fn seal(
    public_key_der: &[u8],
    plaintext: &[u8],
    encoding: Encoding,
) -> Result<Vec<u8>, SealError> {
    let sealed = Sealed::encrypt(public_key_der, plaintext)?;
    Ok(match encoding {
        Encoding::Kms => sealed.ber(sealed.content.chunks(FRAGMENT_BYTES)),
        Encoding::Der => sealed.der(),
    })
}

struct Sealed {
    key_identifier: Vec<u8>,
    encrypted_key: Vec<u8>,
    initialisation_vector: [u8; BLOCK_BYTES],
    content: Vec<u8>,
}

impl Sealed {
    fn encrypt(public_key_der: &[u8], plaintext: &[u8]) -> Result<Self, SealError> {
        if plaintext.len() > MAX_PLAINTEXT_BYTES {
            return Err(SealError::TooLong(plaintext.len()));
        }
        let public = PublicEncryptingKey::from_der(public_key_der).map_err(SealError::PublicKey)?;
        let public = OaepPublicEncryptingKey::new(public)?;

        let mut key = Zeroizing::new([0; CONTENT_KEY_BYTES]);
        rand::fill(key.as_mut_slice())?;
        let mut encrypted_key = vec![0; public.ciphertext_size()];
        public.encrypt(
            &OAEP_SHA256_MGF1SHA256,
            key.as_slice(),
            &mut encrypted_key,
            None,
        )?;

        // With room for the padding: growing would leave a copy of the plaintext behind.
        let mut content = Vec::with_capacity(plaintext.len() + BLOCK_BYTES);
        content.extend_from_slice(plaintext);
        let key = UnboundCipherKey::new(&AES_256, key.as_slice())?;
        let DecryptionContext::Iv128(initialisation_vector) =
            PaddedBlockEncryptingKey::cbc_pkcs7(key)?.encrypt(&mut content)?
        else {
            return Err(Unspecified.into());
        };
        Ok(Self {
            key_identifier: digest(&SHA256, public_key_der).as_ref().to_vec(),
            encrypted_key,
            initialisation_vector: *initialisation_vector.as_ref(),
            content,
        })
    }

    fn ber<'a>(&self, fragments: impl Iterator<Item = &'a [u8]>) -> Vec<u8> {
        let fragments = fragments.map(|fragment| definite(Tag::OCTET_STRING, &[fragment]));
        let fragments: Vec<_> = fragments.collect();
        self.encode(
            indefinite,
            &indefinite(Tag::constructed(0), &[&fragments.concat()]),
        )
    }

    fn der(&self) -> Vec<u8> {
        self.encode(definite, &definite(Tag::context(0), &[&self.content]))
    }

    /// Writes the elements around recipient and content with `constructed`. The
    /// recipient is DER in both encodings.
    fn encode(&self, constructed: fn(Tag, &[&[u8]]) -> Vec<u8>, content: &[u8]) -> Vec<u8> {
        let version = definite(Tag::INTEGER, &[&[VERSION]]);
        let recipient = definite(
            Tag::SEQUENCE,
            &[
                &version,
                &definite(Tag::context(0), &[&self.key_identifier]),
                &rsaes_oaep(),
                &definite(Tag::OCTET_STRING, &[&self.encrypted_key]),
            ],
        );
        let algorithm = definite(
            Tag::SEQUENCE,
            &[
                &identifier(object_identifier::AES_256_CBC),
                &definite(Tag::OCTET_STRING, &[&self.initialisation_vector]),
            ],
        );
        let content_info = constructed(
            Tag::SEQUENCE,
            &[&identifier(object_identifier::DATA), &algorithm, content],
        );
        let enveloped_data = constructed(
            Tag::SEQUENCE,
            &[&version, &definite(Tag::SET, &[&recipient]), &content_info],
        );
        constructed(
            Tag::SEQUENCE,
            &[
                &identifier(object_identifier::ENVELOPED_DATA),
                &constructed(Tag::constructed(0), &[&enveloped_data]),
            ],
        )
    }
}

/// RSAES-OAEP with SHA-256 and MGF1 with SHA-256 (RFC 4055, section 4.1).
fn rsaes_oaep() -> Vec<u8> {
    let null = definite(Tag::NULL, &[]);
    let sha_256 = definite(
        Tag::SEQUENCE,
        &[&identifier(object_identifier::SHA_256), &null],
    );
    let mgf1 = definite(
        Tag::SEQUENCE,
        &[&identifier(object_identifier::MGF1), &sha_256],
    );
    let parameters = definite(
        Tag::SEQUENCE,
        &[
            &definite(Tag::constructed(0), &[&sha_256]),
            &definite(Tag::constructed(1), &[&mgf1]),
        ],
    );
    definite(
        Tag::SEQUENCE,
        &[&identifier(object_identifier::RSAES_OAEP), &parameters],
    )
}

fn identifier(contents: &[u8]) -> Vec<u8> {
    definite(Tag::OBJECT_IDENTIFIER, &[contents])
}

/// An element with the shortest form of its length.
fn definite(tag: Tag, contents: &[&[u8]]) -> Vec<u8> {
    let contents = contents.concat();
    let mut element = vec![tag.0];
    match u8::try_from(contents.len()) {
        Ok(length) if length < 0x80 => element.push(length),
        _ => {
            let octets = contents.len().to_be_bytes();
            let octets: Vec<u8> = octets.into_iter().skip_while(|&octet| octet == 0).collect();
            #[expect(clippy::cast_possible_truncation, reason = "at most eight")]
            element.push(0x80 | octets.len() as u8);
            element.extend(octets);
        }
    }
    element.extend(contents);
    element
}

/// An element of indefinite length.
fn indefinite(tag: Tag, contents: &[&[u8]]) -> Vec<u8> {
    [&[tag.0, 0x80], contents.concat().as_slice(), &[0, 0]].concat()
}

#[cfg(test)]
mod tests {
    use std::sync::LazyLock;

    use proptest::collection::vec;
    use proptest::prelude::*;

    use super::*;
    use crate::{MAX_FRAGMENTS, Malformed, OpenError, RecipientKey};

    /// One for the tests: making it takes long.
    static KEY: LazyLock<RecipientKey> = LazyLock::new(|| RecipientKey::generate().unwrap());

    /// The content in pieces that end at these places.
    fn split<'a>(content: &'a [u8], ends: &[prop::sample::Index]) -> Vec<&'a [u8]> {
        let mut ends: Vec<_> = ends
            .iter()
            .map(|end| end.index(content.len() + 1))
            .collect();
        ends.push(content.len());
        ends.sort_unstable();
        let mut start = 0;
        ends.into_iter()
            .map(|end| {
                let fragment = &content[start..end];
                start = end;
                fragment
            })
            .collect()
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]

        #[test]
        fn seal_and_open_are_inverse(
            plaintext in vec(any::<u8>(), 0..=MAX_PLAINTEXT_BYTES),
            ends in vec(any::<prop::sample::Index>(), 0..MAX_FRAGMENTS),
        ) {
            let sealed = Sealed::encrypt(KEY.public_key_der(), &plaintext).unwrap();
            let kms = sealed.ber(sealed.content.chunks(FRAGMENT_BYTES));
            let fragments = split(&sealed.content, &ends);
            for message in [sealed.der(), kms, sealed.ber(fragments.into_iter())] {
                prop_assert_eq!(&*KEY.open(&message).unwrap(), &plaintext);
            }
        }
    }

    #[test]
    fn seal_writes_what_kms_writes() {
        // Every byte of an answer of KMS that is neither random nor encrypted, for a
        // plaintext of 4096 bytes and a key of 2048 bits.
        let sealed = Sealed::encrypt(KEY.public_key_der(), &[7; 4096]).unwrap();
        let message = sealed.ber(sealed.content.chunks(FRAGMENT_BYTES));
        let before_identifier = "308006092a864886f70d010703a0803080020102\
            3182016b30820167020102 8020";
        let before_key = "303c06092a864886f70d010107302fa00f300d06096086480165030402010500\
            a11c301a06092a864886f70d010108300d06096086480165030402010500 04820100";
        let before_vector = "308006092a864886f70d010701301d060960864801650304012a0410";
        let (first, others) = sealed.content.split_at(1000);
        let mut fragments = vec![hex("a080048203e8"), first.to_vec()];
        for fragment in others.chunks(1000) {
            let header = if fragment.len() == 1000 {
                "048203e8"
            } else {
                "0470"
            };
            fragments.extend([hex(header), fragment.to_vec()]);
        }
        let expected = [
            hex(before_identifier),
            sealed.key_identifier.clone(),
            hex(before_key),
            sealed.encrypted_key.clone(),
            hex(before_vector),
            sealed.initialisation_vector.to_vec(),
            fragments.concat(),
            hex("00000000000000000000"),
        ];
        assert_eq!(hex::encode(message), hex::encode(expected.concat()));
        assert_eq!(sealed.key_identifier.len(), 32);
        assert_eq!(sealed.encrypted_key.len(), 256);
    }

    fn hex(text: &str) -> Vec<u8> {
        hex::decode(text.replace(' ', "")).unwrap()
    }

    #[test]
    fn open_bounds_the_number_of_fragments() {
        let sealed = Sealed::encrypt(KEY.public_key_der(), b"").unwrap();
        let with = |empty| {
            let empty = std::iter::repeat_n([].as_slice(), empty);
            KEY.open(&sealed.ber(empty.chain([sealed.content.as_slice()])))
        };
        assert!(with(MAX_FRAGMENTS - 1).is_ok());
        let refused = OpenError::Malformed(Malformed::Fragments);
        assert_eq!(with(MAX_FRAGMENTS), Err(refused));
    }

    #[test]
    fn seal_refuses_what_would_not_be_opened() {
        let too_long = vec![0; MAX_PLAINTEXT_BYTES + 1];
        let error = seal(KEY.public_key_der(), &too_long, Encoding::Kms).unwrap_err();
        assert!(matches!(error, SealError::TooLong(8193)), "{error}");
        let longest = seal(KEY.public_key_der(), &too_long[1..], Encoding::Kms).unwrap();
        assert_eq!(KEY.open(&longest).unwrap().len(), MAX_PLAINTEXT_BYTES);
        let error = seal(b"no key", b"", Encoding::Der).unwrap_err();
        assert!(matches!(error, SealError::PublicKey(_)), "{error}");
    }

    /// A message whose content key, of any length, is encrypted as it should be.
    fn with_content_key(content_key: &[u8]) -> Vec<u8> {
        let public = PublicEncryptingKey::from_der(KEY.public_key_der()).unwrap();
        let public = OaepPublicEncryptingKey::new(public).unwrap();
        let mut sealed = Sealed::encrypt(KEY.public_key_der(), b"a secret").unwrap();
        public
            .encrypt(
                &OAEP_SHA256_MGF1SHA256,
                content_key,
                &mut sealed.encrypted_key,
                None,
            )
            .unwrap();
        sealed.der()
    }

    #[test]
    fn open_has_one_error_for_all_that_depends_on_the_key() {
        let other = RecipientKey::generate().unwrap();
        let another = seal(other.public_key_der(), b"a secret", Encoding::Kms).unwrap();
        assert_eq!(KEY.open(&another), Err(OpenError::Refused));

        let mut bad_oaep = Sealed::encrypt(KEY.public_key_der(), b"a secret").unwrap();
        bad_oaep.encrypted_key[100] ^= 1;
        assert_eq!(KEY.open(&bad_oaep.der()), Err(OpenError::Refused));
        // Not as long as the key's modulus, and a number above it.
        for encrypted_key in [vec![], vec![1; 255], vec![1; 512], vec![0xff; 256]] {
            bad_oaep.encrypted_key = encrypted_key;
            assert_eq!(KEY.open(&bad_oaep.der()), Err(OpenError::Refused));
        }

        for length in [0, 16, 31, 33, 190] {
            let message = with_content_key(&vec![1; length]);
            assert_eq!(KEY.open(&message), Err(OpenError::Refused), "{length}");
        }

        // The last block decrypts to what the block before it is made to be: all values of
        // the padding's last byte, of which one is right.
        let mut sealed = Sealed::encrypt(KEY.public_key_der(), &[0; 31]).unwrap();
        let mut opened = 0;
        for value in 0..=u8::MAX {
            sealed.content[15] = value;
            match KEY.open(&sealed.der()) {
                Ok(_) => opened += 1,
                Err(error) => assert_eq!(error, OpenError::Refused),
            }
        }
        assert_eq!(opened, 1);
    }
}
