# dpkg and apt-get with a package of one's own: built, installed from a file, listed, removed.
[ "$(id -u)" = 0 ]
mkdir -p own/DEBIAN own/usr/share/own-package
printf 'Package: own-package\nVersion: 1.0\nArchitecture: all\nMaintainer: nobody <nobody@example.org>\nDescription: of the test\n' > own/DEBIAN/control
printf '#!/bin/sh\necho "configured $1"\n' > own/DEBIAN/postinst; chmod 755 own/DEBIAN/postinst
echo content > own/usr/share/own-package/file
dpkg-deb --root-owner-group --build own own.deb | sed 's/in .*//'
dpkg-deb -c own.deb | awk '{ print $1, $2, $6 }'
# Into a root of its own: natively nothing of the host's is to change.
mkdir -p root/etc/apt/sources.list.d root/etc/apt/preferences.d root/var/log/apt root/var/lib/dpkg/updates root/var/lib/dpkg/info root/var/lib/apt/lists root/var/cache/apt/archives root/etc/apt root/bin
touch root/var/lib/dpkg/status root/etc/apt/sources.list
opts="-o Dir=$PWD/root -o Dir::State::status=$PWD/root/var/lib/dpkg/status -o APT::Sandbox::User=root -o DPkg::Options::=--root=$PWD/root -o DPkg::Options::=--force-script-chrootless -o Debug::NoLocking=1 -o DPkg::Path=$PATH"
status apt-get $opts -y -q --no-install-recommends install ./own.deb > log 2>&1; grep -E "^(Setting up|configured|apt-get)" log
dpkg --root="$PWD/root" -l own-package | tail -1 | awk '{ print $1, $2, $3 }'
cat root/usr/share/own-package/file
status dpkg --root="$PWD/root" --force-script-chrootless -r own-package > log; grep -E "^(Removing|dpkg)" log
ls root/usr/share/own-package 2>/dev/null || echo gone
