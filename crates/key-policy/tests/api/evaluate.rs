//! What a policy decides of a request.

use key_policy::{Action, Caller, Policy, Request};
use measurements::RoleArn;
use serde_json::{Value, json};

use crate::calls::{ADMINISTRATOR, ENCLAVE, FOREIGNER, STRANGER, decide, key, pcr, request};

/// A policy whose statements have an effect, principals, actions and conditions.
fn policy(statements: &[(&str, Value, Value, Value)]) -> Policy {
    let statements: Vec<Value> = statements
        .iter()
        .enumerate()
        .map(|(index, (effect, principal, action, condition))| {
            json!({
                "Sid": format!("{index}"),
                "Effect": effect,
                "Principal": principal,
                "Action": action,
                "Resource": "*",
                "Condition": condition,
            })
        })
        .collect();
    let policy = json!({"Version": "2012-10-17", "Statement": statements});
    policy.to_string().parse().unwrap()
}

fn one(condition: Value) -> Policy {
    policy(&[("Allow", json!("*"), json!("kms:*"), condition)])
}

#[test]
fn evaluate_denies_before_it_allows_and_allows_nothing_by_itself() {
    let policy = policy(&[
        ("Allow", json!({"AWS": ENCLAVE}), json!("kms:*"), json!({})),
        ("Deny", json!("*"), json!("kms:decrypt"), json!({})),
    ]);
    let decision = |caller, action| decide(&policy, &request(caller, action)).0;
    assert_eq!(decision(ENCLAVE, "kms:Decrypt"), "deny");
    assert_eq!(decision(ENCLAVE, "kms:Encrypt"), "allow");
    assert_eq!(decision(STRANGER, "kms:Decrypt"), "deny");
    assert_eq!(decision(STRANGER, "kms:Encrypt"), "none");
}

#[test]
fn evaluate_leaves_an_accounts_callers_to_its_iam_policies() {
    let root = "arn:aws:iam::123456789012:root";
    for account in ["123456789012", root] {
        let policy = policy(&[
            ("Allow", json!({"AWS": account}), json!("kms:*"), json!({})),
            (
                "Deny",
                json!({"AWS": account}),
                json!("kms:Sign"),
                json!({}),
            ),
        ]);
        let decision = |caller, action| decide(&policy, &request(caller, action)).0;
        assert_eq!(decision(ADMINISTRATOR, "kms:Decrypt"), "iam");
        assert_eq!(decision(root, "kms:Decrypt"), "allow");
        assert_eq!(decision(FOREIGNER, "kms:Decrypt"), "none");
        assert_eq!(
            decision("logs.eu-west-1.amazonaws.com", "kms:Decrypt"),
            "none"
        );
        assert_eq!(decision(ADMINISTRATOR, "kms:Sign"), "deny");
        assert_eq!(decision(root, "kms:Sign"), "deny");
    }
}

#[test]
fn evaluate_needs_the_iam_policies_of_another_account() {
    let policy = policy(&[(
        "Allow",
        json!({"AWS": FOREIGNER}),
        json!("kms:Decrypt"),
        json!({}),
    )]);
    assert_eq!(decide(&policy, &request(FOREIGNER, "kms:Decrypt")).0, "iam");
    assert_eq!(
        decide(&one(json!({})), &request(FOREIGNER, "kms:Decrypt")).0,
        "iam"
    );
    assert_eq!(
        decide(&one(json!({})), &request(STRANGER, "kms:Decrypt")).0,
        "allow"
    );
}

#[test]
fn evaluate_knows_a_session_by_its_role_and_by_itself() {
    let role: RoleArn = ENCLAVE.parse().unwrap();
    let session = "arn:aws:sts::123456789012:assumed-role/Enclave/i-0123456789abcdef0";
    let caller = Caller::session(&role, "i-0123456789abcdef0");
    for (principal, expected) in [
        (ENCLAVE, "allow"),
        (session, "allow"),
        (
            "arn:aws:sts::123456789012:assumed-role/Enclave/other",
            "none",
        ),
        ("arn:aws:iam::123456789012:role/Enclave", "none"),
    ] {
        let policy = policy(&[("Allow", json!({"AWS": principal}), json!("*"), json!({}))]);
        let request = Request::new(caller.clone(), Action::DECRYPT, key());
        assert_eq!(decide(&policy, &request).0, expected, "{principal}");
    }
    let without_path: Caller = session.parse().unwrap();
    assert_eq!(
        without_path.arn(),
        Some("arn:aws:iam::123456789012:role/Enclave")
    );
}

#[test]
fn evaluate_takes_what_is_excepted_for_what_it_is_not() {
    let text = json!({"Statement": {
        "Effect": "Allow",
        "NotPrincipal": {"AWS": [ENCLAVE]},
        "NotAction": ["kms:Put*", "kms:?ecrypt"],
        "NotResource": "arn:aws:kms:eu-west-1:123456789012:key/other",
    }});
    let policy: Policy = text.to_string().parse().unwrap();
    let decision = |caller, action| decide(&policy, &request(caller, action)).0;
    assert_eq!(decision(STRANGER, "kms:Encrypt"), "allow");
    assert_eq!(decision(STRANGER, "kms:PutKeyPolicy"), "none");
    assert_eq!(decision(STRANGER, "kms:Decrypt"), "none");
    assert_eq!(decision(ENCLAVE, "kms:Encrypt"), "none");
}

#[test]
fn evaluate_compares_the_resource_with_the_key() {
    for (resource, expected) in [
        ("*", "allow"),
        ("arn:aws:kms:eu-west-1:123456789012:key/*", "allow"),
        (
            "arn:aws:kms:eu-west-1:${aws:PrincipalAccount}:key/*",
            "allow",
        ),
        ("arn:aws:kms:us-east-1:123456789012:key/*", "none"),
    ] {
        let text = json!({"Version": "2012-10-17", "Statement": {
            "Effect": "Allow", "Principal": "*", "Action": "kms:*", "Resource": resource,
        }});
        let policy: Policy = text.to_string().parse().unwrap();
        assert_eq!(
            decide(&policy, &request(STRANGER, "kms:Sign")).0,
            expected,
            "{resource}"
        );
    }
}

#[test]
fn evaluate_takes_a_missing_key_as_aws_documents_it() {
    for (condition, expected) in [
        (json!({"StringEquals": {"kms:ViaService": "a"}}), "none"),
        (json!({"StringNotEquals": {"kms:ViaService": "a"}}), "allow"),
        (
            json!({"StringEqualsIfExists": {"kms:ViaService": "a"}}),
            "allow",
        ),
        (
            json!({"StringNotEqualsIfExists": {"kms:ViaService": "a"}}),
            "allow",
        ),
        (json!({"Null": {"kms:ViaService": "true"}}), "allow"),
        (json!({"Null": {"kms:ViaService": false}}), "none"),
        (json!({"Bool": {"kms:MultiRegion": "false"}}), "none"),
        (
            json!({"ForAllValues:StringEquals": {"kms:ResourceAliases": "a"}}),
            "allow",
        ),
        (
            json!({"ForAnyValue:StringEquals": {"kms:ResourceAliases": "a"}}),
            "none",
        ),
        (
            json!({"ForAnyValue:StringNotEquals": {"kms:ResourceAliases": "a"}}),
            "none",
        ),
        (
            json!({"ForAnyValue:StringEqualsIfExists": {"kms:ResourceAliases": "a"}}),
            "none",
        ),
        (
            json!({"NotIpAddress": {"aws:SourceIp": "192.0.2.0/24"}}),
            "allow",
        ),
        (
            json!({"NumericNotEquals": {"kms:RotationPeriodInDays": 1}}),
            "allow",
        ),
    ] {
        let decision = decide(&one(condition.clone()), &request(STRANGER, "kms:Sign"));
        assert_eq!(decision.0, expected, "{condition}");
    }
}

#[test]
fn evaluate_demands_all_conditions_and_one_value_of_each() {
    let both = json!({
        "StringEquals": {"kms:CallerAccount": ["1", "123456789012"], "kms:EncryptionContext:App": ["a", "b"]},
    });
    let policy = one(both);
    let with = |value: &str| request(STRANGER, "kms:Decrypt").encryption_context([("app", value)]);
    assert_eq!(decide(&policy, &with("a")).0, "allow");
    assert_eq!(decide(&policy, &with("b")).0, "allow");
    assert_eq!(decide(&policy, &with("B")).0, "none");
    assert_eq!(decide(&policy, &request(STRANGER, "kms:Decrypt")).0, "none");
    let neither = one(json!({"StringNotEquals": {"kms:EncryptionContext:App": ["a", "b"]}}));
    assert_eq!(decide(&neither, &with("b")).0, "none");
    assert_eq!(decide(&neither, &with("c")).0, "allow");
}

#[test]
fn evaluate_compares_sets_of_values() {
    let with = |names: &[&str]| {
        request(STRANGER, "kms:Decrypt").encryption_context(names.iter().map(|name| (*name, "x")))
    };
    let key = "kms:EncryptionContextKeys";
    for (operator, names, expected) in [
        ("ForAllValues:StringEquals", &["a", "b"][..], "allow"),
        ("ForAllValues:StringEquals", &["a", "c"], "none"),
        ("ForAnyValue:StringEquals", &["a", "c"], "allow"),
        ("ForAnyValue:StringEquals", &["c"], "none"),
        ("ForAllValues:StringNotEquals", &["c"], "allow"),
        ("ForAllValues:StringNotEquals", &["a", "c"], "none"),
        ("ForAnyValue:StringNotEquals", &["a", "c"], "allow"),
        ("ForAnyValue:StringNotEquals", &["a", "b"], "none"),
        ("StringEquals", &["a"], "allow"),
    ] {
        let policy = one(json!({operator: {key: ["a", "b"]}}));
        assert_eq!(
            decide(&policy, &with(names)).0,
            expected,
            "{operator} {names:?}"
        );
    }
}

/// Nobody is let in by it, and whoever is kept out stays out.
#[test]
fn evaluate_what_aws_does_not_define_allows_nothing_and_denies() {
    let two = request(STRANGER, "kms:Decrypt").encryption_context([("a", "x"), ("b", "x")]);
    for condition in [
        json!({"StringEquals": {"kms:EncryptionContextKeys": "a"}}),
        json!({"StringNotEquals": {"kms:EncryptionContextKeys": "a"}}),
        json!({"ForAnyValue:StringEqualsIfExists": {"kms:ResourceAliases": "a"}}),
    ] {
        assert_eq!(decide(&one(condition.clone()), &two).0, "none");
        let denying = policy(&[
            ("Allow", json!("*"), json!("*"), json!({})),
            ("Deny", json!("*"), json!("*"), condition),
        ]);
        assert_eq!(decide(&denying, &two).0, "deny");
    }
}

#[test]
fn evaluate_knows_registers_of_attested_calls_and_pcr0_by_both_names() {
    let image = pcr(0xab).to_string();
    for (operator, key, value, expected) in [
        ("StringEquals", "ImageSha384", image.clone(), "allow"),
        ("StringEquals", "imagesha384", image.clone(), "allow"),
        ("StringEquals", "PCR0", image.clone(), "allow"),
        ("StringEquals", "PCR0", image.to_uppercase(), "none"),
        (
            "StringEqualsIgnoreCase",
            "PCR0",
            image.to_uppercase(),
            "allow",
        ),
        ("StringEquals", "PCR1", image.clone(), "none"),
        ("StringEquals", "NitroTPMPCR4", image.clone(), "none"),
        ("Null", "PCR8", "true".to_owned(), "allow"),
        ("Null", "PCR0", "true".to_owned(), "none"),
    ] {
        let key = format!("kms:RecipientAttestation:{key}");
        let policy = one(json!({operator: {(key.clone()): value}}));
        let request = request(ENCLAVE, "kms:Decrypt").attested([(0, pcr(0xab)), (1, pcr(1))]);
        assert_eq!(decide(&policy, &request).0, expected, "{operator} {key}");
    }
}

#[test]
fn evaluate_replaces_variables_with_values_of_the_request() {
    let policy = one(json!({"StringEquals": {"kms:EncryptionContext:who": "${aws:PrincipalArn}"}}));
    let with = |who: &str| request(ENCLAVE, "kms:Decrypt").encryption_context([("who", who)]);
    assert_eq!(decide(&policy, &with(ENCLAVE)).0, "allow");
    assert_eq!(decide(&policy, &with(STRANGER)).0, "none");
    let unknown = one(json!({"StringEquals": {"kms:EncryptionContext:who": "${aws:username}"}}));
    assert_eq!(decide(&unknown, &with("")).0, "none");
}
