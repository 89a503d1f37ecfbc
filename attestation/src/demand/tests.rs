//! Policies that are refused before they meet a document.

use measurements::{Measurements, TpmMeasurements};

use super::*;

const IMAGE: Measurements = Measurements {
    pcr0: Pcr::new([1; 48]),
    pcr1: Pcr::new([2; 48]),
    pcr2: Pcr::new([3; 48]),
    pcr8: None,
};

#[test]
fn a_policy_that_demands_nothing_or_the_impossible_is_refused() {
    let image = IMAGE;
    let any = Policy::builder().allow_any_image();
    let tpm = any.clone().profile(Profile::NitroTpm);
    for (builder, error) in [
        (Policy::builder(), PolicyError::NoCode),
        (Policy::builder().nonce(vec![1]), PolicyError::NoCode),
        (
            any.clone().measurements(image),
            PolicyError::AnyImageAndImages,
        ),
        (
            Policy::builder().pcr(32, Pcr::ZERO),
            PolicyError::NoSuchPcr {
                index: 32,
                last: 31,
            },
        ),
        (any.clone().nonce(Vec::new()), PolicyError::EmptyNonce),
        (
            any.clone().nonce(vec![0; 1025]),
            PolicyError::NeverMet {
                name: "nonce",
                limit: 1024,
            },
        ),
        (
            any.clone().bind_user_data(Binding::Prefix(Vec::new())),
            PolicyError::EmptyPrefix("user_data"),
        ),
        (
            any.clone().public_key(vec![0; 1025]),
            PolicyError::NeverMet {
                name: "public_key",
                limit: 1024,
            },
        ),
        (any.clone().module_id("**"), PolicyError::ModuleIdPattern),
        (any.clone().module_id(""), PolicyError::ModuleIdPattern),
        (
            any.clone().module_id("i-1\n*"),
            PolicyError::ModuleIdPattern,
        ),
        (
            any.clone().module_id(format!("{}*", "i".repeat(256))),
            PolicyError::ModuleIdPattern,
        ),
        (tpm.clone().allow_debug(), PolicyError::DebugOfTpm),
        (
            tpm.clone().purpose(Purpose::Workload),
            PolicyError::PurposeOfTpm,
        ),
        (
            any.clone().purpose(Purpose::Unknown),
            PolicyError::UnknownPurpose,
        ),
        (
            any.clone()
                .purpose(Purpose::SelfCheck)
                .user_data(b"enclave-purpose:self-check".to_vec()),
            PolicyError::UserDataOfTheInit(Purpose::SelfCheck),
        ),
        (
            Policy::builder()
                .profile(Profile::NitroTpm)
                .image("1.0", image),
            PolicyError::ImageOfAnotherProfile {
                image: "1.0".to_owned(),
                profile: Profile::Enclave,
            },
        ),
    ] {
        assert_eq!(builder.build(), Err(error));
    }
    let hour = Duration::from_secs(3600);
    assert!(any.clone().clock_skew(hour).build().is_ok());
    let skew = hour + Duration::from_millis(1);
    let policy = any.clone().clock_skew(skew).build();
    assert_eq!(policy, Err(PolicyError::ClockSkew(skew)));
    for max_age in [Duration::ZERO, Duration::from_millis(999)] {
        let policy = any.clone().max_age(max_age).build();
        assert_eq!(policy, Err(PolicyError::MaxAge(max_age)));
    }
    for (builder, error) in [
        (any.clone().public_key(Vec::new()), PolicyError::EmptyKey),
        (
            any.clone().purpose(Purpose::Clock).public_key(vec![1]),
            PolicyError::KeyOfTheInit(Purpose::Clock),
        ),
        (
            any.clone()
                .purpose(Purpose::Workload)
                .bind_user_data(Binding::Prefix(b"enclave-purpose:c".to_vec())),
            PolicyError::ReservedUserData,
        ),
    ] {
        assert_eq!(builder.build(), Err(error));
    }
    assert!(any.build().is_ok());
    assert!(tpm.build().is_ok());
}

#[test]
fn a_policy_that_names_no_code_is_refused() {
    let value = Pcr::new([7; 48]);
    for index in 1..32 {
        let policy = || Policy::builder().pcr(index, value);
        let alone = policy().build();
        if index == 8 {
            assert!(alone.is_ok());
            continue;
        }
        assert_eq!(alone, Err(PolicyError::NoCode));
        let any = policy().allow_any_image().build().unwrap();
        assert!(!any.names_code());
        let image = Measurements {
            pcr1: value,
            pcr2: value,
            ..IMAGE
        };
        assert!(policy().measurements(image).build().is_ok());
    }
    assert!(Policy::builder().pcr(0, value).build().is_ok());
    let parts = Policy::builder().pcr(1, value).pcr(2, value);
    assert!(parts.build().is_ok());
    let unsigned = Policy::builder().pcr(8, Pcr::ZERO).build();
    assert_eq!(unsigned, Err(PolicyError::NoCode));
}

#[test]
fn a_policy_of_a_nitro_tpm_has_its_registers_and_its_command_line() {
    let value = Pcr::new([7; 48]);
    let tpm = || Policy::builder().profile(Profile::NitroTpm);
    for index in 0..=u8::MAX {
        let policy = tpm().pcr(index, value);
        let error = match index {
            4 => PolicyError::OpenCommandLine,
            24.. => PolicyError::NoSuchPcr { index, last: 23 },
            _ => PolicyError::NoCode,
        };
        assert_eq!(policy.clone().build(), Err(error));
        let any = policy.allow_any_image().build();
        assert_eq!(any.is_ok(), index < 24);
    }
    for (index, value) in [(7, value), (12, value), (12, Pcr::ZERO)] {
        let policy = tpm().pcr(4, Pcr::new([6; 48])).pcr(index, value);
        assert!(policy.build().is_ok());
    }
    for index in [4, 7] {
        let policy = tpm().pcr(index, Pcr::ZERO).pcr(index, value);
        let error = policy.allow_any_image().build();
        assert_eq!(error, Err(PolicyError::ZeroTpmRegister(index)));
    }
    let image = TpmMeasurements {
        pcr4: value,
        pcr7: None,
        pcr12: Some(Pcr::ZERO),
    };
    assert!(tpm().measurements(image).build().is_ok());
    let other = tpm().measurements(image).pcr(12, value).build();
    assert_eq!(other, Err(PolicyError::OtherImages(12)));
    let enclave = Policy::builder().image("1.0", image).build();
    let error = PolicyError::ImageOfAnotherProfile {
        image: "1.0".to_owned(),
        profile: Profile::NitroTpm,
    };
    assert_eq!(enclave, Err(error));
    let pcr4 = Pcr::ZERO;
    let zero = tpm().image("1.0", TpmMeasurements { pcr4, ..image });
    let image = "1.0".to_owned();
    assert_eq!(
        zero.build(),
        Err(PolicyError::ZeroImage { image, index: 4 })
    );
}

#[test]
fn a_policy_whose_zeros_no_enclave_has_is_refused() {
    let value = Pcr::new([7; 48]);
    let any = || Policy::builder().allow_any_image();
    for index in [0, 1, 2] {
        for policy in [any(), any().pcr(index, value)] {
            let error = policy.pcr(index, Pcr::ZERO).build();
            assert_eq!(error, Err(PolicyError::ZeroRegister(index)));
        }
        for other in [0, 1, 2, 8] {
            let policy = any().allow_debug().pcr(index, Pcr::ZERO);
            assert!(policy.clone().pcr(other, Pcr::ZERO).build().is_ok());
            if other == index {
                continue;
            }
            let mixed = policy.clone().pcr(other, value);
            assert_eq!(mixed.build(), Err(PolicyError::NoMode));
            let either = policy.pcr(other, value).pcr(other, Pcr::ZERO);
            assert!(either.build().is_ok());
        }
    }
    let unsigned = any().allow_debug().pcr(0, value).pcr(8, Pcr::ZERO);
    assert!(unsigned.build().is_ok());
}

#[test]
fn a_module_id_is_of_the_policys_profile() {
    let build = |profile, pattern: &str| {
        let policy = Policy::builder().profile(profile).module_id(pattern);
        policy.allow_any_image().build().map(|_| ())
    };
    for (pattern, enclave, tpm) in [
        ("i-1-enc2", true, false),
        ("i-1-tpm2", false, true),
        ("i-1-*", true, true),
        ("*-enc2", true, true),
        ("i*", true, true),
        ("i-*-tpm*", false, true),
        ("x-*-tpm*", true, false),
        ("enclave", true, false),
    ] {
        for (profile, expected) in [(Profile::Enclave, enclave), (Profile::NitroTpm, tpm)] {
            let error = PolicyError::ModuleIdOfAnotherProfile(profile);
            let expected = expected.then_some(()).ok_or(error);
            assert_eq!(build(profile, pattern), expected, "{pattern}");
        }
    }
    assert_eq!(
        build(Profile::Enclave, "i-1 *"),
        Err(PolicyError::ModuleIdPattern)
    );
}

#[test]
fn a_policy_of_zeros_is_refused() {
    for index in [0, 1, 2] {
        let policy = || {
            let policy = Policy::builder().pcr(index, Pcr::ZERO);
            policy.pcr(index, Pcr::new([7; 48]))
        };
        for policy in [
            policy(),
            policy().allow_debug(),
            policy().measurements(IMAGE),
        ] {
            assert_eq!(policy.build(), Err(PolicyError::ZeroRegister(index)));
        }
        let any = policy().allow_any_image().allow_debug().build().unwrap();
        assert!(!any.names_code());
        let mut image = IMAGE;
        let register = match index {
            0 => &mut image.pcr0,
            1 => &mut image.pcr1,
            _ => &mut image.pcr2,
        };
        *register = Pcr::ZERO;
        for policy in [Policy::builder(), Policy::builder().allow_debug()] {
            let error = policy.image("1.0", image).build().unwrap_err();
            let image = "1.0".to_owned();
            assert_eq!(error, PolicyError::ZeroImage { image, index });
        }
    }
}

#[test]
fn a_policy_whose_registers_none_of_its_images_has_is_refused() {
    let other = Measurements {
        pcr0: Pcr::new([9; 48]),
        ..IMAGE
    };
    let both = || Policy::builder().measurements(IMAGE).measurements(other);
    assert!(both().pcr(0, other.pcr0).build().is_ok());
    let none = both().pcr(0, other.pcr1).build();
    assert_eq!(none, Err(PolicyError::OtherImages(0)));
    let signed = both().pcr(8, other.pcr1).build();
    assert_eq!(signed, Err(PolicyError::OtherImages(8)));
}

#[test]
fn a_policy_that_fixes_a_nonce_takes_no_other() {
    let policy = Policy::builder().measurements(IMAGE).nonce(vec![1]);
    let policy = policy.build().unwrap();
    assert!(policy.fixes_nonce());
    assert_eq!(policy.with_nonce(vec![1]), Err(PolicyError::FixedNonce));
    let policy = Policy::builder().measurements(IMAGE).build().unwrap();
    assert!(policy.with_nonce(vec![1]).unwrap().fixes_nonce());
}
