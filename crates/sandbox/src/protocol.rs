//! Frames between server, warden and init, over `SOCK_SEQPACKET` sockets.
//!
//! One message is one frame: a kind byte, then fields. Descriptors ride along
//! as `SCM_RIGHTS`. Every decoder is bounded and total: any bytes decode or
//! fail, none panic.
//!
//! | from → to | frame | descriptors |
//! |---|---|---|
//! | warden → server | `Hello` once | |
//! | server → warden | `Create` | init's socket, monitor socket |
//! | server → warden | `CreateZygote` | its socket, monitor socket, command |
//! | server → warden, monitor | `Measure`, `Kill`, `LiveOn`, `Asleep`, `Idle` | |
//! | warden → server, monitor | `Usage`, `Gone`, `Failed` | |
//! | init → server | `Explained`, before `Ready`, if asked | counts of denied calls |
//! | init → server | `Ready` | workspace, temporary directory, entrance (if any) |
//! | server → init | `Exec` | command, then what comes [`Along`] |
//! | server → init | `CopyIn`, answered by `CopiedIn` | a command, for its files |
//! | init → server | `Started` | stdout, stderr |
//! | init → server | `Exited`, `Failed` | |
//! | server → init | `Launch` | command, then what comes [`Along`] |
//! | init → server | `Launched` | stdout, stderr |
//! | init → server | `Ended`, `NotLaunched` | |
//! | server → init | `Signal`, `Stop`, `GoOn` | |
//! | init → server | `Stopped` | |
//! | server → init | `Port`, answered by `Ended` alone | content (if any) |
//! | server → init | `Adopt`, answered by `Adopted` or `NotLaunched` | |
//! | server → init, init → server | `SelfTest`, `SelfTested` | |

mod fields;

use std::io::{self, IoSlice, IoSliceMut};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt as _;
use std::path::PathBuf;
use std::time::Duration;

use rustix::net::{
    AddressFamily, RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, ReturnFlags,
    SendAncillaryBuffer, SendAncillaryMessage, SendFlags, SocketFlags, SocketType,
};

use crate::error::{Error, Step};
use crate::exit::{Exit, How};
use crate::limits::{Limits, Usage};
use crate::porter::Work;
use crate::spec::{Mount, Spec};
pub(crate) use fields::{Along, Reader, Writer};

/// Largest frame in bytes; a `Create` with two hundred long mounts fits.
const MAX_FRAME: usize = 64 * 1024;
/// Most descriptors on one frame.
const MAX_FDS: usize = 24;

/// A frame.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Frame {
    Hello {
        cgroup: String,
        own_uids: bool,
        /// Where what boxes see is to be put, on the rungs where they see it
        /// in place; else empty.
        shared: PathBuf,
    },
    /// The second says whether denied calls are to be told.
    Create(Spec, bool),
    Measure,
    Kill,
    Usage(Usage),
    Gone(Usage),
    Failed {
        step: Step,
        errno: i32,
        detail: String,
    },
    /// Start an interpreter that is forked into boxes.
    CreateZygote(Spec),
    Explained,
    Ready {
        /// How many of the descriptors are namespaces; 0 where nobody enters the box.
        namespaces: u8,
    },
    /// Run a program alone.
    Exec(Along),
    /// Write files for a program that waits.
    CopyIn,
    CopiedIn,
    Started,
    Exited(Exit),
    SelfTest(Targets),
    SelfTested(Vec<(String, bool, String)>),
    /// Kill the box after so long from now on, or never.
    LiveOn(Option<Duration>),
    /// Whether all of the box's programs are stopped, so that nothing in it changes.
    Asleep(bool),
    Launch {
        program: u32,
        along: Along,
    },
    Launched(u32),
    NotLaunched {
        program: u32,
        step: Step,
        errno: i32,
        detail: String,
    },
    Ended(u32, Exit),
    Signal {
        program: u32,
        signal: i32,
    },
    Stop,
    Stopped,
    GoOn,
    /// Whether the box has the processors only when nobody else wants them.
    Idle(bool),
    /// Work on files, done as a program of its own.
    Port {
        program: u32,
        work: Work,
    },
    /// Take a process of the box that its parent left for a program of its own.
    Adopt {
        program: u32,
        /// Its number, as the box's programs see it.
        pid: i32,
    },
    Adopted(u32),
}

/// What the probe's attacks aim at.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Targets {
    /// The server's number.
    pub(crate) server: u32,
    /// The warden's.
    pub(crate) warden: u32,
    /// A file of the host that everybody may read; empty when there was no place
    /// for one.
    pub(crate) canary: PathBuf,
    /// Where the server listens on the host's loopback.
    pub(crate) port: u32,
    /// Where it listens by name (an abstract unix socket).
    pub(crate) name: String,
}

impl From<&Error> for Frame {
    fn from(error: &Error) -> Self {
        Self::Failed {
            step: error.step,
            errno: error.errno(),
            detail: error.wire_detail(),
        }
    }
}

impl Frame {
    pub(crate) fn encode(&self) -> Vec<u8> {
        let mut out = Writer::default();
        match self {
            Self::Hello {
                cgroup,
                own_uids,
                shared,
            } => {
                out.u8(0);
                out.bytes(cgroup.as_bytes());
                out.u8(u8::from(*own_uids));
                out.bytes(shared.as_os_str().as_bytes());
            }
            Self::Create(spec, explain) => {
                out.u8(1);
                encode_spec(spec, &mut out);
                out.u8(u8::from(*explain));
            }
            Self::Measure => out.u8(2),
            Self::Kill => out.u8(3),
            Self::Usage(usage) => {
                out.u8(4);
                encode_usage(usage, &mut out);
            }
            Self::Gone(usage) => {
                out.u8(5);
                encode_usage(usage, &mut out);
            }
            Self::Failed {
                step,
                errno,
                detail,
            } => {
                out.u8(6);
                out.u8(*step as u8);
                out.i32(*errno);
                out.bytes(detail.as_bytes());
            }
            Self::CreateZygote(spec) => {
                out.u8(30);
                encode_spec(spec, &mut out);
            }
            Self::Ready { namespaces } => {
                out.u8(7);
                out.u8(*namespaces);
            }
            Self::Started => out.u8(9),
            Self::Exited(exit) => {
                out.u8(10);
                encode_exit(exit, &mut out);
            }
            Self::Explained => out.u8(13),
            Self::SelfTest(targets) => {
                out.u8(11);
                out.u32(targets.server);
                out.u32(targets.warden);
                out.bytes(targets.canary.as_os_str().as_bytes());
                out.u32(targets.port);
                out.bytes(targets.name.as_bytes());
            }
            Self::SelfTested(findings) => {
                out.u8(12);
                out.u32(u32::try_from(findings.len()).unwrap_or(u32::MAX));
                for (name, holds, detail) in findings {
                    out.bytes(name.as_bytes());
                    out.u8(u8::from(*holds));
                    out.bytes(detail.as_bytes());
                }
            }
            _ => self.encode_of_programs(&mut out),
        }
        out.finish()
    }

    /// Encodes what is said of programs that run side by side.
    fn encode_of_programs(&self, out: &mut Writer) {
        match self {
            Self::Launch { program, along } => {
                out.u8(16);
                out.u32(*program);
                along.encode(out);
            }
            Self::Launched(program) => {
                out.u8(17);
                out.u32(*program);
            }
            Self::NotLaunched {
                program,
                step,
                errno,
                detail,
            } => {
                out.u8(18);
                out.u32(*program);
                out.u8(*step as u8);
                out.i32(*errno);
                out.bytes(detail.as_bytes());
            }
            Self::Ended(program, exit) => {
                out.u8(19);
                out.u32(*program);
                encode_exit(exit, out);
            }
            Self::Signal { program, signal } => {
                out.u8(20);
                out.u32(*program);
                out.i32(*signal);
            }
            Self::Exec(along) => {
                out.u8(8);
                along.encode(out);
            }
            Self::LiveOn(lifetime) => {
                out.u8(14);
                out.lifetime(*lifetime);
            }
            Self::Asleep(asleep) => {
                out.u8(15);
                out.u8(u8::from(*asleep));
            }
            Self::Idle(idle) => {
                out.u8(25);
                out.u8(u8::from(*idle));
            }
            Self::CopyIn => out.u8(28),
            Self::CopiedIn => out.u8(29),
            Self::Stop => out.u8(21),
            Self::Stopped => out.u8(22),
            Self::GoOn => out.u8(23),
            Self::Port { program, work } => {
                out.u8(24);
                out.u32(*program);
                work.encode(out);
            }
            Self::Adopt { program, pid } => {
                out.u8(26);
                out.u32(*program);
                out.i32(*pid);
            }
            Self::Adopted(program) => {
                out.u8(27);
                out.u32(*program);
            }
            _ => unreachable!("encode() takes all others"),
        }
    }

    fn decode_of_programs(kind: u8, input: &mut Reader<'_>) -> Result<Self, Error> {
        Ok(match kind {
            16 => Self::Launch {
                program: input.u32()?,
                along: Along::decode(input)?,
            },
            17 => Self::Launched(input.u32()?),
            18 => Self::NotLaunched {
                program: input.u32()?,
                step: Step::from_wire(input.u8()?).ok_or_else(malformed)?,
                errno: input.i32()?,
                detail: input.text()?,
            },
            19 => Self::Ended(input.u32()?, decode_exit(input)?),
            20 => Self::Signal {
                program: input.u32()?,
                signal: input.i32()?,
            },
            21 => Self::Stop,
            22 => Self::Stopped,
            23 => Self::GoOn,
            24 => Self::Port {
                program: input.u32()?,
                work: Work::decode(input)?,
            },
            26 => Self::Adopt {
                program: input.u32()?,
                pid: input.i32()?,
            },
            27 => Self::Adopted(input.u32()?),
            _ => return Err(malformed()),
        })
    }

    pub(crate) fn decode(bytes: &[u8]) -> Result<Self, Error> {
        let mut input = Reader::new(bytes);
        let frame = match input.u8()? {
            0 => Self::Hello {
                cgroup: input.text()?,
                own_uids: input.u8()? != 0,
                shared: input.path()?,
            },
            1 => Self::Create(decode_spec(&mut input)?, input.u8()? != 0),
            2 => Self::Measure,
            3 => Self::Kill,
            4 => Self::Usage(decode_usage(&mut input)?),
            5 => Self::Gone(decode_usage(&mut input)?),
            6 => Self::Failed {
                step: Step::from_wire(input.u8()?).ok_or_else(malformed)?,
                errno: input.i32()?,
                detail: input.text()?,
            },
            7 => Self::Ready {
                namespaces: input.u8()?,
            },
            8 => Self::Exec(Along::decode(&mut input)?),
            30 => Self::CreateZygote(decode_spec(&mut input)?),
            28 => Self::CopyIn,
            29 => Self::CopiedIn,
            9 => Self::Started,
            10 => Self::Exited(decode_exit(&mut input)?),
            11 => Self::SelfTest(Targets {
                server: input.u32()?,
                warden: input.u32()?,
                canary: input.path()?,
                port: input.u32()?,
                name: input.text()?,
            }),
            12 => {
                let mut findings = Vec::new();
                for _ in 0..input.u32()? {
                    findings.push((input.text()?, input.u8()? != 0, input.text()?));
                }
                Self::SelfTested(findings)
            }
            13 => Self::Explained,
            14 => Self::LiveOn(input.lifetime()?),
            15 => Self::Asleep(input.flag()?),
            25 => Self::Idle(input.flag()?),
            kind => Self::decode_of_programs(kind, &mut input)?,
        };
        input.end()?;
        Ok(frame)
    }
}

fn encode_spec(spec: &Spec, out: &mut Writer) {
    out.u32(u32::try_from(spec.mounts.len()).unwrap_or(u32::MAX));
    for mount in &spec.mounts {
        out.bytes(mount.source.as_os_str().as_bytes());
        out.bytes(mount.target.as_os_str().as_bytes());
    }
    let limits = &spec.limits;
    out.u64(limits.memory);
    out.u32(limits.processes);
    out.u32(limits.cpu_millis);
    out.u64(limits.workspace);
    out.u64(limits.inodes);
    out.u64(limits.shm);
    out.u64(limits.open_files);
    out.lifetime(spec.lifetime);
    out.u8(u8::from(spec.adopts));
}

fn decode_spec(input: &mut Reader<'_>) -> Result<Spec, Error> {
    let mut mounts = Vec::new();
    for _ in 0..input.u32()? {
        mounts.push(Mount {
            source: input.path()?,
            target: input.path()?,
        });
    }
    let limits = Limits {
        memory: input.u64()?,
        processes: input.u32()?,
        cpu_millis: input.u32()?,
        workspace: input.u64()?,
        inodes: input.u64()?,
        shm: input.u64()?,
        open_files: input.u64()?,
    };
    Ok(Spec {
        mounts,
        limits,
        lifetime: input.lifetime()?,
        adopts: input.flag()?,
    })
}

fn encode_usage(usage: &Usage, out: &mut Writer) {
    out.duration(usage.cpu_time);
    out.u64(usage.memory_peak);
    out.u64(usage.oom_kills);
    out.u64(usage.forks_refused);
}

fn decode_usage(input: &mut Reader<'_>) -> Result<Usage, Error> {
    Ok(Usage {
        cpu_time: input.duration()?,
        memory_peak: input.u64()?,
        oom_kills: input.u64()?,
        forks_refused: input.u64()?,
    })
}

fn encode_exit(exit: &Exit, out: &mut Writer) {
    let (kind, value) = match exit.how {
        How::Exited(code) => (0, code),
        How::Signalled(signal) => (1, signal),
    };
    out.u8(kind);
    out.i32(value);
    out.duration(exit.wall_time);
    out.duration(exit.cpu_time);
    out.u64(exit.memory_peak);
    out.u8(u8::from(exit.over_memory));
    out.u8(u8::from(exit.over_disk));
}

fn decode_exit(input: &mut Reader<'_>) -> Result<Exit, Error> {
    let how = match (input.u8()?, input.i32()?) {
        (0, code) => How::Exited(code),
        (1, signal) => How::Signalled(signal),
        _ => return Err(malformed()),
    };
    Ok(Exit {
        how,
        wall_time: input.duration()?,
        cpu_time: input.duration()?,
        memory_peak: input.u64()?,
        over_memory: input.u8()? != 0,
        over_disk: input.u8()? != 0,
    })
}

/// A connected pair, closed on exec.
pub(crate) fn pair() -> io::Result<(OwnedFd, OwnedFd)> {
    Ok(rustix::net::socketpair(
        AddressFamily::UNIX,
        SocketType::SEQPACKET,
        SocketFlags::CLOEXEC,
        None,
    )?)
}

/// Sends a frame, blocking while the receiver's buffer is full.
pub(crate) fn send(socket: impl AsFd, frame: &Frame, fds: &[BorrowedFd<'_>]) -> io::Result<()> {
    let bytes = frame.encode();
    if bytes.len() > MAX_FRAME {
        return Err(io::Error::from_raw_os_error(libc::EMSGSIZE));
    }
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(MAX_FDS))];
    let mut control = SendAncillaryBuffer::new(&mut space);
    if !fds.is_empty() && !control.push(SendAncillaryMessage::ScmRights(fds)) {
        return Err(io::ErrorKind::InvalidInput.into());
    }
    rustix::io::retry_on_intr(|| {
        rustix::net::sendmsg(
            &socket,
            &[IoSlice::new(&bytes)],
            &mut control,
            SendFlags::NOSIGNAL,
        )
    })?;
    Ok(())
}

/// What a receive brought.
#[derive(Debug)]
pub(crate) enum Received {
    /// A frame and its descriptors.
    Frame(Frame, Vec<OwnedFd>),
    /// Nothing there yet (only without `blocking`).
    Nothing,
    /// The other side is gone.
    Closed,
}

/// Receives a frame.
pub(crate) fn receive(socket: impl AsFd, blocking: bool) -> Result<Received, Error> {
    let mut bytes = vec![0u8; MAX_FRAME];
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(MAX_FDS))];
    let mut control = RecvAncillaryBuffer::new(&mut space);
    let mut flags = RecvFlags::CMSG_CLOEXEC;
    if !blocking {
        flags |= RecvFlags::DONTWAIT;
    }
    let mut try_once = || {
        rustix::io::retry_on_intr(|| {
            rustix::net::recvmsg(
                &socket,
                &mut [IoSliceMut::new(&mut bytes)],
                &mut control,
                flags,
            )
        })
    };
    let got = match try_once() {
        // Said once when the other side is gone and had not read everything,
        // and before what it sent itself: its last words are still there.
        Err(rustix::io::Errno::CONNRESET) => try_once(),
        got => got,
    };
    let length = match got {
        // A cut frame, or one whose descriptors did not fit, is none.
        Ok(message)
            if message
                .flags
                .intersects(ReturnFlags::TRUNC | ReturnFlags::CTRUNC) =>
        {
            return Err(malformed());
        }
        Ok(message) => message.bytes,
        Err(rustix::io::Errno::AGAIN) => return Ok(Received::Nothing),
        Err(rustix::io::Errno::CONNRESET | rustix::io::Errno::PIPE) => return Ok(Received::Closed),
        Err(errno) => return Err(Error::new(Step::Frame, errno)),
    };
    if length == 0 {
        return Ok(Received::Closed);
    }
    let mut fds = Vec::new();
    for message in control.drain() {
        if let RecvAncillaryMessage::ScmRights(rights) = message {
            fds.extend(rights);
        }
    }
    let frame = Frame::decode(bytes.get(..length).ok_or_else(malformed)?)?;
    Ok(Received::Frame(frame, fds))
}

pub(crate) fn malformed() -> Error {
    Error::new(Step::Frame, io::Error::from(io::ErrorKind::InvalidData))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn last_words_are_heard_though_the_other_side_did_not_listen() {
        let (ours, theirs) = pair().unwrap();
        send(&ours, &Frame::Kill, &[]).unwrap();
        send(&theirs, &Frame::Gone(Usage::default()), &[]).unwrap();
        drop(theirs);
        let heard = receive(&ours, false).unwrap();
        assert!(
            matches!(heard, Received::Frame(Frame::Gone(_), _)),
            "{heard:?}"
        );
        assert!(matches!(receive(&ours, false).unwrap(), Received::Closed));
    }

    fn limits() -> Limits {
        Limits {
            memory: 1,
            processes: 2,
            cpu_millis: 3,
            workspace: 4,
            inodes: 5,
            shm: 6,
            open_files: 7,
        }
    }

    const ALONG: Along = Along {
        stdin: true,
        channel: false,
        arrival: true,
    };

    fn spec() -> Spec {
        Spec {
            mounts: vec![Mount::same("/usr/bin")],
            limits: limits(),
            lifetime: Some(Duration::from_millis(8)),
            adopts: true,
        }
    }

    fn exit(how: How) -> Exit {
        Exit {
            how,
            wall_time: Duration::from_secs(1),
            cpu_time: Duration::from_micros(2),
            memory_peak: 3,
            over_memory: true,
            over_disk: true,
        }
    }

    fn every_frame() -> Vec<Frame> {
        let mut frames = of_single_programs();
        frames.extend(of_programs());
        frames
    }

    fn of_single_programs() -> Vec<Frame> {
        let usage = Usage {
            cpu_time: Duration::from_nanos(9),
            memory_peak: 10,
            oom_kills: 11,
            forks_refused: 12,
        };
        vec![
            Frame::Hello {
                cgroup: "v1".to_owned(),
                own_uids: true,
                shared: PathBuf::from("/tmp/shared"),
            },
            Frame::Create(spec(), true),
            Frame::Explained,
            Frame::Measure,
            Frame::Kill,
            Frame::Usage(usage),
            Frame::Gone(usage),
            Frame::Failed {
                step: Step::Proc,
                errno: 1,
                detail: "x".to_owned(),
            },
            Frame::CreateZygote(spec()),
            Frame::Ready { namespaces: 7 },
            Frame::Exec(ALONG),
            Frame::CopyIn,
            Frame::CopiedIn,
            Frame::Started,
            Frame::Exited(exit(How::Exited(3))),
            Frame::Exited(exit(How::Signalled(9))),
            Frame::SelfTest(Targets {
                server: 7,
                warden: 8,
                canary: "/tmp/canary".into(),
                port: 65_535,
                name: "name".to_owned(),
            }),
            Frame::SelfTested(vec![("root".to_owned(), true, "read-only".to_owned())]),
        ]
    }

    fn of_programs() -> Vec<Frame> {
        vec![
            Frame::LiveOn(Some(Duration::from_secs(1))),
            Frame::LiveOn(None),
            Frame::Asleep(true),
            Frame::Idle(true),
            Frame::Launch {
                program: 1,
                along: ALONG,
            },
            Frame::Launched(2),
            Frame::NotLaunched {
                program: 3,
                step: Step::Exec,
                errno: 2,
                detail: "x".to_owned(),
            },
            Frame::Ended(4, exit(How::Exited(0))),
            Frame::Signal {
                program: 5,
                signal: 2,
            },
            Frame::Stop,
            Frame::Stopped,
            Frame::GoOn,
            Frame::Adopt { program: 8, pid: 9 },
            Frame::Adopted(8),
            Frame::Port {
                program: 6,
                work: Work::Put(b"a/b".to_vec()),
            },
            Frame::Port {
                program: 7,
                work: Work::Move {
                    from: b"a".to_vec(),
                    to: b"b".to_vec(),
                },
            },
        ]
    }

    #[test]
    fn every_frame_survives_the_wire_and_no_shorter_one_decodes() {
        for frame in every_frame() {
            let bytes = frame.encode();
            assert_eq!(Frame::decode(&bytes).unwrap(), frame);
            for cut in 0..bytes.len() {
                assert!(
                    Frame::decode(&bytes[..cut]).is_err(),
                    "{frame:?} cut at {cut}"
                );
            }
            let mut longer = bytes;
            longer.push(0);
            assert!(Frame::decode(&longer).is_err());
        }
    }

    #[test]
    fn descriptors_ride_along() {
        let (a, b) = pair().unwrap();
        send(&a, &Frame::CopyIn, &[a.as_fd()]).unwrap();
        let Received::Frame(Frame::CopyIn, fds) = receive(&b, true).unwrap() else {
            panic!("no frame");
        };
        assert_eq!(fds.len(), 1);
        assert!(matches!(receive(&b, false).unwrap(), Received::Nothing));
        drop((a, fds));
        assert!(matches!(receive(&b, true).unwrap(), Received::Closed));
    }

    proptest! {
        #[test]
        fn any_bytes_decode_or_fail(bytes: Vec<u8>) {
            if let Ok(frame) = Frame::decode(&bytes) {
                prop_assert_eq!(Frame::decode(&frame.encode()).unwrap(), frame);
            }
        }
    }
}
