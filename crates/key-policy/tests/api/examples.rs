//! The shapes of policies that AWS's manual has as examples: they are read, decide as the
//! manual says, and are reviewed.

use key_policy::{Policy, Principal, Way};
use serde_json::{Value, json};

use crate::calls::{ADMINISTRATOR, ENCLAVE, STRANGER, decide, pcr, request};

fn policy(statements: &Value) -> Policy {
    let policy = json!({"Version": "2012-10-17", "Id": "example", "Statement": statements});
    policy.to_string().parse().unwrap()
}

fn holes(policy: &Policy) -> Vec<(Way, Vec<String>)> {
    let review = policy.review();
    let holes = review.holes.iter().map(|hole| {
        let who = hole.principals.iter().map(Principal::to_string);
        (hole.way, who.collect())
    });
    holes.collect()
}

/// "Default key policy", for administrators and users that the console adds.
fn default_policy() -> Value {
    json!([
        {
            "Sid": "Enable IAM User Permissions",
            "Effect": "Allow",
            "Principal": {"AWS": "arn:aws:iam::123456789012:root"},
            "Action": "kms:*",
            "Resource": "*",
        },
        {
            "Sid": "Allow access for Key Administrators",
            "Effect": "Allow",
            "Principal": {"AWS": ADMINISTRATOR},
            "Action": [
                "kms:Create*", "kms:Describe*", "kms:Enable*", "kms:List*", "kms:Put*",
                "kms:Update*", "kms:Revoke*", "kms:Disable*", "kms:Get*", "kms:Delete*",
                "kms:TagResource", "kms:UntagResource", "kms:ScheduleKeyDeletion",
                "kms:CancelKeyDeletion", "kms:RotateKeyOnDemand",
            ],
            "Resource": "*",
        },
        {
            "Sid": "Allow use of the key",
            "Effect": "Allow",
            "Principal": {"AWS": ENCLAVE},
            "Action": [
                "kms:Encrypt", "kms:Decrypt", "kms:ReEncrypt*", "kms:GenerateDataKey*",
                "kms:DescribeKey",
            ],
            "Resource": "*",
        },
        {
            "Sid": "Allow attachment of persistent resources",
            "Effect": "Allow",
            "Principal": {"AWS": ENCLAVE},
            "Action": ["kms:CreateGrant", "kms:ListGrants", "kms:RevokeGrant"],
            "Resource": "*",
            "Condition": {"Bool": {"kms:GrantIsForAWSResource": "true"}},
        },
    ])
}

#[test]
fn examples_the_default_policy_lets_users_decrypt_and_is_full_of_holes() {
    let policy = policy(&default_policy());
    let decision = |caller, action| decide(&policy, &request(caller, action)).0;
    assert_eq!(decision(STRANGER, "kms:Decrypt"), "iam");
    assert_eq!(decision(ADMINISTRATOR, "kms:CreateGrant"), "allow");
    assert_eq!(decision(ADMINISTRATOR, "kms:Decrypt"), "iam");
    assert_eq!(decision(ENCLAVE, "kms:ReEncryptFrom"), "allow");
    let account = vec!["123456789012".to_owned()];
    let administrator = vec![ADMINISTRATOR.to_owned()];
    let enclave = vec![ENCLAVE.to_owned()];
    assert_eq!(
        holes(&policy),
        [
            (Way::WithoutAttestation, account.clone()),
            (Way::Grant, account),
            (Way::Grant, administrator),
            (Way::WithoutAttestation, enclave.clone()),
            (Way::Grant, enclave),
        ]
    );
}

/// "Condition keys for Nitro Enclaves".
#[test]
fn examples_of_nitro_enclaves_let_one_image_decrypt() {
    for (key, index) in [("ImageSha384", 0), ("PCR0", 0), ("PCR1", 1)] {
        let policy = policy(&json!([{
            "Sid": "Enable enclave data processing",
            "Effect": "Allow",
            "Principal": {"AWS": ENCLAVE},
            "Action": [
                "kms:Decrypt", "kms:DeriveSharedSecret", "kms:GenerateDataKey",
                "kms:GenerateDataKeyPair", "kms:GenerateRandom",
            ],
            "Resource": "*",
            "Condition": {"StringEqualsIgnoreCase": {
                (format!("kms:RecipientAttestation:{key}")): pcr(0xab).to_string().to_uppercase(),
            }},
        }]));
        let with = |byte| request(ENCLAVE, "kms:Decrypt").attested([(index, pcr(byte))]);
        assert_eq!(decide(&policy, &with(0xab)).0, "allow");
        assert_eq!(decide(&policy, &with(0xac)).0, "none");
        assert_eq!(decide(&policy, &request(ENCLAVE, "kms:Decrypt")).0, "none");
        // PCR1 is kernel and init: another application may stand beside it.
        let expected = if index == 1 {
            vec![Way::AnotherImage]
        } else {
            Vec::new()
        };
        let found: Vec<Way> = holes(&policy).into_iter().map(|(way, _)| way).collect();
        assert_eq!(found, expected, "{key}");
    }
}

/// "Condition keys for NitroTPM".
#[test]
fn examples_of_nitro_tpms_demand_a_document_that_no_enclave_has() {
    let policy = policy(&json!({
        "Effect": "Allow",
        "Principal": {"AWS": ENCLAVE},
        "Action": "kms:Decrypt",
        "Resource": "*",
        "Condition": {"StringEqualsIgnoreCase": {
            "kms:RecipientAttestation:NitroTPMPCR4": pcr(4).to_string(),
        }},
    }));
    let request = request(ENCLAVE, "kms:Decrypt").attested([(4, pcr(4))]);
    assert_eq!(decide(&policy, &request).0, "none");
    assert_eq!(holes(&policy), []);
    assert_eq!(policy.review().attested.len(), 1);
}

/// "kms:CallerAccount" and "kms:ViaService", in the policy of AWS's own key for EBS.
#[test]
fn examples_of_services_let_the_accounts_callers_through_one_service() {
    let policy = policy(&json!([{
        "Sid": "Through EBS",
        "Effect": "Allow",
        "Principal": {"AWS": "*"},
        "Action": ["kms:Encrypt", "kms:Decrypt", "kms:ReEncrypt*", "kms:DescribeKey"],
        "Resource": "*",
        "Condition": {"StringEquals": {
            "kms:CallerAccount": "123456789012",
            "kms:ViaService": "ec2.eu-west-1.amazonaws.com",
        }},
    }]));
    let direct = request(STRANGER, "kms:Decrypt");
    let key = "kms:ViaService".parse().unwrap();
    let through = direct
        .clone()
        .with(key, vec!["ec2.eu-west-1.amazonaws.com".to_owned()]);
    assert_eq!(decide(&policy, &direct).0, "none");
    assert_eq!(decide(&policy, &through).0, "allow");
    let review = policy.review();
    assert_eq!(review.holes.len(), 1);
    assert_eq!(review.holes[0].way, Way::WithoutAttestation);
    assert_eq!(review.holes[0].principals, [Principal::Everybody]);
    assert_eq!(review.holes[0].conditions.len(), 2);
}

/// "kms:GrantOperations": a grant of other calls is no hole.
#[test]
fn examples_of_grants_are_holes_only_for_calls_that_read() {
    for (operations, expected) in [
        (json!(["Encrypt", "DescribeKey"]), vec![]),
        (json!(["Encrypt", "Decrypt"]), vec![Way::Grant]),
    ] {
        let policy = policy(&json!({
            "Effect": "Allow",
            "Principal": {"AWS": ADMINISTRATOR},
            "Action": "kms:CreateGrant",
            "Resource": "*",
            "Condition": {"ForAllValues:StringEquals": {"kms:GrantOperations": operations}},
        }));
        let found: Vec<Way> = holes(&policy).into_iter().map(|(way, _)| way).collect();
        assert_eq!(found, expected);
    }
}

/// "kms:EncryptionContext:" of CloudWatch Logs, and "kms:BypassPolicyLockoutSafetyCheck".
#[test]
fn examples_of_other_conditions_hold_where_the_manual_says() {
    let logs = policy(&json!({
        "Effect": "Allow",
        "Principal": {"Service": "logs.eu-west-1.amazonaws.com"},
        "Action": ["kms:Encrypt*", "kms:Decrypt*"],
        "Resource": "*",
        "Condition": {"ArnLike": {
            "kms:EncryptionContext:aws:logs:arn": "arn:aws:logs:eu-west-1:123456789012:log-group:*",
        }},
    }));
    let group = |arn| {
        request("logs.eu-west-1.amazonaws.com", "kms:Decrypt")
            .encryption_context([("aws:logs:arn", arn)])
    };
    let own = "arn:aws:logs:eu-west-1:123456789012:log-group:a:b";
    assert_eq!(decide(&logs, &group(own)).0, "allow");
    let other = "arn:aws:logs:eu-west-1:210987654321:log-group:a";
    assert_eq!(decide(&logs, &group(other)).0, "none");

    let safe = policy(&json!({
        "Effect": "Allow",
        "Principal": {"AWS": ADMINISTRATOR},
        "Action": "kms:PutKeyPolicy",
        "Resource": "*",
        "Condition": {"Null": {"kms:BypassPolicyLockoutSafetyCheck": true}},
    }));
    let put = request(ADMINISTRATOR, "kms:PutKeyPolicy");
    assert_eq!(decide(&safe, &put).0, "allow");
    let key = "kms:BypassPolicyLockoutSafetyCheck".parse().unwrap();
    let bypassing = put.with(key, vec!["true".to_owned()]);
    assert_eq!(decide(&safe, &bypassing).0, "none");
}
