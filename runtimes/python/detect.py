# Says where this interpreter really is: `key=value` lines on standard output.
#
# It runs on the host, as the server's user. `mount` names what the interpreter
# needs besides the system's own directories; a shim in PATH says nothing of it.
import os
import platform
import sys
import sysconfig

places = [sys.prefix, sys.exec_prefix, sys.base_prefix, sys.base_exec_prefix]
places.append(os.path.dirname(os.path.realpath(sys.executable)))

# Shared libraries may lie anywhere (rpath); loaded ones say where.
for name in ("ctypes", "hashlib", "ssl", "sqlite3", "bz2", "lzma", "zlib", "readline", "curses", "uuid"):
    try:
        __import__(name)
    except ImportError:
        pass
with open("/proc/self/maps") as maps:
    for line in maps:
        path = line.rstrip("\n").partition("/")[2]
        if ".so" in os.path.basename(path):
            places.append(os.path.dirname("/" + path))

print("version=" + platform.python_version())
print("interpreter=" + sys.executable)
# Such as cpython-311-x86_64-linux-gnu: a package compiled for one loads in no other.
print("abi=" + str(sysconfig.get_config_var("SOABI")))
for place in sorted(set(places)):
    print("mount=" + place)
