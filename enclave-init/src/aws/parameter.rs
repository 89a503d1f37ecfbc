//! Parameters of Systems Manager.

use serde::Deserialize;

/// A parameter, as `GetParameter` answers it.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub(crate) struct Parameter {
    #[serde(rename = "ARN")]
    pub(crate) arn: String,
    pub(crate) value: String,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct ParameterAnswer {
    parameter: Parameter,
}

impl Parameter {
    /// The parameter in an answer's body, if there is one.
    pub(crate) fn of_answer(body: &[u8]) -> Option<Self> {
        let answer: ParameterAnswer = serde_json::from_slice(body).ok()?;
        Some(answer.parameter)
    }
}
