//! Reviews and decisions agree: where a policy lets a call through that no attested enclave
//! makes, its review has a hole.

use key_policy::{Action, Policy};
use measurements::Pcr;
use proptest::prelude::*;
use proptest::sample::select;
use serde_json::{Value, json};

use crate::calls::{ADMINISTRATOR, ENCLAVE, FOREIGNER, STRANGER, decide, pcr, request};

fn principal() -> impl Strategy<Value = Value> {
    select(vec![
        json!("*"),
        json!({"AWS": "123456789012"}),
        json!({"AWS": ENCLAVE}),
        json!({"AWS": [ADMINISTRATOR, ENCLAVE]}),
        json!({"AWS": "arn:aws:sts::123456789012:assumed-role/Stranger/session"}),
        json!({"Service": "s3.amazonaws.com"}),
    ])
}

fn actions() -> impl Strategy<Value = Value> {
    select(vec![
        json!("*"),
        json!("kms:Decrypt"),
        json!(["kms:Generate*", "kms:ReEncrypt*"]),
        json!(["kms:?e*", "kms:Put*"]),
    ])
}

fn condition() -> impl Strategy<Value = (String, String, Value)> {
    let operator = (
        select(vec!["", "ForAllValues:", "ForAnyValue:"]),
        select(vec![
            "StringEquals",
            "StringNotEquals",
            "StringEqualsIgnoreCase",
            "StringLike",
            "StringNotLike",
        ]),
        select(vec!["", "IfExists"]),
    );
    let operator = prop_oneof![
        operator.prop_map(|(set, name, suffix)| (format!("{set}{name}{suffix}"), false)),
        Just(("Null".to_owned(), true)),
    ];
    let key = select(vec![
        "kms:RecipientAttestation:ImageSha384",
        "kms:RecipientAttestation:PCR0",
        "kms:RecipientAttestation:PCR1",
        "kms:RecipientAttestation:PCR2",
        "kms:RecipientAttestation:PCR3",
        "kms:RecipientAttestation:PCR8",
        "kms:RecipientAttestation:PCR16",
        "kms:RecipientAttestation:NitroTPMPCR4",
        "kms:CallerAccount",
        "kms:ViaService",
        "aws:PrincipalArn",
    ]);
    let values = proptest::collection::vec(
        select(vec![
            pcr(1).to_string(),
            pcr(2).to_string(),
            Pcr::ZERO.to_string(),
            "*".to_owned(),
            "0?0*".to_owned(),
            "123456789012".to_owned(),
            ENCLAVE.to_owned(),
            "${aws:PrincipalArn}".to_owned(),
        ]),
        1..3,
    );
    (operator, key, values, any::<bool>()).prop_map(|((operator, is_null), key, values, absent)| {
        let values = if is_null {
            json!(absent)
        } else {
            json!(values)
        };
        (operator, key.to_owned(), values)
    })
}

fn statement() -> impl Strategy<Value = Value> {
    let named = (any::<bool>(), principal(), any::<[bool; 2]>(), actions());
    let conditions = proptest::collection::vec(condition(), 0..3);
    (named, conditions).prop_map(|((deny, principal, [but, not], actions), conditions)| {
        let mut statement = json!({
            "Effect": if deny { "Deny" } else { "Allow" },
            "Resource": "*",
            "Condition": {},
        });
        // `NotPrincipal` with everybody is about nobody.
        let but = but && deny && principal != json!("*");
        statement[if but { "NotPrincipal" } else { "Principal" }] = principal;
        statement[if not { "NotAction" } else { "Action" }] = actions;
        for (operator, key, values) in conditions {
            statement["Condition"][operator][key] = values;
        }
        statement
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2048))]

    #[test]
    fn random_policies_that_let_others_read_have_holes(
        statements in proptest::collection::vec(statement(), 1..5),
        caller in select(vec![
            ADMINISTRATOR,
            ENCLAVE,
            STRANGER,
            FOREIGNER,
            "arn:aws:iam::123456789012:root",
            "arn:aws:sts::123456789012:assumed-role/Stranger/session",
            "s3.amazonaws.com",
        ]),
        action in select(Action::READING.to_vec()),
        document in 0..4,
        service in any::<bool>(),
    ) {
        let policy: Policy = json!({"Version": "2012-10-17", "Statement": statements})
            .to_string()
            .parse()
            .unwrap();
        let registers: Vec<(u8, Pcr)> = match document {
            // Another application on the same kernel, with the same role.
            1 => vec![(0, pcr(9)), (1, pcr(1)), (2, pcr(9)), (3, pcr(1)), (8, pcr(9)), (16, pcr(1))],
            // The same application on another kernel.
            2 => vec![(0, pcr(9)), (1, pcr(9)), (2, pcr(1)), (3, pcr(2)), (8, pcr(9))],
            3 => (0..32).map(|index| (index, Pcr::ZERO)).collect(),
            _ => Vec::new(),
        };
        if action == Action::RE_ENCRYPT_FROM && document != 0 {
            return Ok(());
        }
        let mut request = request(caller, action.as_str()).attested(registers);
        if service {
            let key = "kms:ViaService".parse().unwrap();
            request = request.with(key, vec!["123456789012".to_owned()]);
        }
        let decision = decide(&policy, &request).0;
        if decision == "allow" || decision == "iam" {
            prop_assert!(!policy.review().holes.is_empty(), "{decision}");
        }
    }
}
