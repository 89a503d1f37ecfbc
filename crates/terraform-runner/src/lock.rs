//! Who holds a state's lock, from what Terraform says of it.

use std::fmt;
use std::time::Duration;

use time::OffsetDateTime;
use time::macros::format_description;

/// The summary of Terraform's diagnostic, in every backend.
const SUMMARY: &str = "Error acquiring the state lock";

/// A lock that somebody else holds.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Held {
    /// Terraform's id of the lock.
    pub id: Option<String>,
    /// `user@host`.
    pub who: Option<String>,
    /// When it was taken, by the clock of who holds it.
    pub created: Option<OffsetDateTime>,
}

impl Held {
    /// Reads a diagnostic, if it is about a lock.
    ///
    /// Its detail lists the lock's facts as `  ID:        …` and so on, in a format
    /// of Terraform's `statemgr.LockInfo`.
    pub(super) fn from_diagnostic(summary: &str, detail: &str) -> Option<Self> {
        if summary != SUMMARY {
            return None;
        }
        let mut held = Self::default();
        for line in detail.lines() {
            let Some((name, value)) = line.split_once(':') else {
                continue;
            };
            let value = value.trim();
            match name.trim() {
                "ID" if is_id(value) => held.id = Some(value.to_owned()),
                "Who" => held.who = Some(value.chars().take(100).collect()),
                "Created" => held.created = parse(value),
                _ => {}
            }
        }
        Some(held)
    }

    /// Whether it was certainly taken longer ago than this.
    pub(super) fn is_older_than(&self, age: Duration) -> bool {
        self.created
            .is_some_and(|created| OffsetDateTime::now_utc() - created > age)
    }
}

impl fmt::Display for Held {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "lock {}", self.id.as_deref().unwrap_or("of unknown id"))?;
        if let Some(who) = &self.who {
            write!(f, ", held by {who}")?;
        }
        if let Some(created) = self.created {
            let format = format_description!("[year]-[month]-[day] [hour]:[minute]:[second] UTC");
            write!(
                f,
                " since {}",
                created.format(format).map_err(|_| fmt::Error)?
            )?;
        }
        Ok(())
    }
}

/// A UUID, or what else cannot be taken for an option of a command.
fn is_id(id: &str) -> bool {
    (1..=64).contains(&id.len())
        && id
            .bytes()
            .all(|byte| byte.is_ascii_hexdigit() || byte == b'-')
        && !id.starts_with('-')
}

/// As Go prints a time: `2026-11-24 14:09:01.123456789 +0000 UTC`.
fn parse(text: &str) -> Option<OffsetDateTime> {
    let time = text.strip_suffix(" +0000 UTC")?;
    let (seconds, _) = time.split_once('.').unwrap_or((time, ""));
    let format = format_description!("[year]-[month]-[day] [hour]:[minute]:[second]");
    let time = time::PrimitiveDateTime::parse(seconds, format).ok()?;
    Some(time.assume_utc())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What Terraform 1.15 says, with its S3 backend.
    const DETAIL: &str = "Error message: operation error S3: PutObject, https response error StatusCode: 412\nLock Info:\n  ID:        0f1e2d3c-aaaa-bbbb-cccc-0123456789ab\n  Path:      state/enclaves/payments-1/terraform.tfstate\n  Operation: OperationTypeApply\n  Who:       runner@ip-10-0-0-7\n  Version:   1.15.5\n  Created:   2026-11-24 14:09:01.123456789 +0000 UTC\n  Info:      \n\n\nTerraform acquires a state lock to protect the state from being written\nby multiple users at the same time. Please resolve the issue above and try\nagain.";

    #[test]
    fn a_locks_facts_are_read() {
        let held = Held::from_diagnostic(SUMMARY, DETAIL).unwrap();
        assert_eq!(
            held.id.as_deref(),
            Some("0f1e2d3c-aaaa-bbbb-cccc-0123456789ab")
        );
        assert_eq!(
            held.to_string(),
            "lock 0f1e2d3c-aaaa-bbbb-cccc-0123456789ab, held by runner@ip-10-0-0-7 since 2026-11-24 14:09:01 UTC"
        );
        let age = OffsetDateTime::now_utc() - held.created.unwrap();
        assert!(
            !held.is_older_than(
                Duration::try_from(age).unwrap_or_default() + Duration::from_secs(60)
            )
        );
    }

    #[test]
    fn a_lock_of_unknown_age_is_never_old() {
        let held = Held::from_diagnostic(SUMMARY, "  ID: 0f1e\n  Created: yesterday").unwrap();
        assert!(!held.is_older_than(Duration::ZERO));
        assert_eq!(held.id.as_deref(), Some("0f1e"));
    }

    #[test]
    fn an_id_that_reads_as_an_option_is_not_taken() {
        let held = Held::from_diagnostic(SUMMARY, "  ID: -force").unwrap();
        assert_eq!(held.id, None);
    }

    #[test]
    fn other_diagnostics_are_not_about_locks() {
        assert_eq!(Held::from_diagnostic("Invalid value", DETAIL), None);
    }
}
