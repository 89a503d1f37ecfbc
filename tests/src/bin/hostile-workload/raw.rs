//! System calls as a hostile program makes them: by number, by the other doors
//! into the kernel, with arguments that no library would let pass.

use std::ffi::CStr;
use std::io;

use nix::errno::Errno;
use nix::libc;

/// What a call came to.
pub(crate) type Outcome = Result<usize, Errno>;

/// The number of an error.
#[expect(clippy::needless_pass_by_value, reason = "as `map_err` gives it")]
pub(crate) fn errno(error: io::Error) -> Errno {
    Errno::from_raw(error.raw_os_error().unwrap_or(libc::EIO))
}

/// An argument of a system call.
pub(crate) enum Arg<'a> {
    Number(i64),
    Text(&'a CStr),
    Bytes(&'a [u8]),
    Buffer(&'a mut [u8]),
}

impl From<i32> for Arg<'_> {
    fn from(number: i32) -> Self {
        Self::Number(number.into())
    }
}

impl From<i64> for Arg<'_> {
    fn from(number: i64) -> Self {
        Self::Number(number)
    }
}

impl<'a> From<&'a CStr> for Arg<'a> {
    fn from(text: &'a CStr) -> Self {
        Self::Text(text)
    }
}

impl<'a> From<&'a [u8]> for Arg<'a> {
    fn from(bytes: &'a [u8]) -> Self {
        Self::Bytes(bytes)
    }
}

impl<'a> From<&'a mut [u8]> for Arg<'a> {
    fn from(buffer: &'a mut [u8]) -> Self {
        Self::Buffer(buffer)
    }
}

impl Arg<'_> {
    fn word(&mut self) -> i64 {
        match self {
            Self::Number(number) => *number,
            Self::Text(text) => text.as_ptr() as i64,
            Self::Bytes(bytes) => bytes.as_ptr() as i64,
            Self::Buffer(buffer) => buffer.as_mut_ptr() as i64,
        }
    }
}

/// Makes a system call by its number. Buffers must be as large as the call
/// takes them to be.
pub(crate) fn call<const N: usize>(number: i64, mut arguments: [Arg<'_>; N]) -> Outcome {
    let mut words = [0_i64; 6];
    for (word, argument) in words.iter_mut().zip(&mut arguments) {
        *word = argument.word();
    }
    let [first, second, third, fourth, fifth, sixth] = words;
    // SAFETY: whatever the kernel reads or writes is borrowed in `arguments`
    // until the call has returned, and each caller gives buffers of the size that
    // its call defines. Calls that replace the process's memory are not made.
    let result = unsafe { libc::syscall(number, first, second, third, fourth, fifth, sixth) };
    usize::try_from(result).map_err(|_| Errno::last())
}

/// A call of the 32-bit architecture, which has numbers of its own, with up to
/// three numbers as arguments.
#[cfg(target_arch = "x86_64")]
pub(crate) fn call_32_bit(number: u32, [a, b, c]: [u32; 3]) -> Outcome {
    let mut result = u64::from(number);
    // SAFETY: only calls whose arguments are plain numbers are made, so that the
    // kernel touches no memory. The register that the compiler reserves is put
    // back, and the others that the kernel may change are named.
    unsafe {
        std::arch::asm!(
            "xchg {b}, rbx",
            "int 0x80",
            "xchg {b}, rbx",
            b = in(reg) u64::from(a),
            inlateout("rax") result,
            in("rcx") u64::from(b),
            in("rdx") u64::from(c),
            out("r8") _,
            out("r9") _,
            out("r10") _,
            out("r11") _,
        );
    }
    let low = u32::try_from(result & u64::from(u32::MAX)).unwrap_or_default();
    let result = low.cast_signed();
    usize::try_from(result).map_err(|_| Errno::from_raw(-result))
}

/// Forks. The child has only what it needs to end.
pub(crate) fn fork() -> Outcome {
    // SAFETY: this program's command processes have one thread, so that the
    // child may do whatever the parent may.
    let pid = unsafe { libc::fork() };
    usize::try_from(pid).map_err(|_| Errno::last())
}

/// Ends this process at once.
pub(crate) fn end() -> ! {
    // SAFETY: it ends the process and touches nothing.
    unsafe { libc::_exit(0) }
}
