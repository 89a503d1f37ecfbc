//! The calls of the KMS, for whoever its key policies allow.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod support;

use aws_lc_rs::agreement::{ECDH_P256, ECDH_P384, ECDH_P521, PrivateKey, UnparsedPublicKey, agree};
use aws_lc_rs::encoding::{AsDer, PublicKeyX509Der};
use aws_lc_rs::rsa::KeyPair as RsaKeyPair;
use aws_lc_rs::signature::{
    ECDSA_P256_SHA256_ASN1_SIGNING, ECDSA_P384_SHA384_ASN1_SIGNING, ECDSA_P521_SHA512_ASN1_SIGNING,
    EcdsaKeyPair, EcdsaSigningAlgorithm, KeyPair,
};
use serde_json::{Value, json};
use software_kms::KeySpec;
use support::{Client, World, base64, bytes, policy_text};

#[test]
fn encrypt_and_decrypt_are_inverse_under_the_same_context() {
    let world = World::new();
    let key = world.key(&[("kms:*", &world.role, None)]);
    let context = json!({ "purpose": "test" });
    let encrypted = world.call(
        "Encrypt",
        &json!({ "KeyId": key, "Plaintext": base64(b"a secret"), "EncryptionContext": context }),
    );
    assert_eq!(encrypted["KeyId"], key);
    assert_eq!(encrypted["EncryptionAlgorithm"], "SYMMETRIC_DEFAULT");
    let ciphertext = &encrypted["CiphertextBlob"];
    for name in [
        Value::Null,
        json!(key),
        json!(key.rsplit('/').next().unwrap()),
    ] {
        let decrypted = world.call(
            "Decrypt",
            &json!({
                "KeyId": name,
                "CiphertextBlob": ciphertext,
                "EncryptionContext": context,
            }),
        );
        assert_eq!(bytes(&decrypted["Plaintext"]), b"a secret");
        assert_eq!(decrypted["KeyId"], key);
        assert!(decrypted.get("CiphertextForRecipient").is_none());
    }
    for other in [json!({}), json!({ "purpose": "another" })] {
        let request = json!({ "CiphertextBlob": ciphertext, "EncryptionContext": other });
        let refusal = world.refusal("Decrypt", &request);
        assert_eq!(refusal, json!({ "__type": "InvalidCiphertextException" }));
    }
}

#[test]
fn decrypt_says_what_is_wrong_as_kms_does() {
    let world = World::new();
    let all = [("kms:*", world.role.as_str(), None)];
    let (key, other) = (world.key(&all), world.key(&all));
    let request = json!({ "KeyId": key, "Plaintext": base64(b"a secret") });
    let encrypted = world.call("Encrypt", &request);
    let ciphertext = &encrypted["CiphertextBlob"];

    let mut unknown = bytes(ciphertext);
    unknown[1] ^= 1;
    for (request, kind) in [
        (
            json!({ "KeyId": other, "CiphertextBlob": ciphertext }),
            "IncorrectKeyException",
        ),
        (
            json!({ "KeyId": format!("{key}0"), "CiphertextBlob": ciphertext }),
            "NotFoundException",
        ),
        (
            json!({ "CiphertextBlob": base64(&unknown) }),
            "AccessDeniedException",
        ),
        (
            json!({ "CiphertextBlob": base64(b"no ciphertext") }),
            "InvalidCiphertextException",
        ),
        (json!({ "CiphertextBlob": "" }), "ValidationException"),
        (json!({}), "ValidationException"),
        (
            json!({ "CiphertextBlob": base64(&[1; 6145]) }),
            "ValidationException",
        ),
        (
            json!({ "CiphertextBlob": ciphertext, "EncryptionAlgorithm": "RSAES_OAEP_SHA_1" }),
            "ValidationException",
        ),
        (
            json!({ "CiphertextBlob": "not base64" }),
            "SerializationException",
        ),
    ] {
        let refusal = world.refusal("Decrypt", &request);
        assert_eq!(refusal["__type"], kind, "{request}: {refusal}");
    }
}

#[test]
fn generate_data_key_gives_keys_of_the_wanted_size() {
    let world = World::new();
    let key = world.key(&[("kms:*", &world.role, None)]);
    for (wanted, size) in [
        (json!({ "KeySpec": "AES_256" }), 32),
        (json!({ "KeySpec": "AES_128" }), 16),
        (json!({ "NumberOfBytes": 1024 }), 1024),
    ] {
        let mut request = wanted;
        request["KeyId"] = json!(key);
        let answer = world.call("GenerateDataKey", &request);
        let data_key = bytes(&answer["Plaintext"]);
        assert_eq!(data_key.len(), size);
        let ciphertext = &answer["CiphertextBlob"];
        let decrypted = world.call("Decrypt", &json!({ "CiphertextBlob": ciphertext }));
        assert_eq!(bytes(&decrypted["Plaintext"]), data_key);

        let answer = world.call("GenerateDataKeyWithoutPlaintext", &request);
        assert!(answer.get("Plaintext").is_none());
        let ciphertext = &answer["CiphertextBlob"];
        let decrypted = world.call("Decrypt", &json!({ "CiphertextBlob": ciphertext }));
        assert_eq!(bytes(&decrypted["Plaintext"]).len(), size);
    }
    for wanted in [
        json!({ "KeyId": key }),
        json!({ "KeyId": key, "KeySpec": "AES_256", "NumberOfBytes": 32 }),
        json!({ "KeyId": key, "KeySpec": "RSA_2048" }),
        json!({ "KeyId": key, "NumberOfBytes": 0 }),
        json!({ "KeyId": key, "NumberOfBytes": 1025 }),
    ] {
        let refusal = world.refusal("GenerateDataKey", &wanted);
        assert_eq!(refusal["__type"], "ValidationException", "{wanted}");
    }
}

#[test]
fn generate_random_gives_as_much_as_is_wanted() {
    let world = World::new();
    let answer = world.call("GenerateRandom", &json!({ "NumberOfBytes": 1024 }));
    assert_eq!(bytes(&answer["Plaintext"]).len(), 1024);
    for number in [json!(null), json!(0), json!(-1), json!(1025)] {
        let refusal = world.refusal("GenerateRandom", &json!({ "NumberOfBytes": number }));
        assert_eq!(refusal["__type"], "ValidationException", "{number}");
    }
}

#[test]
fn describe_key_says_what_a_key_is() {
    let world = World::new();
    let key = world.key(&[("kms:DescribeKey", &world.role, None)]);
    let answer = world.call("DescribeKey", &json!({ "KeyId": key }));
    let metadata = &answer["KeyMetadata"];
    assert_eq!(metadata["Arn"], key);
    assert_eq!(metadata["KeyState"], "Enabled");
    assert_eq!(metadata["KeySpec"], "SYMMETRIC_DEFAULT");
}

#[test]
fn policies_decide_who_may_call_what() {
    let world = World::new();
    let stranger = Client::new("arn:aws:iam::123456789012:role/Stranger");
    let key = world.key(&[("kms:Encrypt", &world.role, None)]);
    let request = json!({ "KeyId": key, "Plaintext": base64(b"a secret") });
    let encrypted = world.call("Encrypt", &request);
    let role = &world.role;

    let refusal = world.refusal_of(&stranger, "Encrypt", &request);
    let expected = format!(
        "User: {} is not authorized to perform: kms:Encrypt on resource: {key} because no resource-based policy allows the kms:Encrypt action",
        stranger.credentials.arn
    );
    let expected = json!({ "__type": "AccessDeniedException", "Message": expected });
    assert_eq!(refusal, expected);

    let ciphertext = &encrypted["CiphertextBlob"];
    let refusal = world.refusal(
        "Decrypt",
        &json!({ "KeyId": key, "CiphertextBlob": ciphertext }),
    );
    let expected = format!(
        "User: {role} is not authorized to perform: kms:Decrypt on resource: {key} because no resource-based policy allows the kms:Decrypt action"
    );
    assert_eq!(refusal["Message"], expected);
    // Whether there is a key is not told to whom only its ciphertext names it.
    let refusal = world.refusal("Decrypt", &json!({ "CiphertextBlob": ciphertext }));
    let expected = format!(
        "User: {role} is not authorized to perform: kms:Decrypt on the resource associated with this ciphertext because the resource does not exist in this Region, no resource-based policies allow access, or a resource-based policy explicitly denies access"
    );
    assert_eq!(refusal["Message"], expected);

    // What a policy leaves to IAM is refused: there is none here.
    let account = "arn:aws:iam::123456789012:root";
    let key = world.key(&[("kms:*", account, None)]);
    let refusal = world.refusal("DescribeKey", &json!({ "KeyId": key }));
    let message = refusal["Message"].as_str().unwrap();
    assert!(
        message.contains("no identity-based policy allows"),
        "{message}"
    );
}

#[test]
fn policies_that_are_replaced_hold_at_once() {
    let world = World::new();
    let key = world.key(&[("kms:DescribeKey", &world.role, None)]);
    let request = json!({ "KeyId": key });
    world.call("DescribeKey", &request);
    let other = support::policy(&[("kms:Encrypt", &world.role, None)]);
    assert!(world.kms.put_key_policy(&key.parse().unwrap(), other));
    assert_eq!(
        world.refusal("DescribeKey", &request)["__type"],
        "AccessDeniedException"
    );
}

#[test]
fn requests_that_kms_does_not_know_are_refused() {
    let world = World::new();
    for target in ["NoSuchCall", "decrypt", ""] {
        let refusal = world.refusal(target, &json!({}));
        assert_eq!(refusal, json!({ "__type": "UnknownOperationException" }));
    }
    let refusal = world.refusal("GenerateRandom", &json!("text"));
    assert_eq!(refusal["__type"], "SerializationException");
}

#[test]
fn generate_data_key_pair_gives_a_pair_and_the_private_key_encrypted() {
    let world = World::new();
    let key = world.key(&[("kms:*", &world.role, None)]);
    for spec in [
        "RSA_2048",
        "ECC_NIST_P256",
        "ECC_NIST_P384",
        "ECC_NIST_P521",
    ] {
        let mut request = json!({ "KeyId": key, "KeyPairSpec": spec });
        request["EncryptionContext"] = json!({ "purpose": "test" });
        let answer = world.call("GenerateDataKeyPair", &request);
        assert_eq!(answer["KeyPairSpec"], spec);
        assert_eq!(answer["KeyId"], key);
        let private = bytes(&answer["PrivateKeyPlaintext"]);
        assert_eq!(
            public_key(spec, &private),
            bytes(&answer["PublicKey"]),
            "{spec}"
        );
        let ciphertext = answer["PrivateKeyCiphertextBlob"].clone();
        let context = request["EncryptionContext"].clone();
        let request = json!({ "CiphertextBlob": ciphertext, "EncryptionContext": context });
        let decrypted = world.call("Decrypt", &request);
        assert_eq!(bytes(&decrypted["Plaintext"]), private);

        let request = json!({ "KeyId": key, "KeyPairSpec": spec });
        let answer = world.call("GenerateDataKeyPairWithoutPlaintext", &request);
        assert!(answer.get("PrivateKeyPlaintext").is_none());
        let request = json!({ "CiphertextBlob": answer["PrivateKeyCiphertextBlob"] });
        let private = bytes(&world.call("Decrypt", &request)["Plaintext"]);
        assert_eq!(public_key(spec, &private), bytes(&answer["PublicKey"]));
    }
    for spec in [json!(null), json!("AES_256"), json!("SM2")] {
        let request = json!({ "KeyId": key, "KeyPairSpec": spec });
        let refusal = world.refusal("GenerateDataKeyPair", &request);
        assert_eq!(refusal["__type"], "ValidationException", "{spec}");
    }
}

/// The public key (`SubjectPublicKeyInfo`) of a private one (PKCS #8).
fn public_key(spec: &str, private: &[u8]) -> Vec<u8> {
    let der: PublicKeyX509Der<'_> = match spec {
        "RSA_2048" => RsaKeyPair::from_pkcs8(private)
            .unwrap()
            .public_key()
            .as_der(),
        "ECC_NIST_P256" => ecc_public_key(&ECDSA_P256_SHA256_ASN1_SIGNING, private),
        "ECC_NIST_P384" => ecc_public_key(&ECDSA_P384_SHA384_ASN1_SIGNING, private),
        _ => ecc_public_key(&ECDSA_P521_SHA512_ASN1_SIGNING, private),
    }
    .unwrap();
    der.as_ref().to_vec()
}

fn ecc_public_key(
    algorithm: &'static EcdsaSigningAlgorithm,
    private: &[u8],
) -> Result<PublicKeyX509Der<'static>, aws_lc_rs::error::Unspecified> {
    let pair = EcdsaKeyPair::from_pkcs8(algorithm, private).unwrap();
    pair.public_key().as_der()
}

#[test]
fn derive_shared_secret_gives_both_sides_the_same() {
    let world = World::new();
    let all = [("kms:*", world.role.as_str(), None)];
    for (spec, algorithm, name) in [
        (KeySpec::EccNistP256, &ECDH_P256, "ECC_NIST_P256"),
        (KeySpec::EccNistP384, &ECDH_P384, "ECC_NIST_P384"),
    ] {
        let key = world.key_of(spec, &all);
        let described = world.call("GetPublicKey", &json!({ "KeyId": key }));
        assert_eq!(described["KeySpec"], name);
        assert_eq!(described["KeyUsage"], "KEY_AGREEMENT");
        assert_eq!(described["KeyAgreementAlgorithms"], json!(["ECDH"]));
        let of_kms = bytes(&described["PublicKey"]);

        let own = PrivateKey::generate(algorithm).unwrap();
        let public = own.compute_public_key().unwrap();
        let der: PublicKeyX509Der<'_> = public.as_der().unwrap();
        let mut request = json!({
            "KeyId": key,
            "KeyAgreementAlgorithm": "ECDH",
            "PublicKey": base64(der.as_ref()),
        });
        let answer = world.call("DeriveSharedSecret", &request);
        assert_eq!(answer["KeyId"], key);
        assert_eq!(answer["KeyAgreementAlgorithm"], "ECDH");
        assert_eq!(answer["KeyOrigin"], "AWS_KMS");
        let peer = UnparsedPublicKey::new(algorithm, of_kms);
        let expected = agree(&own, peer, (), |secret| Ok(secret.to_vec())).unwrap();
        assert_eq!(bytes(&answer["SharedSecret"]), expected);

        // A point alone is no SubjectPublicKeyInfo, and others are of another curve.
        let other = PrivateKey::generate(&ECDH_P521).unwrap();
        let other = other.compute_public_key().unwrap();
        let other: PublicKeyX509Der<'_> = other.as_der().unwrap();
        for wrong in [public.as_ref(), other.as_ref(), b"no key", b""] {
            request["PublicKey"] = json!(base64(wrong));
            let refusal = world.refusal("DeriveSharedSecret", &request);
            assert_eq!(refusal["__type"], "ValidationException", "{refusal}");
        }
        request["PublicKey"] = json!(base64(der.as_ref()));
        request["KeyAgreementAlgorithm"] = json!("DH");
        let refusal = world.refusal("DeriveSharedSecret", &request);
        assert_eq!(refusal["__type"], "ValidationException", "{refusal}");
    }
}

#[test]
fn keys_are_good_for_their_usage_alone() {
    let world = World::new();
    let all = [("kms:*", world.role.as_str(), None)];
    let symmetric = world.key(&all);
    let agreement = world.key_of(KeySpec::EccNistP256, &all);
    let ecdh = |key: &str, peer: &Value| json!({ "KeyId": key, "KeyAgreementAlgorithm": "ECDH", "PublicKey": peer });
    let public = world.call("GetPublicKey", &json!({ "KeyId": agreement }))["PublicKey"].clone();
    let encrypted = world.call(
        "Encrypt",
        &json!({ "KeyId": symmetric, "Plaintext": base64(b"a") }),
    );
    let ciphertext = &encrypted["CiphertextBlob"];
    for (call, request, usage) in [
        (
            "DeriveSharedSecret",
            ecdh(&symmetric, &public),
            "ENCRYPT_DECRYPT",
        ),
        (
            "Encrypt",
            json!({ "KeyId": agreement, "Plaintext": base64(b"a") }),
            "KEY_AGREEMENT",
        ),
        (
            "Decrypt",
            json!({ "KeyId": agreement, "CiphertextBlob": ciphertext }),
            "KEY_AGREEMENT",
        ),
        (
            "GenerateDataKey",
            json!({ "KeyId": agreement, "KeySpec": "AES_256" }),
            "KEY_AGREEMENT",
        ),
        (
            "GenerateDataKeyPair",
            json!({ "KeyId": agreement, "KeyPairSpec": "ECC_NIST_P256" }),
            "KEY_AGREEMENT",
        ),
    ] {
        let refusal = world.refusal(call, &request);
        let key = request["KeyId"].as_str().unwrap();
        let message = format!("{key} key usage is {usage} which is not valid for {call}.");
        let expected = json!({ "__type": "InvalidKeyUsageException", "message": message });
        assert_eq!(refusal, expected);
    }
    let refusal = world.refusal("GetPublicKey", &json!({ "KeyId": symmetric }));
    assert_eq!(refusal["__type"], "UnsupportedOperationException");
}

#[test]
fn re_encrypt_needs_both_keys() {
    let world = World::new();
    let (from, to) = ("kms:ReEncryptFrom", "kms:ReEncryptTo");
    let role = world.role.as_str();
    let source = world.key(&[("kms:Encrypt", role, None), (from, role, None)]);
    let destination = world.key(&[("kms:Decrypt", role, None), (to, role, None)]);
    let context = json!({ "purpose": "test" });
    let encrypted = world.call(
        "Encrypt",
        &json!({ "KeyId": source, "Plaintext": base64(b"a secret"), "EncryptionContext": context }),
    );
    let request = json!({
        "CiphertextBlob": encrypted["CiphertextBlob"],
        "SourceEncryptionContext": context,
        "DestinationKeyId": destination,
    });
    let answer = world.call("ReEncrypt", &request);
    assert_eq!(answer["KeyId"], destination);
    assert_eq!(answer["SourceKeyId"], source);
    let decrypted = world.call(
        "Decrypt",
        &json!({ "CiphertextBlob": answer["CiphertextBlob"] }),
    );
    assert_eq!(bytes(&decrypted["Plaintext"]), b"a secret");

    let mut back =
        json!({ "CiphertextBlob": answer["CiphertextBlob"], "DestinationKeyId": source });
    let refusal = world.refusal("ReEncrypt", &back);
    assert_eq!(refusal["__type"], "AccessDeniedException", "{refusal}");
    back["CiphertextBlob"] = encrypted["CiphertextBlob"].clone();
    back["SourceEncryptionContext"] = context;
    let refusal = world.refusal("ReEncrypt", &back);
    let message = refusal["Message"].as_str().unwrap();
    assert!(message.contains(to), "{message}");
}

#[test]
fn policies_see_what_kind_of_key_and_pair_a_call_is_about() {
    let world = World::new();
    for (name, value, is_allowed) in [
        ("kms:KeySpec", "SYMMETRIC_DEFAULT", true),
        ("kms:KeyUsage", "KEY_AGREEMENT", false),
        ("kms:DataKeyPairSpec", "ECC_NIST_P256", true),
        ("kms:DataKeyPairSpec", "RSA_2048", false),
        ("kms:EncryptionAlgorithm", "SYMMETRIC_DEFAULT", true),
    ] {
        let policy = json!({ "Version": "2012-10-17", "Statement": {
            "Effect": "Allow",
            "Principal": { "AWS": world.role },
            "Action": "kms:GenerateDataKeyPair",
            "Resource": "*",
            "Condition": { "StringEquals": { name: value } },
        }});
        let policy = policy.to_string().parse().unwrap();
        let key = world.kms.create_key(policy);
        let request = json!({ "KeyId": key.unwrap().as_str(), "KeyPairSpec": "ECC_NIST_P256" });
        let request = world.client.request("GenerateDataKeyPair", &request);
        let (status, answer) = world.answer(&request);
        assert_eq!(status.is_success(), is_allowed, "{name}: {answer}");
    }
}

#[test]
fn create_key_makes_keys_of_the_wanted_kind_and_policy() {
    let world = World::new();
    let policy = policy_text(&[("kms:DescribeKey", &world.role, None)]);
    for (request, spec, usage) in [
        (json!({}), "SYMMETRIC_DEFAULT", "ENCRYPT_DECRYPT"),
        (
            json!({ "KeySpec": "ECC_NIST_P384", "KeyUsage": "KEY_AGREEMENT" }),
            "ECC_NIST_P384",
            "KEY_AGREEMENT",
        ),
    ] {
        let mut request = request;
        request["Policy"] = json!(policy);
        let made = world.call("CreateKey", &request)["KeyMetadata"].clone();
        assert_eq!(
            (&made["KeySpec"], &made["KeyUsage"]),
            (&json!(spec), &json!(usage))
        );
        let described = world.call("DescribeKey", &json!({ "KeyId": made["Arn"] }));
        assert_eq!(described["KeyMetadata"], made);
        let refusal = world.refusal("GetPublicKey", &json!({ "KeyId": made["Arn"] }));
        assert_eq!(refusal["__type"], "AccessDeniedException");
    }
    let made = world.call("CreateKey", &json!({}))["KeyMetadata"].clone();
    let refusal = world.refusal("DescribeKey", &json!({ "KeyId": made["Arn"] }));
    let message = refusal["Message"].as_str().unwrap();
    assert!(message.contains("no identity-based policy"), "{message}");
    for (request, kind) in [
        (json!({ "KeySpec": "ECC_NIST_P256" }), "ValidationException"),
        (
            json!({ "KeyUsage": "KEY_AGREEMENT" }),
            "ValidationException",
        ),
        (json!({ "KeySpec": "RSA_2048" }), "ValidationException"),
        (
            json!({ "Policy": "{}" }),
            "MalformedPolicyDocumentException",
        ),
    ] {
        let refusal = world.refusal("CreateKey", &request);
        assert_eq!(refusal["__type"], kind, "{refusal}");
    }
}

#[test]
fn put_key_policy_is_for_whom_the_policy_says_and_locks_nobody_out() {
    let world = World::new();
    let stranger = "arn:aws:iam::123456789012:role/Stranger";
    let key = world.key(&[("kms:PutKeyPolicy", &world.role, None)]);
    let put = |policy: String| json!({ "KeyId": key, "PolicyName": "default", "Policy": policy });
    let encrypt = json!({ "KeyId": key, "Plaintext": base64(b"a secret") });
    let encrypting = policy_text(&[
        ("kms:PutKeyPolicy", &world.role, None),
        ("kms:Encrypt", &world.role, None),
    ]);

    let request = put(encrypting.clone());
    let refusal = world.refusal_of(&Client::new(stranger), "PutKeyPolicy", &request);
    assert_eq!(refusal["__type"], "AccessDeniedException");
    for (policy, words) in [
        ("{}".to_owned(), "Statement"),
        (
            policy_text(&[("kms:*", stranger, None)]),
            "will not allow you to update the key policy",
        ),
    ] {
        let refusal = world.refusal("PutKeyPolicy", &put(policy));
        assert_eq!(refusal["__type"], "MalformedPolicyDocumentException");
        let message = refusal["message"].as_str().unwrap();
        assert!(message.contains(words), "{message}");
    }
    let refusal = world.refusal("Encrypt", &encrypt);
    assert_eq!(refusal["__type"], "AccessDeniedException");

    assert_eq!(world.call("PutKeyPolicy", &put(encrypting)), json!({}));
    world.call("Encrypt", &encrypt);
    let mut last = put(policy_text(&[("kms:*", stranger, None)]));
    last["BypassPolicyLockoutSafetyCheck"] = json!(true);
    assert_eq!(world.call("PutKeyPolicy", &last), json!({}));
    let refusal = world.refusal("Encrypt", &encrypt);
    assert_eq!(refusal["__type"], "AccessDeniedException");
}
