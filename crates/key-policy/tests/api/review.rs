//! Reviews find what a change to a good policy opens.

use key_policy::{Policy, Principal, Review, Way};
use serde_json::{Value, json};

use crate::calls::{ADMINISTRATOR, ENCLAVE, STRANGER, pcr};
use crate::written::{rules, seed_rules};

fn written() -> Value {
    serde_json::from_str(&rules().write().unwrap().to_string()).unwrap()
}

fn statement<'a>(policy: &'a mut Value, sid: &str) -> &'a mut Value {
    let statements = policy["Statement"].as_array_mut().unwrap();
    let found = statements
        .iter_mut()
        .find(|statement| statement["Sid"] == sid);
    found.unwrap()
}

fn without_denials(mut policy: Value) -> Value {
    let statements = policy["Statement"].as_array_mut().unwrap();
    statements.retain(|statement| statement["Effect"] == "Allow");
    policy
}

fn review(policy: &Value) -> Review {
    policy.to_string().parse::<Policy>().unwrap().review()
}

fn add(policy: &mut Value, principal: &Value, action: &str) {
    let statements = policy["Statement"].as_array_mut().unwrap();
    statements.push(json!({
        "Sid": "Added",
        "Effect": "Allow",
        "Principal": principal,
        "Action": action,
        "Resource": "*",
    }));
}

#[test]
fn reviews_find_no_hole_where_others_are_merely_not_allowed() {
    assert_eq!(review(&without_denials(written())).holes, []);
}

type Change = fn(&mut Value);

/// Makes each change to a statement of a policy that only does not allow others to read, and
/// looks for the hole.
#[track_caller]
fn check(sid: &str, changes: &[(Change, Way)]) {
    for (index, (change, way)) in changes.iter().enumerate() {
        let mut policy = without_denials(written());
        change(statement(&mut policy, sid));
        let review = review(&policy);
        let found = review.holes.iter().find(|hole| hole.way == *way);
        let found = found.unwrap_or_else(|| panic!("{index}: {:?}", review.holes));
        assert_eq!(found.statement.sid.as_deref(), Some(sid), "{index}");
    }
}

#[test]
fn reviews_find_each_change_by_which_administrators_read() {
    let changes: [(Change, Way); 8] = [
        (|s| s["Action"] = json!("kms:*"), Way::WithoutAttestation),
        (|s| s["Action"] = json!("kms:Gen*"), Way::WithoutAttestation),
        (
            |s| s["Action"] = json!("kms:ReEncrypt*"),
            Way::WithoutAttestation,
        ),
        (
            |s| s["Action"] = json!("kms:Derive*"),
            Way::WithoutAttestation,
        ),
        (|s| s["Action"] = json!("kms:Create*"), Way::Grant),
        (
            |s| {
                let action = s.as_object_mut().unwrap().remove("Action");
                s["NotAction"] = action.unwrap();
            },
            Way::WithoutAttestation,
        ),
        (|s| s["Principal"] = json!("*"), Way::AnotherPolicy),
        (
            |s| s["Principal"] = json!({"AWS": ENCLAVE}),
            Way::AnotherPolicy,
        ),
    ];
    check("Administration", &changes);
}

#[test]
fn reviews_find_each_change_to_what_is_demanded_of_documents() {
    let changes: [(Change, Way); 9] = [
        (|s| s["Condition"] = json!({}), Way::WithoutAttestation),
        (
            |s| s["Condition"] = rename(&s["Condition"], "StringEqualsIgnoreCaseIfExists"),
            Way::WithoutAttestation,
        ),
        (
            |s| s["Condition"] = rename(&s["Condition"], "ForAllValues:StringEqualsIgnoreCase"),
            Way::WithoutAttestation,
        ),
        (
            |s| s["Condition"] = rename(&s["Condition"], "StringNotEquals"),
            Way::WithoutAttestation,
        ),
        (
            |s| s["Condition"] = json!({"Null": {"kms:RecipientAttestation:PCR0": "false"}}),
            Way::AnotherImage,
        ),
        (
            |s| s["Condition"] = json!({"StringLike": {"kms:RecipientAttestation:PCR0": "0*"}}),
            Way::AnotherImage,
        ),
        (
            |s| s["Condition"] = json!({"StringEquals": {"kms:RecipientAttestation:PCR3": pcr(3)}}),
            Way::AnotherImage,
        ),
        (
            |s| s["Condition"] = json!({"StringEquals": {"kms:RecipientAttestation:PCR2": pcr(2)}}),
            Way::AnotherImage,
        ),
        (
            |s| {
                let zero = [pcr(1), pcr(0)];
                s["Condition"] = json!({"StringEquals": {"kms:RecipientAttestation:PCR0": zero}});
            },
            Way::DebugMode,
        ),
    ];
    check("CurrentRelease", &changes);
}

fn rename(condition: &Value, operator: &str) -> Value {
    json!({operator: condition["StringEqualsIgnoreCase"]})
}

/// What opens a policy in which somebody else allows, once the denials do not cover it.
#[test]
fn reviews_find_each_change_that_weakens_the_denials() {
    let mut open = written();
    add(&mut open, &json!({"AWS": "123456789012"}), "kms:*");
    let covered = review(&open);
    assert_eq!(covered.holes, []);
    assert!(
        covered
            .replacing
            .iter()
            .any(|replacing| replacing.statement.sid.as_deref() == Some("Added"))
    );

    // Both of them deny calls without a document.
    let changes: [Change; 9] = [
        |s| s["Principal"] = json!({"AWS": STRANGER}),
        |s| {
            s.as_object_mut().unwrap().remove("Principal");
            s["NotPrincipal"] = json!({"AWS": ADMINISTRATOR});
        },
        |s| s["Action"] = json!("kms:Decrypt"),
        |s| s["Action"] = json!("kms:Decrpyt"),
        |s| s["Effect"] = json!("Allow"),
        |s| s["Resource"] = json!("arn:aws:kms:eu-west-1:123456789012:key/other"),
        |s| s["Condition"]["Bool"] = json!({"aws:SecureTransport": "false"}),
        |s| s["Condition"]["StringNotEquals"] = json!({"aws:PrincipalArn": ADMINISTRATOR}),
        |s| s["Condition"] = json!({"StringNotEqualsIfExists": {"kms:ViaService": "a"}}),
    ];
    for (index, change) in changes.into_iter().enumerate() {
        let mut policy = open.clone();
        change(statement(&mut policy, "WithoutAttestation"));
        change(statement(&mut policy, "OtherImages"));
        let review = review(&policy);
        let hole = |way| review.holes.iter().any(|hole| hole.way == way);
        assert!(hole(Way::WithoutAttestation), "{index}: {:?}", review.holes);
        assert!(hole(Way::Grant), "{index}");
    }
    // One alone leaves enclaves with other images to IAM policies and grants.
    let mut policy = open.clone();
    let statements = policy["Statement"].as_array_mut().unwrap();
    statements.retain(|statement| statement["Sid"] != "OtherImages");
    let ways: Vec<Way> = review(&policy).holes.iter().map(|hole| hole.way).collect();
    assert_eq!(ways, [Way::AnotherImage, Way::DebugMode, Way::Grant]);
}

#[test]
fn reviews_take_a_denial_for_all_but_its_principals_as_one() {
    let policy = json!({"Statement": [
        {
            "Effect": "Allow",
            "Principal": {"AWS": [ADMINISTRATOR, STRANGER]},
            "Action": "kms:Decrypt",
            "Resource": "*",
        },
        {
            "Effect": "Deny",
            "NotPrincipal": {"AWS": [STRANGER]},
            "Action": "kms:*",
            "Resource": "*",
        },
    ]});
    let review = review(&policy);
    assert_eq!(review.holes.len(), 1);
    assert_eq!(
        review.holes[0].principals,
        [STRANGER.parse::<Principal>().unwrap()]
    );
}

#[test]
fn reviews_note_values_that_never_match_or_are_of_debug_mode() {
    let fingerprint = vec!["AB"; 32].join(":");
    let upper = pcr(0xab).to_string().to_uppercase();
    for (operator, value, words) in [
        (
            "StringEqualsIgnoreCase",
            fingerprint,
            Some("attest pcr --certificate"),
        ),
        (
            "StringEqualsIgnoreCase",
            "ab".repeat(32),
            Some("attest pcr --certificate"),
        ),
        (
            "StringEqualsIgnoreCase",
            "abc".to_owned(),
            Some("never matches"),
        ),
        ("StringEquals", upper.clone(), Some("lower case")),
        ("StringEqualsIgnoreCase", upper, None),
        ("StringEqualsIgnoreCase", "0".repeat(96), Some("debug mode")),
    ] {
        let policy = json!({"Statement": {
            "Effect": "Allow",
            "Principal": {"AWS": ENCLAVE},
            "Action": "kms:Decrypt",
            "Resource": "*",
            "Condition": {operator: {"kms:RecipientAttestation:PCR8": value}},
        }});
        let notes = &review(&policy).attested[0].notes;
        match words {
            Some(words) => assert!(notes[0].reason.contains(words), "{notes:?}"),
            None => assert_eq!(notes, &[]),
        }
    }
}

#[test]
fn reviews_for_a_seed_find_who_could_choose_it() {
    let seed = || -> Value {
        let written = seed_rules().write().unwrap().to_string();
        without_denials(serde_json::from_str(&written).unwrap())
    };
    let found = |policy: &Value| -> Vec<(String, String)> {
        let policy: Policy = policy.to_string().parse().unwrap();
        let holes = policy.review_for_seed().holes.into_iter();
        let chosen = holes.filter(|hole| hole.way == Way::ChosenSeed);
        chosen
            .map(|hole| (hole.statement.sid.unwrap(), hole.actions[0].to_string()))
            .collect()
    };
    assert_eq!(found(&seed()), []);
    for action in [
        "kms:Encrypt",
        "kms:ReEncryptTo",
        "kms:ReEncrypt*",
        "kms:CreateGrant",
    ] {
        let mut policy = seed();
        add(&mut policy, &json!({ "AWS": STRANGER }), action);
        let found = found(&policy);
        assert_eq!(found.len(), 1, "{action}: {found:?}");
        assert_eq!(found[0].0, "Added");
    }
    // Of any other key that is nothing to find.
    let policy = written();
    assert_eq!(review(&policy).holes, []);
    assert_eq!(
        found(&policy),
        [("Encryption".to_owned(), "kms:Encrypt".to_owned())]
    );
    // What is denied to everybody is nobody's, whatever else allows it.
    let written = seed_rules().write().unwrap().to_string();
    let mut policy: Value = serde_json::from_str(&written).unwrap();
    add(&mut policy, &json!({ "AWS": STRANGER }), "kms:*");
    assert_eq!(found(&policy), []);
}
