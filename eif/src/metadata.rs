//! The metadata section: what built the image, and out of what. Not measured.

use serde::{Deserialize, Serialize};
use serde_json::Value;

/// The metadata section, with AWS's names.
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
    pub docker_info: Value,
    /// Anything that the builder adds.
    #[serde(default)]
    pub custom_metadata: Value,
}

/// What built an image, and when.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct BuildMetadata {
    /// RFC 3339.
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
