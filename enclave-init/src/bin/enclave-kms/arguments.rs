//! The command line, as `kmstool_enclave_cli` has it.

use std::ffi::OsString;

use serde_json::{Map, Value};

/// Options that the enclave needs nothing of: it has credentials, a region and a way out
/// of its own.
const UNUSED: [&str; 5] = [
    "region",
    "proxy-port",
    "aws-access-key-id",
    "aws-secret-access-key",
    "aws-session-token",
];

/// A call, and how its answer is printed.
#[derive(Debug, PartialEq)]
pub(crate) struct Arguments {
    /// Below `/v1/kms/`.
    pub(crate) call: &'static str,
    pub(crate) body: Value,
    /// Members of the answer, each with what stands before it.
    pub(crate) printed: &'static [(&'static str, &'static str)],
}

/// The values of the options that are used.
#[derive(Default)]
struct Options {
    ciphertext: Option<String>,
    key_id: Option<String>,
    key_spec: Option<String>,
    length: Option<String>,
    encryption_algorithm: Option<String>,
    encryption_context: Option<String>,
}

impl Arguments {
    /// Reads the arguments after the program's name; none if help is asked for.
    pub(crate) fn parse(
        arguments: impl IntoIterator<Item = OsString>,
    ) -> Result<Option<Self>, String> {
        let mut arguments = arguments.into_iter().map(|argument| {
            let text = argument.into_string();
            text.map_err(|text| format!("{} is not UTF-8", text.display()))
        });
        let command = match arguments.next().transpose()? {
            None => return Err("say what to do".to_owned()),
            Some(command) if command == "--help" || command == "-h" => return Ok(None),
            Some(command) => command,
        };
        let mut options = Options::default();
        while let Some(argument) = arguments.next().transpose()? {
            let Some(name) = argument.strip_prefix("--") else {
                return Err(format!("`{argument}` is no option"));
            };
            let (name, value) = match name.split_once('=') {
                Some((name, value)) => (name, Some(value.to_owned())),
                None => (name, None),
            };
            if name == "help" {
                return Ok(None);
            }
            let is_unused = UNUSED.contains(&name);
            let mut unused = None;
            let place = match options.place(name) {
                Some(place) => place,
                None if is_unused => &mut unused,
                None => return Err(format!("there is no option --{name}")),
            };
            let value = value.map_or_else(|| arguments.next().transpose(), |value| Ok(Some(value)));
            *place = Some(value?.ok_or_else(|| format!("--{name} needs a value"))?);
        }
        options.call(&command).map(Some)
    }
}

impl Options {
    fn place(&mut self, name: &str) -> Option<&mut Option<String>> {
        Some(match name {
            "ciphertext" => &mut self.ciphertext,
            "key-id" => &mut self.key_id,
            "key-spec" => &mut self.key_spec,
            "length" => &mut self.length,
            "encryption-algorithm" => &mut self.encryption_algorithm,
            "encryption-context" => &mut self.encryption_context,
            _ => return None,
        })
    }

    fn call(self, command: &str) -> Result<Arguments, String> {
        let needed = |value: Option<String>, name: &str| {
            value.ok_or_else(|| format!("{command} needs --{name}"))
        };
        let context = match &self.encryption_context {
            None => None,
            Some(text) => {
                let context: Map<String, Value> = serde_json::from_str(text).map_err(|error| {
                    format!("--encryption-context is no JSON object of texts: {error}")
                })?;
                Some(Value::Object(context))
            }
        };
        let optional = |value: Option<String>| value.map(Value::from);
        let (call, members, printed): (_, Vec<_>, &[_]) = match command {
            "decrypt" => {
                let ciphertext = needed(self.ciphertext, "ciphertext")?;
                (
                    "decrypt",
                    vec![
                        ("ciphertext", Some(ciphertext.into())),
                        ("key_id", optional(self.key_id)),
                        ("encryption_context", context),
                        ("encryption_algorithm", optional(self.encryption_algorithm)),
                    ],
                    &[("PLAINTEXT", "plaintext")],
                )
            }
            "genkey" => {
                let bytes = match &*needed(self.key_spec, "key-spec")? {
                    "AES-256" | "AES_256" => 32,
                    "AES-128" | "AES_128" => 16,
                    other => {
                        return Err(format!("--key-spec {other} is neither AES-256 nor AES-128"));
                    }
                };
                let key_id = needed(self.key_id, "key-id")?;
                (
                    "generate-data-key",
                    vec![
                        ("bytes", Some(bytes.into())),
                        ("key_id", Some(key_id.into())),
                        ("encryption_context", context),
                    ],
                    &[("CIPHERTEXT", "ciphertext"), ("PLAINTEXT", "plaintext")],
                )
            }
            "genrandom" => {
                let length = needed(self.length, "length")?;
                let length: u32 = length
                    .parse()
                    .map_err(|_| format!("--length {length} is no number of bytes"))?;
                (
                    "random",
                    vec![("bytes", Some(length.into()))],
                    &[("PLAINTEXT", "plaintext")],
                )
            }
            other => {
                return Err(format!(
                    "`{other}` is none of decrypt, genkey and genrandom"
                ));
            }
        };
        let given = members
            .into_iter()
            .filter_map(|(name, value)| Some((name.to_owned(), value?)));
        Ok(Arguments {
            call,
            body: Value::Object(given.collect()),
            printed,
        })
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test fails by panicking")]
mod tests {
    use serde_json::json;

    use super::*;

    fn parse(text: &str) -> Result<Option<Arguments>, String> {
        Arguments::parse(text.split(' ').map(OsString::from))
    }

    /// As AWS's documentation of the tool writes them.
    const CREDENTIALS: &str = "--region us-east-1 --proxy-port 8000 --aws-access-key-id AKID --aws-secret-access-key hush --aws-session-token token";

    #[test]
    fn kms_command_takes_kmstools_arguments() {
        let decrypt = parse(&format!("decrypt {CREDENTIALS} --ciphertext AQ=="))
            .unwrap()
            .unwrap();
        assert_eq!(
            (decrypt.call, &decrypt.body),
            ("decrypt", &json!({"ciphertext": "AQ=="}))
        );
        assert!(!format!("{decrypt:?}").contains("hush"));
        let text = format!(
            "decrypt {CREDENTIALS} --ciphertext=AQ== --key-id k --encryption-algorithm RSAES_OAEP_SHA_256 --encryption-context {{\"a\":\"b\"}}"
        );
        let expected = json!({
            "ciphertext": "AQ==",
            "key_id": "k",
            "encryption_algorithm": "RSAES_OAEP_SHA_256",
            "encryption_context": {"a": "b"},
        });
        assert_eq!(parse(&text).unwrap().unwrap().body, expected);
        let key = parse(&format!(
            "genkey {CREDENTIALS} --key-id k --key-spec AES-128"
        ))
        .unwrap();
        let key = key.unwrap();
        assert_eq!(key.body, json!({"key_id": "k", "bytes": 16}));
        assert_eq!(key.printed.len(), 2);
        let random = parse(&format!("genrandom {CREDENTIALS} --length 8"))
            .unwrap()
            .unwrap();
        assert_eq!((random.call, random.body), ("random", json!({"bytes": 8})));
        assert_eq!(parse("--help"), Ok(None));
        assert_eq!(parse("decrypt --help"), Ok(None));
    }

    #[test]
    fn kms_command_says_what_is_wrong() {
        for (text, expected) in [
            ("", "`` is none of"),
            ("encrypt", "`encrypt` is none of"),
            ("decrypt", "decrypt needs --ciphertext"),
            ("decrypt --ciphertext", "--ciphertext needs a value"),
            ("decrypt --cipher x", "there is no option --cipher"),
            ("decrypt x", "`x` is no option"),
            ("genkey --key-spec AES-256", "genkey needs --key-id"),
            (
                "genkey --key-id k --key-spec RSA",
                "--key-spec RSA is neither",
            ),
            ("genrandom --length -1", "--length -1 is no number"),
            (
                "decrypt --ciphertext x --encryption-context []",
                "is no JSON object",
            ),
        ] {
            let error = parse(text).unwrap_err();
            assert!(error.contains(expected), "{text}: {error}");
        }
    }
}
