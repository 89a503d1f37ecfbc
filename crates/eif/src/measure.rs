//! How the registers of an image are computed.

use aws_lc_rs::digest::{Context, SHA384};
use measurements::{Measurements, Pcr};

use crate::format::SectionKind;

/// Bytes read and measured at a time.
pub(crate) const COPY_BYTES: usize = 64 * 1024;

/// Measures contents as they pass by, in file order.
#[derive(Clone)]
pub(crate) struct Measurer {
    image: Context,
    boot: Context,
    application: Context,
    ramdisks: usize,
    target: Target,
}

#[derive(Clone, Copy)]
enum Target {
    Boot,
    Application,
    Nothing,
}

impl Measurer {
    pub(crate) fn new() -> Self {
        Self {
            image: Context::new(&SHA384),
            boot: Context::new(&SHA384),
            application: Context::new(&SHA384),
            ramdisks: 0,
            target: Target::Nothing,
        }
    }

    /// Says which section the next bytes belong to.
    pub(crate) fn section(&mut self, kind: SectionKind) {
        self.target = match kind {
            SectionKind::Kernel | SectionKind::CommandLine => Target::Boot,
            SectionKind::Ramdisk => {
                self.ramdisks += 1;
                if self.ramdisks == 1 {
                    Target::Boot
                } else {
                    Target::Application
                }
            }
            SectionKind::Signature | SectionKind::Metadata => Target::Nothing,
        };
    }

    pub(crate) fn update(&mut self, bytes: &[u8]) {
        match self.target {
            Target::Boot => self.boot.update(bytes),
            Target::Application => self.application.update(bytes),
            Target::Nothing => return,
        }
        self.image.update(bytes);
    }

    pub(crate) fn finish(self) -> Measurements {
        Measurements {
            pcr0: extend_zero(self.image),
            pcr1: extend_zero(self.boot),
            pcr2: extend_zero(self.application),
            pcr8: None,
        }
    }
}

/// The register that what `context` has seen was measured into.
fn extend_zero(context: Context) -> Pcr {
    Pcr::ZERO.extend(context.finish().as_ref())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The register that `contents` alone were measured into.
    fn pcr_of(contents: &[u8]) -> Pcr {
        let mut context = Context::new(&SHA384);
        context.update(contents);
        extend_zero(context)
    }

    fn measure(sections: &[(SectionKind, &str)]) -> Measurements {
        let mut measurer = Measurer::new();
        for (kind, contents) in sections {
            measurer.section(*kind);
            measurer.update(contents.as_bytes());
        }
        measurer.finish()
    }

    #[test]
    fn each_register_measures_its_sections() {
        let measurements = measure(&[
            (SectionKind::Kernel, "k"),
            (SectionKind::CommandLine, "c"),
            (SectionKind::Metadata, "not measured"),
            (SectionKind::Ramdisk, "1"),
            (SectionKind::Ramdisk, "2"),
            (SectionKind::Ramdisk, "3"),
            (SectionKind::Signature, "not measured"),
        ]);
        assert_eq!(measurements.pcr0, pcr_of(b"kc123"));
        assert_eq!(measurements.pcr1, pcr_of(b"kc1"));
        assert_eq!(measurements.pcr2, pcr_of(b"23"));
        assert_eq!(measurements.pcr8, None);
    }

    #[test]
    fn an_absent_application_measures_as_nothing_not_as_zero() {
        let measurements = measure(&[(SectionKind::Ramdisk, "1")]);
        // printf '%096d' 0 | xxd -r -p | cat - <(sha384sum </dev/null | xxd -r -p) | sha384sum
        assert_eq!(
            measurements.pcr2.to_string(),
            "21b9efbc184807662e966d34f390821309eeac6802309798826296bf3e8bec7c\
             10edb30948c90ba67310f7b964fc500a"
        );
    }
}
