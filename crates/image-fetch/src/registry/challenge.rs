//! How a registry says what it wants to be shown.

/// What the header `WWW-Authenticate` asks for: RFC 9110, section 11.6.1, and the
/// Docker registry's token specification.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Challenge {
    /// Name and password.
    Basic,
    /// A token, which the server at `realm` gives.
    Bearer {
        /// The URL of the server.
        realm: String,
        /// What the token is for, in the server's words.
        service: Option<String>,
        /// What the token permits.
        scope: Option<String>,
    },
}

impl Challenge {
    /// Reads one header's value. What it asks for beside the first known scheme
    /// is ignored.
    pub fn parse(header: &str) -> Option<Self> {
        let (scheme, parameters) = match header.trim().split_once(' ') {
            Some((scheme, parameters)) => (scheme, parameters),
            None => (header.trim(), ""),
        };
        if scheme.eq_ignore_ascii_case("basic") {
            return Some(Self::Basic);
        }
        if !scheme.eq_ignore_ascii_case("bearer") {
            return None;
        }
        let (mut realm, mut service, mut scope) = (None, None, None);
        let mut rest = parameters;
        while let Some((key, value, after)) = parameter(rest) {
            match key.to_ascii_lowercase().as_str() {
                "realm" => realm = Some(value),
                "service" => service = Some(value),
                "scope" => scope = Some(value),
                _ => {}
            }
            rest = after;
        }
        Some(Self::Bearer {
            realm: realm?,
            service,
            scope,
        })
    }
}

/// The next `key=value` or `key="value"`, and what comes after it.
fn parameter(text: &str) -> Option<(&str, String, &str)> {
    let text = text.trim_start_matches([' ', '\t', ',']);
    let (key, rest) = text.split_once('=')?;
    let Some(quoted) = rest.strip_prefix('"') else {
        let end = rest.find([',', ' ', '\t']).unwrap_or(rest.len());
        let (value, after) = rest.split_at_checked(end)?;
        return Some((key.trim(), value.to_owned(), after));
    };
    let mut value = String::new();
    let mut characters = quoted.chars();
    loop {
        match characters.next()? {
            '"' => return Some((key.trim(), value, characters.as_str())),
            '\\' => value.push(characters.next()?),
            character => value.push(character),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tokens_and_passwords_are_asked_for() {
        for basic in ["Basic", "basic realm=\"x\"", " Basic realm=x,service=\"y\""] {
            assert_eq!(Challenge::parse(basic), Some(Challenge::Basic));
        }
        let header = r#"Bearer realm="https://auth.example.com/token",service="a \"b\"", scope="repository:a/b:pull,push",error=x"#;
        assert_eq!(
            Challenge::parse(header),
            Some(Challenge::Bearer {
                realm: "https://auth.example.com/token".to_owned(),
                service: Some("a \"b\"".to_owned()),
                scope: Some("repository:a/b:pull,push".to_owned()),
            })
        );
        let header = "bearer realm=https://a/";
        assert!(matches!(
            Challenge::parse(header),
            Some(Challenge::Bearer { realm, service: None, scope: None }) if realm == "https://a/"
        ));
    }

    #[test]
    fn what_asks_for_neither_is_not_answered() {
        for bad in [
            "",
            "Digest realm=\"x\"",
            "Bearer",
            "Bearer realm=\"x",
            "Bearer realm",
            "Bearer realm=\"\\",
        ] {
            assert_eq!(Challenge::parse(bad), None, "{bad}");
        }
    }
}
