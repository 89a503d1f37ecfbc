//! The contents octets of the object identifiers in a message.

/// id-envelopedData, 1.2.840.113549.1.7.3 (RFC 5652, section 6.1).
pub(crate) const ENVELOPED_DATA: &[u8] = &[0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 1, 7, 3];
/// id-data, 1.2.840.113549.1.7.1 (RFC 5652, section 4).
pub(crate) const DATA: &[u8] = &[0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 1, 7, 1];
/// id-RSAES-OAEP, 1.2.840.113549.1.1.7 (RFC 4055, section 4.1).
pub(crate) const RSAES_OAEP: &[u8] = &[0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 1, 1, 7];
/// id-mgf1, 1.2.840.113549.1.1.8 (RFC 4055, section 2.2).
pub(crate) const MGF1: &[u8] = &[0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 1, 1, 8];
/// id-sha256, 2.16.840.1.101.3.4.2.1 (RFC 4055, section 2.1).
pub(crate) const SHA_256: &[u8] = &[0x60, 0x86, 0x48, 1, 0x65, 3, 4, 2, 1];
/// id-aes256-CBC, 2.16.840.1.101.3.4.1.42 (RFC 3565, section 4.1).
pub(crate) const AES_256_CBC: &[u8] = &[0x60, 0x86, 0x48, 1, 0x65, 3, 4, 1, 42];
