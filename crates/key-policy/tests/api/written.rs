//! Written policies: who may do what under them.

use std::collections::{BTreeMap, BTreeSet};

use key_policy::{Action, Policy, Principal, Release, Request, Rules, RulesError};
use measurements::Pcr;
use proptest::prelude::*;
use serde_json::Value;

use crate::calls::{
    ACCOUNT, ADMINISTRATOR, ENCLAVE, ENCRYPTER, FOREIGNER, STRANGER, decide, pcr, request,
};

const CURRENT: u8 = 1;
const NEXT: u8 = 2;

fn principal(text: &str) -> Principal {
    text.parse().unwrap()
}

pub(crate) fn rules() -> Rules {
    Rules {
        current: Release {
            image: pcr(CURRENT),
            signer: None,
        },
        next: Some(Release {
            image: pcr(NEXT),
            signer: None,
        }),
        role: None,
        instance: None,
        callers: vec![principal(ENCLAVE)],
        administrators: vec![principal(ADMINISTRATOR)],
        encrypters: vec![principal(ENCRYPTER)],
        is_for_seed: false,
    }
}

/// Of a key that wraps the seed of a family of enclaves.
pub(crate) fn seed_rules() -> Rules {
    Rules {
        encrypters: Vec::new(),
        is_for_seed: true,
        ..rules()
    }
}

fn read(rules: &Rules) -> Policy {
    rules.write().unwrap().to_string().parse().unwrap()
}

/// Rules with every combination of what can be demanded.
fn any_rules() -> impl Strategy<Value = Rules> {
    let flags = any::<[bool; 5]>();
    (flags, any::<bool>()).prop_map(|([next, signers, role, instance, account], same_signer)| {
        let signer = |byte| signers.then(|| pcr(byte));
        let mut rules = rules();
        rules.current.signer = signer(8);
        rules.next = next.then(|| Release {
            image: pcr(NEXT),
            signer: signer(if same_signer { 8 } else { 9 }),
        });
        rules.role = role.then(|| pcr(3));
        rules.instance = instance.then(|| pcr(4));
        if account {
            rules.administrators.push(principal(ACCOUNT));
            rules.encrypters = vec![principal(ACCOUNT)];
        }
        rules
    })
}

/// The registers of an enclave that the rules accept.
fn registers(rules: &Rules, release: &Release) -> BTreeMap<u8, Pcr> {
    BTreeMap::from([
        (0, release.image),
        (1, pcr(0x11)),
        (2, pcr(0x22)),
        (3, rules.role.unwrap_or(pcr(0x33))),
        (4, rules.instance.unwrap_or(pcr(0x44))),
        (8, release.signer.unwrap_or(Pcr::ZERO)),
    ])
}

fn reading() -> impl Strategy<Value = Action> {
    proptest::sample::select(Action::READING.to_vec())
}

fn taking_documents() -> impl Strategy<Value = Action> {
    reading().prop_filter("it takes no document", |action| {
        *action != Action::RE_ENCRYPT_FROM
    })
}

fn anybody() -> impl Strategy<Value = &'static str> {
    proptest::sample::select(vec![
        ENCLAVE,
        ADMINISTRATOR,
        ENCRYPTER,
        STRANGER,
        FOREIGNER,
        "arn:aws:iam::123456789012:root",
        "s3.amazonaws.com",
    ])
}

fn call(caller: &str, action: &Action, registers: BTreeMap<u8, Pcr>) -> Request {
    request(caller, action.as_str()).attested(registers)
}

proptest! {
    #[test]
    fn written_policies_let_enclaves_of_both_releases_read(
        rules in any_rules(),
        action in taking_documents(),
    ) {
        let policy = read(&rules);
        for release in [Some(rules.current), rules.next].into_iter().flatten() {
            let request = call(ENCLAVE, &action, registers(&rules, &release));
            prop_assert_eq!(decide(&policy, &request).0, "allow");
        }
    }

    #[test]
    fn written_policies_deny_everybody_to_read_without_a_document(
        rules in any_rules(),
        action in reading(),
        caller in anybody(),
    ) {
        let request = call(caller, &action, BTreeMap::new());
        prop_assert_eq!(decide(&read(&rules), &request).0, "deny");
    }

    #[test]
    fn written_policies_deny_debug_mode(
        rules in any_rules(),
        action in reading(),
        caller in anybody(),
    ) {
        let zeros = (0..32).map(|index| (index, Pcr::ZERO)).collect();
        prop_assert_eq!(decide(&read(&rules), &call(caller, &action, zeros)).0, "deny");
    }

    /// Any one register that is demanded and is another, or is missing.
    #[test]
    fn written_policies_deny_enclaves_with_another_register(
        rules in any_rules(),
        action in taking_documents(),
        caller in anybody(),
        which in any::<proptest::sample::Index>(),
        other in proptest::option::of(100_u8..),
    ) {
        let release = rules.next.unwrap_or(rules.current);
        let demanded: Vec<u8> = [
            (0, true),
            (8, release.signer.is_some()),
            (3, rules.role.is_some()),
            (4, rules.instance.is_some()),
        ].into_iter().filter(|(_, demanded)| *demanded).map(|(index, _)| index).collect();
        let mut registers = registers(&rules, &release);
        let index = *which.get(&demanded);
        registers.remove(&index);
        if let Some(other) = other {
            registers.insert(index, pcr(other));
        }
        let decision = decide(&read(&rules), &call(caller, &action, registers)).0;
        prop_assert_eq!(decision, "deny");
    }

    #[test]
    fn written_policies_let_nobody_else_read_with_an_enclaves_document(
        rules in any_rules(),
        action in reading(),
        caller in anybody().prop_filter("it is the enclave's", |caller| *caller != ENCLAVE),
    ) {
        let request = call(caller, &action, registers(&rules, &rules.current));
        prop_assert_eq!(decide(&read(&rules), &request).0, "none");
    }

    #[test]
    fn written_policies_let_encrypters_encrypt_and_administrators_administer(
        rules in any_rules(),
    ) {
        let policy = read(&rules);
        let decision = |caller, action| decide(&policy, &request(caller, action)).0;
        let by_account = rules.administrators.len() > 1;
        let expected = if by_account { "iam" } else { "allow" };
        prop_assert_eq!(decision(ENCRYPTER, "kms:Encrypt"), expected);
        prop_assert_eq!(decision(ADMINISTRATOR, "kms:PutKeyPolicy"), "allow");
        prop_assert_eq!(decision(ADMINISTRATOR, "kms:ScheduleKeyDeletion"), "allow");
        for caller in [ENCLAVE, ENCRYPTER, STRANGER] {
            let expected = if by_account { "iam" } else { "none" };
            prop_assert_eq!(decision(caller, "kms:PutKeyPolicy"), expected);
        }
        for caller in [ENCLAVE, ENCRYPTER, STRANGER, ADMINISTRATOR] {
            prop_assert_eq!(decision(caller, "kms:CreateGrant"), "none");
            prop_assert_eq!(decision(caller, "kms:ReplicateKey"), "none");
        }
        prop_assert_eq!(decision(FOREIGNER, "kms:PutKeyPolicy"), "none");
        prop_assert_eq!(decision(FOREIGNER, "kms:Encrypt"), "none");
    }

    #[test]
    fn written_policies_have_no_holes(rules in any_rules()) {
        let review = read(&rules).review();
        prop_assert_eq!(&review.holes, &[]);
        let releases = if rules.next.is_some() { 2 } else { 1 };
        prop_assert_eq!(review.attested.len(), releases);
        prop_assert!(review.attested.iter().all(|attested| attested.notes.is_empty()));
        prop_assert_eq!(&review.replacing[0].principals.len(), &rules.administrators.len());
    }
}

#[test]
fn written_policies_for_a_seed_let_nobody_encrypt() {
    let rules = seed_rules();
    let policy = read(&rules);
    for caller in [ENCLAVE, ENCRYPTER, ADMINISTRATOR, STRANGER, FOREIGNER] {
        for action in ["kms:Encrypt", "kms:ReEncryptTo"] {
            let request = request(caller, action);
            assert_eq!(decide(&policy, &request).0, "deny", "{caller} {action}");
        }
    }
    let attested = registers(&rules, &rules.current);
    for action in [Action::DECRYPT, Action::GENERATE_DATA_KEY] {
        let without = call(ENCLAVE, &action, BTreeMap::new());
        assert_eq!(decide(&policy, &without).0, "deny");
        let with = call(ENCLAVE, &action, attested.clone());
        assert_eq!(decide(&policy, &with).0, "allow");
    }
    assert_eq!(policy.review_for_seed().holes, []);
    let mut named = seed_rules();
    named.encrypters = vec![principal(ENCRYPTER)];
    let error = named.write().unwrap_err();
    assert_eq!(error, RulesError::Encrypter(principal(ENCRYPTER)));
}

#[test]
fn written_policies_do_not_mix_the_registers_of_two_releases() {
    let mut rules = rules();
    rules.current.signer = Some(pcr(8));
    rules.next = Some(Release {
        image: pcr(NEXT),
        signer: Some(pcr(9)),
    });
    let mixed = registers(
        &rules,
        &Release {
            image: pcr(CURRENT),
            signer: Some(pcr(9)),
        },
    );
    let request = call(ENCLAVE, &Action::DECRYPT, mixed);
    assert_eq!(decide(&read(&rules), &request).0, "none");
}

/// Terraform's module makes keys under the same rules.
#[test]
fn written_policies_have_the_actions_of_terraforms_module() {
    let module = include_str!("../../../../terraform/modules/encryption/main.tf");
    let listed = |name: &str| -> BTreeSet<String> {
        let (_, list) = module.split_once(&format!("{name} = [")).unwrap();
        let (list, _) = list.split_once(']').unwrap();
        list.split('"')
            .skip(1)
            .step_by(2)
            .map(str::to_owned)
            .collect()
    };
    let policy: Value = serde_json::from_str(&rules().write().unwrap().to_string()).unwrap();
    let actions = |sid: &str| -> BTreeSet<String> {
        let statements = policy["Statement"].as_array().unwrap();
        let statement = statements.iter().find(|statement| statement["Sid"] == sid);
        let actions = statement.unwrap()["Action"].as_array().unwrap();
        actions
            .iter()
            .map(|action| action.as_str().unwrap().to_owned())
            .collect()
    };
    assert_eq!(actions("Administration"), listed("administration"));
    assert_eq!(actions("WithoutAttestation"), listed("reading"));
}

#[test]
fn written_policies_name_a_release_once() {
    let mut rules = rules();
    rules.next = Some(rules.current);
    assert_eq!(read(&rules).review().attested.len(), 1);
}

#[test]
fn written_policies_are_in_the_partition_of_their_principals() {
    let mut rules = rules();
    rules.callers = vec![principal("arn:aws-cn:iam::123456789012:role/Enclave")];
    rules.administrators = vec![principal(ACCOUNT)];
    rules.encrypters = vec![principal(ACCOUNT)];
    let text = rules.write().unwrap().to_string();
    assert!(
        text.contains("\"arn:aws-cn:iam::123456789012:root\""),
        "{text}"
    );
    rules.encrypters = vec![principal(ENCRYPTER)];
    let error = rules.write().unwrap_err();
    assert_eq!(
        error,
        RulesError::Partitions("aws-cn".to_owned(), "aws".to_owned())
    );
}

#[test]
fn written_policies_refuse_rules_that_protect_nothing_or_lock_out() {
    let refused = |change: fn(&mut Rules)| {
        let mut rules = rules();
        change(&mut rules);
        rules.write().unwrap_err()
    };
    for index in [0, 3, 4, 8] {
        let error = match index {
            0 => refused(|rules| rules.current.image = Pcr::ZERO),
            3 => refused(|rules| rules.role = Some(Pcr::ZERO)),
            4 => refused(|rules| rules.instance = Some(Pcr::ZERO)),
            _ => refused(|rules| rules.current.signer = Some(Pcr::ZERO)),
        };
        assert_eq!(error, RulesError::Zero(index));
    }
    for error in [
        refused(|rules| rules.callers.clear()),
        refused(|rules| rules.administrators.clear()),
        refused(|rules| rules.encrypters.clear()),
    ] {
        assert!(matches!(error, RulesError::Nobody(_)), "{error}");
    }
    for error in [
        refused(|rules| rules.callers.push(Principal::Everybody)),
        refused(|rules| rules.administrators.push(Principal::Everybody)),
        refused(|rules| rules.encrypters.push(principal("s3.amazonaws.com"))),
    ] {
        assert!(matches!(error, RulesError::Principal { .. }), "{error}");
    }
    let error = refused(|rules| rules.administrators = rules.callers.clone());
    assert_eq!(error, RulesError::Administrator(principal(ENCLAVE)));
    let error = refused(|rules| {
        let name = |index| format!("arn:aws:iam::123456789012:role/Encrypter-{index}");
        rules.encrypters = (0..1000).map(|index| principal(&name(index))).collect();
    });
    assert!(matches!(error, RulesError::TooLong { .. }), "{error}");
}
