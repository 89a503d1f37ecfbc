//! The calls that make an enclave, in their order.
//!
//! Source: `include/uapi/linux/nitro_enclaves.h` and the driver's own sample.

use std::io::{self, Read};

use super::error::LaunchError;

/// Sizes of huge pages, the largest first: an enclave has a limited number of
/// regions, and each is one page here.
const PAGES: [u64; 2] = [1 << 30, 2 << 20];
/// What the image is: an EIF.
const IS_EIF: u64 = 1;
/// Flags of a memory region: none.
const ORDINARY_MEMORY: u64 = 0;
const DEBUG_MODE: u64 = 1;

/// A call to the driver: its number is made of the direction, the size of its
/// argument, the driver's letter and a count.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Call {
    pub(super) name: &'static str,
    pub(super) number: u32,
    pub(super) size: usize,
}

const WRITE: u32 = 1;
const READ: u32 = 2;

const fn call(name: &'static str, direction: u32, count: u32, size: usize) -> Call {
    const LETTER: u32 = 0xae;
    #[expect(
        clippy::cast_possible_truncation,
        reason = "an argument has at most 24 bytes"
    )]
    let number = direction << 30 | (size as u32) << 16 | LETTER << 8 | count;
    Call { name, number, size }
}

/// Makes a machine. The argument receives its slot.
pub(super) const CREATE_VM: Call = call("NE_CREATE_VM", READ, 0x20, 8);
/// Gives it a CPU: any if the argument is 0, which receives the CPU.
pub(super) const ADD_VCPU: Call = call("NE_ADD_VCPU", READ | WRITE, 0x21, 4);
/// Asks where the image goes: flags, then the offset that it receives.
pub(super) const GET_IMAGE_LOAD_INFO: Call = call("NE_GET_IMAGE_LOAD_INFO", READ | WRITE, 0x22, 16);
/// Gives it memory: flags, size, address.
pub(super) const SET_USER_MEMORY_REGION: Call = call("NE_SET_USER_MEMORY_REGION", WRITE, 0x23, 24);
/// Starts it: flags, and its context identifier.
pub(super) const START_ENCLAVE: Call = call("NE_START_ENCLAVE", READ | WRITE, 0x24, 16);

/// The device, and the machine that [`CREATE_VM`] made with it.
pub(super) trait Machine {
    /// Memory that the machine can be given.
    type Region: AsMut<[u8]>;

    /// Calls the driver; all calls but the first are for the machine. The
    /// argument has the call's size.
    fn call(&mut self, call: Call, argument: &mut [u8]) -> io::Result<()>;

    /// A huge page of that size.
    fn map(&mut self, size: u64) -> io::Result<Self::Region>;
}

/// What is launched.
#[derive(Debug, Clone, Copy)]
pub(super) struct Plan {
    /// Bytes of memory.
    pub(super) memory: u64,
    /// Virtual CPUs.
    pub(super) cpus: u32,
    /// The context identifier.
    pub(super) cid: u32,
    /// Whether in debug mode.
    pub(super) debug: bool,
    /// The NUMA node of its CPUs, if it is known.
    pub(super) node: Option<u32>,
}

/// Memory in the driver's unit.
pub(super) const fn whole_pages(bytes: u64) -> u64 {
    let [_, smallest] = PAGES;
    bytes.next_multiple_of(smallest)
}

/// Makes the machine, fills it from `image`, which has `size` bytes, and starts it.
pub(super) fn launch<M: Machine>(
    machine: &mut M,
    plan: &Plan,
    image: impl Read,
    size: u64,
) -> Result<(), LaunchError> {
    invoke(machine, CREATE_VM, &mut [0; 8])?;
    let mut argument = pair(IS_EIF, 0);
    invoke(machine, GET_IMAGE_LOAD_INFO, &mut argument)?;
    let offset = second(argument);
    let end = offset.saturating_add(size);
    if end > plan.memory {
        return Err(LaunchError::ImageTooLarge {
            needed: end.div_ceil(1 << 20),
            memory: plan.memory >> 20,
        });
    }
    let mut regions = map(machine, plan)?;
    load(&mut regions, offset, image.take(size), size)?;
    for region in &mut regions {
        let bytes = region.as_mut();
        let mut argument = [0; 24];
        let words = [
            ORDINARY_MEMORY,
            bytes.len() as u64,
            bytes.as_ptr().addr() as u64,
        ];
        for (field, word) in argument.chunks_exact_mut(8).zip(words) {
            field.copy_from_slice(&word.to_ne_bytes());
        }
        invoke(machine, SET_USER_MEMORY_REGION, &mut argument)?;
    }
    for _ in 0..plan.cpus {
        invoke(machine, ADD_VCPU, &mut [0; 4])?;
    }
    let flags = if plan.debug { DEBUG_MODE } else { 0 };
    invoke(machine, START_ENCLAVE, &mut pair(flags, plan.cid.into()))
}

fn invoke<M: Machine>(machine: &mut M, call: Call, argument: &mut [u8]) -> Result<(), LaunchError> {
    machine
        .call(call, argument)
        .map_err(|error| LaunchError::Driver {
            call: call.name,
            error,
        })
}

/// Pages for the memory, the largest that there are.
fn map<M: Machine>(machine: &mut M, plan: &Plan) -> Result<Vec<M::Region>, LaunchError> {
    let memory = plan.memory;
    let mut regions = Vec::new();
    let mut left = memory;
    let mut last = io::Error::from(io::ErrorKind::InvalidInput);
    for page in PAGES {
        while left >= page {
            match machine.map(page) {
                Ok(region) => {
                    regions.push(region);
                    left -= page;
                }
                Err(error) => {
                    last = error;
                    break;
                }
            }
        }
    }
    if left > 0 {
        return Err(LaunchError::NoHugePages {
            mapped: (memory - left) >> 20,
            wanted: memory >> 20,
            node: plan.node,
            error: last,
        });
    }
    Ok(regions)
}

/// Reads the image into the regions, at an offset from the first one's beginning.
fn load(
    regions: &mut [impl AsMut<[u8]>],
    offset: u64,
    mut image: impl Read,
    size: u64,
) -> Result<(), LaunchError> {
    let too_large = |_| LaunchError::Image(io::ErrorKind::FileTooLarge.into());
    let mut skip = usize::try_from(offset).map_err(too_large)?;
    let mut left = usize::try_from(size).map_err(too_large)?;
    for region in regions {
        if left == 0 {
            break;
        }
        let bytes = region.as_mut();
        let Some(room) = bytes.get_mut(skip..) else {
            skip -= bytes.len();
            continue;
        };
        skip = 0;
        let count = left.min(room.len());
        if let Some(target) = room.get_mut(..count) {
            image.read_exact(target).map_err(LaunchError::Image)?;
        }
        left -= count;
    }
    Ok(())
}

fn pair(first: u64, second: u64) -> [u8; 16] {
    let mut bytes = [0; 16];
    let (low, high) = bytes.split_at_mut(8);
    low.copy_from_slice(&first.to_ne_bytes());
    high.copy_from_slice(&second.to_ne_bytes());
    bytes
}

fn second(bytes: [u8; 16]) -> u64 {
    let (_, second) = bytes.split_at(8);
    second.try_into().map_or(0, u64::from_ne_bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    const MIB: u64 = 1 << 20;
    const OFFSET: u64 = 8 * MIB;

    /// A device that records what is asked of it.
    #[derive(Default)]
    struct Fake {
        calls: Vec<(Call, Vec<u8>)>,
        maps: Vec<u64>,
        /// The number of the call that fails, and how.
        fails: Option<(usize, i32)>,
        /// Pages that can be had, by their size.
        large_pages: usize,
        small_pages: usize,
    }

    impl Machine for Fake {
        type Region = Vec<u8>;

        fn call(&mut self, call: Call, argument: &mut [u8]) -> io::Result<()> {
            assert_eq!(argument.len(), call.size, "{}", call.name);
            let number = self.calls.len();
            self.calls.push((call, argument.to_vec()));
            if let Some((fails, code)) = self.fails
                && fails == number
            {
                return Err(io::Error::from_raw_os_error(code));
            }
            if call == GET_IMAGE_LOAD_INFO {
                argument.copy_from_slice(&pair(IS_EIF, OFFSET));
            }
            if call == SET_USER_MEMORY_REGION {
                let word = |at: usize| u64::from_ne_bytes(argument[at..at + 8].try_into().unwrap());
                assert_eq!(word(0), 0);
                assert_eq!(word(8) % (2 * MIB), 0);
                assert_ne!(word(16), 0);
            }
            Ok(())
        }

        fn map(&mut self, size: u64) -> io::Result<Vec<u8>> {
            let left = if size == 2 * MIB {
                &mut self.small_pages
            } else {
                &mut self.large_pages
            };
            *left = left.checked_sub(1).ok_or(io::ErrorKind::OutOfMemory)?;
            self.maps.push(size);
            Ok(vec![0; usize::try_from(size).unwrap()])
        }
    }

    fn plan(mib: u64) -> Plan {
        Plan {
            memory: mib * MIB,
            cpus: 2,
            cid: 20,
            debug: false,
            node: None,
        }
    }

    fn names(fake: &Fake) -> Vec<&'static str> {
        fake.calls.iter().map(|(call, _)| call.name).collect()
    }

    #[test]
    fn calls_have_the_numbers_of_the_kernels_header() {
        let numbers = [
            (CREATE_VM, 0x8008_ae20),
            (ADD_VCPU, 0xc004_ae21),
            (GET_IMAGE_LOAD_INFO, 0xc010_ae22),
            (SET_USER_MEMORY_REGION, 0x4018_ae23),
            (START_ENCLAVE, 0xc010_ae24),
        ];
        for (call, number) in numbers {
            assert_eq!(call.number, number, "{}", call.name);
        }
    }

    #[test]
    fn an_enclave_is_made_in_the_drivers_order() {
        let mut fake = Fake {
            small_pages: 16,
            ..Fake::default()
        };
        let image = vec![7; usize::try_from(MIB).unwrap()];
        launch(&mut fake, &plan(16), image.as_slice(), MIB).unwrap();
        let mut expected = vec!["NE_CREATE_VM", "NE_GET_IMAGE_LOAD_INFO"];
        expected.extend(["NE_SET_USER_MEMORY_REGION"; 8]);
        expected.extend(["NE_ADD_VCPU", "NE_ADD_VCPU", "NE_START_ENCLAVE"]);
        assert_eq!(names(&fake), expected);
        assert_eq!(fake.maps, [2 * MIB; 8]);
        assert_eq!(fake.calls[1].1, pair(1, 0));
        assert_eq!(fake.calls.last().unwrap().1, pair(0, 20));
    }

    #[test]
    fn debug_mode_is_a_flag_of_the_start() {
        let mut fake = Fake {
            small_pages: 16,
            ..Fake::default()
        };
        let mut plan = plan(16);
        plan.debug = true;
        launch(&mut fake, &plan, io::empty(), 0).unwrap();
        assert_eq!(fake.calls.last().unwrap().1, pair(1, 20));
    }

    #[test]
    fn large_pages_are_taken_first_and_small_ones_fill_up() {
        let mut fake = Fake {
            large_pages: 1,
            small_pages: 100,
            ..Fake::default()
        };
        let regions = map(&mut fake, &plan(1028)).unwrap();
        assert_eq!(regions.len(), 3);
        assert_eq!(fake.maps, [1024 * MIB, 2 * MIB, 2 * MIB]);
    }

    #[test]
    fn memory_is_made_of_whole_pages() {
        for (mib, pages) in [(16, 8), (17, 9), (18, 9)] {
            assert_eq!(whole_pages(mib * MIB), pages * 2 * MIB);
        }
    }

    #[test]
    fn too_few_pages_are_named_with_what_to_do() {
        let mut fake = Fake {
            small_pages: 3,
            ..Fake::default()
        };
        let plan = Plan {
            node: Some(1),
            ..plan(16)
        };
        let error = launch(&mut fake, &plan, io::empty(), 0).unwrap_err();
        let text = error.to_string();
        assert!(text.starts_with("6 MiB of 16 MiB"), "{text}");
        assert!(text.contains("on NUMA node 1"), "{text}");
        assert!(text.contains("parent-agent bootstrap"), "{text}");
        // Nothing was given to the machine.
        assert_eq!(names(&fake).len(), 2);
    }

    #[test]
    fn an_image_larger_than_the_memory_is_refused_before_it_is_read() {
        let mut fake = Fake::default();
        let error = launch(&mut fake, &plan(16), io::empty(), 9 * MIB).unwrap_err();
        let text = error.to_string();
        assert!(
            text.contains("needs 17 MiB") && text.contains("has 16 MiB"),
            "{text}"
        );
        assert!(fake.maps.is_empty());
    }

    #[test]
    fn a_failure_of_any_call_is_named_and_is_the_last() {
        let image = vec![7; 100];
        for fails in 0..13 {
            let mut fake = Fake {
                small_pages: 16,
                fails: Some((fails, 272)),
                ..Fake::default()
            };
            let error = launch(&mut fake, &plan(16), image.as_slice(), 100).unwrap_err();
            // As it is printed, with its causes.
            let text = format!("{:#}", anyhow::Error::from(error));
            let (call, _) = fake.calls.last().unwrap();
            assert_eq!(fake.calls.len(), fails + 1);
            assert!(text.starts_with(call.name), "{text}");
            assert!(text.contains("the pool has no CPU left"), "{text}");
            assert_eq!(text.matches("272").count(), 1, "{text}");
        }
    }

    #[test]
    fn an_image_that_ends_too_early_is_no_image() {
        let mut fake = Fake {
            small_pages: 16,
            ..Fake::default()
        };
        let error = launch(&mut fake, &plan(16), &[7; 10][..], 100).unwrap_err();
        assert!(matches!(error, LaunchError::Image(_)), "{error}");
        assert_eq!(names(&fake).len(), 2);
    }

    #[test]
    fn an_image_lies_across_regions_at_its_offset() {
        for (offset, size) in [(0, 10), (3, 9), (4, 4), (5, 7), (11, 1), (12, 0)] {
            let mut regions = vec![vec![0; 4]; 3];
            let image: Vec<u8> = (1..=size).collect();
            load(&mut regions, offset, image.as_slice(), size.into()).unwrap();
            let mut expected = vec![0; 12];
            let start = usize::try_from(offset).unwrap();
            expected[start..start + image.len()].copy_from_slice(&image);
            assert_eq!(regions.concat(), expected, "{offset} {size}");
        }
    }
}
