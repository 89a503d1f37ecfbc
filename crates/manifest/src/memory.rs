//! The memory that an enclave needs to start.

use crate::units::{MIN_MEMORY_MIB, MemoryMib};

const MIB: u64 = 1024 * 1024;
/// AWS's tool starts no image that is larger than this part of the enclave's memory
/// (AWS, "nitro-cli run-enclave").
const MEMORY_PER_IMAGE: u64 = 4;
/// What the kernel and the init take of any memory, in bytes.
const KERNEL: u64 = 32 * MIB;
/// The part of the memory that files cannot have: they are unpacked into a file system
/// of 95% of it (`initramfs_options` on the kernel's command line), less the kernel's
/// record of each page, 64 bytes for 4096.
const KERNEL_PART: u64 = 12;

/// The least memory, in MiB, that an enclave starts with: for an image of
/// `image_bytes`, as it is stored, whose files take `unpacked_bytes` of memory: whole
/// pages, and an inode for each.
///
/// Both are in memory at once, because the kernel gives an archive's memory back
/// only when all of it has been unpacked. With less, it panics or leaves the last
/// files out. The project's kernel was seen to start with this under QEMU, and not
/// with 1 MiB less (all in MiB):
///
/// | image | unpacked | least that started | rule |
/// |---|---|---|---|
/// | 5.1 | 6.1 | 64, the least of all | 64 |
/// | 45.1, incompressible | 46.1 | 115 | 181, by AWS's rule |
/// | 5.2, zeros | 106.1 | 139 | 157 |
/// | 52.2, text | 106.1 | 185 | 209, by AWS's rule |
/// | 5.4, 30 000 small files | 152.6 | 183 | 208 |
/// | 205.2, incompressible | 206.1 | 446 | 821, by AWS's rule |
/// | 5.7, zeros | 606.1 | 669 | 703 |
///
/// It is enough to start, not for what the workload needs.
pub fn needed_mib(image_bytes: u64, unpacked_bytes: u64) -> u64 {
    let by_aws = image_bytes.saturating_mul(MEMORY_PER_IMAGE);
    let both = image_bytes.saturating_add(unpacked_bytes);
    // The least memory that holds its own part for the kernel.
    let with_kernel = u128::from(both.saturating_add(KERNEL)) * u128::from(KERNEL_PART)
        / u128::from(KERNEL_PART - 1);
    let with_kernel = u64::try_from(with_kernel).unwrap_or(u64::MAX);
    by_aws
        .max(with_kernel)
        .div_ceil(MIB)
        .max(u64::from(MIN_MEMORY_MIB))
}

impl MemoryMib {
    /// What files can surely have of it in a machine, in bytes: the rest is the kernel's.
    pub const fn for_files(self) -> u64 {
        let bytes = self.bytes();
        bytes - bytes / KERNEL_PART - KERNEL
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// Image, files and the least memory that started, as in the table above.
    const MEASURED: [(f64, f64, u64); 7] = [
        (5.1, 6.1, 64),
        (45.1, 46.1, 115),
        (5.2, 106.1, 139),
        (52.2, 106.1, 185),
        (5.4, 152.6, 183),
        (205.2, 206.1, 446),
        (5.7, 606.1, 669),
    ];

    #[test]
    fn memory_that_is_needed_is_no_less_than_what_starts() {
        #[expect(
            clippy::cast_possible_truncation,
            clippy::cast_sign_loss,
            reason = "small and positive"
        )]
        let bytes = |mib: f64| (mib * 1024.0 * 1024.0) as u64;
        for (image, unpacked, least) in MEASURED {
            let needed = needed_mib(bytes(image), bytes(unpacked));
            assert!(needed >= least, "{image}, {unpacked}: {needed}");
        }
        assert_eq!(needed_mib(0, 0), 64);
        assert_eq!(needed_mib(10 * MIB, 100 * MIB), 155);
        assert_eq!(needed_mib(100 * MIB, 100 * MIB), 400);
        assert_eq!(needed_mib(u64::MAX, u64::MAX), u64::MAX.div_ceil(MIB));
    }

    #[test]
    fn memory_for_files_is_no_more_than_in_a_machine() {
        // MiB of memory, and KiB of the root file system, in QEMU with the project's kernel.
        for (memory, root) in [(64, 45_440), (256, 229_992), (1024, 964_336)] {
            let files = MemoryMib::holding(memory * MIB).unwrap().for_files();
            assert!(files <= root * 1024, "{memory}: {files}");
            assert!(files > root * 1024 / 2, "{memory}: {files}");
        }
    }

    proptest! {
        #[test]
        fn memory_that_is_needed_has_room_for_the_files(
            image in 0u64..1 << 30,
            unpacked in 0u64..1 << 38,
        ) {
            let needed = needed_mib(image, unpacked) * MIB;
            let memory = MemoryMib::holding(needed).unwrap();
            prop_assert!(memory.for_files() >= unpacked);
        }

        #[test]
        fn memory_that_is_needed_holds_the_image_its_files_and_the_kernel(
            image in 0u64..1 << 40,
            unpacked in 0u64..1 << 40,
        ) {
            let needed = needed_mib(image, unpacked) * MIB;
            prop_assert!(needed >= image + unpacked + KERNEL + needed / KERNEL_PART - MIB);
            prop_assert!(needed >= image * MEMORY_PER_IMAGE);
        }
    }
}
