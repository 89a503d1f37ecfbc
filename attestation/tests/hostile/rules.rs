//! What the corpus says of each rule: how much it matters, and where it comes from.

/// A rule, for those who have never heard of it.
pub(crate) struct About {
    /// `must`, `should` or `policy`.
    pub(crate) category: &'static str,
    pub(crate) demand: &'static str,
    pub(crate) source: &'static str,
}

const MUST: &str = "must";
const SHOULD: &str = "should";
const POLICY: &str = "policy";

/// About a rule by its identifier, or about good documents.
pub(crate) fn about(rule: &str) -> About {
    let name = rule
        .rsplit_once('.')
        .filter(|(_, index)| index.parse::<u8>().is_ok())
        .map_or(rule, |(name, _)| name);
    let (_, category, demand, source) = RULES
        .iter()
        .find(|(known, ..)| *known == name)
        .unwrap_or_else(|| panic!("nothing is known about {rule}"));
    About {
        category,
        demand,
        source,
    }
}

/// What a verifier has to be told before it can keep the rule.
pub(crate) fn needs(rule: &str) -> Option<&'static str> {
    match rule {
        "freshness.age" | "freshness.future" => Some("age"),
        "policy.nonce" => Some("nonce"),
        "policy.profile" => Some("profile"),
        "policy.module-id" => Some("module_id"),
        "policy.purpose" => Some("purpose"),
        "policy.user-data" => Some("user_data"),
        "policy.public-key" => Some("public_key"),
        _ => None,
    }
}

/// "AWS" and a number are a section of `attestation_process.md` in
/// `aws-nitro-enclaves-nsm-api`.
const RULES: &[(&str, &str, &str, &str)] = &[
    (
        "accepted",
        MUST,
        "A good document, to be accepted",
        "AWS, 2.2 and 3.1: the structure of an attestation document; what documents signed by AWS look like",
    ),
    (
        "document.size",
        SHOULD,
        "At most 16640 bytes",
        "AWS, 3.1: bstr .size (1..16384), and the little around it",
    ),
    (
        "cbor.encoding",
        SHOULD,
        "CBOR in the shortest form, of the expected types, complete",
        "RFC 8949, 4.2.1: preferred serialization; AWS, 3.2.2.2: the type of each field",
    ),
    (
        "cbor.trailing",
        SHOULD,
        "Nothing follows a complete item",
        "RFC 8949, appendix F: too much data, input bytes are left that were not consumed",
    ),
    (
        "cose.structure",
        SHOULD,
        "A COSE_Sign1: an array of four, under tag 18 or no tag",
        "RFC 9052, 4.2; AWS, 3.1: the structure can be encoded as either tagged or untagged",
    ),
    (
        "cose.protected-header",
        SHOULD,
        "The protected header is {1: -35}, which is ES384",
        "AWS, 3.1: {1: -35}",
    ),
    (
        "cose.unprotected-header",
        SHOULD,
        "The unprotected header is an empty map",
        "AWS, 3.1: {}, we have nothing in unprotected",
    ),
    (
        "cose.payload",
        SHOULD,
        "The payload is attached and has 1 to 16384 bytes",
        "AWS, 3.1: bstr .size (1..16384)",
    ),
    (
        "cose.signature-size",
        MUST,
        "A signature by ES384 has 96 bytes",
        "RFC 9053, 2.1: both integers are as long as the key's curve",
    ),
    (
        "payload.keys",
        SHOULD,
        "The mandatory fields, each once, and no field that is not known",
        "AWS, 3.2.2.1: mandatory and optional fields; RFC 8949, 5.6: keys are unique",
    ),
    (
        "payload.module-id",
        SHOULD,
        "module_id is a text that is not empty",
        "AWS, 3.2.2.2: $length != 0",
    ),
    (
        "payload.digest",
        SHOULD,
        "digest is SHA384",
        "AWS, 3.2.2.2: digest can be exactly one of these values",
    ),
    (
        "payload.timestamp",
        SHOULD,
        "timestamp is a positive number of milliseconds",
        "AWS, 3.2.2.2: timestamp must be greater than 0",
    ),
    (
        "payload.pcrs",
        SHOULD,
        "1 to 32 registers with indices below 32, each once, and of SHA-384's size",
        "AWS, 3.2.2.2: at least one PCR and at most 32; a PCR index can be in this interval [0, 32)",
    ),
    (
        "payload.certificate",
        SHOULD,
        "certificate has 1 to 1024 bytes",
        "AWS, 2.2: cert = bytes .size (1..1024)",
    ),
    (
        "payload.cabundle",
        SHOULD,
        "cabundle has at least one certificate of 1 to 1024 bytes",
        "AWS, 3.2.2.2: CA Bundle is not allowed to have 0 elements",
    ),
    (
        "payload.public-key",
        SHOULD,
        "public_key is null or has 1 to 1024 bytes",
        "AWS, 3.2.2.2: $length in [1, 1024]",
    ),
    (
        "payload.user-data",
        SHOULD,
        "user_data is null or within its size",
        "AWS, 2.2: user_data = bytes .size (0..1024)",
    ),
    (
        "payload.nonce",
        SHOULD,
        "nonce is null or within its size",
        "AWS, 2.2: user_data = bytes .size (0..1024)",
    ),
    (
        "certificate.encoding",
        SHOULD,
        "X.509 v3 in strict DER",
        "RFC 5280, 4.1; AWS, 3.2.3: all certificates are X509 Certificates",
    ),
    (
        "certificate.algorithm",
        SHOULD,
        "Each key is on P-384, and each signature is ECDSA with SHA-384",
        "RFC 5280, 4.1.1.2: both algorithm fields are the same; AWS, 3.1: ES384",
    ),
    (
        "certificate.public-key",
        SHOULD,
        "Each key is a point on the curve, written in full",
        "RFC 5480, 2.2; SEC 1, 3.2.2: a public key is validated",
    ),
    (
        "certificate.extensions",
        MUST,
        "No critical extension is unknown, and none occurs twice",
        "RFC 5280, 4.2: reject a certificate with a critical extension that is not recognized",
    ),
    (
        "certificate.validity",
        MUST,
        "Each certificate is valid at the time of checking",
        "AWS, 3.2.3.1: the current date and time are within the validity period",
    ),
    (
        "certificate.authority",
        MUST,
        "Issuers are certificate authorities, the leaf is not",
        "AWS, 3.2.3.2; RFC 5280, 6.1.4 (k): verify that cA is set to TRUE",
    ),
    (
        "certificate.path-length",
        MUST,
        "Limits on the length of the path are kept",
        "AWS, 3.2.3.2: the maximum number of CA certificates that may follow",
    ),
    (
        "certificate.key-usage",
        MUST,
        "Issuers may sign certificates, the leaf may sign data",
        "AWS, 3.2.3.3; RFC 5280, 6.1.4 (n): verify that the keyCertSign bit is set",
    ),
    (
        "chain.root",
        MUST,
        "The chain begins with a pinned root",
        "AWS, 3.2.3: this certificate being guaranteed by AWS",
    ),
    (
        "chain.names",
        MUST,
        "Each certificate names the one above it as its issuer",
        "RFC 5280, 6.1.3 (a) (4): the issuer name is the working issuer name",
    ),
    (
        "chain.signature",
        MUST,
        "Each certificate is signed by the one above it",
        "RFC 5280, 6.1.3 (a) (1): the signature can be verified",
    ),
    (
        "document.signature",
        MUST,
        "The document is signed by the leaf's key",
        "AWS, 3.2: ensure that the document was correctly signed; RFC 9052, 4.4",
    ),
    (
        "freshness.future",
        POLICY,
        "The document's time is not ahead of the verifier's clock by more than the tolerance",
        "AWS, 2.2: UTC time when the document was created",
    ),
    (
        "freshness.age",
        POLICY,
        "The document is not older than the verifier allows",
        "AWS, 2.2.2: some third party which is reusing an older attestation document",
    ),
    (
        "policy.nonce",
        POLICY,
        "The document carries the nonce that was asked for",
        "AWS, 2.2.2: the nonce guarantees that the service is talking to a live enclave",
    ),
    (
        "policy.debug",
        POLICY,
        "The enclave does not run in debug mode, where PCR0 is zero",
        "AWS, Nitro Enclaves user guide: in debug mode the PCRs are made up of zeros",
    ),
    (
        "policy.profile",
        POLICY,
        "The document is of the kind that is expected: an enclave's or a NitroTPM's",
        "AWS, EC2 user guide: a NitroTPM's document has nitrotpm_pcrs",
    ),
    (
        "policy.module-id",
        POLICY,
        "module_id has the expected form",
        "AWS, 2.2: issuing Nitro hypervisor module ID",
    ),
    (
        "policy.image",
        POLICY,
        "PCR0, PCR1, PCR2 and PCR8 are those of one allowed image",
        "AWS, Nitro Enclaves user guide: PCR0, PCR1, PCR2 and PCR8 measure the image",
    ),
    (
        "policy.pcr",
        POLICY,
        "A register has the expected value",
        "AWS, 2.2: map of all locked PCRs",
    ),
    (
        "policy.purpose",
        POLICY,
        "The document was made for what is expected",
        "AWS, 2.2.2: could not be used for any other purpose than the intended one",
    ),
    (
        "policy.user-data",
        POLICY,
        "user_data is what is expected",
        "AWS, 2.2.2: additional signed user data, defined by protocol",
    ),
    (
        "policy.public-key",
        POLICY,
        "public_key is what is expected",
        "AWS, 2.2.2: the private key is the enclave's alone",
    ),
];
