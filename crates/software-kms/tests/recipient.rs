//! Answers for enclaves: who gets them, and who can read them.

#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    reason = "a test fails by panicking"
)]

mod support;

use attestation::Pcr;
use aws_lc_rs::signature::{ECDSA_P384_SHA384_ASN1_SIGNING, EcdsaKeyPair};
use measurements::RoleArn;
use serde_json::{Value, json};
use software_kms::KeySpec;
use software_nsm::TestRoot;
use support::{Client, Enclave, World, base64, bytes, recipient};

const IMAGE: Pcr = Pcr::new([1; 48]);

/// A KMS with a ciphertext that only enclaves of [`IMAGE`] may decrypt.
struct Sealed {
    world: World,
    ciphertext: Value,
    key: String,
}

impl Sealed {
    fn new() -> Self {
        let world = World::new();
        let key = world.key(&[
            ("kms:Encrypt", &world.role, None),
            ("kms:Decrypt", &world.role, Some(IMAGE)),
            ("kms:GenerateDataKey", &world.role, Some(IMAGE)),
            ("kms:GenerateDataKeyPair", &world.role, Some(IMAGE)),
        ]);
        let request = json!({ "KeyId": key, "Plaintext": base64(b"a secret") });
        let mut encrypted = world.call("Encrypt", &request);
        Self {
            ciphertext: encrypted["CiphertextBlob"].take(),
            world,
            key,
        }
    }

    fn put_policy(&mut self, policy: &Value) {
        let policy = policy.to_string().parse().unwrap();
        assert!(
            self.world
                .kms
                .put_key_policy(&self.key.parse().unwrap(), policy)
        );
    }

    fn request(&self, recipient: &Value) -> Value {
        json!({ "CiphertextBlob": self.ciphertext, "Recipient": recipient })
    }

    fn decrypt(&self, recipient: &Value) -> Value {
        self.world.call("Decrypt", &self.request(recipient))
    }

    fn refusal(&self, recipient: &Value) -> Value {
        self.world.refusal("Decrypt", &self.request(recipient))
    }
}

#[test]
fn recipients_alone_can_read_the_answer() {
    let sealed = Sealed::new();
    let mut enclave = sealed.world.enclave(Some(IMAGE));
    let answer = sealed.decrypt(&enclave.recipient());
    assert_eq!(answer["Plaintext"], "");
    let message = bytes(&answer["CiphertextForRecipient"]);
    assert_eq!(enclave.key.open(&message).unwrap().as_slice(), b"a secret");
    let other = sealed.world.enclave(Some(IMAGE));
    assert!(other.key.open(&message).is_err());
}

#[test]
fn recipients_of_another_image_are_refused() {
    let sealed = Sealed::new();
    let mut changed = IMAGE.as_bytes().to_owned();
    changed[47] ^= 1;
    for image in [Some(Pcr::new(changed)), None] {
        let refusal = sealed.refusal(&sealed.world.enclave(image).recipient());
        assert_eq!(refusal["__type"], "AccessDeniedException", "{refusal}");
    }
    let refusal = sealed.refusal(&Value::Null);
    assert_eq!(refusal["__type"], "AccessDeniedException", "{refusal}");
}

#[test]
fn recipients_under_another_role_are_refused() {
    let sealed = Sealed::new();
    let stranger = Client::new("arn:aws:iam::123456789012:role/Stranger");
    let recipient = sealed.world.enclave(Some(IMAGE)).recipient();
    let request = sealed.request(&recipient);
    let refusal = sealed.world.refusal_of(&stranger, "Decrypt", &request);
    assert_eq!(refusal["__type"], "AccessDeniedException", "{refusal}");
}

#[test]
fn recipients_documents_are_verified() {
    let sealed = Sealed::new();
    let mut enclave = sealed.world.enclave(Some(IMAGE));
    let key = enclave.key.public_key_der().to_vec();
    let document = enclave.document(Some(&key));
    sealed.decrypt(&recipient(&document));

    let mut changed = document.clone();
    let place = changed
        .windows(48)
        .position(|bytes| bytes == [1; 48])
        .unwrap();
    changed[place] ^= 1;
    let stranger = TestRoot::generate().unwrap();
    let foreign = Enclave::new(Some(IMAGE), stranger).document(Some(&key));
    for (document, what) in [
        (changed, "signature"),
        (foreign, "root"),
        (b"no document".to_vec(), "not valid"),
        (enclave.document(None), "no public_key"),
        (enclave.document(Some(b"no key")), "recipient's key"),
    ] {
        let refusal = sealed.refusal(&recipient(&document));
        assert_eq!(refusal["__type"], "ValidationException", "{what}");
        let message = refusal["message"].as_str().unwrap();
        assert!(message.contains(what), "{what}: {message}");
    }
}

#[test]
fn recipients_documents_are_good_for_five_minutes() {
    let mut sealed = Sealed::new();
    let recipient = sealed.world.enclave(Some(IMAGE)).recipient();
    // Whoever replays it signs the request afresh.
    for seconds in [0, 290] {
        sealed.world.set_ahead(seconds);
        sealed.decrypt(&recipient);
    }
    for (seconds, rule) in [(310, "freshness.age"), (-120, "certificate.validity")] {
        sealed.world.set_ahead(seconds);
        let refusal = sealed.refusal(&recipient);
        assert_eq!(refusal["__type"], "ValidationException", "{refusal}");
        let message = refusal["message"].as_str().unwrap();
        assert!(message.contains(rule), "{message}");
    }
}

#[test]
fn recipients_on_a_parent_with_another_role_are_refused() {
    let mut sealed = Sealed::new();
    let of = |role: &str| {
        let role: RoleArn = role.parse().unwrap();
        role.pcr3().to_string()
    };
    for (role, is_allowed) in [
        (support::ROLE, true),
        ("arn:aws:iam::123456789012:role/Other", false),
    ] {
        let policy = json!({ "Version": "2012-10-17", "Statement": [
            {
                "Effect": "Allow",
                "Principal": { "AWS": support::ROLE },
                "Action": "kms:Decrypt",
                "Resource": "*",
                "Condition": {
                    "StringEqualsIgnoreCase": { "kms:RecipientAttestation:PCR3": of(role) },
                },
            },
        ]});
        sealed.put_policy(&policy);
        let request = sealed.request(&sealed.world.enclave(Some(IMAGE)).recipient());
        let request = sealed.world.client.request("Decrypt", &request);
        let (status, answer) = sealed.world.answer(&request);
        assert_eq!(status.is_success(), is_allowed, "{answer}");
    }
}

#[test]
fn recipients_choose_the_one_algorithm_that_there_is() {
    let sealed = Sealed::new();
    let mut value = sealed.world.enclave(Some(IMAGE)).recipient();
    for algorithm in [json!("RSAES_OAEP_SHA_1"), json!(null)] {
        value["KeyEncryptionAlgorithm"] = algorithm;
        let refusal = sealed.refusal(&value);
        assert_eq!(refusal["__type"], "ValidationException", "{refusal}");
    }
}

#[test]
fn recipients_get_data_keys_and_random_bytes() {
    let sealed = Sealed::new();
    let world = &sealed.world;
    let mut enclave = world.enclave(Some(IMAGE));
    let key = sealed.decrypt(&enclave.recipient())["KeyId"].clone();
    let request = json!({
        "KeyId": key,
        "KeySpec": "AES_256",
        "Recipient": enclave.recipient(),
    });
    let answer = world.call("GenerateDataKey", &request);
    assert_eq!(answer["Plaintext"], "");
    let data_key = enclave.key.open(&bytes(&answer["CiphertextForRecipient"]));
    let data_key = data_key.unwrap();
    assert_eq!(data_key.len(), 32);
    let request = json!({
        "CiphertextBlob": answer["CiphertextBlob"],
        "Recipient": enclave.recipient(),
    });
    let answer = world.call("Decrypt", &request);
    let decrypted = enclave.key.open(&bytes(&answer["CiphertextForRecipient"]));
    assert_eq!(decrypted.unwrap(), data_key);

    let request = json!({ "NumberOfBytes": 1024, "Recipient": enclave.recipient() });
    let answer = world.call("GenerateRandom", &request);
    let random = enclave.key.open(&bytes(&answer["CiphertextForRecipient"]));
    assert_eq!(random.unwrap().len(), 1024);
}

#[test]
fn recipients_get_private_keys_and_shared_secrets() {
    let sealed = Sealed::new();
    let world = &sealed.world;
    let mut enclave = world.enclave(Some(IMAGE));
    let mut request = json!({
        "KeyId": sealed.key,
        "KeyPairSpec": "ECC_NIST_P384",
        "Recipient": enclave.recipient(),
    });
    let answer = world.call("GenerateDataKeyPair", &request);
    assert!(answer.get("PrivateKeyPlaintext").is_none());
    let private = enclave.key.open(&bytes(&answer["CiphertextForRecipient"]));
    EcdsaKeyPair::from_pkcs8(&ECDSA_P384_SHA384_ASN1_SIGNING, &private.unwrap()).unwrap();
    request.as_object_mut().unwrap().remove("Recipient");
    let refusal = world.refusal("GenerateDataKeyPair", &request);
    assert_eq!(refusal["__type"], "AccessDeniedException", "{refusal}");

    let derive = "kms:DeriveSharedSecret";
    let role = &world.role;
    let statements = [
        (derive, role.as_str(), Some(IMAGE)),
        ("kms:GetPublicKey", role, None),
    ];
    let [own, peer] = [(); 2].map(|()| world.key_of(KeySpec::EccNistP256, &statements));
    let mut secrets = [(&own, &peer), (&peer, &own)].map(|(own, peer)| {
        let peer = world.call("GetPublicKey", &json!({ "KeyId": peer }));
        let mut request = json!({
            "KeyId": own,
            "KeyAgreementAlgorithm": "ECDH",
            "PublicKey": peer["PublicKey"],
            "Recipient": enclave.recipient(),
        });
        let answer = world.call("DeriveSharedSecret", &request);
        assert!(answer.get("SharedSecret").is_none());
        request.as_object_mut().unwrap().remove("Recipient");
        let refusal = world.refusal("DeriveSharedSecret", &request);
        assert_eq!(refusal["__type"], "AccessDeniedException", "{refusal}");
        let secret = enclave.key.open(&bytes(&answer["CiphertextForRecipient"]));
        secret.unwrap()
    });
    let [first, second] = &mut secrets;
    assert_eq!(first, second);
    assert_eq!(first.len(), 32);
}
