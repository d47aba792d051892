# apt-get update, and an install with what it depends on, from a mirror at the other end.
prepare() {
  mkdir -p www
  package() { # NAME DEPENDS BYTES
    mkdir -p "$1/DEBIAN" "$1/usr/share/$1"
    printf 'Package: %s\nVersion: 1.0\nArchitecture: all\nDepends: %s\nMaintainer: nobody <nobody@example.org>\nDescription: of the test\n' \
      "$1" "$2" | sed '/^Depends: $/d' >"$1/DEBIAN/control"
    printf '#!/bin/sh\necho "configured %s $1"\n' "$1" >"$1/DEBIAN/postinst"; chmod 755 "$1/DEBIAN/postinst"
    files "$1/usr/share/$1/content" "$3"
    dpkg-deb -Znone --root-owner-group --build "$1" www >/dev/null
    (dpkg-deb -f "www/$1_1.0_all.deb"; echo "Filename: ./$1_1.0_all.deb"; echo "Size: $(stat -c %s "www/$1_1.0_all.deb")"
     echo "SHA256: $(sha256sum <"www/$1_1.0_all.deb" | cut -d' ' -f1)"; echo) >>www/Packages
    rm -r "$1"
  }
  package boat 'oar, rope (>= 0.5)' 30000000; package oar '' 2000000; package rope oar 100
  for n in $(seq 3000); do printf 'Package: other-%s\nVersion: 1\nArchitecture: all\nFilename: ./none\nSize: 1\nDescription: nothing\n\n' "$n"; done >>www/Packages
  gzip -k www/Packages
}
serve() { python3 -m http.server 8000 --directory "$W/www" 2>"$T/log" & up 127.0.0.1 8000; }
ask() {
  local r=$T/root
  mkdir -p "$r"/etc/apt/{sources.list.d,preferences.d} "$r"/var/log/apt "$r"/var/lib/dpkg/{updates,info} "$r"/var/lib/apt/lists "$r"/var/cache/apt/archives "$r"/bin
  touch "$r/var/lib/dpkg/status"; echo "deb [trusted=yes] http://$A:8000/ ./" >"$r/etc/apt/sources.list"
  get() {
    apt-get -o Dir="$r" -o Dir::State::status="$r/var/lib/dpkg/status" -o APT::Sandbox::User=root -o DPkg::Options::=--root="$r" \
      -o DPkg::Options::=--force-script-chrootless -o Debug::NoLocking=1 -o DPkg::Path="$PATH" -o APT::Architecture=amd64 -y -q "$@" 2>&1
  }
  get update | grep -E '^(Get|Err|E:|W:)' | sed 's/ \[.*//; s/^Get:[0-9]*/Get/' | sort
  get --no-install-recommends install boat | grep -E '^(The following NEW|Setting up|configured|  [a-z]|E:|W:|Err)'
  dpkg --root="$r" -l | tail -3 | awk '{ print $1, $2, $3 }'
  md5sum <"$r/usr/share/boat/content"
  get remove oar | grep -E '^Removing'
}
