//! Memory files and memory itself.

use std::ffi::CStr;
use std::io::{self, Read as _, Write as _};
use std::os::fd::{BorrowedFd, OwnedFd};

use rustix::fs::{MemfdFlags, SealFlags};

/// `bytes` in a memory file that nobody can change any more, at offset 0.
///
/// # Errors
/// `ENOMEM`, `EMFILE`.
pub(crate) fn sealed_memory(name: &CStr, bytes: &[u8]) -> io::Result<OwnedFd> {
    let fd = rustix::fs::memfd_create(name, MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING)?;
    let mut file = std::fs::File::from(fd);
    file.write_all(bytes)?;
    let fd = OwnedFd::from(file);
    rustix::fs::fcntl_add_seals(
        &fd,
        SealFlags::SEAL | SealFlags::SHRINK | SealFlags::GROW | SealFlags::WRITE,
    )?;
    rustix::fs::seek(&fd, rustix::fs::SeekFrom::Start(0))?;
    Ok(fd)
}

/// A memory file of zeros whose size nobody can change any more.
///
/// # Errors
/// `ENOMEM`, `EMFILE`.
pub(crate) fn fixed_memory(name: &CStr, length: u64) -> io::Result<OwnedFd> {
    let fd = rustix::fs::memfd_create(name, MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING)?;
    rustix::fs::ftruncate(&fd, length)?;
    rustix::fs::fcntl_add_seals(&fd, SealFlags::SEAL | SealFlags::SHRINK | SealFlags::GROW)?;
    Ok(fd)
}

/// All of a regular or memory file from its start, at most `limit` bytes.
///
/// # Errors
/// `InvalidData` when it is longer.
pub(crate) fn read_whole(fd: BorrowedFd<'_>, limit: u64) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    let file = std::fs::File::from(fd.try_clone_to_owned()?);
    file.take(limit + 1).read_to_end(&mut bytes)?;
    if bytes.len() as u64 > limit {
        return Err(io::ErrorKind::InvalidData.into());
    }
    Ok(bytes)
}

/// Maps `length` bytes of private memory, writes to every page and leaves them
/// mapped: for a process that is about to end.
///
/// # Errors
/// `ENOMEM` when the mapping is refused. Where a memory limit holds, the
/// kernel kills the caller instead.
pub(crate) fn touch(length: usize) -> io::Result<()> {
    // SAFETY: an anonymous mapping at an address of the kernel's choice
    // touches no memory of ours.
    let start = unsafe {
        libc::mmap(
            std::ptr::null_mut(),
            length,
            libc::PROT_READ | libc::PROT_WRITE,
            libc::MAP_PRIVATE | libc::MAP_ANONYMOUS,
            -1,
            0,
        )
    };
    if start == libc::MAP_FAILED {
        return Err(io::Error::last_os_error());
    }
    for offset in (0..length).step_by(4096) {
        // SAFETY: `offset` is below `length`, so this lies in the mapping.
        let page = unsafe { start.cast::<u8>().add(offset) };
        // SAFETY: the page is mapped writable, and nobody else knows of it.
        unsafe { page.write_volatile(1) };
    }
    Ok(())
}
