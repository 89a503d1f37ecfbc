//! `/openapi.json`, against what is served.

use std::collections::BTreeSet;

use attestation_service::internal::Problem;
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use jsonschema::Validator;
use serde_json::{Value, json};

use crate::http::{Reply, request};
use crate::server::{JSON, Server, World, verify_body};

/// The document as the service gives it, and what has been seen of it.
struct Document {
    json: Value,
    seen: BTreeSet<String>,
}

impl Document {
    fn of(server: &Server) -> Self {
        Self {
            json: server.get("/openapi.json").json(),
            seen: BTreeSet::new(),
        }
    }

    fn resolve<'a>(&'a self, value: &'a Value) -> &'a Value {
        match value.get("$ref").and_then(Value::as_str) {
            Some(reference) => self
                .json
                .pointer(reference.trim_start_matches('#'))
                .unwrap(),
            None => value,
        }
    }

    /// A schema with the document's own to refer to.
    fn validator(&self, schema: &Value) -> Validator {
        let mut schema = schema.clone();
        schema["components"] = self.json["components"].clone();
        jsonschema::draft202012::new(&schema).unwrap()
    }

    fn assert_valid(&self, schema: &Value, instance: &Value) {
        let errors: Vec<_> = self
            .validator(schema)
            .iter_errors(instance)
            .map(|error| format!("{}: {error}", error.instance_path()))
            .collect();
        assert!(errors.is_empty(), "{errors:?} in {instance}");
    }

    /// Checks that this answer is one of those that the document promises.
    fn check(&mut self, method: &str, path: &str, reply: &Reply) {
        let method = method.to_lowercase();
        let responses = &self.json["paths"][path][&method]["responses"];
        let response = responses.get(reply.status.to_string());
        let response = response.unwrap_or_else(|| panic!("{method} {path}: {reply:?}"));
        let response = self.resolve(response);
        let content_type = reply.header("content-type").unwrap();
        let schema = &response["content"][content_type]["schema"];
        assert!(schema.is_object(), "{method} {path}: {reply:?}");
        self.assert_valid(schema, &reply.json());
        if let Some(headers) = response.get("headers").and_then(Value::as_object) {
            for name in headers.keys() {
                assert!(
                    reply.header(&name.to_lowercase()).is_some(),
                    "{name}: {reply:?}"
                );
            }
        }
        self.seen
            .insert(format!("{method} {path} {}", reply.status));
    }
}

#[test]
fn what_is_documented_is_served_as_documented() {
    let world = World::new();
    let server = world.start(&["--allow-inline-policies", "--challenge-lifetime", "1h"]);
    let mut document = Document::of(&server);
    let paths: Vec<_> = document.json["paths"]
        .as_object()
        .unwrap()
        .keys()
        .cloned()
        .collect();
    assert_eq!(
        paths,
        [
            "/.well-known/jwks.json",
            "/healthz",
            "/openapi.json",
            "/readyz",
            "/v1/challenges",
            "/v1/policies",
            "/v1/verify"
        ]
    );
    for path in &paths {
        if !path.starts_with("/v1/") || path == "/v1/policies" {
            document.check("GET", path, &server.get(path));
        }
    }
    let challenge_schema = json!({ "$ref": "#/components/schemas/ChallengeRequest" });
    for body in [
        json!({}),
        json!({ "policy": null }),
        json!({ "policy": "payments" }),
    ] {
        document.assert_valid(&challenge_schema, &body);
        document.check(
            "POST",
            "/v1/challenges",
            &server.post("/v1/challenges", &body),
        );
    }
    let empty = request(server.address, "POST", "/v1/challenges", &[], &[]);
    document.check("POST", "/v1/challenges", &empty);

    let challenge = server.challenge(&json!({}));
    let genuine = world.enclave.attest(&challenge);
    let verify_schema = json!({ "$ref": "#/components/schemas/VerifyRequest" });
    let mut report_only = verify_body(&genuine, b"");
    report_only["ear"] = json!(false);
    report_only["policy"] = json!({ "allow_any_image": true });
    report_only.as_object_mut().unwrap().remove("challenge");
    for body in [
        verify_body(&genuine, &challenge),
        verify_body(b"no document", &server.challenge(&json!({}))),
        report_only,
    ] {
        document.assert_valid(&verify_schema, &body);
        let reply = server.post("/v1/verify", &body);
        assert_eq!(reply.status, 200, "{reply:?}");
        document.check("POST", "/v1/verify", &reply);
    }
}

/// Bodies that are refused: the path, the body, whether it is sent as JSON, and
/// the problem.
fn refused(world: &World, server: &Server) -> Vec<(&'static str, String, bool, &'static str)> {
    let with = |field: &str, value: Value| {
        let mut body = verify_body(b"", &[0; 56]);
        body[field] = value;
        body.to_string()
    };
    let mut without_nonce = verify_body(b"", b"");
    without_nonce.as_object_mut().unwrap().remove("challenge");
    let mut as_nonce = without_nonce.clone();
    as_nonce["nonce"] = json!(hex::encode(server.challenge(&json!({}))));
    let used = server.challenge(&json!({}));
    let used = verify_body(&world.enclave.attest(&used), &used).to_string();
    assert_eq!(
        request(
            server.address,
            "POST",
            "/v1/verify",
            &[JSON],
            used.as_bytes()
        )
        .status,
        200
    );

    vec![
        ("/v1/challenges", "{".to_owned(), true, "malformed-request"),
        (
            "/v1/challenges",
            "{}".to_owned(),
            false,
            "unsupported-media-type",
        ),
        ("/v1/challenges", " ".repeat(65_537), true, "body-too-large"),
        (
            "/v1/challenges",
            json!({ "policy": "none" }).to_string(),
            true,
            "unknown-policy",
        ),
        ("/v1/verify", "[]".to_owned(), true, "malformed-request"),
        (
            "/v1/verify",
            with("more", json!(1)),
            true,
            "malformed-request",
        ),
        (
            "/v1/verify",
            with("policy", json!("none")),
            true,
            "unknown-policy",
        ),
        (
            "/v1/verify",
            with("policy", json!({})),
            true,
            "invalid-policy",
        ),
        (
            "/v1/verify",
            with("policy", json!({ "allow_any_image": true })),
            true,
            "inline-policies-off",
        ),
        (
            "/v1/verify",
            with("challenge", json!("00")),
            true,
            "unknown-challenge",
        ),
        (
            "/v1/verify",
            without_nonce.to_string(),
            true,
            "nonce-required",
        ),
        (
            "/v1/verify",
            as_nonce.to_string(),
            true,
            "challenge-as-nonce",
        ),
        ("/v1/verify", used, true, "challenge-used"),
        (
            "/v1/verify",
            "{}".to_owned(),
            false,
            "unsupported-media-type",
        ),
        ("/v1/verify", " ".repeat(65_537), true, "body-too-large"),
    ]
}

#[test]
fn every_problem_is_documented_and_is_what_it_says() {
    let world = World::new();
    let server = world.start(&["--challenge-lifetime", "1h"]);
    let mut document = Document::of(&server);
    let mut seen = BTreeSet::new();
    for (path, body, as_json, expected) in &refused(&world, &server) {
        let headers: &[_] = if *as_json { &[JSON] } else { &[] };
        let reply = request(server.address, "POST", path, headers, body.as_bytes());
        assert_eq!(reply.problem(), *expected, "{reply:?}");
        document.check("POST", path, &reply);
        seen.insert((*expected).to_owned());
    }
    for (method, path, expected) in [
        ("GET", "/nothing", "not-found"),
        ("GET", "/v1/verify", "method-not-allowed"),
        ("DELETE", "/v1/policies", "method-not-allowed"),
    ] {
        let reply = request(server.address, method, path, &[], &[]);
        assert_eq!(reply.problem(), expected);
        if expected == "method-not-allowed" {
            assert!(reply.header("allow").is_some(), "{reply:?}");
        }
        let response = &document.json["components"]["responses"][expected];
        let schema = &response["content"]["application/problem+json"]["schema"];
        document.assert_valid(schema, &reply.json());
        seen.insert(expected.to_owned());
    }

    // Those that need another server are in the tests of limits and challenges.
    let elsewhere = [
        "challenge-expired",
        "internal",
        "overloaded",
        "rate-limited",
        "request-timeout",
    ];
    seen.extend(elsewhere.map(str::to_owned));
    let all: BTreeSet<_> = Problem::all()
        .iter()
        .map(|problem| problem.name().to_owned())
        .collect();
    assert_eq!(seen, all);
    let documented = document.json["components"]["responses"]
        .as_object()
        .unwrap();
    assert_eq!(documented.keys().cloned().collect::<BTreeSet<_>>(), all);
}

#[test]
fn every_problem_has_the_status_that_is_documented() {
    let world = World::new();
    let server = world.start(&[]);
    let document = Document::of(&server);
    for problem in Problem::all() {
        let status = problem.status().as_u16().to_string();
        let reference = format!("#/components/responses/{}", problem.name());
        let named = |response: &Value| {
            response
                .get("$ref")
                .is_some_and(|found| *found == reference)
                || response["description"]
                    .as_str()
                    .is_some_and(|text| text.contains(&format!("`{}`", problem.name())))
        };
        let operations = document.json["paths"].as_object().unwrap().values();
        let places: Vec<_> = operations
            .flat_map(|path| path.as_object().unwrap().values())
            .flat_map(|operation| operation["responses"].as_object().unwrap())
            .filter(|(_, response)| named(response))
            .map(|(status, _)| status.clone())
            .collect();
        // Every path has these two, so that none lists them.
        let everywhere = matches!(problem.name(), "not-found" | "method-not-allowed");
        assert_eq!(places.is_empty(), everywhere, "{problem:?}");
        assert!(
            places.iter().all(|place| *place == status),
            "{problem:?}: {places:?}"
        );
    }
}

#[test]
fn what_the_document_refuses_is_refused() {
    let world = World::new();
    let server = world.start(&["--allow-inline-policies"]);
    let document = Document::of(&server);
    let validator = document.validator(&json!({ "$ref": "#/components/schemas/VerifyRequest" }));
    let good = json!({ "document": STANDARD.encode(b"x"), "policy": "any" });
    assert!(validator.is_valid(&good));
    for (field, value) in [
        ("policy", Value::Null),
        ("policy", json!(1)),
        ("policy", json!("")),
        ("policy", json!("a".repeat(65))),
        ("document", json!(1)),
        ("challenge", json!("0")),
        ("nonce", json!("xx")),
        ("nonce", json!("00".repeat(1025))),
        ("nonce", json!("00".repeat(7))),
        ("nonce", json!("00".repeat(65))),
        ("ear", json!("yes")),
        ("more", json!(1)),
    ] {
        let mut body = good.clone();
        body[field] = value;
        assert!(!validator.is_valid(&body), "{body}");
        let reply = server.post("/v1/verify", &body);
        assert!((400..500).contains(&reply.status), "{body}: {reply:?}");
    }
}
