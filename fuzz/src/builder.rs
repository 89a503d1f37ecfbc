//! What the targets share that build enclave images of foreign bytes.

use std::fs::{self, File};
use std::io::BufReader;
use std::path::{Path, PathBuf};

use enclave_host::image::Image;
use enclave_host::ramdisk::{Owners, Unpacker};
use image_builder::{BuildTime, Built, Inputs, build, describe_image};

/// Most memory that one input takes, in KiB.
pub const MEMORY_KIB: usize = 4096;

/// The beginning of a static x86-64 program.
pub const ELF: &[u8] = b"\x7fELF\x02\x01\x01\0\0\0\0\0\0\0\0\0\x02\0\x3e\0";

/// A folder with what enclave images are built from, but for the container image.
pub struct Project(PathBuf);

impl Project {
    /// A folder that is never removed.
    pub fn new(manifest: &str) -> Self {
        let project = Self(tempfile::tempdir().expect("a folder").keep());
        let write =
            |name: &str, bytes: &[u8]| fs::write(project.path(name), bytes).expect("a file");
        write("enclave.toml", manifest.as_bytes());
        write("init", ELF);
        let mut kernel = vec![0; 1024];
        kernel[0x202..0x206].copy_from_slice(b"HdrS");
        write("kernel", &kernel);
        project
    }

    /// A file in the folder.
    pub fn path(&self, name: &str) -> PathBuf {
        self.0.join(name)
    }

    fn build(&self, output: &Path) -> Result<Built, image_builder::BuildError> {
        let inputs = Inputs {
            manifest: &self.path("enclave.toml"),
            kernel: &self.path("kernel"),
            init: &self.path("init"),
            enclave_kms: &self.path("enclave-kms"),
            output,
            measurements: None,
            platform: None,
            signing: None,
            build_time: BuildTime::default(),
        };
        build(&inputs, &mut |_| {})
    }

    /// Builds, and asserts that the image is refused as such, or gives an enclave image
    /// without problems whose ramdisks the agent can unpack, and the same one again. Gives
    /// the folder that they were unpacked to.
    pub fn check(&self) -> Option<tempfile::TempDir> {
        let path = self.path("image.eif");
        let built = match self.build(&path) {
            Ok(built) => built,
            Err(error) => {
                assert!(matches!(error.exit_code(), 2 | 3), "{error}");
                return None;
            }
        };
        let description = describe_image(&path).expect("an image that was built");
        assert!(
            description.image.problems.is_empty(),
            "{:?}",
            description.image.problems
        );
        assert_eq!(description.image.measurements, built.measurements);
        let again = self.build(&self.path("again.eif")).expect("the same image");
        assert_eq!(again.measurements, built.measurements);
        let root = tempfile::tempdir().expect("a folder");
        let image = Image::open(&path).expect("an image that was built");
        let mut unpacker = Unpacker::new(root.path(), image.host().memory_mib, Owners::Caller);
        let mut file = File::open(&path).expect("the image");
        for ramdisk in image.ramdisks() {
            let contents = ramdisk.contents(&mut file).expect("a ramdisk");
            let unpacked = unpacker.unpack(BufReader::new(contents));
            unpacked.expect("a ramdisk that was built");
        }
        Some(root)
    }
}

/// Puts the checksums of what could be headers of a tar archive right, which no fuzzer
/// guesses.
pub fn put_checksums_right(archive: &mut [u8]) {
    for block in archive.as_chunks_mut::<512>().0 {
        if block[257..].starts_with(b"ustar") {
            block[148..156].fill(b' ');
            let sum: u32 = block.iter().map(|&byte| u32::from(byte)).sum();
            block[148..155].copy_from_slice(format!("{sum:06o}\0").as_bytes());
        }
    }
}
