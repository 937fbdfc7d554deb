import ctypes, errno, os, platform, signal, socket, struct, sys, threading, time
_tried = 0
RUNG, LONG = G["rung"], G["long"]
BOXED = RUNG in ("full", "namespaces")
libc = ctypes.CDLL(None, use_errno=True)
def attack(name, call):
    "Tries what must not work: a value that is not None got through."
    global _tried
    _tried += 1
    try:
        got = call()
    except OSError as e:
        print("held", name + ":", errno.errorcode.get(e.errno, e))
    else:
        print("held" if got is None else "BREACH", name + ":", repr(got)[:200])
def tried():
    print("\ntried", _tried, flush=True)
# x86-64, arm64; calls newer than both tables have one number.
NR = {"ptrace": (101, 117), "process_vm_readv": (310, 270), "process_vm_writev": (311, 271), "prlimit64": (302, 261),
      "sched_setaffinity": (203, 122), "sched_setscheduler": (144, 119), "setpriority": (141, 140), "kcmp": (312, 272),
      "mount": (165, 40), "umount2": (166, 39), "pivot_root": (155, 41), "chroot": (161, 51), "unshare": (272, 97),
      "setns": (308, 268), "bpf": (321, 280), "perf_event_open": (298, 241), "userfaultfd": (323, 282),
      "keyctl": (250, 219), "add_key": (248, 217), "request_key": (249, 218), "kexec_load": (246, 104),
      "kexec_file_load": (320, 294), "init_module": (175, 105), "finit_module": (313, 273), "delete_module": (176, 106),
      "quotactl": (179, 60), "swapon": (167, 224), "reboot": (169, 142), "clock_settime": (227, 112),
      "settimeofday": (164, 170), "adjtimex": (159, 171), "sethostname": (170, 161), "syslog": (103, 116),
      "acct": (163, 89), "open_by_handle_at": (304, 265), "name_to_handle_at": (303, 264), "memfd_create": (319, 279),
      "execveat": (322, 281), "personality": (135, 92), "clone": (56, 220), "shmget": (29, 194), "semget": (64, 190),
      "msgget": (68, 186), "mq_open": (240, 180), "inotify_init1": (294, 26), "fanotify_init": (300, 262),
      "io_setup": (206, 0), "seccomp": (317, 277), "syncfs": (306, 267), "move_pages": (279, 239), "migrate_pages": (256, 238),
      "prctl": (157, 167), "exit": (60, 93), "truncate": (76, 45), "setxattr": (188, 5), "modify_ldt": (154, -1),
      "iopl": (172, -1), "ioperm": (173, -1), "vmsplice": (278, 75), "mincore": (27, 232), "shmat": (30, 196), "shmctl": (31, 195),
      "pidfd_send_signal": (424,) * 2, "io_uring_setup": (425,) * 2, "io_uring_enter": (426,) * 2, "io_uring_register": (427,) * 2,
      "open_tree": (428,) * 2, "move_mount": (429,) * 2, "fsopen": (430,) * 2, "fsconfig": (431,) * 2, "fsmount": (432,) * 2,
      "fspick": (433,) * 2, "pidfd_open": (434,) * 2, "clone3": (435,) * 2, "pidfd_getfd": (438,) * 2, "process_madvise": (440,) * 2,
      "mount_setattr": (442,) * 2, "quotactl_fd": (443,) * 2, "memfd_secret": (447,) * 2, "process_mrelease": (448,) * 2,
      "cachestat": (451,) * 2, "fchmodat2": (452,) * 2, "statmount": (457,) * 2, "listmount": (458,) * 2, "open_tree_attr": (467,) * 2}
def nr(name):
    return NR[name][platform.machine() == "aarch64"]
def raw(name, *args):
    "A system call as it is; raises what it says."
    number = name if isinstance(name, int) else nr(name)
    if number < 0:
        raise OSError(errno.ENOSYS, "not of this machine")
    ctypes.set_errno(0)
    result = libc.syscall(ctypes.c_long(number), *[a if isinstance(a, (bytes, ctypes.Array, ctypes.Structure)) or hasattr(a, "_obj") else ctypes.c_long(a) for a in args])
    if result == -1:
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))
    return result
def refused(*names):
    "Each call without arguments; EFAULT and the like would mean that it was let in."
    for name in names:
        def call():
            try:
                return raw(name, 0, 0, 0, 0, 0, 0)
            except OSError as e:
                if e.errno not in (errno.EPERM, errno.ENOSYS):
                    return errno.errorcode[e.errno]
                raise
        attack(str(name), call)
def leaked(path):
    "Something of a file, or None when it is empty; an error when it cannot be opened."
    with open(path, "rb") as f:
        return f.read(64) or None
def listed(path):
    return os.listdir(path) or None
def native(*args):
    "Runs the program in C; its lines are ours."
    import subprocess
    global _tried
    os.chmod("attack", 0o755)
    done = subprocess.run(["./attack", *map(str, args)], stdout=subprocess.PIPE, text=True)
    lines = done.stdout.splitlines()
    _tried += sum(line.startswith(("held ", "BREACH ")) for line in lines)
    print("\n".join(lines))
    print("native ended with", done.returncode)
