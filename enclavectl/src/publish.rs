//! An image made known: uploaded, and its measurements written.

use std::fs::File;
use std::io::Read;

use anyhow::{Context, bail};
use aws_endpoint::Object;
use aws_lc_rs::digest::{Context as Digest, SHA256};
use aws_request::Body;
use aws_sdk_dynamodb::types::AttributeValue;
use command_output::{errln, out, outln};
use control_plane_model::Failure;
use control_plane_model::attributes::{number, text};
use control_plane_model::item::{PublishedImage, timestamp};
use control_plane_model::store::published_image;
use eif::{Architecture, Eif};
use serde_json::json;
use time::OffsetDateTime;

use crate::End;
use crate::cli::Publish;
use crate::cloud::Cloud;
use crate::table::pairs;

const COPY_BYTES: usize = 1 << 20;
const MAX_REFERENCE: usize = 512;

pub(crate) async fn run(cloud: &Cloud, arguments: &Publish, json: bool) -> anyhow::Result<End> {
    let reference = arguments.reference.as_str();
    if reference.is_empty()
        || reference.len() > MAX_REFERENCE
        || !reference.bytes().all(|byte| byte.is_ascii_graphic())
    {
        bail!("a name has 1 to {MAX_REFERENCE} printable ASCII characters, and no spaces");
    }
    let (image, sha256) = read(cloud, arguments)?;
    let table = &cloud.parts.tables.images;
    if let Some(known) = published_image(&cloud.dynamodb, table, reference).await?
        && known.sha256 != image.sha256
        && !arguments.replace
    {
        errln!(
            "enclavectl: {reference} is another image (SHA-256 {}): choose another name, or give --replace",
            known.sha256
        );
        return Ok(End::Refused);
    }
    let object = Object::new(&image.bucket, &image.key).map_err(anyhow::Error::msg)?;
    match cloud.aws.s3().head(&object).await {
        Ok(head) if head.size == image.size => {}
        Ok(_) => upload(cloud, arguments, &object, &image, sha256).await?,
        Err(error) if error.is_not_found() => {
            upload(cloud, arguments, &object, &image, sha256).await?;
        }
        Err(error) => return Err(error).context("the bucket of images cannot be asked"),
    }
    write(cloud, &image).await?;
    if json {
        let mut shown = json!({ "image": image });
        if let Some(measurements) = shown.pointer_mut("/image/measurements") {
            *measurements = serde_json::from_str(&image.measurements)?;
        }
        outln!("{shown}");
    } else {
        out!(
            "{}",
            pairs(&[
                ("published", Some(image.reference.clone())),
                ("SHA-256", Some(image.sha256.clone())),
                ("size", Some(format!("{} bytes", image.size))),
                ("object", Some(object.to_string())),
                ("architecture", Some(image.architecture.clone())),
            ])
        );
    }
    Ok(End::Done)
}

/// Reads the image twice: once whole for its digest, and once as what it is.
fn read(cloud: &Cloud, arguments: &Publish) -> anyhow::Result<(PublishedImage, [u8; 32])> {
    let path = arguments.eif.display().to_string();
    let open = || File::open(&arguments.eif).with_context(|| format!("{path} cannot be opened"));
    let eif = Eif::open(open()?).with_context(|| format!("{path} is not an enclave image"))?;
    let architecture = match eif.header().architecture {
        Architecture::X86_64 => "x86_64",
        Architecture::Aarch64 => "aarch64",
    };
    let mut file = open()?;
    let mut digest = Digest::new(&SHA256);
    let mut buffer = vec![0; COPY_BYTES];
    let mut size = 0_u64;
    loop {
        let count = file
            .read(&mut buffer)
            .with_context(|| format!("{path} cannot be read"))?;
        if count == 0 {
            break;
        }
        digest.update(buffer.get(..count).expect("it was read into the buffer"));
        size += count as u64;
    }
    let sha256: [u8; 32] = digest.finish().as_ref().try_into()?;
    let hex = hex::encode(sha256);
    let image = PublishedImage {
        reference: arguments.reference.clone(),
        bucket: cloud.parts.buckets.artifacts.clone(),
        key: format!("images/{hex}.eif"),
        sha256: hex,
        size,
        measurements: serde_json::to_string(&eif.measurements())?,
        architecture: architecture.to_owned(),
    };
    Ok((image, sha256))
}

async fn upload(
    cloud: &Cloud,
    arguments: &Publish,
    object: &Object,
    image: &PublishedImage,
    sha256: [u8; 32],
) -> anyhow::Result<()> {
    errln!("uploading {} bytes to {object}", image.size);
    let body = Body::File {
        path: arguments.eif.clone(),
        length: image.size,
        sha256,
    };
    cloud
        .aws
        .s3()
        .put(object, body, "application/octet-stream")
        .await
        .context("the image was not uploaded")
}

async fn write(cloud: &Cloud, image: &PublishedImage) -> anyhow::Result<()> {
    let table = &cloud.parts.tables.images;
    let attributes: [(&str, AttributeValue); 8] = [
        ("reference", text(image.reference.as_str())),
        ("bucket", text(image.bucket.as_str())),
        ("key", text(image.key.as_str())),
        ("sha256", text(image.sha256.as_str())),
        ("size", number(image.size)),
        ("measurements", text(image.measurements.as_str())),
        ("architecture", text(image.architecture.as_str())),
        ("published_at", text(timestamp(OffsetDateTime::now_utc()))),
    ];
    let mut call = cloud.dynamodb.put_item().table_name(table);
    for (name, value) in attributes {
        call = call.item(name, value);
    }
    call.send()
        .await
        .map_err(|error| Failure::of_call("PutItem", table, &error))?;
    Ok(())
}
