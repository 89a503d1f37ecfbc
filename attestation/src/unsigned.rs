//! Documents that nobody signed.

use crate::cbor::Cursor;
use crate::rule::{Rejection, Rule};

/// Whether nobody signed a document: the place of its signature holds zeros, as
/// in the documents of QEMU's module, whose form breaks other rules too. No key
/// makes such a signature.
pub fn is_unsigned(document: &[u8]) -> bool {
    signature(document)
        .is_ok_and(|signature| !signature.is_empty() && signature.iter().all(|byte| *byte == 0))
}

/// The signature of a COSE_Sign1, whatever else is wrong with it.
fn signature(document: &[u8]) -> Result<&[u8], Rejection> {
    let mut cursor = Cursor::new(document);
    let parts = cursor.array()?;
    let _header = cursor.bytes()?;
    let entries = cursor.definite_map()?;
    let _payload = cursor.bytes()?;
    let signature = cursor.bytes()?;
    if (parts, entries, cursor.left()) != (4, 0, 0) {
        return Err(Rejection::new(
            Rule::CoseStructure,
            "it is not a COSE_Sign1 of the form that the module produces",
        ));
    }
    Ok(signature)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// As QEMU's module writes it: the algorithm is -1, the signature zeros.
    fn of_qemu(signature: &[u8]) -> Vec<u8> {
        let mut document = vec![0x84, 0x43, 0xa1, 0x01, 0x20, 0xa0, 0x41, 0xa0, 0x58];
        document.push(u8::try_from(signature.len()).unwrap());
        document.extend(signature);
        document
    }

    #[test]
    fn a_document_is_unsigned_if_its_signature_is_all_zeros() {
        assert!(is_unsigned(&of_qemu(&[0; 64])));
        assert!(is_unsigned(&of_qemu(&[0; 96])));
        let mut one = [0; 96];
        one[95] = 1;
        assert!(!is_unsigned(&of_qemu(&one)));
        for (name, document) in [
            ("empty", Vec::new()),
            ("cut", of_qemu(&[0; 64])[..70].to_vec()),
            ("more", [of_qemu(&[0; 64]), vec![0]].concat()),
            ("rubbish", vec![0; 100]),
        ] {
            assert!(!is_unsigned(&document), "{name}");
        }
        assert!(!is_unsigned(include_bytes!(
            "../corpus/aws/8e5652f3b009e620.cbor"
        )));
    }
}
