//! A report as a table for people.

use std::fmt::Write;

use attestation::{Outcome, Report};

use crate::text::short_hex;

/// Widest column of expected values.
const MAX_EXPECTED: usize = 44;

/// A line for each check: outcome, rule, what was expected, what was found.
pub(crate) fn table(report: &Report, colour: bool) -> String {
    let rows: Vec<_> = report
        .checks
        .iter()
        .map(|check| {
            let expected = match (&check.expected, check.outcome) {
                (Some(expected), _) => short_hex(expected),
                (None, Outcome::NotChecked) => "not checked".to_owned(),
                (None, _) => check.rule.demand().to_owned(),
            };
            let actual = short_hex(check.actual.as_deref().unwrap_or_default());
            (check.outcome, check.rule.to_string(), expected, actual)
        })
        .collect();
    let widest = |texts: &mut dyn Iterator<Item = &String>| {
        texts.map(|text| text.chars().count()).max().unwrap_or(0)
    };
    let rule_width = widest(&mut rows.iter().map(|(_, rule, ..)| rule));
    let expected_width =
        widest(&mut rows.iter().map(|(_, _, expected, _)| expected)).min(MAX_EXPECTED);

    let mut text = String::new();
    // Writing to a string cannot fail.
    let _ = writeln!(
        text,
        "{:<7}  {:<rule_width$}  {:<expected_width$}  actual",
        "outcome", "rule", "expected"
    );
    for (outcome, rule, expected, actual) in rows {
        let (mark, code) = match outcome {
            Outcome::Passed => ("ok", "32"),
            Outcome::Failed => ("FAIL", "1;31"),
            Outcome::NotChecked => ("-", "33"),
        };
        let mark = if colour {
            format!("\x1b[{code}m{mark:<7}\x1b[0m")
        } else {
            format!("{mark:<7}")
        };
        let line = format!("{mark}  {rule:<rule_width$}  {expected:<expected_width$}  {actual}");
        let _ = writeln!(text, "{}", line.trim_end());
    }
    text
}

#[cfg(test)]
mod tests {
    use attestation::{Nonce, Policy, PolicyError, Roots, Verifier};

    use super::*;

    #[test]
    fn only_a_table_in_colour_has_escapes() -> Result<(), PolicyError> {
        let policy = Policy::builder().allow_any_image().build()?;
        let verifier = Verifier::new(Roots::aws());
        let verification = verifier.verify(b"no document", &policy, Nonce::Unchallenged);
        let report = verification.report;
        assert!(table(&report, true).contains("\x1b[1;31mFAIL   \x1b[0m  cbor.encoding"));
        assert!(!table(&report, false).contains('\x1b'));
        Ok(())
    }
}
