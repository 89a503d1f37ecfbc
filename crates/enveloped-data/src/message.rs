//! The parts of a message that opening it takes.

use zeroize::Zeroizing;

use crate::ber::{Reader, Tag};
use crate::malformed::Malformed;
use crate::object_identifier;
use crate::size::{BLOCK_BYTES, MAX_FRAGMENTS, MAX_MESSAGE_BYTES};

/// A message of the form that KMS sends: one recipient, RSAES-OAEP with SHA-256,
/// AES-256-CBC.
#[cfg_attr(test, derive(Debug))]
pub(crate) struct Message<'a> {
    /// The content's key, encrypted.
    pub(crate) encrypted_key: &'a [u8],
    pub(crate) initialisation_vector: [u8; BLOCK_BYTES],
    /// The content, encrypted: at least one block, and only whole ones. It is decrypted
    /// in place, and erased.
    pub(crate) content: Zeroizing<Vec<u8>>,
}

impl<'a> Message<'a> {
    /// Reads a `ContentInfo` (RFC 5652, section 3) in BER.
    pub(crate) fn parse(bytes: &'a [u8]) -> Result<Self, Malformed> {
        if bytes.len() > MAX_MESSAGE_BYTES {
            return Err(Malformed::TooLong(bytes.len()));
        }
        let mut reader = Reader::new(bytes);
        let message = reader.constructed(Tag::SEQUENCE, "ContentInfo", |reader| {
            identifier(
                reader,
                "contentType",
                object_identifier::ENVELOPED_DATA,
                "id-envelopedData",
            )?;
            reader.constructed(Tag::constructed(0), "content", |reader| {
                reader.constructed(Tag::SEQUENCE, "EnvelopedData", enveloped_data)
            })
        })?;
        reader.end()?;
        Ok(message)
    }
}

/// The contents of `EnvelopedData` (RFC 5652, section 6.1), without the optional
/// `originatorInfo` and `unprotectedAttrs`.
fn enveloped_data<'a>(reader: &mut Reader<'a>) -> Result<Message<'a>, Malformed> {
    let version_at = reader.offset();
    let version = reader.contents(Tag::INTEGER, "version")?;
    let recipient = reader.constructed(Tag::SET, "recipientInfos", |reader| {
        reader.constructed(Tag::SEQUENCE, "KeyTransRecipientInfo", recipient_info)
    })?;
    // It follows from the recipient's here, where nothing else raises it.
    if version != [recipient.version] {
        return Err(Malformed::Value {
            offset: version_at,
            what: "version",
            expected: "0, or 2 for a recipient that is named by its key",
        });
    }
    let (initialisation_vector, content) =
        reader.constructed(Tag::SEQUENCE, "encryptedContentInfo", content_info)?;
    Ok(Message {
        encrypted_key: recipient.encrypted_key,
        initialisation_vector,
        content,
    })
}

struct Recipient<'a> {
    version: u8,
    encrypted_key: &'a [u8],
}

/// The contents of `KeyTransRecipientInfo` (RFC 5652, section 6.2.1).
fn recipient_info<'a>(reader: &mut Reader<'a>) -> Result<Recipient<'a>, Malformed> {
    let version_at = reader.offset();
    let version = reader.contents(Tag::INTEGER, "version")?;
    // Whom the message names is not compared with the key: it is not authenticated, a
    // certificate's names are not known here, and only the right key opens the message.
    let expected = if reader.next_is(Tag::context(0)) {
        reader.contents(Tag::context(0), "subjectKeyIdentifier")?;
        2
    } else {
        reader.contents(Tag::SEQUENCE, "issuerAndSerialNumber")?;
        0
    };
    if version != [expected] {
        return Err(Malformed::Value {
            offset: version_at,
            what: "version",
            expected: "0 with an issuer and serial number, 2 with a subjectKeyIdentifier",
        });
    }
    reader.constructed(Tag::SEQUENCE, "keyEncryptionAlgorithm", rsaes_oaep)?;
    let encrypted_key = reader.contents(Tag::OCTET_STRING, "encryptedKey")?;
    Ok(Recipient {
        version: expected,
        encrypted_key,
    })
}

/// The contents of an `AlgorithmIdentifier`: RSAES-OAEP with SHA-256, MGF1 with SHA-256,
/// and no label (RFC 4055, section 4.1).
fn rsaes_oaep(reader: &mut Reader) -> Result<(), Malformed> {
    identifier(
        reader,
        "keyEncryptionAlgorithm",
        object_identifier::RSAES_OAEP,
        "RSAES-OAEP",
    )?;
    reader.constructed(Tag::SEQUENCE, "RSAES-OAEP-params", |reader| {
        reader.constructed(Tag::constructed(0), "hashFunc", |reader| {
            sha_256(reader, "hashFunc")
        })?;
        reader.constructed(Tag::constructed(1), "maskGenFunc", |reader| {
            reader.constructed(Tag::SEQUENCE, "maskGenFunc", |reader| {
                identifier(reader, "maskGenFunc", object_identifier::MGF1, "MGF1")?;
                sha_256(reader, "maskGenFunc's hash function")
            })
        })
    })
}

/// The `AlgorithmIdentifier` of SHA-256. Its parameters are NULL or absent (RFC 4055,
/// section 2.1).
fn sha_256(reader: &mut Reader, what: &'static str) -> Result<(), Malformed> {
    reader.constructed(Tag::SEQUENCE, what, |reader| {
        identifier(reader, what, object_identifier::SHA_256, "SHA-256")?;
        if reader.next_is(Tag::NULL) {
            value(reader, Tag::NULL, "parameters", &[], "NULL")?;
        }
        Ok(())
    })
}

/// The contents of `EncryptedContentInfo` (RFC 5652, section 6.1): data in AES-256-CBC.
fn content_info(reader: &mut Reader) -> Result<([u8; BLOCK_BYTES], Zeroizing<Vec<u8>>), Malformed> {
    identifier(reader, "contentType", object_identifier::DATA, "id-data")?;
    let initialisation_vector =
        reader.constructed(Tag::SEQUENCE, "contentEncryptionAlgorithm", |reader| {
            identifier(
                reader,
                "contentEncryptionAlgorithm",
                object_identifier::AES_256_CBC,
                "AES-256-CBC",
            )?;
            let offset = reader.offset();
            let vector = reader.contents(Tag::OCTET_STRING, "AES-IV")?;
            vector.try_into().map_err(|_| Malformed::Value {
                offset,
                what: "AES-IV",
                expected: "16 bytes",
            })
        })?;
    let offset = reader.offset();
    let content = encrypted_content(reader)?;
    if content.is_empty() || !content.len().is_multiple_of(BLOCK_BYTES) {
        return Err(Malformed::Value {
            offset,
            what: "encryptedContent",
            expected: "a multiple of 16 bytes, and not none",
        });
    }
    Ok((initialisation_vector, content))
}

/// An OCTET STRING with a tag of its own: in one piece, or constructed of pieces
/// (X.690, section 8.7). The pieces are not constructed in their turn: nobody writes
/// that.
fn encrypted_content(reader: &mut Reader) -> Result<Zeroizing<Vec<u8>>, Malformed> {
    const WHAT: &str = "encryptedContent";
    if reader.next_is(Tag::context(0)) {
        let content = reader.contents(Tag::context(0), WHAT)?;
        return Ok(Zeroizing::new(content.to_vec()));
    }
    reader.constructed(Tag::constructed(0), WHAT, |reader| {
        let mut content = Zeroizing::new(Vec::new());
        let mut fragments = 0;
        while !reader.is_at_end() {
            fragments += 1;
            if fragments > MAX_FRAGMENTS {
                return Err(Malformed::Fragments);
            }
            content.extend_from_slice(
                reader.contents(Tag::OCTET_STRING, "encryptedContent's fragment")?,
            );
        }
        Ok(content)
    })
}

fn identifier(
    reader: &mut Reader,
    what: &'static str,
    contents: &[u8],
    name: &'static str,
) -> Result<(), Malformed> {
    value(reader, Tag::OBJECT_IDENTIFIER, what, contents, name)
}

/// Reads a primitive element that can have only one value.
fn value(
    reader: &mut Reader,
    tag: Tag,
    what: &'static str,
    contents: &[u8],
    expected: &'static str,
) -> Result<(), Malformed> {
    let offset = reader.offset();
    if reader.contents(tag, what)? == contents {
        Ok(())
    } else {
        Err(Malformed::Value {
            offset,
            what,
            expected,
        })
    }
}
