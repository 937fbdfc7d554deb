//! What boxes are made of on a rung: namespaces, or uids alone.

use rustix::process::DumpableBehavior;
use rustix::thread::{CapabilitiesSecureBits, CapabilitySet, UnshareFlags};

use crate::cgroup::Cgroups;
use crate::claim::Claim;
use crate::error::{At, Error, Step};
use crate::idmap::{self, HostIds, SLOTS};
use crate::support::Isolation;
use crate::sys;
use crate::uids::{self, Uids};

/// What boxes are made of.
#[derive(Debug)]
pub(super) enum Ground {
    /// Namespaces of their own.
    Namespaces {
        host_ids: HostIds,
        /// Keeps other servers from the same ids.
        _claim: Option<Claim>,
    },
    /// Uids of their own.
    Uids(Uids),
}

impl Ground {
    /// What a rung's boxes will be made of, and the cgroups for them.
    ///
    /// # Errors
    /// The step that this process may not do.
    pub(super) fn prepare(rung: Isolation) -> Result<(Self, Option<Cgroups>), Error> {
        match rung {
            Isolation::Full | Isolation::Namespaces => {
                // Before any change of namespace: cgroup paths are read as they are here.
                let cgroups = (rung == Isolation::Full).then(Cgroups::find).transpose()?;
                Ok((Self::namespaces()?, cgroups))
            }
            Isolation::Uids => Ok((Self::uids()?, None)),
        }
    }

    fn namespaces() -> Result<Self, Error> {
        // Without a range to choose from, as in a container that has few ids,
        // the server's own id stands behind all boxes.
        let claim = if holds(IDS) && !idmap::free_bases()?.is_empty() {
            Some(Claim::take()?)
        } else {
            None
        };
        let host_ids = match &claim {
            Some(claim) if holds(PRIVILEGED) => HostIds::Range { base: claim.base() },
            // Root in a container: its own user namespace, but ids of our choice.
            Some(claim) => idmap::enter_with(claim.base())?,
            None => idmap::enter_alone()?,
        };
        sys::unshare(UnshareFlags::NEWNS).at(Step::MountNamespace)?;
        rustix::mount::mount_change(
            "/",
            rustix::mount::MountPropagationFlags::PRIVATE
                | rustix::mount::MountPropagationFlags::REC,
        )
        .at(Step::MountNamespace)?;
        if matches!(host_ids, HostIds::Range { .. }) {
            // Unprivileged, this would close a new box's uid_map to the warden
            // itself. Boxes cannot see the warden in either case, and it holds
            // nothing that others of its uid do not have.
            hide()?;
            // So that this process keeps its capabilities while it is the owner of a
            // box for a moment.
            rustix::thread::set_capabilities_secure_bits(CapabilitiesSecureBits::NO_SETUID_FIXUP)
                .at(Step::Capabilities)?;
        }
        Ok(Self::Namespaces {
            host_ids,
            _claim: claim,
        })
    }

    fn uids() -> Result<Self, Error> {
        hide()?;
        // Orphans of a box whose init died come to the warden.
        let me = rustix::process::getpid();
        rustix::process::set_child_subreaper(Some(me)).at(Step::StartWarden)?;
        Ok(Self::Uids(Uids::claim()?))
    }

    /// Boxes that may live at once.
    pub(super) fn slots(&self) -> u32 {
        match self {
            // The last id is the zygotes'.
            Self::Namespaces { .. } => SLOTS - 1,
            Self::Uids(_) => uids::SLOTS,
        }
    }

    /// Whether each box has a host uid of its own.
    pub(super) fn own_uids(&self) -> bool {
        match self {
            Self::Namespaces { host_ids, .. } => matches!(host_ids, HostIds::Range { .. }),
            Self::Uids(_) => true,
        }
    }
}

fn hide() -> Result<(), Error> {
    rustix::process::set_dumpable_behavior(DumpableBehavior::NotDumpable).at(Step::Warden)
}

/// What it takes to map ids of one's choice.
const IDS: CapabilitySet = CapabilitySet::SETUID.union(CapabilitySet::SETGID);
/// What it takes to do without a user namespace of one's own: ids, mounts, networks, and
/// to keep all of these as the owner of a box.
const PRIVILEGED: CapabilitySet = IDS
    .union(CapabilitySet::SETPCAP)
    .union(CapabilitySet::SYS_ADMIN)
    .union(CapabilitySet::NET_ADMIN);

fn holds(needed: CapabilitySet) -> bool {
    rustix::thread::capabilities(None).is_ok_and(|sets| sets.effective.contains(needed))
}
