//! Good certificates in the wrong chain.

use super::Cases;
use crate::corpus::ACCEPTED;
use crate::cose::{Cose, map};
use crate::der::{
    DIGITAL_SIGNATURE, KEY_CERT_SIGN, Key, basic_constraints, key_usage, name, public_key,
};
use crate::world::{LEAF, Payload, World, validity};

pub(super) fn add(cases: &mut Cases<'_>) {
    orders(cases, "limited", &cases.world.certificates.clone());
    orders(cases, "unlimited", &cases.world.unlimited());
    roots(cases);
    lengths(cases);
    leaves(cases);
    periods(cases);
}

/// Each is valid as far as the clock may be wrong, and never at one time.
fn periods(cases: &mut Cases<'_>) {
    let world = cases.world;
    for (name, rule, from) in [
        ("a leaf that begins as its issuer ends", ACCEPTED, -30_000),
        (
            "a leaf that begins after its issuer",
            "certificate.validity",
            30_000,
        ),
    ] {
        let issuer = world.reissue(LEAF - 1, |fields| {
            fields.validity = validity(-3_600_000, -30_000);
        });
        let mut chain = world.replaced(LEAF - 1, issuer);
        chain[LEAF] = world.reissue(LEAF, |fields| fields.validity = validity(from, 3_600_000));
        cases.chain(name, rule, &chain);
    }
}

/// Certificates missing, repeated and in another order.
fn orders(cases: &mut Cases<'_>, kind: &str, good: &[Vec<u8>]) {
    let limited = kind == "limited";
    let names_or_length = if limited {
        "certificate.path-length"
    } else {
        "chain.names"
    };
    for index in 0..LEAF {
        let mut missing = good.to_vec();
        missing.remove(index);
        let rule = if index == 0 {
            "chain.root"
        } else {
            "chain.names"
        };
        cases.chain(
            format!("{kind} chain without certificate {index}"),
            rule,
            &missing,
        );

        let mut twice = good.to_vec();
        twice.insert(index, good[index].clone());
        let rule = match index {
            0 => "chain.names",
            _ => names_or_length,
        };
        cases.chain(
            format!("{kind} chain with certificate {index} twice"),
            rule,
            &twice,
        );

        let mut root_again = good.to_vec();
        root_again.insert(index + 1, good[0].clone());
        let rule = if index == 0 || !limited {
            "chain.names"
        } else {
            "certificate.path-length"
        };
        cases.chain(
            format!("{kind} chain with the root again behind {index}"),
            rule,
            &root_again,
        );

        for other in index + 1..LEAF {
            let mut swapped = good.to_vec();
            swapped.swap(index, other);
            let rule = if index == 0 {
                "chain.root"
            } else {
                names_or_length
            };
            cases.chain(
                format!("{kind} chain with {index} and {other} swapped"),
                rule,
                &swapped,
            );
        }
        let mut with_leaf = good.to_vec();
        with_leaf.swap(index, LEAF);
        let rule = if index == 0 {
            "chain.root"
        } else {
            "certificate.authority"
        };
        cases.chain(
            format!("{kind} chain with {index} and the leaf swapped"),
            rule,
            &with_leaf,
        );
    }
    let mut reversed = good.to_vec();
    reversed[..LEAF].reverse();
    cases.chain(
        format!("{kind} chain with the bundle reversed"),
        "chain.root",
        &reversed,
    );
    let only_root = [good[0].clone(), good[LEAF].clone()];
    cases.chain(
        format!("{kind} chain of root and leaf"),
        "chain.names",
        &only_root,
    );
}

fn roots(cases: &mut Cases<'_>) {
    let good = cases.world;
    let stranger = World::of("strange");
    let document = stranger.document(&stranger.payload());
    cases.document(
        "a chain of its own, with its own root",
        "chain.root",
        document,
    );
    let mut mixed = stranger.certificates.clone();
    mixed[0].clone_from(&good.certificates[0]);
    let payload = Payload::of(&mixed);
    let document = stranger.document(&payload);
    cases.document(
        "a chain of its own below the pinned root",
        "chain.signature",
        document,
    );
    let mut prefixed = stranger.certificates.clone();
    prefixed.insert(0, good.certificates[0].clone());
    let document = stranger.document(&Payload::of(&prefixed));
    cases.document(
        "a chain of its own behind the pinned root",
        "chain.names",
        document,
    );

    let body = good.fields[0].body();
    let again = good.fields[0].assemble(&body, &good.keys[0].sign_asn1_otherwise(&body), 0);
    let chain = good.replaced(0, again);
    cases.chain("the root signed again by its key", "chain.root", &chain);
    let renamed = good.reissue(0, |fields| fields.serial = vec![2, 1, 77]);
    let chain = good.replaced(0, renamed);
    cases.chain("the root with another serial", "chain.root", &chain);
    let mut fields = good.fields[0].clone();
    fields.public_key = public_key("p384", good.stranger.point());
    let chain = good.replaced(0, fields.sign(&good.stranger));
    cases.chain("the root's name with another key", "chain.root", &chain);
    let chain = good.replaced(0, [&*good.certificates[0], &[0]].concat());
    cases.chain("the root and a byte", "chain.root", &chain);
    let mut flipped = good.certificates[0].clone();
    let last = flipped.len() - 1;
    flipped[last] ^= 1;
    let chain = good.replaced(0, flipped);
    cases.chain(
        "the root with a bit of its signature flipped",
        "chain.root",
        &chain,
    );
    let tail = good.certificates[1..].to_vec();
    cases.chain_of_pinned_root("a regional authority that is pinned", ACCEPTED, &tail);
    let other = World::of("other");
    let chain = other.certificates.clone();
    let document = good.document(&Payload::of(&chain));
    let case = cases.document(
        "another chain, pinned, in this leaf's document",
        "document.signature",
        document,
    );
    case.root = chain.first().cloned();
}

/// Chains of up to eight authorities: as many as a document may hold.
fn lengths(cases: &mut Cases<'_>) {
    let world = cases.world;
    for count in [1, 2, 8] {
        let mut chain = vec![world.certificates[0].clone()];
        let keys: Vec<Key> = (0..count)
            .map(|index| Key::of(&format!("authority {index} of {count}")))
            .collect();
        for index in 1..=count {
            let issuer = if index == 1 {
                &world.keys[0]
            } else {
                &keys[index - 2]
            };
            let mut fields = world.fields[LEAF].clone();
            fields.issuer = if index == 1 {
                name("root")
            } else {
                name(&format!("authority {}", index - 1))
            };
            fields.subject = name(&format!("authority {index}"));
            fields.public_key = public_key("p384", keys[index - 1].point());
            fields.extensions = if index == count {
                vec![key_usage(DIGITAL_SIGNATURE)]
            } else {
                vec![basic_constraints(true, None), key_usage(KEY_CERT_SIGN)]
            };
            chain.push(fields.sign(issuer));
        }
        let payload = map(&Payload::of(&chain).0);
        let document = Cose::sign(&payload, &keys[count - 1]).encode();
        cases.document(format!("{count} authorities"), ACCEPTED, document);
    }
}

fn leaves(cases: &mut Cases<'_>) {
    let world = cases.world;
    let of = |key: &Key, subject: &str| {
        world.reissue(LEAF, |fields| {
            fields.public_key = public_key("p384", key.point());
            fields.subject = name(subject);
        })
    };
    let other = world.replaced(LEAF, of(&world.stranger, "another"));
    cases.chain("another enclave's leaf", "document.signature", &other);

    // The enclave's own leaf signs a leaf for a stranger.
    let mut below = world.fields[LEAF].clone();
    below.issuer.clone_from(&world.fields[LEAF].subject);
    below.subject = name("below a leaf");
    below.public_key = public_key("p384", world.stranger.point());
    let mut chain = world.certificates.clone();
    chain.push(below.sign(&world.keys[LEAF]));
    let payload = map(&Payload::of(&chain).0);
    let document = Cose::sign(&payload, &world.stranger).encode();
    cases.document("a leaf below the leaf", "certificate.authority", document);
    let mut chain = world.unlimited();
    chain.push(below.sign(&world.keys[LEAF]));
    let payload = map(&Payload::of(&chain).0);
    let document = Cose::sign(&payload, &world.stranger).encode();
    cases.document(
        "a leaf below the leaf, paths unlimited",
        "certificate.authority",
        document,
    );

    // An authority's key signs the document itself.
    let chain = world.certificates[..LEAF].to_vec();
    let payload = map(&Payload::of(&chain).0);
    let document = Cose::sign(&payload, &world.keys[LEAF - 1]).encode();
    cases.document(
        "an authority in place of the leaf",
        "certificate.authority",
        document,
    );

    let same_name = world.replaced(LEAF - 1, {
        let mut fields = world.fields[LEAF - 1].clone();
        fields.public_key = public_key("p384", world.stranger.point());
        fields.sign(&world.keys[LEAF - 2])
    });
    cases.chain(
        "an instance of the same name with another key",
        "chain.signature",
        &same_name,
    );
}
