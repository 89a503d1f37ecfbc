//! The calls of the KMS, for whoever its key policies allow.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod support;

use serde_json::{Value, json};
use support::{Client, World, base64, bytes};

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
