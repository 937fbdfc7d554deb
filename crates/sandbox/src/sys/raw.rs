//! System calls by number, for tests that compare the kernel with the policy.

use std::io;

use super::check;

/// An argument of a raw call.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Argument {
    /// As it is.
    Value(u64),
    /// The address of 64 bytes of zeros that live as long as the call, and
    /// longer than anything that it may write.
    Buffer,
    /// The address of a page of its own, mapped for ever.
    Page,
}

/// Makes a call. The test says in its table why the call is harmless.
///
/// # Errors
/// The call's errno.
pub(crate) fn call(number: u32, args: [Argument; 6]) -> io::Result<i64> {
    let mut buffers = [[0u64; 8]; 6];
    let mut words = [0u64; 6];
    for ((word, arg), buffer) in words.iter_mut().zip(args).zip(&mut buffers) {
        *word = match arg {
            Argument::Value(value) => value,
            Argument::Buffer => buffer.as_mut_ptr() as u64,
            Argument::Page => page() as u64,
        };
    }
    let number = libc::c_long::from(number);
    let [a, b, c, d, e, f] = words;
    // SAFETY: tests only, with calls that write no more than a buffer holds.
    check(unsafe { libc::syscall(number, a, b, c, d, e, f) })
}

/// The errno that a call gives which a filter denies, 0 if it succeeded.
/// Allocates nothing, so that a fork of a process with threads may use it.
pub(crate) fn errno_of(number: u32, args: [u64; 6]) -> i32 {
    // The sign-extended number of a call beyond what an int holds is what the
    // kernel cuts to 32 bits.
    let number = libc::c_long::from(number.cast_signed());
    let [a, b, c, d, e, f] = args;
    // SAFETY: tests only, with calls that the filter denies, or that do nothing.
    match unsafe { libc::syscall(number, a, b, c, d, e, f) } {
        -1 => io::Error::last_os_error().raw_os_error().unwrap_or(0),
        _ => 0,
    }
}

/// What became of a `clone` whose flags have high bits: the errno, 0 when it
/// made a child as if they were not there.
pub(crate) fn clone_with(flags: u64) -> i32 {
    // SAFETY: without a stack it is a fork, and the child leaves at once.
    let made = unsafe { libc::syscall(libc::SYS_clone, flags, 0, 0, 0, 0) };
    match made {
        0 => super::exit_now(0),
        -1 => io::Error::last_os_error().raw_os_error().unwrap_or(0),
        _ => 0,
    }
}

fn page() -> *mut libc::c_void {
    // SAFETY: a mapping at an address of the kernel's choice touches no memory of ours.
    unsafe {
        libc::mmap(
            std::ptr::null_mut(),
            4096,
            libc::PROT_READ | libc::PROT_WRITE,
            libc::MAP_PRIVATE | libc::MAP_ANONYMOUS,
            -1,
            0,
        )
    }
}
