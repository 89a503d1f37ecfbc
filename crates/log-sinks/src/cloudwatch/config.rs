//! Which group the records go to, and how long they stay there.

use std::str::FromStr;

use manifest::EnclaveName;

/// The days that `PutRetentionPolicy` takes, from its API reference.
const RETENTION_DAYS: [i32; 22] = [
    1, 3, 5, 7, 14, 30, 60, 90, 120, 150, 180, 365, 400, 545, 731, 1096, 1827, 2192, 2557, 2922,
    3288, 3653,
];

/// What the CloudWatch sink was told.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CloudWatchConfig {
    /// The region, if not the environment's or the instance's.
    pub region: Option<String>,
    /// The log group.
    pub group: LogGroup,
    /// How long a group that the agent makes keeps its events.
    pub retention: RetentionDays,
}

/// A log group's name: 1 to 512 of the letters that the service takes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LogGroup(String);

impl LogGroup {
    /// An enclave's own group.
    pub fn of(name: &EnclaveName) -> Self {
        Self(format!("/aws/ec2/enclave/{name}"))
    }

    /// The name.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for LogGroup {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let is_allowed = |byte: u8| byte.is_ascii_alphanumeric() || b"_-/.#".contains(&byte);
        if (1..=512).contains(&text.len()) && text.bytes().all(is_allowed) {
            return Ok(Self(text.to_owned()));
        }
        Err("a log group's name has 1 to 512 letters, digits and _ - / . #".to_owned())
    }
}

/// Days that a group keeps its events.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RetentionDays(i32);

/// A month.
impl Default for RetentionDays {
    fn default() -> Self {
        Self(30)
    }
}

impl RetentionDays {
    /// The number of days.
    pub fn get(self) -> i32 {
        self.0
    }
}

impl FromStr for RetentionDays {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text.parse() {
            Ok(days) if RETENTION_DAYS.contains(&days) => Ok(Self(days)),
            _ => {
                let days: Vec<_> = RETENTION_DAYS.iter().map(i32::to_string).collect();
                Err(format!("the service takes only these: {}", days.join(", ")))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_and_days_are_checked_before_the_service_sees_them() {
        let name: EnclaveName = "payments".parse().unwrap();
        assert_eq!(LogGroup::of(&name).as_str(), "/aws/ec2/enclave/payments");
        assert!("/a/b_c-d.e#1".parse::<LogGroup>().is_ok());
        for bad in ["", "a b", "a:b", "é", &"x".repeat(513)] {
            assert!(bad.parse::<LogGroup>().is_err(), "{bad}");
        }
        assert_eq!("30".parse::<RetentionDays>().unwrap().get(), 30);
        for bad in ["", "0", "2", "-1", "30d"] {
            assert!(bad.parse::<RetentionDays>().is_err(), "{bad}");
        }
    }
}
