//! `JUnit` reports, which both nextest and pytest write.

use std::time::Duration;

use anyhow::Context;
use xmlparser::{ElementEnd, Token, Tokenizer};

/// A test that has run.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Test {
    /// Its name, behind that of its program or file.
    pub(crate) name: String,
    pub(crate) took: Duration,
}

/// The tests in a report.
pub(crate) fn read(text: &str) -> anyhow::Result<Vec<Test>> {
    let mut tests = Vec::new();
    // Class, name and time of the element `testcase` that is read.
    let mut case: Option<[&str; 3]> = None;
    for token in Tokenizer::from(text) {
        match token.context("the report is no XML")? {
            Token::ElementStart { local, .. } => case = (local == "testcase").then_some([""; 3]),
            Token::Attribute { local, value, .. } => {
                let Some([class, name, time]) = &mut case else {
                    continue;
                };
                match local.as_str() {
                    "classname" => *class = value.as_str(),
                    "name" => *name = value.as_str(),
                    "time" => *time = value.as_str(),
                    _ => {}
                }
            }
            Token::ElementEnd {
                end: ElementEnd::Open | ElementEnd::Empty,
                ..
            } => {
                if let Some([class, name, time]) = case.take() {
                    let seconds: f64 = time
                        .parse()
                        .with_context(|| format!("the time of {name} is `{time}`"))?;
                    tests.push(Test {
                        name: format!("{class} {name}"),
                        took: Duration::try_from_secs_f64(seconds)?,
                    });
                }
            }
            _ => {}
        }
    }
    Ok(tests)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn junit_reports_of_nextest_and_pytest_are_read() {
        let nextest = r#"<?xml version="1.0" encoding="UTF-8"?>
<testsuites name="nextest-run" tests="2" time="0.5">
    <testsuite name="eif::oracle" tests="2" failures="1">
        <testcase name="a_test" classname="eif::oracle" timestamp="2026-01-01T00:00:00Z" time="0.250"/>
        <testcase name="broken" classname="eif::oracle" time="0.125">
            <failure type="test failure">text</failure>
        </testcase>
    </testsuite>
</testsuites>"#;
        let pytest = r#"<?xml version="1.0" encoding="utf-8"?><testsuites><testsuite name="pytest" time="3"><testcase classname="scenarios.test_ends" name="test_it[a-b]" time="1.5" /></testsuite></testsuites>"#;
        let test = |name: &str, milliseconds| Test {
            name: name.to_owned(),
            took: Duration::from_millis(milliseconds),
        };
        assert_eq!(
            read(nextest).unwrap(),
            [
                test("eif::oracle a_test", 250),
                test("eif::oracle broken", 125)
            ]
        );
        assert_eq!(
            read(pytest).unwrap(),
            [test("scenarios.test_ends test_it[a-b]", 1500)]
        );
        assert!(read(r#"<testcase name="x" time="soon"/>"#).is_err());
    }
}
