//! Failures of the sandbox itself, each naming the step that failed.
//!
//! A step crosses two process borders (init → warden → server) as one byte
//! and an errno, so nothing is formatted where allocation might be wrong.

use std::io;

/// The steps, each with the words that follow "failed to". One list makes the
/// enum, the words and the wire bytes, so that none can be forgotten.
macro_rules! steps {
    ($($(#[$doc:meta])* $name:ident = $words:literal,)*) => {
        /// What was being done when the sandbox failed.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
        #[repr(u8)]
        #[non_exhaustive]
        pub enum Step {
            $($(#[$doc])* $name,)*
        }

        impl Step {
            const ALL: &[Self] = &[$(Self::$name,)*];

            /// What was being done, to follow "failed to".
            #[must_use]
            pub fn as_str(self) -> &'static str {
                match self {
                    $(Self::$name => $words,)*
                }
            }
        }
    };
}

steps! {
    /// Starting the warden process.
    StartWarden = "start the warden",
    /// Talking to the warden.
    Warden = "talk to the warden",
    /// Talking to a box's init.
    Init = "talk to the box's init",
    /// Decoding a frame.
    Frame = "decode a frame",
    /// Creating the warden's user namespace.
    UserNamespace = "create a user namespace",
    /// Creating the warden's mount namespace.
    MountNamespace = "create a mount namespace",
    /// Writing id maps.
    IdMap = "write id maps",
    /// Creating a network namespace.
    NetworkNamespace = "create a network namespace",
    /// Bringing up the loopback device.
    Loopback = "bring up the loopback device",
    /// Finding a cgroup to work in.
    CgroupRoot = "find a writable cgroup",
    /// Creating a box's cgroup.
    CgroupCreate = "create a cgroup",
    /// Setting a limit in a box's cgroup.
    CgroupLimit = "set a cgroup limit",
    /// Moving a box into its cgroup.
    CgroupAttach = "enter the cgroup",
    /// Reading a box's cgroup.
    CgroupRead = "read the cgroup",
    /// Creating a box's processes and namespaces.
    Clone = "clone a box",
    /// Opening a path that a box needs to see.
    OpenMount = "open a path for the box",
    /// Changing to the box's user.
    Identity = "change to the box's user",
    /// Making the box's root file system.
    Root = "make the root file system",
    /// Placing a host path into the box.
    Bind = "place a host path into the box",
    /// Making the box's `/dev`.
    Dev = "make /dev",
    /// Mounting the box's `/proc`.
    Proc = "mount /proc",
    /// Making the workspace.
    Workspace = "make the workspace",
    /// Making the directories of a box that has no root of its own.
    Room = "make the box's directories",
    /// Ending and deleting what a box without a root of its own left.
    ClearAway = "clear away a dead box",
    /// Writing the box's `/etc`.
    Etc = "write /etc",
    /// Pivoting into the box's root.
    Pivot = "pivot into the root",
    /// Setting the box's host name.
    Hostname = "set the host name",
    /// Hiding the host's cgroup path.
    CgroupNamespace = "create a cgroup namespace",
    /// Opening what a zygote's program enters the box by.
    Entrance = "open the box for a zygote",
    /// Starting a zygote, or asking it for a program.
    Zygote = "use the zygote",
    /// Dropping capabilities.
    Capabilities = "drop capabilities",
    /// Setting resource limits.
    Rlimits = "set resource limits",
    /// Closing descriptors.
    CloseFds = "close descriptors",
    /// Setting `no_new_privs`.
    NoNewPrivs = "set no_new_privs",
    /// Enforcing Landlock rules.
    Landlock = "enforce Landlock rules",
    /// Installing the system-call filter.
    Seccomp = "install the system-call filter",
    /// Counting what a box is denied.
    Explain = "count denied calls",
    /// Tying the box's life to the warden's.
    DeathSignal = "tie the box to the warden",
    /// Reading the command.
    Command = "read the command",
    /// Writing an input file.
    CopyIn = "write an input file",
    /// Making output pipes.
    Pipes = "make output pipes",
    /// Forking the program.
    Fork = "fork the program",
    /// Starting the program's executable.
    Exec = "start the program",
    /// Taking a process for a program.
    Adopt = "take a process for a program",
    /// Waiting for the program.
    Wait = "wait for the program",
    /// Attacking the sandbox to see that it holds.
    SelfTest = "show that the sandbox holds",
    /// Killing a box.
    Kill = "kill the box",
    /// Offering a box to the kernel's out-of-memory killer before the server.
    OomScore = "set the out-of-memory score",
    /// Removing a dead box's cgroup.
    CgroupRemove = "remove the cgroup",
    /// Taking the places of the warden's standard streams.
    StandardStreams = "replace the standard streams",
    /// Putting init out of its program's reach.
    Private = "make init private",
    /// Handing over the command.
    Seal = "hand over the command",
}

impl Step {
    /// The step behind a wire byte.
    pub(crate) fn from_wire(byte: u8) -> Option<Self> {
        Self::ALL.get(usize::from(byte)).copied()
    }
}

/// A failure of the sandbox: ours, never user code's.
#[derive(Debug, thiserror::Error)]
#[expect(
    clippy::error_impl_error,
    reason = "the crate's one error, named as std names its own"
)]
#[error("failed to {}{}", step.as_str(), fmt_detail(detail))]
pub struct Error {
    /// What was being done.
    pub step: Step,
    /// What it was done to, or what to do about it; may be empty.
    pub detail: String,
    /// The kernel's reason.
    #[source]
    pub source: io::Error,
}

fn fmt_detail(detail: &str) -> String {
    if detail.is_empty() {
        String::new()
    } else {
        format!(" ({detail})")
    }
}

impl Error {
    pub(crate) fn new(step: Step, source: impl Into<io::Error>) -> Self {
        Self {
            step,
            detail: String::new(),
            source: source.into(),
        }
    }

    pub(crate) fn with(mut self, detail: impl Into<String>) -> Self {
        self.detail = detail.into();
        self
    }

    /// The nearest errno: what crosses a process border.
    pub(crate) fn errno(&self) -> i32 {
        self.source
            .raw_os_error()
            .unwrap_or(match self.source.kind() {
                io::ErrorKind::NotFound => libc::ENOENT,
                io::ErrorKind::PermissionDenied => libc::EPERM,
                io::ErrorKind::TimedOut => libc::ETIMEDOUT,
                io::ErrorKind::InvalidData | io::ErrorKind::InvalidInput => libc::EINVAL,
                io::ErrorKind::UnexpectedEof => libc::EPIPE,
                _ => libc::EIO,
            })
    }

    /// The detail, with what an errno cannot say.
    pub(crate) fn wire_detail(&self) -> String {
        let said = self.source.raw_os_error().is_some() || self.source.get_ref().is_none();
        match (said, self.detail.is_empty()) {
            (true, _) => self.detail.clone(),
            (false, true) => self.source.to_string(),
            (false, false) => format!("{}: {}", self.detail, self.source),
        }
    }
}

/// Names the step of a fallible call.
pub(crate) trait At<T> {
    fn at(self, step: Step) -> Result<T, Error>;
}

impl<T, E: Into<io::Error>> At<T> for Result<T, E> {
    fn at(self, step: Step) -> Result<T, Error> {
        self.map_err(|source| Error::new(step, source))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_step_survives_the_wire_and_has_words() {
        for step in Step::ALL {
            assert_eq!(Step::from_wire(*step as u8), Some(*step));
            assert!(!step.as_str().is_empty());
        }
        assert_eq!(Step::from_wire(255), None);
    }

    #[test]
    fn an_error_without_an_errno_keeps_its_kind_and_words() {
        let check = |source: io::Error, errno, words: &str| {
            let error = Error::new(Step::Landlock, source);
            assert_eq!(error.errno(), errno);
            assert!(
                error.wire_detail().contains(words),
                "{}",
                error.wire_detail()
            );
        };
        check(io::Error::from_raw_os_error(libc::EPERM), libc::EPERM, "");
        check(io::ErrorKind::NotFound.into(), libc::ENOENT, "");
        check(io::ErrorKind::TimedOut.into(), libc::ETIMEDOUT, "");
        check(
            io::Error::other("no such access"),
            libc::EIO,
            "no such access",
        );
    }
}
