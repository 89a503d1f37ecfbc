//! Calls of the driver's, one by one.

use enclave_tests::nitro::probe::{At, Outcome, Step};
use enclave_tests::nitro::{Layout, Limits, Parent, cid};

use super::{MIB, is_in_page, map, memory, set_pages, start, whole};
use crate::{POOL, boot, pages};

/// An enclave that can be started.
const NAME: &str = "held";
/// An enclave's least memory, in pages.
const LEAST: u64 = 32;
/// What this one needs.
const ENOUGH: u64 = 64;

/// A script whose last step is refused: what is wrong with it, the error, and words of it.
type Row = (&'static str, Vec<Step>, i32, &'static str);

fn memory_at(at: At, size: u64) -> Step {
    Step::AddMemory { flags: 0, at, size }
}

/// An enclave, and further steps.
fn with(steps: &[Step]) -> Vec<Step> {
    [whole(ENOUGH).as_slice(), steps].concat()
}

/// The enclave's context identifier.
fn identifier() -> u64 {
    cid(NAME).into()
}

/// A running enclave, and a step.
fn started(step: Step) -> Vec<Step> {
    with(&[start(identifier()), step])
}

/// Of images and memory.
fn rows_of_memory() -> Vec<Row> {
    use Step::{Create, ImageOffset};
    let one_page = |step| vec![Create, map(1, 1), step];
    vec![
        (
            "an image of an unknown kind",
            vec![Create, ImageOffset(2)],
            274,
            "does not know a flag",
        ),
        (
            "the image's place, of a running enclave",
            started(ImageOffset(1)),
            270,
            "runs already",
        ),
        (
            "memory with an unknown flag",
            one_page(Step::AddMemory {
                flags: 1,
                at: At::Mapped(0),
                size: 2 * MIB,
            }),
            274,
            "does not know a flag",
        ),
        (
            "memory of 3 MiB",
            one_page(memory_at(At::Mapped(0), 3 * MIB)),
            259,
            "no multiple of 2 MiB",
        ),
        (
            "no memory at all",
            one_page(memory(0)),
            12,
            "the kernel has no memory for it",
        ),
        (
            "memory at no multiple of 2 MiB",
            one_page(memory_at(At::Mapped(4096), 2 * MIB)),
            261,
            "lies where it must not",
        ),
        (
            "memory of the kernel",
            one_page(memory_at(At::Address(0xffff_8880_0000_0000), 2 * MIB)),
            260,
            "lies where it must not",
        ),
        (
            "memory that is not mapped",
            one_page(memory_at(At::Address(1 << 30), 2 * MIB)),
            14,
            "Bad address",
        ),
        (
            "the same memory twice",
            vec![Create, map(1, 1), memory(1), memory(1)],
            262,
            "has this memory already",
        ),
        (
            "ordinary pages",
            vec![Create, memory_at(At::Ordinary, 2 * MIB)],
            263,
            "not made of huge pages",
        ),
        (
            "pages of another NUMA node",
            vec![Create, map(1, 0), memory(1)],
            264,
            "different NUMA nodes",
        ),
        (
            "memory for a running enclave",
            with(&[start(identifier()), map(1, 1), memory(1)]),
            270,
            "runs already",
        ),
    ]
}

/// Of CPUs, with two cores in the pool, which are 8 to 11.
fn rows_of_cpus() -> Vec<Row> {
    use Step::{AddCpu, AddCpuElsewhere, Create};
    vec![
        (
            "a CPU that the machine does not have",
            vec![Create, AddCpu(12)],
            271,
            "there is no such CPU",
        ),
        (
            "a CPU that the enclave has",
            vec![Create, AddCpu(10), AddCpu(10)],
            256,
            "has this CPU already",
        ),
        (
            "a CPU that is not in the pool",
            vec![Create, AddCpu(4)],
            257,
            "is not in the pool",
        ),
        (
            "a CPU that another enclave has",
            vec![Create, AddCpu(10), Create, AddCpu(10)],
            257,
            "another enclave has it",
        ),
        (
            "more CPUs than the pool has",
            vec![
                Create,
                AddCpu(0),
                AddCpu(0),
                AddCpu(0),
                AddCpu(0),
                AddCpu(0),
            ],
            272,
            "the pool has no CPU left",
        ),
        (
            "a CPU for a running enclave",
            started(AddCpu(0)),
            270,
            "runs already",
        ),
        (
            "a call of another process than the maker's",
            vec![Create, AddCpuElsewhere(10)],
            5,
            "Input/output error",
        ),
        (
            "an enclave beside those that have all cores",
            vec![Create, AddCpu(8), AddCpu(10), Create],
            272,
            "the pool has no CPU left",
        ),
    ]
}

/// Of starts.
fn rows_of_starts() -> Vec<Row> {
    use Step::{AddCpu, Create};
    vec![
        (
            "a start with an unknown flag",
            with(&[Step::Start {
                flags: 2,
                cid: identifier(),
            }]),
            274,
            "does not know a flag",
        ),
        (
            "a start as the host",
            with(&[start(2)]),
            275,
            "no enclave may have this context identifier",
        ),
        (
            "a start as the parent",
            with(&[start(3)]),
            275,
            "no enclave may have this context identifier",
        ),
        (
            "a start as anybody",
            with(&[start(u32::MAX.into())]),
            275,
            "no enclave may have this context identifier",
        ),
        (
            "a start with an identifier of 33 bits",
            with(&[start(1 << 32)]),
            275,
            "no enclave may have this context identifier",
        ),
        (
            "a start without memory",
            vec![Create, AddCpu(0), AddCpu(0), start(identifier())],
            266,
            "has no memory",
        ),
        (
            "a start with 62 MiB",
            vec![
                Create,
                map(31, 1),
                memory(31),
                AddCpu(0),
                AddCpu(0),
                start(identifier()),
            ],
            268,
            "less memory than the least",
        ),
        (
            "a start without CPUs",
            vec![Create, map(LEAST, 1), memory(LEAST), start(identifier())],
            267,
            "has no CPUs",
        ),
        (
            "a start with a part of a core",
            vec![
                Create,
                map(LEAST, 1),
                memory(LEAST),
                AddCpu(0),
                start(identifier()),
            ],
            269,
            "a part of a core",
        ),
        (
            "a second start",
            started(start(identifier())),
            270,
            "runs already",
        ),
        (
            "a start without an image",
            vec![
                Create,
                map(LEAST, 1),
                memory(LEAST),
                AddCpu(0),
                AddCpu(0),
                start(identifier()),
            ],
            8,
            "Exec format error",
        ),
        (
            "a start with the identifier of a running enclave",
            [with(&[start(identifier())]), with(&[start(identifier())])].concat(),
            98,
            "Address already in use",
        ),
    ]
}

#[test]
fn driver_refusals_of_calls_have_words_and_leave_nothing_behind() {
    let mut parent = boot(&Layout::two_nodes(), &[NAME]);
    parent.run(&["/bin/modprobe", "nitro_enclaves"]).unwrap();
    let reserved = 2 * ENOUGH + 8;
    set_pages(&mut parent, 1, reserved);
    set_pages(&mut parent, 0, 1);
    let mut rows = [rows_of_memory(), rows_of_cpus(), rows_of_starts()].concat();
    let usual = Limits {
        enclaves: 4,
        regions: 1024,
    };
    let limited: [(Row, Limits); 2] = [
        (
            (
                "more regions of memory than there can be",
                vec![Step::Create, map(1, 1), memory(1), map(1, 1), memory(1)],
                265,
                "too many memory regions",
            ),
            Limits {
                regions: 1,
                ..usual
            },
        ),
        (
            (
                "an enclave beside as many as there can be",
                vec![Step::Create, Step::Create],
                28,
                "No space left on device",
            ),
            Limits {
                enclaves: 1,
                ..usual
            },
        ),
    ];
    let without_pool: Row = (
        "an enclave without a pool",
        vec![Step::Create],
        272,
        "the pool has no CPU left",
    );

    check(&mut parent, std::slice::from_ref(&without_pool));
    parent.write(POOL, "8-11").unwrap();
    check(&mut parent, &rows);
    for (row, limits) in &limited {
        parent.device.limit(Some(*limits));
        check(&mut parent, std::slice::from_ref(row));
    }
    assert_eq!(parent.device.faults(), [""; 0]);
    assert_eq!(parent.device.slots(), 0);
    assert_eq!(pages(&mut parent, 1, "free"), reserved);
    parent.write(POOL, "8,9").unwrap();

    // All of the driver's own errors but two: 258, which is for a core that the pool's own
    // list has and the machine has not, and 273, which is for huge pages of less than 2 MiB,
    // which this architecture lacks.
    rows.extend(limited.map(|(row, _)| row));
    rows.push(without_pool);
    let seen = |code: i32| rows.iter().any(|row| row.2 == code);
    let missing: Vec<_> = (256..=275).filter(|code| !seen(*code)).collect();
    assert_eq!(missing, [258, 273]);
}

/// Has the scripts of the rows run, and compares their last outcomes.
fn check(parent: &mut Parent, rows: &[Row]) {
    let scripts: Vec<_> = rows.iter().map(|row| row.1.clone()).collect();
    let outcomes = parent.probe(&scripts).unwrap();
    let mut wrong = Vec::new();
    for ((what, script, code, words), outcomes) in rows.iter().zip(outcomes) {
        let last = outcomes.last().unwrap();
        let is_right = matches!(
            last,
            Outcome::Refused { code: got, words: said } if got == code && said.contains(words)
        );
        if !is_right || outcomes.len() != script.len() || !is_in_page(what, *code) {
            wrong.push(format!("{what}: {code}, `{words}`, but {outcomes:?}"));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}
