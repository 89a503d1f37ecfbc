//! The metadata section: what built the image, and out of what. Not measured.

use serde::ser::Error as _;
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use serde_json::Value;
use serde_json::value::RawValue;

/// The metadata section, JSON with AWS's names.
///
/// It is **not measured**: whoever passes an image on can change all of it
/// without changing a PCR. Nothing that matters to security may rest on it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct Metadata {
    /// The image's name.
    pub image_name: String,
    /// The image's version.
    pub image_version: String,
    /// What built it, and when.
    pub build_metadata: BuildMetadata,
    /// The container image's own description.
    #[serde(default)]
    pub docker_info: Json,
    /// Anything that the builder adds.
    #[serde(default)]
    pub custom_metadata: Json,
}

/// JSON as it was written: it takes no more memory than its text, where a parsed
/// value can take more than a hundred times as much.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Json(String);

impl Json {
    /// The text.
    pub fn text(&self) -> &str {
        &self.0
    }
}

impl Default for Json {
    fn default() -> Self {
        Value::Null.into()
    }
}

impl From<Value> for Json {
    fn from(value: Value) -> Self {
        Self(value.to_string())
    }
}

impl Serialize for Json {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let raw: &RawValue = serde_json::from_str(&self.0).map_err(S::Error::custom)?;
        raw.serialize(serializer)
    }
}

impl<'de> Deserialize<'de> for Json {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let raw = Box::<RawValue>::deserialize(deserializer)?;
        Ok(Self(raw.get().to_owned()))
    }
}

/// What built an image, and when.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct BuildMetadata {
    /// RFC 3339. A builder that promises identical files for identical input
    /// writes the same time whenever it runs.
    pub build_time: String,
    /// The builder's name.
    pub build_tool: String,
    /// The builder's version.
    pub build_tool_version: String,
    /// What the image's kernel belongs to.
    pub operating_system: String,
    /// The kernel's version.
    pub kernel_version: String,
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn names_are_those_of_aws() {
        let json = json!({
            "ImageName": "payments",
            "ImageVersion": "1.2",
            "BuildMetadata": {
                "BuildTime": "2026-01-01T00:00:00Z",
                "BuildTool": "nitro-cli",
                "BuildToolVersion": "1.4.2",
                "OperatingSystem": "Linux",
                "KernelVersion": "6.12.0",
            },
            "DockerInfo": {"Architecture": "amd64"},
            "CustomMetadata": null,
        });
        let metadata: Metadata = serde_json::from_value(json.clone()).unwrap();
        assert_eq!(metadata.build_metadata.build_tool_version, "1.4.2");
        assert_eq!(serde_json::to_value(metadata).unwrap(), json);
    }
}
