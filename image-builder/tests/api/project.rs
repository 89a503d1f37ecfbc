//! A folder with everything that an image is built from, and the program.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

use tempfile::TempDir;

use crate::image::{Image, app};
use crate::layer::elf;

pub(crate) const MANIFEST: &str =
    "[enclave]\nname = \"test\"\nimage = \"oci:image\"\nmemory_mib = 64\n";

/// How the builder begins to say what it means that a workload runs as root, as most
/// images of these tests have it.
const ROOT_NOTE: &str = "image-builder: note: the workload runs as root, ";

/// What `image-builder build` finds in its folder.
pub(crate) struct Project {
    folder: TempDir,
}

impl Project {
    /// A project that builds.
    pub(crate) fn new() -> Self {
        Self::of(&Image::new(&[app()]))
    }

    /// A project of an image in an OCI layout.
    pub(crate) fn of(image: &Image) -> Self {
        let project = Self {
            folder: tempfile::tempdir().unwrap(),
        };
        image.write_layout(&project.path("image"));
        project.write("enclave.toml", MANIFEST);
        project.write("kernel", kernel());
        project.write("enclave-init", elf());
        fs::create_dir(project.path("tmp")).unwrap();
        project
    }

    pub(crate) fn folder(&self) -> &Path {
        self.folder.path()
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.folder().join(name)
    }

    pub(crate) fn write(&self, name: &str, contents: impl AsRef<[u8]>) {
        fs::write(self.path(name), contents).unwrap();
    }

    /// The manifest with more lines at its end.
    pub(crate) fn manifest(&self, more: &str) {
        self.write("enclave.toml", format!("{MANIFEST}{more}"));
    }

    /// `image-builder build`, all its files named, to `out.eif`.
    pub(crate) fn command(&self) -> Command {
        let mut command = program();
        command
            .current_dir(self.folder())
            .env("TMPDIR", self.path("tmp"))
            .args(["build", "--kernel", "kernel", "--init", "enclave-init"])
            .args(["--output", "out.eif"]);
        command
    }

    /// The same, started by a shell that does something before.
    pub(crate) fn command_after(&self, setup: &str) -> Command {
        let command = self.command();
        let mut shell = Command::new("sh");
        shell
            .args(["-c", &format!("{setup}; exec \"$@\""), "sh"])
            .arg(command.get_program())
            .args(command.get_args())
            .current_dir(self.folder())
            .env("TMPDIR", self.path("tmp"))
            .env_remove("SOURCE_DATE_EPOCH");
        shell
    }

    /// Builds without a note, and gives the image's bytes.
    pub(crate) fn build(&self) -> Vec<u8> {
        let (image, notes) = self.build_with_notes();
        assert_eq!(notes, [""; 0]);
        image
    }

    /// Builds, and gives the image's bytes and what is noted.
    pub(crate) fn build_with_notes(&self) -> (Vec<u8>, Vec<String>) {
        let output = self.command().output().unwrap();
        let message = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{message}");
        let said = message.lines().filter(|line| !line.starts_with(ROOT_NOTE));
        let notes = said.map(|line| {
            let note = line.strip_prefix("image-builder: note: ");
            note.unwrap_or_else(|| panic!("{line}")).to_owned()
        });
        assert!(fs::read_dir(self.path("tmp")).unwrap().next().is_none());
        (fs::read(self.path("out.eif")).unwrap(), notes.collect())
    }

    /// Fails to build, with this exit code and one line with these words, and
    /// leaves the folder as it was. Gives the line.
    #[track_caller]
    pub(crate) fn refused(&self, code: i32, words: &[&str]) -> String {
        self.refuses(self.command(), code, words)
    }

    #[track_caller]
    pub(crate) fn refuses(&self, mut command: Command, code: i32, words: &[&str]) -> String {
        let before = snapshot(self.folder());
        let output = command.output().unwrap();
        let line = error_line(&output);
        assert_eq!(output.status.code(), Some(code), "{line}");
        for word in words {
            assert!(line.contains(word), "`{word}` is not in: {line}");
        }
        assert!(output.stdout.is_empty());
        assert_eq!(snapshot(self.folder()), before, "files have changed");
        line
    }
}

/// The program, with nothing of this test's own environment that it reads.
pub(crate) fn program() -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_image-builder"));
    command
        .env_remove("SOURCE_DATE_EPOCH")
        .env_remove("ENCLAVE_KERNEL")
        .stdin(Stdio::null());
    command
}

/// The one line that a failing program prints.
#[track_caller]
pub(crate) fn error_line(output: &Output) -> String {
    let text = String::from_utf8(output.stderr.clone()).unwrap();
    assert_eq!(text.lines().count(), 1, "not one line: {text}");
    assert!(text.starts_with("image-builder: "), "{text}");
    assert!(!text.trim_end().contains(char::is_control), "{text:?}");
    text.trim_end().to_owned()
}

/// Every file below a folder: its inode, size and time of change.
fn snapshot(folder: &Path) -> BTreeMap<PathBuf, (u64, u64, i64)> {
    let mut files = BTreeMap::new();
    let mut folders = vec![folder.to_owned()];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(folder).unwrap() {
            let entry = entry.unwrap();
            let metadata = entry.metadata().unwrap();
            if metadata.is_dir() {
                folders.push(entry.path());
                files.insert(entry.path(), (metadata.ino(), 0, 0));
            } else {
                let state = (metadata.ino(), metadata.len(), metadata.mtime_nsec());
                files.insert(entry.path(), state);
            }
        }
    }
    files
}

/// The header of a bzImage (Linux, `Documentation/arch/x86/boot.rst`), version 6.12.9.
pub(crate) fn kernel() -> Vec<u8> {
    let mut kernel = vec![0x90; 4096];
    kernel[0x202..0x206].copy_from_slice(b"HdrS");
    kernel[0x20e..0x210].copy_from_slice(&0x400_u16.to_le_bytes());
    kernel[0x600..0x612].copy_from_slice(b"6.12.9 (builder@x)");
    kernel[0x612] = 0;
    kernel
}

/// The magic number of an arm64 `Image` where it belongs.
pub(crate) fn arm_kernel() -> Vec<u8> {
    let mut kernel = vec![0; 4096];
    kernel[0x38..0x3c].copy_from_slice(b"ARM\x64");
    kernel
}
