# A second interpreter with the memory of the first: what stands in its way, and the
# fork itself.
#
# kernel.py loads this with the first order to fork. What a fork would not copy soundly
# (threads, children, connections, timers, tasks that wait) is a reason to refuse, told
# in words; nothing is closed or stopped to make it possible.


def forks(state, own, gained, flush):
    import _signal
    import _socket
    import _thread
    import fcntl
    import gc
    import os
    import stat
    import sys
    import warnings

    CHANNEL, spare = own
    fork, leave, getpid = os.fork, os._exit, os.getpid
    # Names of one kind that are told.
    TOLD = 5
    SQLITE = b"SQLite format 3\0"
    # What starts threads of its own when it is used, where nobody can count them.
    THREADED = ("numba", "numexpr", "polars", "pyarrow", "tensorflow", "torch")
    KINDS = ((stat.S_ISSOCK, "a socket"), (stat.S_ISFIFO, "a pipe"), (stat.S_ISCHR, "a device"))
    # /dev/null, zero, random and urandom.
    HARMLESS = [os.makedev(1, minor) for minor in (3, 5, 8, 9)]
    TIMERS = ("ITIMER_REAL", "ITIMER_VIRTUAL", "ITIMER_PROF")

    def some(names):
        names = [str(name) for name in names]
        rest = len(names) - TOLD
        return ", ".join(names[:TOLD]) + (" and %d more" % rest if rest > 0 else "")

    # What stands in the way: each of these gives reasons, with the cure.

    def threads():
        if _thread._count():
            names = []
            threading = sys.modules.get("threading")
            if threading is not None:
                names = [one.name for one in threading.enumerate() if one is not threading.main_thread()]
            yield "threads run (%s): join them, and shut down their pools" % some(names or ["unnamed"])
            return
        try:
            native = len(os.listdir("/proc/self/task")) - 1
        except OSError:
            # Some boxes have no /proc.
            native = 0
            used = [name for name in THREADED if name in sys.modules]
            if used:
                yield "libraries may run threads here that can't be counted (%s)" % some(used)
        # The libraries of numpy start theirs again in a forked process; others don't.
        if native:
            libraries = set()
            for line in mappings():
                name = line.rpartition("/")[2].lower()
                if "openblas" in name or "mkl_rt" in name:
                    libraries.add(name)
            if native > len(libraries) * (len(os.sched_getaffinity(0)) - 1):
                yield "a library runs %d threads of its own, which a fork does not copy" % native

    def children():
        try:
            with open("/proc/self/task/%d/children" % getpid()) as file:
                alive = [int(pid) for pid in file.read().split()]
        except OSError:
            alive = []
            try:
                if os.waitid(os.P_ALL, 0, os.WEXITED | os.WNOHANG | os.WNOWAIT) is None:
                    alive = ["unknown"]
            except ChildProcessError:
                pass
        running = [pid for pid in alive if not ended(pid)]
        if running:
            yield "processes that it started run (%s): wait for them, or end them" % some(running)

    def ended(pid):
        try:
            with open("/proc/%s/stat" % pid, "rb") as file:
                return file.read().rpartition(b")")[2].split()[0] in (b"Z", b"X")
        except OSError:
            return pid != "unknown"

    def timers():
        if any(_signal.getitimer(getattr(_signal, name))[0] for name in TIMERS):
            yield "an alarm or interval timer is set: it would go off in one of them only"

    def tasks():
        loop = state["loop"]
        if loop is None or loop.is_closed():
            return
        import asyncio
        from asyncio import selector_events

        if not isinstance(loop, selector_events.BaseSelectorEventLoop):
            yield "its event loop is of a kind that is not known here"
            return
        waiting = [task for task in asyncio.all_tasks(loop) if not task.done()]
        if waiting:
            yield "tasks wait in its event loop (%s): await or cancel them" % some(
                task.get_name() for task in waiting
            )
            return
        if loop._ready:
            # What the last cell left to be called.
            loop.run_until_complete(asyncio.sleep(0))
        if any(not one.cancelled() for one in [*loop._scheduled, *loop._ready]):
            yield "calls wait in its event loop: let them run, or cancel them"
        if len(loop._selector.get_map()) > 1:
            yield "its event loop waits for descriptors: close their transports"

    def mappings():
        try:
            with open("/proc/self/maps", errors="surrogateescape") as file:
                return file.read().splitlines()
        except OSError:
            # Where there is no /proc, memory can't be shared either.
            return []

    def memory():
        shared = set()
        for line in mappings():
            parts = line.split(None, 5)
            if parts[1][3] == "s" and "w" in parts[1]:
                name = parts[5] if len(parts) > 5 else "unnamed"
                if name.endswith(" (deleted)") or name.startswith(("/dev/", "/SYSV", "/memfd:")) or len(parts) < 6:
                    shared.add(name)
        if shared:
            yield "memory is shared with other processes (%s): close it" % some(sorted(shared))

    def of_loop():
        loop = state["loop"]
        if loop is None or loop.is_closed():
            return ()
        try:
            return loop._selector.fileno(), loop._ssock.fileno(), loop._csock.fileno()
        except AttributeError:
            return ()

    def descriptors(writable, read_only):
        known = {0, 1, 2, CHANNEL, *spare, *gained, *of_loop()}
        others = []
        for number in range(os.sysconf("SC_OPEN_MAX")):
            if number in known:
                continue
            try:
                kind = os.fstat(number).st_mode
            except OSError:
                continue
            try:
                name = os.readlink("/proc/self/fd/%d" % number)
            except OSError:
                name = "descriptor %d" % number
            short = os.path.basename(name)
            if stat.S_ISREG(kind):
                try:
                    database = os.pread(number, len(SQLITE), 0) == SQLITE
                except OSError:
                    database = False
                if database:
                    yield "the database %s is open: close its connection" % short
                elif fcntl.fcntl(number, fcntl.F_GETFL) & os.O_ACCMODE:
                    writable.append(short)
                else:
                    read_only.append(short)
            elif stat.S_ISCHR(kind) and os.fstat(number).st_rdev in HARMLESS:
                pass
            elif not stat.S_ISDIR(kind):
                what = [word for test, word in KINDS if test(kind)]
                others.append("%s as %d" % (what[0] if what else "a kernel object", number))
        if others:
            yield "connections, pipes or the like are open (%s): close them" % some(others)

    # The fork.

    def push():
        # What both would write, each once.
        import io

        kinds = (io.TextIOWrapper, io.BufferedWriter, io.BufferedRandom)
        for one in gc.get_objects():
            try:
                if isinstance(one, kinds) and not one.closed:
                    one.flush()
            except Exception:
                pass

    def renew(loop):
        # An epoll is one for both: a descriptor of the one would wake the other.
        import selectors

        old, sockets = loop._selector, (loop._ssock, loop._csock)
        loop._selector = selectors.DefaultSelector()
        loop._internal_fds = 0
        loop._make_self_pipe()
        old.close()
        for one in sockets:
            one.close()

    def settle():
        # The child, which from now on is an interpreter of its own.
        stdout, stderr = gained[1], gained[2]
        for target, source in ((1, stdout), (2, stderr)):
            os.dup2(source, target)
            os.dup2(source, spare[target - 1], inheritable=False)
        os.dup2(gained[0], CHANNEL, inheritable=False)
        drop()
        state["pid"] = getpid()
        # Its input is the same open file, so the next cell gets one of its own.
        state["stdin"] = True
        loop = state["loop"]
        if loop is not None and not loop.is_closed():
            renew(loop)
        gc.freeze()

    def twice():
        # The child of a child: its parent ends, so that nobody here has to wait for it.
        # Gives the child's number here, and 0 in the child; None where there is no room.
        reading, writing = os.pipe()
        middle = fork()
        if middle == 0:
            try:
                if fork() == 0:
                    # A session of its own, before anybody hears of it.
                    os.setsid()
                    os.write(writing, b"%d" % getpid())
                    os.close(reading)
                    os.close(writing)
                    return 0
            except BaseException:
                pass
            leave(0)
        os.close(writing)
        number = os.read(reading, 20)
        os.close(reading)
        try:
            os.waitpid(middle, 0)
        except ChildProcessError:
            pass
        return int(number) if number else None

    def split(tell):
        # In the child this returns True, in the first interpreter False.
        numbers = sys.modules.get("random")
        kept = numbers.getstate() if hasattr(numbers, "getstate") else None
        blocked = {_signal.SIGINT, _signal.SIGCHLD}
        before = _signal.pthread_sigmask(_signal.SIG_BLOCK, blocked)
        state["forking"] = True
        try:
            with warnings.catch_warnings():
                # Newer Pythons warn of threads, which were looked for.
                warnings.simplefilter("ignore")
                made = twice()
            if made == 0:
                try:
                    settle()
                    if kept is not None:
                        # The module begins anew in a child; both have the same state here.
                        numbers.setstate(kept)
                except BaseException:
                    leave(1)
                return True
        except OSError as error:
            made, reason = None, error.strerror
        else:
            reason = "there is no room for another process"
        finally:
            state["forking"] = False
            _signal.pthread_sigmask(_signal.SIG_SETMASK, before)
        tell(made, [reason] if made is None else notes)
        return False

    notes = []

    def take():
        # The child's descriptors, which come with a byte of their own.
        room = _socket.CMSG_SPACE(3 * 4)
        channel = _socket.socket(fileno=CHANNEL)
        try:
            _byte, extra, _flags, _from = channel.recvmsg(1, room)
        finally:
            channel.detach()
        del gained[:]
        for level, kind, data in extra:
            if level == _socket.SOL_SOCKET and kind == _socket.SCM_RIGHTS:
                whole = len(data) // 4 * 4
                gained.extend(int.from_bytes(data[at:at + 4], sys.byteorder) for at in range(0, whole, 4))

    def drop():
        for number in gained:
            try:
                os.close(number)
            except OSError:
                pass
        del gained[:]

    def ordered(tell):
        take()
        del notes[:]
        try:
            if len(gained) != 3:
                tell(None, ["its descriptors did not come"])
                return False
            writable, read_only = [], []
            reasons = []
            for look in (threads(), children(), timers(), tasks(), memory(), descriptors(writable, read_only)):
                try:
                    reasons.extend(look)
                except (OSError, AttributeError) as error:
                    reasons.append("what it holds can't be looked at: %s" % error)
            if reasons:
                tell(None, reasons)
                return False
            flush()
            if writable:
                push()
                notes.append("both write to the same open files: " + some(sorted(writable)))
            if read_only:
                notes.append("both read on at one place in the open files: " + some(sorted(read_only)))
            return split(tell)
        finally:
            drop()

    return ordered
