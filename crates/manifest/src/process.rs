//! What a process is started with: its command, environment, directory, user.

use std::collections::BTreeMap;
use std::fmt;
use std::ops::Deref;
use std::str::FromStr;

use serde::de::{MapAccess, Visitor};
use serde::{Deserialize, Deserializer, Serialize};
use thiserror::Error;

/// The longest argument or environment entry in bytes (Linux: `MAX_ARG_STRLEN`,
/// 32 pages, less the zero byte at its end).
pub const MAX_ARGUMENT_BYTES: usize = 128 * 1024 - 1;
/// The longest working directory in bytes (Linux: `PATH_MAX` less the zero byte).
const MAX_PATH_BYTES: usize = 4095;

/// Why a value that a process is to be started with was refused.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum ProcessError {
    /// The command has no program.
    #[error(
        "command is empty: give the program and its arguments, as in `[\"/app/server\", \"--port\", \"8080\"]`"
    )]
    NoProgram,
    /// A text with a zero byte cannot be handed to a process.
    #[error("{0} contains a zero byte: remove it")]
    ZeroByte(&'static str),
    /// A text is longer than Linux accepts.
    #[error("{what} has {size} bytes, at most {MAX_ARGUMENT_BYTES} can be given to a program")]
    TooLong {
        /// What is too long.
        what: &'static str,
        /// Its size in bytes.
        size: usize,
    },
    /// The name of a variable is empty or contains `=`.
    #[error("`{0}` is not a name for an environment variable: it must not be empty or contain `=`")]
    VariableName(String),
    /// A variable is there twice.
    #[error("the environment variable `{0}` is set twice: keep one")]
    VariableTwice(String),
    /// The working directory is not an absolute path.
    #[error("working_directory `{0}` is not an absolute path: write one that begins with `/`")]
    WorkingDirectory(String),
    /// The user is not written as users are.
    #[error(
        "user `{0}` is not understood: write a name or number, with a group if need be, as in `app`, `1000` or `1000:1000`"
    )]
    User(String),
}

/// A program and its arguments, each passed as it stands: at least one, the
/// program not empty, none with a zero byte.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "Vec<String>", into = "Vec<String>")]
pub struct Command {
    words: Vec<String>,
}

impl Command {
    /// The program: a path, or a name to look for in `PATH`.
    pub fn program(&self) -> &str {
        self.words.first().map_or("", String::as_str)
    }

    /// What follows the program.
    pub fn arguments(&self) -> &[String] {
        self.words.get(1..).unwrap_or_default()
    }
}

impl TryFrom<Vec<String>> for Command {
    type Error = ProcessError;

    fn try_from(words: Vec<String>) -> Result<Self, ProcessError> {
        if words.first().is_none_or(String::is_empty) {
            return Err(ProcessError::NoProgram);
        }
        Words::try_from(words).map(|Words(words)| Self { words })
    }
}

impl From<Command> for Vec<String> {
    fn from(command: Command) -> Self {
        command.words
    }
}

impl Deref for Command {
    type Target = [String];

    fn deref(&self) -> &[String] {
        &self.words
    }
}

impl fmt::Display for Command {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.words.join(" "))
    }
}

/// Words of a command line, each passed as it stands: none has a zero byte. There may be
/// none.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(try_from = "Vec<String>")]
pub struct Words(Vec<String>);

impl TryFrom<Vec<String>> for Words {
    type Error = ProcessError;

    fn try_from(words: Vec<String>) -> Result<Self, ProcessError> {
        for word in &words {
            check_text("an argument of the command", word.len(), word)?;
        }
        Ok(Self(words))
    }
}

impl Deref for Words {
    type Target = [String];

    fn deref(&self) -> &[String] {
        &self.0
    }
}

/// Environment variables by name; names without `=`, nothing with a zero byte.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
#[serde(transparent)]
pub struct Environment {
    variables: BTreeMap<String, String>,
}

impl Environment {
    /// Sets a variable, in place of one that has the same name.
    pub fn set(&mut self, name: String, value: String) -> Result<(), ProcessError> {
        if name.is_empty() || name.contains('=') {
            return Err(ProcessError::VariableName(name));
        }
        let size = name.len().saturating_add(1).saturating_add(value.len());
        check_text("the name of an environment variable", size, &name)?;
        check_text("the value of an environment variable", size, &value)?;
        self.variables.insert(name, value);
        Ok(())
    }
}

impl Deref for Environment {
    type Target = BTreeMap<String, String>;

    fn deref(&self) -> &BTreeMap<String, String> {
        &self.variables
    }
}

impl<'a> IntoIterator for &'a Environment {
    type Item = (&'a String, &'a String);
    type IntoIter = std::collections::btree_map::Iter<'a, String, String>;

    fn into_iter(self) -> Self::IntoIter {
        self.variables.iter()
    }
}

impl<'de> Deserialize<'de> for Environment {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Variables;

        impl<'de> Visitor<'de> for Variables {
            type Value = Environment;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a table of environment variables, as in `{ RUST_LOG = \"info\" }`")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Environment, A::Error> {
                let mut environment = Environment::default();
                while let Some((name, value)) = map.next_entry::<String, String>()? {
                    if environment.contains_key(&name) {
                        return Err(serde::de::Error::custom(ProcessError::VariableTwice(name)));
                    }
                    environment
                        .set(name, value)
                        .map_err(serde::de::Error::custom)?;
                }
                Ok(environment)
            }
        }

        deserializer.deserialize_map(Variables)
    }
}

/// The directory that a program starts in: an absolute path.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct WorkingDirectory(String);

impl WorkingDirectory {
    /// The path.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl Default for WorkingDirectory {
    /// The root directory.
    fn default() -> Self {
        Self("/".to_owned())
    }
}

impl TryFrom<String> for WorkingDirectory {
    type Error = ProcessError;

    fn try_from(path: String) -> Result<Self, ProcessError> {
        if path.contains('\0') {
            return Err(ProcessError::ZeroByte("working_directory"));
        }
        if !path.starts_with('/') || path.len() > MAX_PATH_BYTES {
            return Err(ProcessError::WorkingDirectory(path));
        }
        Ok(Self(path))
    }
}

impl From<WorkingDirectory> for String {
    fn from(path: WorkingDirectory) -> Self {
        path.0
    }
}

impl Deref for WorkingDirectory {
    type Target = str;

    fn deref(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for WorkingDirectory {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// A user as written in a manifest or an OCI image: `user`, `uid`, `user:group`
/// or `uid:gid`, in any mix. `image-builder` resolves names in the image's
/// `/etc/passwd` and `/etc/group`, so that the enclave only ever sees numbers.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(try_from = "String")]
pub struct UserSource {
    /// The user.
    pub user: NameOrId,
    /// The group; the user's own unless given.
    pub group: Option<NameOrId>,
}

/// A user or group by number or by name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum NameOrId {
    /// By number. The largest 32-bit number means "nobody was given" to Linux
    /// and is not allowed.
    Id(u32),
    /// By name.
    Name(String),
}

impl FromStr for UserSource {
    type Err = ProcessError;

    fn from_str(text: &str) -> Result<Self, ProcessError> {
        let parsed = match text.split_once(':') {
            None => name_or_id(text).map(|user| (user, None)),
            Some((user, group)) => {
                name_or_id(user).and_then(|user| Some((user, Some(name_or_id(group)?))))
            }
        };
        let (user, group) = parsed.ok_or_else(|| ProcessError::User(text.to_owned()))?;
        Ok(Self { user, group })
    }
}

fn name_or_id(text: &str) -> Option<NameOrId> {
    if text.is_empty()
        || text
            .chars()
            .any(|c| c == ':' || c.is_control() || c.is_whitespace())
    {
        return None;
    }
    if text.bytes().all(|byte| byte.is_ascii_digit()) {
        let id = text.parse().ok().filter(|&id| id != u32::MAX)?;
        return Some(NameOrId::Id(id));
    }
    Some(NameOrId::Name(text.to_owned()))
}

impl TryFrom<String> for UserSource {
    type Error = ProcessError;

    fn try_from(text: String) -> Result<Self, ProcessError> {
        text.parse()
    }
}

impl fmt::Display for UserSource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.group {
            None => self.user.fmt(f),
            Some(group) => write!(f, "{}:{group}", self.user),
        }
    }
}

impl fmt::Display for NameOrId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Id(id) => id.fmt(f),
            Self::Name(name) => f.write_str(name),
        }
    }
}

fn check_text(what: &'static str, size: usize, text: &str) -> Result<(), ProcessError> {
    if text.contains('\0') {
        return Err(ProcessError::ZeroByte(what));
    }
    if size > MAX_ARGUMENT_BYTES {
        return Err(ProcessError::TooLong { what, size });
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn command(words: &[&str]) -> Result<Command, ProcessError> {
        Command::try_from(words.iter().map(ToString::to_string).collect::<Vec<_>>())
    }

    #[test]
    fn a_command_has_a_program() {
        assert_eq!(command(&[]), Err(ProcessError::NoProgram));
        assert_eq!(command(&["", "x"]), Err(ProcessError::NoProgram));
        let command = command(&["/bin/a", "", "b c"]).unwrap();
        assert_eq!(command.program(), "/bin/a");
        assert_eq!(command.arguments(), ["", "b c"]);
        assert_eq!(
            serde_json::to_string(&command).unwrap(),
            r#"["/bin/a","","b c"]"#
        );
    }

    #[test]
    fn arguments_are_what_linux_can_pass() {
        let zero = ProcessError::ZeroByte("an argument of the command");
        assert_eq!(command(&["a", "b\0"]), Err(zero));
        assert!(command(&["a", &"x".repeat(MAX_ARGUMENT_BYTES)]).is_ok());
        assert!(command(&["a", &"x".repeat(MAX_ARGUMENT_BYTES + 1)]).is_err());
    }

    #[test]
    fn variables_have_names() {
        let read = |json: &str| {
            serde_json::from_str::<Environment>(json).map_err(|error| error.to_string())
        };
        assert_eq!(read(r#"{"A": "x=y", "B": ""}"#).unwrap().len(), 2);
        for (json, part) in [
            (r#"{"": "x"}"#, "must not be empty"),
            (r#"{"A=B": "x"}"#, "contain `=`"),
            (r#"{"A\u0000": "x"}"#, "zero byte"),
            (r#"{"A": "\u0000"}"#, "zero byte"),
            (r#"{"A": "1", "A": "2"}"#, "set twice"),
            (r#"{"A": 1}"#, "expected a string"),
        ] {
            let error = read(json).unwrap_err();
            assert!(error.contains(part), "{json}: {error}");
        }
        let mut environment = Environment::default();
        assert!(
            environment
                .set("A".into(), "x".repeat(MAX_ARGUMENT_BYTES - 2))
                .is_ok()
        );
        assert!(
            environment
                .set("A".into(), "x".repeat(MAX_ARGUMENT_BYTES - 1))
                .is_err()
        );
    }

    #[test]
    fn a_working_directory_is_absolute() {
        assert_eq!(WorkingDirectory::default().as_str(), "/");
        assert!(WorkingDirectory::try_from("/srv/app".to_owned()).is_ok());
        for path in ["", "srv", "./srv", "/a\0", &"/a".repeat(2048)] {
            assert!(
                WorkingDirectory::try_from(path.to_owned()).is_err(),
                "{path}"
            );
        }
    }

    #[test]
    fn users_are_names_or_numbers() {
        let name = |name: &str| NameOrId::Name(name.into());
        for (text, user, group) in [
            ("app", name("app"), None),
            ("0", NameOrId::Id(0), None),
            ("1000:1001", NameOrId::Id(1000), Some(NameOrId::Id(1001))),
            ("app:42", name("app"), Some(NameOrId::Id(42))),
            ("42:staff", NameOrId::Id(42), Some(name("staff"))),
            ("4294967294", NameOrId::Id(u32::MAX - 1), None),
        ] {
            let source: UserSource = text.parse().unwrap();
            assert_eq!(source, UserSource { user, group });
            assert_eq!(source.to_string(), text);
        }
        for text in [
            "",
            ":",
            "a:",
            ":b",
            "a:b:c",
            "a b",
            "a\nb",
            "4294967295",
            "99999999999",
        ] {
            assert_eq!(
                text.parse::<UserSource>(),
                Err(ProcessError::User(text.into()))
            );
        }
    }

    proptest! {
        #[test]
        fn an_environment_reads_back(variables in proptest::collection::btree_map(
            "[A-Z_]{1,8}", "[^\\x00]{0,40}", 0..10))
        {
            let json = serde_json::to_string(&variables).unwrap();
            let environment: Environment = serde_json::from_str(&json).unwrap();
            prop_assert_eq!(&*environment, &variables);
            prop_assert_eq!(serde_json::to_string(&environment).unwrap(), json);
        }
    }
}
