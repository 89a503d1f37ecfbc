//! Whose a resource is, by its ARN.

/// Whether two resources are of the same account, by their ARNs
/// (`arn:PARTITION:SERVICE:REGION:ACCOUNT:RESOURCE`).
pub(crate) fn is_shared(arn: &str, other: &str) -> bool {
    match (account(arn), account(other)) {
        (Some(account), Some(of_other)) => account == of_other,
        _ => false,
    }
}

/// The partition and the account.
fn account(arn: &str) -> Option<(&str, &str)> {
    let mut parts = arn.splitn(6, ':');
    let (prefix, partition) = (parts.next()?, parts.next()?);
    let account = parts.nth(2)?;
    parts.next()?;
    (prefix == "arn" && !account.is_empty()).then_some((partition, account))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn account_of_an_arn_is_compared_with_its_partition() {
        let key = "arn:aws:kms:eu-west-1:111122223333:key/1234";
        for (arn, expected) in [
            ("arn:aws:ssm:eu-west-1:111122223333:parameter/a:b", true),
            (
                "arn:aws:secretsmanager:us-east-1:111122223333:secret:a-1",
                true,
            ),
            ("arn:aws:ssm:eu-west-1:444455556666:parameter/a", false),
            ("arn:aws-cn:ssm:eu-west-1:111122223333:parameter/a", false),
            ("arn:aws:ssm:eu-west-1:111122223333", false),
            ("arn:aws:s3:::bucket/a", false),
            ("urn:aws:ssm:eu-west-1:111122223333:parameter/a", false),
            ("", false),
        ] {
            assert_eq!(is_shared(arn, key), expected, "{arn}");
        }
        assert!(!is_shared("", ""));
    }
}
