//! What is a key policy, and what is refused, and where.

use key_policy::{MAX_POLICY_BYTES, Policy};
use serde_json::{Value, json};

fn statement() -> Value {
    json!({
        "Sid": "Only",
        "Effect": "Allow",
        "Principal": {"AWS": "123456789012"},
        "Action": "kms:Decrypt",
        "Resource": "*",
    })
}

/// The error of a policy with one statement, in which an element is another; `null` takes it
/// out.
fn refused(changes: &Value) -> String {
    let mut statement = statement();
    for (name, value) in changes.as_object().unwrap() {
        if value.is_null() {
            statement.as_object_mut().unwrap().remove(name);
        } else {
            statement[name] = value.clone();
        }
    }
    let policy = json!({"Version": "2012-10-17", "Statement": [statement]});
    policy
        .to_string()
        .parse::<Policy>()
        .unwrap_err()
        .to_string()
}

#[test]
fn grammar_takes_one_statement_or_several_and_one_value_or_several() {
    let one = json!({"Statement": statement()});
    let several = json!({
        "Version": "2012-10-17",
        "Id": "key-default-1",
        "Statement": [
            statement(),
            {
                "Effect": "Deny",
                "NotPrincipal": {
                    "AWS": ["arn:aws:iam::123456789012:root", "AROAABCDEFGHIJKLMNOPQ"],
                    "Service": ["logs.eu-west-1.amazonaws.com"],
                    "Federated": "cognito-identity.amazonaws.com",
                },
                "NotAction": ["kms:Describe*", "KMS:List?eys"],
                "NotResource": ["arn:aws:kms:*:123456789012:key/${aws:PrincipalTag/key}"],
                "Condition": {
                    "Bool": {"kms:GrantIsForAWSResource": true},
                    "NumericLessThanIfExists": {"kms:RotationPeriodInDays": [90, "91"]},
                    "ForAnyValue:StringLike": {"kms:ResourceAliases": "alias/*"},
                    "Null": {"kms:ViaService": "false"},
                },
            },
        ],
    });
    for policy in [one, several] {
        policy.to_string().parse::<Policy>().unwrap();
    }
}

#[test]
fn grammar_mistakes_are_refused_with_their_place() {
    let principal = |name: &str| json!({"Principal": {"AWS": name}});
    let condition =
        |operator: &str, key: &str, value: Value| json!({"Condition": {operator: {key: value}}});
    for (changes, place, words) in [
        (
            json!({"Effect": "allow"}),
            "Statement[0].Effect",
            "\"allow\"",
        ),
        (json!({"Effect": null}), "Statement[0]", "Effect is missing"),
        (
            json!({"Principal": null}),
            "Statement[0]",
            "Principal is missing",
        ),
        (json!({"Action": null}), "Statement[0]", "Action is missing"),
        (
            json!({"Resource": null}),
            "Statement[0]",
            "Resource is missing",
        ),
        (
            json!({"NotAction": "*"}),
            "Statement[0]",
            "Action and NotAction",
        ),
        (json!({"condition": {}}), "Statement[0]", "\"condition\""),
        (json!({"Sid": 1}), "Statement[0].Sid", "a string"),
        (json!({"Action": []}), "Statement[0].Action", "empty"),
        (
            json!({"Action": [["kms:*"]]}),
            "Statement[0].Action[0]",
            "a string",
        ),
        (
            json!({"Action": "s3:GetObject"}),
            "Statement[0].Action",
            "s3:GetObject",
        ),
        (
            json!({"Action": "Decrypt"}),
            "Statement[0].Action",
            "Decrypt",
        ),
        (
            json!({"Resource": "key"}),
            "Statement[0].Resource",
            "\"key\"",
        ),
        (
            json!({"Principal": "123456789012"}),
            "Statement[0].Principal",
            "no principal",
        ),
        (json!({"Principal": {}}), "Statement[0].Principal", "empty"),
        (
            json!({"Principal": {"CanonicalUser": "a"}}),
            "Statement[0].Principal.CanonicalUser",
            "no element",
        ),
        (
            json!({"Principal": {"Service": "*"}}),
            "Statement[0].Principal.Service",
            "no service",
        ),
        (
            principal("arn:aws:iam::123456789012:role/*"),
            "Statement[0].Principal.AWS",
            "without wildcards",
        ),
        (
            principal("arn:aws:iam::12345678901:role/a"),
            "Statement[0].Principal.AWS",
            "no principal",
        ),
        (
            principal("arn:aws:s3:::bucket"),
            "Statement[0].Principal.AWS",
            "no principal",
        ),
        (
            condition("StringEqual", "kms:ViaService", json!("a")),
            "Statement[0].Condition.StringEqual",
            "no condition operator",
        ),
        (
            condition("StringEquals", "kms:RecipientAttestation:PCR32", json!("a")),
            "Statement[0].Condition.StringEquals.kms:RecipientAttestation:PCR32",
            "no condition key",
        ),
        (
            condition("StringEquals", "kms:ViaService", json!([])),
            "Statement[0].Condition.StringEquals.kms:ViaService",
            "empty",
        ),
        (
            condition("StringEquals", "kms:ViaService", json!(null)),
            "Statement[0].Condition.StringEquals.kms:ViaService",
            "a string, a number",
        ),
        (
            condition("Bool", "kms:MultiRegion", json!("yes")),
            "Statement[0].Condition.Bool.kms:MultiRegion",
            "no truth value",
        ),
        (
            condition("StringEquals", "aws:username", json!("${aws:nobody}")),
            "Statement[0].Condition.StringEquals.aws:username",
            "policy variable",
        ),
        (
            json!({"Condition": {"StringEquals": {"kms:ViaService": "a", "KMS:viaservice": "b"}}}),
            "Statement[0].Condition.StringEquals.kms:ViaService",
            "twice",
        ),
        (
            json!({"Condition": {"StringEquals": {}}}),
            "Statement[0].Condition.StringEquals",
            "empty",
        ),
    ] {
        let error = refused(&changes);
        assert!(
            error.starts_with(&format!("{place}: ")),
            "{changes}: {error}"
        );
        assert!(error.contains(words), "{changes}: {error}");
    }
}

#[test]
fn grammar_mistakes_in_the_policy_itself_are_refused() {
    let statement = statement().to_string();
    for (text, words) in [
        (String::new(), "EOF"),
        ("[]".to_owned(), "an object"),
        ("{}".to_owned(), "Statement is missing"),
        (r#"{"Statement": []}"#.to_owned(), "empty"),
        (
            format!(r#"{{"Version": "2012-10-18", "Statement": {statement}}}"#),
            "2012-10-18",
        ),
        (
            format!(r#"{{"Comment": "", "Statement": {statement}}}"#),
            "Comment",
        ),
        (
            format!(r#"{{"Statement": {statement}, "Statement": {statement}}}"#),
            "twice",
        ),
        (
            format!(r#"{{"Statement": [{statement}, {statement}]}}"#),
            "the Sid \"Only\"",
        ),
        (format!(r#"{{"Statement": {statement}}} x"#), "trailing"),
        (
            r#"{"Statement": {"Effect": "Deny", "Effect": "Allow"}}"#.to_owned(),
            "\"Effect\" is there twice",
        ),
        (
            r#"{"\u001b[2J": 1, "Statement": {"Condition": {}}}"#.to_owned(),
            r"there is no element",
        ),
        (
            r#"{"Statement": {"Effect": "Deny", "Principal": {"\n": "*"}, "Action": "*", "Resource": "*"}}"#.to_owned(),
            r"Statement.Principal.\n: ",
        ),
        (r#"{"Id": "ф"}"#.to_owned(), "not allowed"),
    ] {
        let error = text.parse::<Policy>().unwrap_err().to_string();
        assert!(error.contains(words), "{text}: {error}");
    }
}

#[test]
fn grammar_size_is_at_most_what_kms_takes() {
    let policy = json!({"Statement": statement()}).to_string();
    let padded = |length: usize| format!("{policy}{}", " ".repeat(length - policy.len()));
    padded(MAX_POLICY_BYTES).parse::<Policy>().unwrap();
    let error = padded(MAX_POLICY_BYTES + 1).parse::<Policy>().unwrap_err();
    assert!(error.to_string().contains("32768"), "{error}");
}
