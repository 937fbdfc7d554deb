# Makes a network of the test's own, in which the metadata addresses exist, and
# shared memory that no other program of this machine has; becomes the test there: ground.py UID PROGRAM [ARGUMENT...]
import ctypes, fcntl, os, socket, struct, sys

CLONE_NEWNET, CLONE_NEWIPC = 0x40000000, 0x08000000
SIOCGIFFLAGS, SIOCSIFFLAGS, SIOCSIFADDR, SIOCSIFNETMASK = 0x8913, 0x8914, 0x8916, 0x891C

uid = int(sys.argv[1])
libc = ctypes.CDLL(None, use_errno=True)
if libc.unshare(CLONE_NEWNET | CLONE_NEWIPC) != 0:
    sys.exit("no network and IPC namespaces: %s; run as root" % os.strerror(ctypes.get_errno()))

def request(name, family=socket.AF_INET, address="0.0.0.0"):
    return struct.pack("16sH2s4s8x", name, family, b"\0\0", socket.inet_aton(address))

with socket.socket() as s:
    flags = struct.unpack("16xH22x", fcntl.ioctl(s, SIOCGIFFLAGS, request(b"lo") + b"\0" * 8))[0]
    fcntl.ioctl(s, SIOCSIFFLAGS, struct.pack("16sH22x", b"lo", flags | 1))
    fcntl.ioctl(s, SIOCSIFADDR, request(b"lo:1", address="169.254.169.254"))
    fcntl.ioctl(s, SIOCSIFNETMASK, request(b"lo:1", address="255.255.255.255"))
with socket.socket(socket.AF_INET6, socket.SOCK_DGRAM) as s:
    address = socket.inet_pton(socket.AF_INET6, "fd00:ec2::254")
    fcntl.ioctl(s, SIOCSIFADDR, struct.pack("16sIi", address, 128, socket.if_nametoindex("lo")))
# The listeners there have the real ports, whoever starts them.
with open("/proc/sys/net/ipv4/ip_unprivileged_port_start", "w") as f:
    f.write("0")
if uid:
    os.setgroups([])
    os.setresgid(uid, uid, uid)
    os.setresuid(uid, uid, uid)
os.execv(sys.argv[2], sys.argv[2:])
