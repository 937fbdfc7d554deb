//! Messages with descriptors, for the shared object that has no libc: read from the
//! server and from init, and an errno to init. Must never grow: sizes are fixed.

use core::mem::size_of;
use core::ptr::{addr_of, addr_of_mut, null};

use super::EINTR;
use super::steps::call;

// x86_64.
const SYS_SENDMSG: usize = 46;
const SYS_RECVMSG: usize = 47;

const SOL_SOCKET: i32 = 1;
const SCM_RIGHTS: i32 = 1;
const MSG_NOSIGNAL: usize = 0x4000;
const MSG_CMSG_CLOEXEC: usize = 0x4000_0000;

/// Most descriptors of a message.
pub(super) const MOST_FDS: usize = 24;

#[repr(C)]
struct Vector {
    base: *mut u8,
    length: usize,
}

/// The kernel's `msghdr`.
#[repr(C)]
struct Header {
    name: *const u8,
    name_length: u32,
    vectors: *const Vector,
    count: usize,
    control: *mut u8,
    control_length: usize,
    flags: i32,
}

/// The kernel's `cmsghdr`, and the descriptors after it.
#[repr(C, align(8))]
struct Control {
    length: usize,
    level: i32,
    kind: i32,
    fds: [i32; MOST_FDS],
}

/// Receives a message. Returns its length and how many descriptors came along; 0 when
/// the other side is gone.
pub(super) fn receive(socket: i32, into: &mut [u8], fds: &mut [i32; MOST_FDS]) -> (usize, usize) {
    let mut control = Control {
        length: 0,
        level: 0,
        kind: 0,
        fds: [-1; MOST_FDS],
    };
    let vector = Vector {
        base: into.as_mut_ptr(),
        length: into.len(),
    };
    let length = loop {
        let mut header = Header {
            name: null(),
            name_length: 0,
            vectors: addr_of!(vector),
            count: 1,
            control: addr_of_mut!(control).cast(),
            control_length: size_of::<Control>(),
            flags: 0,
        };
        let place = addr_of_mut!(header) as usize;
        // SAFETY: the header names `into` and `control`, which live as long as the call.
        match unsafe {
            call(
                SYS_RECVMSG,
                [socket as usize, place, MSG_CMSG_CLOEXEC, 0, 0, 0],
            )
        } {
            Ok(length) => break length,
            Err(EINTR) => {}
            Err(_) => break 0,
        }
    };
    let before = size_of::<Control>() - size_of::<[i32; MOST_FDS]>();
    let mut given = 0;
    if control.level == SOL_SOCKET && control.kind == SCM_RIGHTS && control.length > before {
        given = (control.length - before) / size_of::<i32>();
        if given > MOST_FDS {
            given = MOST_FDS;
        }
        fds[..given].copy_from_slice(&control.fds[..given]);
    }
    (length, given)
}

/// Tells init an errno, or that all is well.
pub(super) fn say(socket: i32, errno: i32) {
    let mut bytes = errno.to_le_bytes();
    let vector = Vector {
        base: bytes.as_mut_ptr(),
        length: bytes.len(),
    };
    let header = Header {
        name: null(),
        name_length: 0,
        vectors: addr_of!(vector),
        count: 1,
        control: null::<u8>().cast_mut(),
        control_length: 0,
        flags: 0,
    };
    // Where nobody hears it init is gone, and this process with it.
    super::quiet(
        SYS_SENDMSG,
        [
            socket as usize,
            addr_of!(header) as usize,
            MSG_NOSIGNAL,
            0,
            0,
            0,
        ],
    );
}
