//! Key policies: a written one, and one of everything that the language has.

use key_policy::{Principal, Release, Rules};
use measurements::Pcr;
use serde_json::json;

use crate::write;

pub(crate) fn write_all() {
    let release = |byte| Release {
        image: Pcr::new([byte; 48]),
        signer: Some(Pcr::new([8; 48])),
    };
    let principal = |text: &str| text.parse::<Principal>().expect("a principal");
    let rules = Rules {
        current: release(1),
        next: Some(release(2)),
        role: Some(Pcr::new([3; 48])),
        instance: Some(Pcr::new([4; 48])),
        callers: vec![principal("arn:aws:iam::123456789012:role/a")],
        administrators: vec![principal("123456789012")],
        encrypters: vec![principal("123456789012")],
        is_for_seed: false,
    };
    let written = rules.write().expect("a policy");
    write("key_policy", "written", written.to_string().as_bytes());

    let everything = json!({
        "Version": "2012-10-17",
        "Id": "everything",
        "Statement": [
            {
                "Sid": "Names",
                "Effect": "Allow",
                "Principal": {
                    "AWS": ["*", "123456789012", "arn:aws:iam::123456789012:role/a"],
                    "Service": "s3.amazonaws.com",
                    "Federated": "cognito-identity.amazonaws.com",
                },
                "NotAction": ["kms:Put*", "kms:?ncrypt"],
                "Resource": ["arn:aws:kms:*:${aws:PrincipalAccount}:key/*", "*"],
                "Condition": {
                    "StringEqualsIgnoreCaseIfExists": {"kms:ViaService": "a"},
                    "ForAnyValue:StringLike": {"kms:ResourceAliases": ["alias/*", "${*}"]},
                    "ForAllValues:StringNotLike": {"kms:EncryptionContextKeys": "c*"},
                    "ArnLike": {"kms:EncryptionContext:a": "arn:aws:logs:*:*:*"},
                },
            },
            {
                "Effect": "Deny",
                "NotPrincipal": {"AWS": "AROAABCDEFGHIJKLMNOPQ"},
                "Action": "*",
                "NotResource": "arn:aws:kms:eu-west-1:123456789012:key/b",
                "Condition": {
                    "Null": {"kms:RecipientAttestation:PCR31": false},
                    "NumericGreaterThan": {"kms:RotationPeriodInDays": 90},
                    "DateLessThan": {"aws:CurrentTime": "2026-01-31T12:00:00Z"},
                    "NotIpAddress": {"aws:SourceIp": ["192.0.2.0/24", "2001:db8::/32"]},
                    "Bool": {"kms:MultiRegion": "true"},
                    "StringLike": {"kms:RecipientAttestation:NitroTPMPCR4": "0*"},
                },
            },
        ],
    });
    write(
        "key_policy",
        "everything",
        everything.to_string().as_bytes(),
    );
}
