//! Which registers say what code runs: the one definition, by which policies are built,
//! reports and results speak, and peers are accepted.

use measurements::Pcr;

use crate::document::Profile;
use crate::image::Image;
use crate::policy::{Policy, PolicyBuilder};
use crate::rule::Rule;

/// The PCR7 of a NitroTPM without keys for Secure Boot, where anything boots:
/// `nitro-tpm-pcr-compute` writes it unless it is given keys. It is made of the variables
/// `SecureBoot`, `PK`, `KEK`, `db` and `dbx`, and a separator (TCG, "PC Client Platform Firmware
/// Profile Specification", section 3.3.4.8).
const SECURE_BOOT_OFF: Pcr = Pcr::new([
    0x98, 0x44, 0x1c, 0x7f, 0x76, 0x25, 0xd1, 0x00, 0x58, 0xc4, 0x76, 0x83, 0xae, 0xc4, 0x86, 0xce,
    0x31, 0x1c, 0x63, 0x32, 0x35, 0xeb, 0x55, 0x55, 0x93, 0xa7, 0xee, 0x79, 0x11, 0x21, 0xe3, 0x57,
    0x8a, 0xe7, 0x2d, 0x04, 0xec, 0xef, 0x66, 0x1f, 0x27, 0x2d, 0x59, 0x05, 0x8b, 0x77, 0xaf, 0x35,
]);

/// What a policy says of a register, before anything is compared.
struct Demanded<'a> {
    profile: Profile,
    image: Option<&'a Image>,
    policy: &'a Policy,
}

impl Demanded<'_> {
    /// Whether there is a value of the register that is accepted, and each of them has
    /// been measured.
    fn all(&self, index: u8, measured: impl Fn(Pcr) -> bool) -> bool {
        let mut of_image = self.image.into_iter().flat_map(Image::pcrs);
        if let Some((_, value)) = of_image.find(|(of_image, _)| *of_image == index) {
            return measured(value);
        }
        let values = self.policy.pcrs.get(&index);
        values.is_some_and(|values| !values.is_empty() && values.iter().copied().all(measured))
    }

    /// Whether the registers leave one code only, or one signer's.
    fn names_code(&self) -> bool {
        let measured = |index| self.all(index, |value| value != Pcr::ZERO);
        match self.profile {
            // The image; its signer; the kernel with the boot ramdisk, and the application.
            // PCR3 and PCR4 say whose instance it runs on, and from PCR16 on any software
            // can extend them to any value that is known.
            Profile::Enclave => measured(0) || measured(8) || (measured(1) && measured(2)),
            Profile::NitroTpm => measured(4) && self.fixes_command_line(),
        }
    }

    /// The kernel takes a command line from outside of its image unless Secure Boot is on,
    /// and can be told by it to run anything (AWS, GHSA-xrv8-2pf5-f3q7). PCR12 holds that
    /// command line, and zero where there is none.
    fn fixes_command_line(&self) -> bool {
        let secure_boot = |value| value != Pcr::ZERO && value != SECURE_BOOT_OFF;
        self.all(12, |_| true) || self.all(7, secure_boot)
    }
}

impl Policy {
    /// Whether only known code is accepted. An enclave's is known by an image that is
    /// allowed, by values of PCR0, by the signer in PCR8, or by PCR1 and PCR2 together;
    /// that of an instance with a NitroTPM by PCR4 together with PCR12, or with PCR7 under
    /// Secure Boot. Where a value may be zero, nothing has been measured, and no code is
    /// named, except that a PCR12 of zero is a command line that nobody has added to.
    pub fn names_code(&self) -> bool {
        self.demanded().all(|demanded| demanded.names_code())
    }

    /// Whether the code of a NitroTPM's instance would be named if it were not for the
    /// command line.
    pub(crate) fn leaves_command_line_open(&self) -> bool {
        self.profile == Profile::NitroTpm
            && !self.names_code()
            && self
                .demanded()
                .all(|demanded| demanded.all(4, |value| value != Pcr::ZERO))
    }

    /// What is demanded of the registers by each image that is allowed; without images,
    /// by the policy alone.
    fn demanded(&self) -> impl Iterator<Item = Demanded<'_>> {
        let alone = self.images.is_empty().then_some(None);
        let images = self.images.iter().map(Some).chain(alone);
        images.map(|image| Demanded {
            profile: self.profile,
            image,
            policy: self,
        })
    }
}

impl PolicyBuilder {
    /// Whether the policy would name the code that may run; see [`Policy::names_code`].
    pub fn names_code(&self) -> bool {
        self.clone().into_policy().names_code()
    }
}

impl Rule {
    /// Whether the rule compares what says which code runs, in documents of this kind.
    pub fn is_of_code(self, profile: Profile) -> bool {
        match (self, profile) {
            (Self::PolicyImage, _) => true,
            (Self::PolicyPcr(index), Profile::Enclave) => [0, 1, 2, 8].contains(&index),
            (Self::PolicyPcr(index), Profile::NitroTpm) => [4, 7, 12].contains(&index),
            _ => false,
        }
    }
}

#[cfg(test)]
mod tests {
    use measurements::{Measurements, TpmMeasurements};

    use super::*;

    const VALUE: Pcr = Pcr::new([7; 48]);

    fn names_code(policy: PolicyBuilder) -> bool {
        policy.into_policy().names_code()
    }

    /// Of every set of these registers, each of them measured, zero, or one of both.
    fn every_policy(
        profile: Profile,
        registers: [u8; 4],
        named: impl Fn([Option<bool>; 4]) -> bool,
    ) {
        for mut number in 0..4_u32.pow(4) {
            let mut policy = Policy::builder().profile(profile);
            let values = registers.map(|index| {
                let kind = number % 4;
                number /= 4;
                let with = |policy: &PolicyBuilder, value| policy.clone().pcr(index, value);
                policy = match kind {
                    0 => policy.clone(),
                    1 => with(&policy, VALUE),
                    2 => with(&policy, Pcr::ZERO),
                    _ => with(&with(&policy, VALUE), Pcr::ZERO),
                };
                (kind != 0).then_some(kind == 1)
            });
            let shown = format!("{policy:?}");
            assert_eq!(names_code(policy), named(values), "{shown}");
        }
    }

    #[test]
    fn code_of_an_enclave_is_named_by_pcr0_or_pcr8_or_pcr1_and_pcr2() {
        every_policy(Profile::Enclave, [0, 1, 2, 8], |values| {
            let [pcr0, pcr1, pcr2, pcr8] = values.map(|value| value == Some(true));
            pcr0 || pcr8 || (pcr1 && pcr2)
        });
        let others = (3..8).chain(9..32);
        let others = others.fold(Policy::builder(), |policy, index| policy.pcr(index, VALUE));
        assert!(!names_code(others));
        let image = Measurements {
            pcr0: VALUE,
            pcr1: VALUE,
            pcr2: VALUE,
            pcr8: None,
        };
        assert!(names_code(Policy::builder().measurements(image)));
    }

    #[test]
    fn code_of_a_nitro_tpm_is_named_by_pcr4_and_the_command_line() {
        every_policy(
            Profile::NitroTpm,
            [4, 7, 12, 0],
            |[pcr4, pcr7, pcr12, _]| pcr4 == Some(true) && (pcr12.is_some() || pcr7 == Some(true)),
        );
        let policy = Policy::builder().profile(Profile::NitroTpm).pcr(4, VALUE);
        assert!(policy.clone().into_policy().leaves_command_line_open());
        let insecure = policy.clone().pcr(7, SECURE_BOOT_OFF);
        assert!(!names_code(insecure.clone()));
        assert!(insecure.clone().into_policy().leaves_command_line_open());
        assert!(names_code(insecure.pcr(12, Pcr::ZERO)));
        let registers = (0..24).filter(|index| ![4, 7, 12].contains(index));
        let others = registers.fold(
            Policy::builder().profile(Profile::NitroTpm),
            |policy, index| policy.pcr(index, VALUE),
        );
        assert!(!names_code(others));
    }

    #[test]
    fn each_image_of_a_nitro_tpm_has_to_fix_the_command_line() {
        let image = |pcr12| TpmMeasurements {
            pcr4: VALUE,
            pcr7: Some(SECURE_BOOT_OFF),
            pcr12,
        };
        let whole = Policy::builder()
            .profile(Profile::NitroTpm)
            .measurements(image(Some(Pcr::ZERO)));
        assert!(names_code(whole.clone()));
        let open = whole.measurements(image(None));
        assert!(!names_code(open.clone()));
        assert!(names_code(open.pcr(12, Pcr::ZERO)));
    }

    /// `sha384sum` over what the firmware measures, step by step.
    #[cfg(feature = "aws-lc-rs")]
    #[test]
    fn secure_boot_without_keys_has_the_pcr7_that_the_firmware_computes() {
        let global = "61dfe48bca93d211aa0d00e098032b8c";
        let database = "cbb219d73a3d9645a3bcdad00e67656f";
        let variables = [
            (global, "SecureBoot", [0].as_slice()),
            (global, "PK", &[]),
            (global, "KEK", &[]),
            (database, "db", &[]),
            (database, "dbx", &[]),
        ];
        let sha384 = |data: &[u8]| crate::Crypto::sha384(&crate::AwsLcRs, data);
        let mut pcr7 = Pcr::ZERO;
        for (guid, name, data) in variables {
            let mut event = hex::decode(guid).unwrap();
            event.extend((name.len() as u64).to_le_bytes());
            event.extend((data.len() as u64).to_le_bytes());
            event.extend(name.encode_utf16().flat_map(u16::to_le_bytes));
            event.extend(data);
            pcr7 = pcr7.extend(&sha384(&event));
        }
        assert_eq!(pcr7.extend(&sha384(&[0; 4])), SECURE_BOOT_OFF);
    }
}
