//! What a kernel image says of itself (Linux, `Documentation/arch/x86/boot.rst`).

use eif::Architecture;

/// Bytes of a kernel that are looked at.
pub(crate) const HEAD_BYTES: u64 = 64 * 1024;

const X86_MAGIC: (usize, &[u8]) = (0x202, b"HdrS");
const X86_VERSION_POINTER: usize = 0x20e;
const X86_VERSION_BASE: usize = 0x200;
/// `Documentation/arch/arm64/booting.rst`.
const ARM64_MAGIC: (usize, &[u8]) = (0x38, b"ARM\x64");

/// The processor and version of the kernel that begins with `head`.
pub(crate) fn identify(head: &[u8]) -> Result<(Architecture, String), String> {
    let has = |(offset, magic): (usize, &[u8])| {
        head.get(offset..)
            .is_some_and(|rest| rest.starts_with(magic))
    };
    if has(ARM64_MAGIC) {
        return Ok((Architecture::Aarch64, "unknown".to_owned()));
    }
    if !has(X86_MAGIC) {
        return Err("this is not a kernel image: give a bzImage, or an arm64 Image".to_owned());
    }
    let pointer = head
        .get(X86_VERSION_POINTER..)
        .and_then(|bytes| bytes.first_chunk())
        .map_or(0, |bytes| usize::from(u16::from_le_bytes(*bytes)));
    let version = head
        .get(X86_VERSION_BASE.saturating_add(pointer)..)
        .and_then(|bytes| bytes.split(|&byte| byte == 0 || byte == b' ').next())
        .filter(|text| pointer != 0 && text.len() < 128 && text.is_ascii())
        .map_or_else(
            || "unknown".to_owned(),
            |text| String::from_utf8_lossy(text).into_owned(),
        );
    Ok((Architecture::X86_64, version))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn kernel(pointer: u16, version: &[u8]) -> Vec<u8> {
        let mut kernel = vec![0; 0x600];
        kernel[0x202..0x206].copy_from_slice(b"HdrS");
        kernel[0x20e..0x210].copy_from_slice(&pointer.to_le_bytes());
        kernel[0x400..0x400 + version.len()].copy_from_slice(version);
        kernel
    }

    #[test]
    fn a_kernel_says_its_version() {
        let version = |kernel: &[u8]| identify(kernel).unwrap().1;
        assert_eq!(version(&kernel(0x200, b"6.12.9 (a@b) #1")), "6.12.9");
        assert_eq!(version(&kernel(0, b"6.12.9")), "unknown");
        assert_eq!(version(&kernel(u16::MAX, b"6.12.9")), "unknown");
        assert_eq!(version(&kernel(0x200, b"6.\xff ")), "unknown");
        assert_eq!(version(&kernel(0x200, &[b'6'; 200])), "unknown");
        let whole = kernel(0x200, b"6.12.9");
        for length in 0..whole.len() {
            let _ = identify(&whole[..length]);
        }
    }
}
