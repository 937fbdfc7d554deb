#!/bin/sh
# Installs the codex-server of a release, without root, below ~/.local.
#
# `cargo xtask dist` puts this beside the tarballs and fills in the two lines
# below. Never replaces a binary by one whose checksum does not agree with
# SHA256SUMS or that does not run here, and never touches data or settings.
set -eu

# The release that this came with, and where it is; {version} stands for the first.
release=''
address=''

usage() {
  cat <<'END'
Installs codex-server for this user: the binary, its manual and completions.

  sh install.sh [OPTIONS]

  --from WHERE       where the release is: an address (https, http, file) or a
                     directory; also INSTALL_FROM. {version} in it is replaced.
                     Default: where this script is, when SHA256SUMS lies beside
                     it, else the address that it came with
  --version VERSION  which version, such as 0.1.0; the script's own when left out
  --prefix DIR       install into DIR/bin and DIR/share (default: ~/.local)
  --uninstall        remove what was installed; data and tokens stay
  --dry-run          say what would be done, and do nothing
  --help             this text
END
}

say() { printf '%s\n' "$*"; }

fail() {
  printf 'install.sh: %s\n' "$*" >&2
  exit 1
}

# All is in here, so that of a download that was cut off nothing is run.
main() {
  from=${INSTALL_FROM-}
  version=$release
  prefix=''
  uninstall=''
  dry=''
  scratch=''
  fresh=''
  options "$@"

  if [ -z "$prefix" ]; then
    [ -n "${HOME-}" ] || fail 'HOME is not set; say where to install: --prefix DIR'
    prefix=$HOME/.local
  fi
  case $prefix in /*) ;; *) prefix=$(pwd)/$prefix ;; esac
  binary=$prefix/bin/codex-server
  share=$prefix/share

  if [ -n "$uninstall" ]; then
    remove
    return
  fi

  machine
  origin
  [ -n "$version" ] || fail 'this script came with no release; name a version: --version 0.1.0'
  case $version in *[!0-9A-Za-z.+-]*) fail "$version is no version; one is 0.1.0" ;; esac
  from=$(printf '%s\n' "$from" | sed "s/{version}/$version/g")
  name=codex-server-$version-$arch-linux
  downloader

  say "codex-server $version for $arch"
  say "  from  $from"
  say "  to    $binary, with manual and completions in $share"
  if [ -n "$dry" ]; then
    say 'nothing was done: --dry-run'
    return
  fi
  install_it
}

options() {
  while [ $# -gt 0 ]; do
    case $1 in
      --from | --version | --prefix)
        [ -n "${2-}" ] || fail "$1 takes a value; see --help"
        case $1 in
          --from) from=$2 ;;
          --version) version=${2#v} ;;
          --prefix) prefix=$2 ;;
        esac
        shift
        ;;
      --uninstall) uninstall=yes ;;
      --dry-run) dry=yes ;;
      --help | -h) usage; exit 0 ;;
      *) fail "$1 is no option; see --help" ;;
    esac
    shift
  done
}

# Sets `arch` to this machine's processor as tarballs are called.
machine() {
  system=$(uname -s)
  [ "$system" = Linux ] || fail "codex-server runs on Linux, and this is $system: use a Linux machine, or a virtual one"
  arch=$(uname -m)
  case $arch in
    x86_64 | amd64) arch=x86_64 ;;
    aarch64 | arm64) arch=aarch64 ;;
    *) fail "there is no codex-server for the processor $arch: only for x86_64 and aarch64" ;;
  esac
}

# Sets `from` to where the release is.
origin() {
  if [ -z "$from" ]; then
    # Piped into a shell this has no place of its own, and looks at none.
    case $0 in
      */install.sh | install.sh)
        beside=$(dirname "$0")
        [ ! -f "$beside/SHA256SUMS" ] || from=$(cd "$beside" && pwd)
        ;;
    esac
  fi
  from=${from:-$address}
  [ -n "$from" ] || fail 'where is the release? Name an address or a directory: --from WHERE'
  from=${from%/}
  case $from in
    https://* | http://*) ;;
    file://*) from=${from#file://} ;;
    *://*) fail "$from is no address that this can fetch from: https, http, file, or a directory" ;;
  esac
}

# Sets `fetcher` to what fetches from there.
downloader() {
  case $from in
    http://* | https://*)
      if command -v curl >/dev/null; then
        fetcher=curl
      elif command -v wget >/dev/null; then
        fetcher=wget
      else
        fail 'neither curl nor wget is here: install one of them, or fetch the files and name their directory by --from'
      fi
      ;;
    *)
      fetcher=copy
      [ -d "$from" ] || fail "there is no directory $from"
      ;;
  esac
}

# Fetches the file $1 of the release into the scratch directory.
fetch() {
  case $fetcher in
    # Who asked for https is not led to anything weaker.
    curl)
      case $from in https://*) schemes='=https' ;; *) schemes='=http,https' ;; esac
      curl -fsSL --retry 2 --proto "$schemes" -o "$scratch/$1" "$from/$1"
      ;;
    wget) wget -q -O "$scratch/$1" "$from/$1" ;;
    copy) cp "$from/$1" "$scratch/$1" ;;
  esac || fail "could not fetch $from/$1"
}

# Sets `found` to the SHA-256 of the file $1.
sum() {
  if command -v sha256sum >/dev/null; then
    found=$(sha256sum "$1")
  elif command -v shasum >/dev/null; then
    found=$(shasum -a 256 "$1")
  else
    fail 'sha256sum is not here, and nothing is installed without a check: install coreutils'
  fi
  found=${found%% *}
}

tidy_up() {
  [ -z "$scratch" ] || rm -rf "$scratch"
  [ -z "$fresh" ] || rm -f "$fresh"
}

install_it() {
  trap tidy_up EXIT
  trap 'exit 1' HUP INT TERM
  scratch=$(mktemp -d) || fail 'could not make a directory for the download'

  fetch SHA256SUMS
  expected=$(awk -v name="$name.tar.gz" '$2 == name || $2 == "*" name { print $1 }' "$scratch/SHA256SUMS")
  [ -n "$expected" ] || fail "$from has no $name.tar.gz; its SHA256SUMS names: $(awk '{ printf "%s ", $2 }' "$scratch/SHA256SUMS")"
  fetch "$name.tar.gz"
  sum "$scratch/$name.tar.gz"
  [ "$found" = "$expected" ] || fail "the checksum of $name.tar.gz is $found and should be $expected: nothing was installed"
  say '  checksum agrees'
  tar -xzf "$scratch/$name.tar.gz" -C "$scratch" || fail "could not unpack $name.tar.gz"
  tree=$scratch/$name

  mkdir -p "$prefix/bin" || fail "could not make $prefix/bin; another place: --prefix DIR"
  # Tried where it will lie: the scratch directory may be one that runs nothing.
  fresh=$prefix/bin/.codex-server.$$
  cp "$tree/codex-server" "$fresh" || fail "could not write into $prefix/bin"
  chmod 755 "$fresh"
  answer=$("$fresh" --version) || fail "the new binary does not run in $prefix/bin: is that directory mounted noexec?"
  [ "$answer" = "codex-server $version" ] || fail "the new binary calls itself \"$answer\": nothing was installed"
  replaced=''
  [ ! -e "$binary" ] || replaced=yes
  # By a rename: a server that runs keeps the file that it has.
  mv -f "$fresh" "$binary" || fail "could not replace $binary"
  fresh=''

  place man/man1 "$share/man/man1"
  place completions/codex-server.bash "$share/bash-completion/completions/codex-server"
  place completions/_codex-server "$share/zsh/site-functions/_codex-server"
  place completions/codex-server.fish "$share/fish/vendor_completions.d/codex-server.fish"

  say "installed: $binary"
  [ -z "$replaced" ] || say '  a server that runs goes on with the one before until it is restarted'
  for needed in python3 node; do
    command -v "$needed" >/dev/null || say "  $needed is not here: its language will not be available"
  done
  case :${PATH-}: in
    *:"$prefix/bin":*) command=codex-server ;;
    *)
      command=$binary
      say "  $prefix/bin is not in your PATH; this line in ~/.profile puts it there:"
      say "    export PATH=\"$prefix/bin:\$PATH\""
      ;;
  esac
  say "try it:  $command run -c 'print(2+2)'"
  say "serve:   $command up"
}

# Copies a file of the tarball, or the files of a directory, where it is there.
place() {
  if [ -d "$tree/$1" ]; then
    mkdir -p "$2" && cp "$tree/$1"/* "$2/"
  elif [ -f "$tree/$1" ]; then
    mkdir -p "$(dirname "$2")" && cp "$tree/$1" "$2"
  fi || fail "could not write $2"
}

remove() {
  found=''
  for file in "$binary" "$share"/man/man1/codex-server.1 "$share"/man/man1/codex-server-*.1 \
    "$share/bash-completion/completions/codex-server" "$share/zsh/site-functions/_codex-server" \
    "$share/fish/vendor_completions.d/codex-server.fish"; do
    [ -f "$file" ] || continue
    found=yes
    if [ -n "$dry" ]; then
      say "would remove $file"
    else
      rm -f "$file" || fail "could not remove $file"
      say "removed $file"
    fi
  done
  [ -n "$found" ] || say "codex-server is not installed in $prefix"
  say 'tokens, settings and packages are left: ~/.local/share/codex-server, unless CODEX_HOME says otherwise'
}

main "$@"
