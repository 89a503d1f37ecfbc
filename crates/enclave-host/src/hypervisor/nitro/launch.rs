//! The calls that make an enclave, in their order, which is that of the driver's own sample.

use std::io::{self, Read};

use super::driver::{ANY_CPU, DEBUG_MODE, Driver, IS_EIF, Machine, ORDINARY_MEMORY, Pages, Region};
use super::error::LaunchError;

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
    bytes.next_multiple_of(Pages::Small.bytes())
}

/// Makes the machine, fills it from `image`, which has `size` bytes, and starts it.
pub(super) fn launch(
    driver: &Driver,
    plan: &Plan,
    image: impl Read,
    size: u64,
) -> Result<Machine, LaunchError> {
    let machine = driver.create()?;
    let offset = machine.image_offset(IS_EIF)?;
    let end = offset.saturating_add(size);
    if end > plan.memory {
        return Err(LaunchError::ImageTooLarge {
            needed: end.div_ceil(1 << 20),
            memory: plan.memory >> 20,
        });
    }
    let mut regions = map(plan, Region::map)?;
    load(&mut regions, offset, image.take(size), size)?;
    for region in &regions {
        machine.add_memory(ORDINARY_MEMORY, region.address(), region.size())?;
    }
    for _ in 0..plan.cpus {
        machine.add_cpu(ANY_CPU)?;
    }
    let flags = if plan.debug { DEBUG_MODE } else { 0 };
    machine.start(flags, plan.cid.into())?;
    Ok(machine)
}

/// Pages for the memory, the largest that there are. All of a size are one region if the
/// kernel has so many: a machine has a limited number of them, and the driver makes one of
/// pages that follow each other in one region.
fn map<R>(
    plan: &Plan,
    mut map: impl FnMut(Pages, u64) -> io::Result<R>,
) -> Result<Vec<R>, LaunchError> {
    let mut regions = Vec::new();
    let mut left = plan.memory;
    let mut last = io::Error::from(io::ErrorKind::InvalidInput);
    for pages in [Pages::Large, Pages::Small] {
        let mut count = left / pages.bytes();
        while count > 0 {
            match map(pages, count) {
                Ok(region) => {
                    regions.push(region);
                    left -= count * pages.bytes();
                    count = count.min(left / pages.bytes());
                }
                Err(error) => {
                    last = error;
                    count /= 2;
                }
            }
        }
    }
    if left > 0 {
        return Err(LaunchError::NoHugePages {
            mapped: (plan.memory - left) >> 20,
            wanted: plan.memory >> 20,
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

#[cfg(test)]
mod tests {
    use super::*;

    const MIB: u64 = 1 << 20;

    fn plan(mib: u64) -> Plan {
        Plan {
            memory: mib * MIB,
            cpus: 2,
            cid: 20,
            debug: false,
            node: Some(1),
        }
    }

    /// The regions that are made where the kernel has so many large and small pages: their
    /// pages in MiB, and how many.
    fn mapped(mib: u64, mut large: u64, mut small: u64) -> Result<Vec<(u64, u64)>, LaunchError> {
        map(&plan(mib), |pages, count| {
            let left = match pages {
                Pages::Large => &mut large,
                Pages::Small => &mut small,
            };
            *left = left.checked_sub(count).ok_or(io::ErrorKind::OutOfMemory)?;
            Ok((pages.bytes() / MIB, count))
        })
    }

    #[test]
    fn large_pages_are_taken_first_and_small_ones_fill_up() {
        for (mib, large, small, regions) in [
            (256, 0, 128, vec![(2, 128)]),
            (2048, 2, 0, vec![(1024, 2)]),
            (1028, 1, 2, vec![(1024, 1), (2, 2)]),
            (3076, 1, 2000, vec![(1024, 1), (2, 1026)]),
            // The kernel has two of three.
            (3072, 2, 512, vec![(1024, 1), (1024, 1), (2, 512)]),
        ] {
            assert_eq!(mapped(mib, large, small).unwrap(), regions, "{mib}");
        }
    }

    #[test]
    fn memory_is_made_of_whole_pages() {
        for (mib, pages) in [(16, 8), (17, 9), (18, 9)] {
            assert_eq!(whole_pages(mib * MIB), pages * 2 * MIB);
        }
    }

    #[test]
    fn too_few_pages_are_counted_and_named_with_what_to_do() {
        for there in [0, 1, 3, 7] {
            let text = mapped(16, 0, there).unwrap_err().to_string();
            let counted = format!("{} MiB of 16 MiB", 2 * there);
            assert!(text.starts_with(&counted), "{text}");
            assert!(text.contains("on NUMA node 1"), "{text}");
            assert!(text.contains("parent-agent bootstrap"), "{text}");
        }
    }

    #[test]
    fn an_image_that_ends_too_early_is_no_image() {
        let error = load(&mut [vec![0; 100]], 0, &[7; 10][..], 100).unwrap_err();
        assert!(matches!(error, LaunchError::Image(_)), "{error}");
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
