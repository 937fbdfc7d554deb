# Ubuntu 23.10 and later give ordinary users no namespaces; this gives them to
# this one program. As /etc/apparmor.d/codex-server, then
# `apparmor_parser -r /etc/apparmor.d/codex-server`.
abi <abi/4.0>,
include <tunables/global>

profile codex-server /usr/local/bin/codex-server flags=(unconfined) {
  userns,
}
