//! The part of a document about an enclave's image.

use image_fetch::{ImageConfig, Location, Sha256};
use measurements::Pcr;
use serde_json::Value;

use super::fields::Fields;
use super::{deserialized, text_parsed};

/// An image and what it must be.
pub(super) fn read(value: &Value, place: &str, problems: &mut Vec<String>) -> Option<ImageConfig> {
    let mut fields = Fields::of(value, place, problems)?;
    let location = fields.required("source", text_parsed::<Location>);
    let sha256 = fields.parsed("sha256", text_parsed::<Sha256>);
    let size = fields.parsed("size", deserialized::<u64>);
    let pcr8 = fields.parsed("pcr8", deserialized::<Pcr>);
    fields.end();
    let location = location?;
    if sha256.is_none() && location.needs_sha256() && value.get("sha256").is_none() {
        problems.push(format!(
            "{place}sha256: it is missing: an image from elsewhere needs one"
        ));
    }
    Some(ImageConfig {
        location,
        sha256,
        size,
        pcr8,
    })
}
