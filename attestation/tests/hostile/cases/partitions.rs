//! Several pinned roots, as of partitions that have one each.

use super::Cases;
use crate::corpus::{ACCEPTED, TWO_ROOTS};
use crate::world::{Payload, World};

pub(super) fn add(cases: &mut Cases<'_>) {
    let (second, third) = (World::of("second partition"), World::of("third partition"));
    let both = [&cases.world.certificates[0], &second.certificates[0]];
    cases.roots.insert(TWO_ROOTS, both.map(Vec::clone).into());
    let first = cases.world.document(&cases.world.payload());
    let mut mixed = second.certificates.clone();
    mixed[0].clone_from(&cases.world.certificates[0]);
    for (name, rule, document) in [
        ("two roots are pinned: of the first", ACCEPTED, first),
        (
            "two roots are pinned: of the second",
            ACCEPTED,
            second.document(&second.payload()),
        ),
        (
            "two roots are pinned: of a third of the same name",
            "chain.root",
            third.document(&third.payload()),
        ),
        (
            "two roots are pinned: the first above the second's authorities",
            "chain.signature",
            second.document(&Payload::of(&mixed)),
        ),
    ] {
        cases.document(name, rule, document).root_file = TWO_ROOTS;
    }
    let name = "of the second partition where the first is pinned";
    let document = second.document(&second.payload());
    cases.document(name, "chain.root", document);
}
