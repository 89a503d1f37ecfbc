//! What people read.

use manifest::HostConfig;
use std::fmt::{Display, Write};
use std::path::Path;

use image_builder::{Built, Change, Description, Difference};
use key_policy::{Principal, Review, Way, WrittenCondition};
use measurements::{Measurements, Pcr};
use plain_text::plain;
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

const KIB: u64 = 1024;
const MIB: u64 = 1024 * 1024;

/// What has been built.
pub(crate) fn built(path: &Path, built: &Built) -> String {
    let mut sheet = Sheet::default();
    sheet.line("image", &built.name);
    sheet.line(
        "file",
        format_args!("{}, {}", path.display(), size(built.size)),
    );
    sheet.line("init", format_args!("sha256:{}", built.init));
    sheet.measurements(&built.measurements);
    sheet.0
}

/// What an image is, with everything that is wrong with it.
pub(crate) fn description(path: &Path, described: &Description) -> String {
    let image = &described.image;
    let mut sheet = Sheet::default();
    let header = &image.header;
    sheet.line("file", path.display());
    sheet.line(
        "format",
        format_args!("EIF version {}, {}", header.version, header.architecture),
    );
    if let Some(metadata) = &image.metadata {
        let build = &metadata.build_metadata;
        sheet.line(
            "image",
            format_args!(
                "{}, version {}",
                metadata.image_name, metadata.image_version
            ),
        );
        sheet.line(
            "built by",
            format_args!(
                "{} {} at {}",
                build.build_tool, build.build_tool_version, build.build_time
            ),
        );
        sheet.line("kernel version", &build.kernel_version);
    }
    sheet.line(
        "started with",
        format_args!(
            "{} MiB, {} CPUs",
            header.default_memory / MIB,
            header.default_cpus
        ),
    );
    let host = image
        .metadata
        .as_ref()
        .and_then(|metadata| HostConfig::from_metadata(metadata.custom_metadata.text()).ok()?);
    if host.is_some_and(|host| host.aws_credentials) {
        sheet.line("AWS credentials", "the workload gets the instance's");
    }
    sheet.line(
        "boots with",
        image.command_line.as_deref().unwrap_or("(not text)"),
    );
    let certificate = image.signature.as_ref().map(eif::Signature::certificate);
    let unsigned = if image.is_signed() {
        "an invalid signature"
    } else {
        "nobody"
    };
    let signer = certificate.map(eif::Certificate::subject);
    sheet.line("signed by", signer.unwrap_or(unsigned));
    if let Some(certificate) = certificate {
        let (begin, end) = (certificate.not_before(), certificate.not_after());
        let date = |time: OffsetDateTime| time.format(&Rfc3339).unwrap_or_default();
        let now = OffsetDateTime::now_utc();
        let state = match certificate.problem_at(now) {
            None => "",
            Some(_) if now < begin => ", which has not begun",
            Some(_) => ", which is over",
        };
        sheet.line(
            "valid",
            format_args!("from {} to {}{state}", date(begin), date(end)),
        );
    }
    for section in &image.sections {
        sheet.line(
            &section.kind.to_string(),
            format_args!("{} bytes", section.size),
        );
    }
    if let Some(init) = &described.init {
        sheet.line("init", format_args!("sha256:{}", init.sha256));
    }
    sheet.line("checksum", format_args!("{:08x}", image.crc32));
    sheet.measurements(&image.measurements);
    for problem in &image.problems {
        sheet.line("problem", problem);
    }
    sheet.0
}

/// What distinguishes two images, or that nothing does.
pub(crate) fn difference(difference: &Difference) -> String {
    let mut sheet = Sheet::default();
    if difference.is_empty() {
        sheet.line("images", "the same");
    }
    for section in &difference.sections {
        let label = match section.ramdisk {
            Some(0) => "boot".to_owned(),
            Some(1) => "application".to_owned(),
            Some(number) => format!("ramdisk {number}"),
            None => section.kind.to_string(),
        };
        let what = match (&section.sha256, &section.unread) {
            ((None, _), _) => "only in the second image".to_owned(),
            ((_, None), _) => "only in the first image".to_owned(),
            (_, Some(reason)) => format!("not the same; its files are unknown: {reason}"),
            _ if section.ramdisk.is_some() && section.files.is_empty() => {
                "the same files, stored in another way".to_owned()
            }
            _ if section.ramdisk.is_some() => format!("changed files: {}", section.files.len()),
            _ => "not the same".to_owned(),
        };
        sheet.line(&label, what);
        for file in &section.files {
            let sign = match file.change {
                Change::Added => '+',
                Change::Removed => '-',
                Change::Changed => '~',
            };
            let details = file.details.join(", ");
            let colon = if details.is_empty() { "" } else { ": " };
            sheet.line("", format_args!("{sign} {}{colon}{details}", file.path));
        }
    }
    let value = |value: Option<Pcr>| value.map_or_else(|| "unsigned".to_owned(), |v| v.to_string());
    for register in &difference.registers {
        sheet.line(
            &format!("PCR{}", register.register),
            value(register.values.0),
        );
        sheet.line("", value(register.values.1));
    }
    if difference.same_measurements && !difference.is_empty() {
        sheet.line("measurements", "the same");
    }
    sheet.0
}

/// What a key policy lets whom do.
pub(crate) fn review(review: &Review) -> String {
    let mut sheet = Sheet::default();
    let list = |items: &[String]| items.join(", ");
    let actions = |actions: &[key_policy::Action]| {
        list(&actions.iter().map(ToString::to_string).collect::<Vec<_>>())
    };
    for hole in &review.holes {
        let who = who(&hole.principals);
        let what = actions(&hole.actions);
        sheet.line(
            "open",
            format_args!("{}: {who} may call {what} {}", hole.statement, hole.way),
        );
        sheet.conditions(&hole.conditions);
    }
    for attested in &review.attested {
        let who = who(&attested.principals);
        let what = actions(&attested.actions);
        sheet.line(
            "attested",
            format_args!("{}: {who} may call {what}", attested.statement),
        );
        sheet.conditions(&attested.demands);
        for note in &attested.notes {
            sheet.line(
                "note",
                format_args!("{} {}: {}", note.key, note.value, note.reason),
            );
        }
    }
    for replacing in &review.replacing {
        let who = who(&replacing.principals);
        let what = actions(&replacing.actions);
        sheet.line(
            "replaces",
            format_args!("{}: {who} may lift all this by {what}", replacing.statement),
        );
        sheet.conditions(&replacing.conditions);
    }
    let result = if review.holes.is_empty() {
        "as long as the policy stands, nobody reads without attestation"
    } else if review.holes.iter().all(|hole| hole.way == Way::ChosenSeed) {
        "others than attested enclaves could choose the seed"
    } else {
        "others than attested enclaves could read"
    };
    sheet.line("result", result);
    sheet.0
}

/// Principals, and what those stand for that are no single one.
fn who(principals: &[Principal]) -> String {
    let name = |principal: &Principal| match principal {
        Principal::Everybody => "everybody".to_owned(),
        Principal::Account(account) => {
            format!("whom the IAM policies of account {account} allow it")
        }
        Principal::Deleted(id) => format!("the deleted {id}"),
        other => other.to_string(),
    };
    principals.iter().map(name).collect::<Vec<_>>().join(", ")
}

/// A size as people say it.
pub(crate) fn size(bytes: u64) -> String {
    match bytes {
        0..KIB => format!("{bytes} bytes"),
        KIB..MIB => format!("{} KiB", bytes.div_ceil(KIB)),
        _ => {
            let tenths = bytes.saturating_mul(10) / MIB;
            format!("{}.{} MiB", tenths / 10, tenths % 10)
        }
    }
}

/// Lines of a label and a value.
#[derive(Default)]
struct Sheet(String);

impl Sheet {
    fn line(&mut self, label: &str, value: impl Display) {
        let value = plain(&value.to_string());
        // Writing to a string cannot fail.
        let _ = writeln!(self.0, "{label:<15} {value}");
    }

    /// What a statement demands, a line for each value.
    fn conditions(&mut self, conditions: &[WrittenCondition]) {
        for condition in conditions {
            for value in &condition.values {
                let WrittenCondition { operator, key, .. } = condition;
                self.line("", format_args!("{operator} {key} {value}"));
            }
        }
    }

    fn measurements(&mut self, measurements: &Measurements) {
        self.line("PCR0", measurements.pcr0);
        self.line("PCR1", measurements.pcr1);
        self.line("PCR2", measurements.pcr2);
        if let Some(pcr8) = measurements.pcr8 {
            self.line("PCR8", pcr8);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_are_short() {
        for (bytes, text) in [
            (0, "0 bytes"),
            (1023, "1023 bytes"),
            (1024, "1 KiB"),
            (MIB - 1, "1024 KiB"),
            (MIB, "1.0 MiB"),
            (5 * MIB + MIB / 2, "5.5 MiB"),
            (u64::MAX, "1759218604441.5 MiB"),
        ] {
            assert_eq!(size(bytes), text);
        }
    }
}
