# Says where this Bash really is: `key=value` lines on standard output.
#
# It runs on the host, as the server's user, and starts no other program. `mount`
# names what Bash needs besides the system's own directories.
echo "version=${BASH_VERSINFO[0]}.${BASH_VERSINFO[1]}.${BASH_VERSINFO[2]}"
echo "interpreter=$BASH"

# Shared libraries may lie anywhere (rpath); loaded ones say where.
while read -r _ _ _ _ _ path; do
  case ${path##*/} in
    *.so*) echo "mount=${path%/*}" ;;
  esac
done < /proc/self/maps
