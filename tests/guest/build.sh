#!/usr/bin/env bash
# Prepares a small real guest for the tests: a QEMU that can run code (tcg), Debian's cloud kernel and an
# initrd of busybox and mke2fs that runs an exercise on a disk and powers off.
#
#   tests/guest/build.sh           fetches and builds what is missing; prints the kit's folder on stdout
#   tests/guest/build.sh --check   looks only, needs no network: exit 0 and the folder, or 5 and why not
#
# The kit is target/guest, or $QTRACE_GUEST_DIR: `qemu-system-x86_64` (a wrapper), `vmlinuz`, `initrd`
# and `kit.txt` (the versions). Debian's packages are fetched by an apt of its own configuration and
# unpacked there: nothing is installed, nothing of the host's apt or dpkg is changed, and neither root nor
# a working host archive is needed. Afterwards it works without the network. $QTRACE_GUEST_MIRROR stands
# for http://deb.debian.org (which serves /debian and /debian-security); $QTRACE_GUEST_KERNEL for
# linux-image-cloud-amd64, which has virtio, nvme and the PIIX's IDE; linux-image-amd64 has AHCI as well.
#
# Exit status: 0 ready, 5 not possible here (the last line on stderr says why), 1 a step failed.
set -euo pipefail

here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
kit=${QTRACE_GUEST_DIR:-$here/../../target/guest}
mirror=${QTRACE_GUEST_MIRROR:-http://deb.debian.org}
kernel_of=${QTRACE_GUEST_KERNEL:-linux-image-cloud-amd64}
keyring=/usr/share/keyrings/debian-archive-keyring.gpg
check=${1:-}

say() { echo "guest: $*" >&2; }
cannot() {
    say "$*"
    exit 5
}

case $check in '' | --check) ;; *) cannot "unknown argument $check: there is --check" ;; esac
[ "$(uname -m)" = x86_64 ] || cannot "the kit is for x86_64 hosts, this is $(uname -m)"
mkdir -p "$kit" 2>/dev/null || cannot "$kit cannot be made: set QTRACE_GUEST_DIR to a folder that can"
kit=$(cd "$kit" && pwd)

# What the kit was made from: a changed script or exercise makes the initrd again, a changed list of
# packages everything.
sum() { sha256sum | cut -d' ' -f1; }
recipe=$({ echo "$kernel_of" && cat "$here/build.sh" "$here/init" "$here"/exercise/*; } | sum)
packages_of=$({ echo "$kernel_of" && sed -n '/^# begin packages/,/^# end packages/p' "$here/build.sh"; } | sum)

works() { "$kit/qemu-system-x86_64" -accel help 2>/dev/null | grep -qx tcg; }
ready() {
    [ "$(cat "$kit/recipe" 2>/dev/null)" = "$recipe" ] && [ -s "$kit/vmlinuz" ] && [ -s "$kit/initrd" ] && works
}

if ready; then
    echo "$kit"
    exit 0
fi
[ "$check" != --check ] || cannot "no guest kit in $kit: run tests/guest/build.sh (network needed once)"

exec 9>"$kit/.lock"
flock 9 # two builds at a time would step on each other's files
if ready; then
    echo "$kit"
    exit 0
fi

# begin packages
# What goes into the initrd and onto QEMU's firmware path, named in full so that what the host has
# installed makes no difference. The kernel's package is found through its meta package.
guest_packages=(busybox-static e2fsprogs libext2fs2 libcom-err2 libblkid1 libuuid1 libc6)
qemu_packages=(qemu-system-x86 qemu-system-common qemu-system-data seabios ipxe-qemu)

# An apt of our own in $apt, with what the host has installed as its view.
private_apt() { # private_apt SUITE
    apt=$kit/apt
    rm -rf "$apt"
    mkdir -p "$apt"/etc/{apt.conf.d,preferences.d,sources.list.d,trusted.gpg.d} \
        "$apt"/lists/partial "$apt"/cache/archives/partial "$apt"/log
    cp /var/lib/dpkg/status "$apt/status"
    local from="deb [arch=amd64 signed-by=$keyring]"
    {
        echo "$from $mirror/debian $1 main"
        echo "$from $mirror/debian $1-updates main"
        echo "$from $mirror/debian-security $1-security main"
        echo "$from $mirror/debian $1-backports main"
    } >"$apt/etc/sources.list"
    # The host's own settings stay out (hooks, cleaners), but for how it reaches the network.
    {
        echo "Dir \"$apt\"; Dir::Etc \"etc\"; Dir::Etc::Parts \"apt.conf.d\"; Dir::State \"$apt\";"
        echo "Dir::State::status \"$apt/status\"; Dir::State::lists \"$apt/lists\";"
        echo "Dir::Cache \"$apt/cache\"; Dir::Log \"$apt/log\"; Acquire::Languages \"none\";"
        echo 'APT::Architecture "amd64"; APT::Architectures { "amd64"; }; APT::Sandbox::User "root";'
        echo 'Acquire::Retries "2"; Acquire::http::Timeout "30";'
        echo 'APT::Update::Error-Mode "any"; APT::Install-Recommends "false";'
        apt-config dump 2>/dev/null | grep -i '^Acquire::https\?::Proxy' || true
    } >"$apt/apt.conf"
}

candidate() { # candidate PACKAGE [SUITE]
    apt-cache policy ${2:+-t "$2"} "$1" | sed -n 's/^  Candidate: //p' | grep -v '(none)'
}

fetch() { # everything into $1
    local suite backports utils qemu kernel libs from
    command -v apt-get >/dev/null 2>&1 || cannot "there is no apt-get here to fetch Debian packages with"
    command -v dpkg-deb >/dev/null 2>&1 || cannot "there is no dpkg-deb here to unpack Debian packages with"
    [ -r "$keyring" ] || cannot "Debian's keys are not here (package debian-archive-keyring)"
    suite=$(. /etc/os-release && [ "$ID" = debian ] && echo "${VERSION_CODENAME:-}") || true
    [ -n "$suite" ] || cannot "QEMU is run with the host's libraries, which must be those of a Debian release"
    backports=$suite-backports
    private_apt "$suite"
    export APT_CONFIG=$apt/apt.conf
    say "reading the package lists of $suite from $mirror"
    apt-get -qq update >&2 || cannot "$mirror cannot be reached, or its lists are not what Debian signed"

    # The version that qemu-utils has here, so that guest and tools are of one QEMU; else backports'.
    utils=$(dpkg-query -W -f '${Version}' qemu-utils 2>/dev/null || true)
    qemu=$(candidate qemu-system-x86 "$backports") || cannot "no qemu-system-x86 in $suite"
    from=$backports
    if [ -n "$utils" ] && apt-cache madison qemu-system-x86 | grep -qF "| $utils |"; then
        qemu=$utils
        [ "$(candidate qemu-system-x86)" != "$utils" ] || from=$suite
    fi
    kernel=$(apt-cache depends "$kernel_of" | sed -n 's/^  Depends: \(linux-image-\)/\1/p' | head -n 1)
    [ -n "$kernel" ] || cannot "no $kernel_of in $suite"

    # The libraries that this host lacks are what apt would install beside QEMU. Nothing is installed.
    libs=$(apt-get -s install -t "$from" "qemu-system-x86=$qemu" | sed -n 's/^Inst \([^ ]*\) .*/\1/p' |
        grep -vxE "$(IFS='|' && echo "${qemu_packages[*]}")|qemu-(system|utils|user).*" || true)
    mkdir -p "$1/qemu" "$1/guest"
    say "fetching QEMU $qemu, $kernel and $(echo "${guest_packages[@]}" $libs | wc -w) packages more"
    # shellcheck disable=SC2086 # package names are words
    (cd "$1/qemu" && apt-get -qq download -t "$from" "qemu-system-x86=$qemu" \
        "${qemu_packages[@]:1}" $libs >&2) ||
        cannot "QEMU could not be fetched"
    (cd "$1/guest" && apt-get -qq download "$kernel" "${guest_packages[@]}" >&2) ||
        cannot "the kernel could not be fetched"
    rm -rf "$apt"
}
# end packages

unpack() { # unpack FOLDER-OF-DEBS INTO
    rm -rf "$2"
    mkdir -p "$2"
    local deb
    for deb in "$1"/*.deb; do
        dpkg-deb -x "$deb" "$2"
    done
}

# Makes $kit/qemu-system-x86_64. Its process is QEMU itself (exec), so that signals reach it.
build_qemu() {
    say "unpacking QEMU"
    unpack "$kit/debs/qemu" "$kit/qemu.new"
    rm -rf "$kit/qemu"
    mv "$kit/qemu.new" "$kit/qemu"
    {
        echo '#!/bin/sh'
        echo '# Made by tests/guest/build.sh: an unpacked, not installed, QEMU.'
        echo "root='${kit//\'/\'\\\'\'}/qemu'"
        echo 'export LD_LIBRARY_PATH="$root/usr/lib/x86_64-linux-gnu${LD_LIBRARY_PATH:+:$LD_LIBRARY_PATH}"'
        echo 'export QEMU_MODULE_DIR="$root/usr/lib/x86_64-linux-gnu/qemu"'
        echo 'exec "$root/usr/bin/qemu-system-x86_64" -L "$root/usr/share/seabios" -L "$root/usr/share/qemu" \'
        echo '    -L "$root/usr/lib/ipxe/qemu" "$@"'
    } >"$kit/qemu-system-x86_64.new"
    chmod +x "$kit/qemu-system-x86_64.new"
    mv "$kit/qemu-system-x86_64.new" "$kit/qemu-system-x86_64"
    works || {
        say "the fetched QEMU does not run here:"
        "$kit/qemu-system-x86_64" -accel help >&2 || true
        exit 1
    }
}

# Prints the modules' files that the named modules need, from modules.dep.
module_files() { # module_files MODULES.DEP MODULE…
    local dep=$1 name
    shift
    for name; do
        sed -n "s|^\([^:]*/${name//[-_]/[-_]}\.ko[^:]*\): *\(.*\)|\1 \2|p" "$dep"
    done | tr ' ' '\n' | sort -u | sed '/^$/d'
}

build_initrd() {
    local root=$kit/work/root tree=$kit/work/tree busybox release modules name file
    say "building the initrd"
    rm -rf "$kit/work"
    unpack "$kit/debs/guest" "$tree"
    busybox=$tree/bin/busybox
    release=$(basename "$tree"/lib/modules/*)
    mkdir -p "$root"/{bin,dev,proc,sys,mnt,tmp,exercise,lib64,lib/x86_64-linux-gnu}
    cp "$busybox" "$root/bin/busybox"
    for name in libext2fs.so.2 libe2p.so.2 libcom_err.so.2 libblkid.so.1 libuuid.so.1 libc.so.6; do
        file=$(find "$tree" -name "$name" | head -n 1)
        [ -n "$file" ] || { say "no $name in the packages"; exit 1; }
        cp -L "$file" "$root/lib/x86_64-linux-gnu/$name"
    done
    cp -L "$tree/lib/x86_64-linux-gnu/ld-linux-x86-64.so.2" "$root/lib64/"
    # Under a name that busybox does not have: its shell would take its own mke2fs.
    mkdir -p "$root/sbin"
    cp "$tree/sbin/mke2fs" "$root/sbin/mkfs.ext4"
    cp "$tree/sbin/e2fsck" "$root/sbin/"

    # Drivers of the kinds of disk that QEMU's users have; ext4 and nvme are in the kernel.
    modules=(virtio_pci virtio_blk virtio_scsi sd_mod ata_piix ahci nvme ext4 crc32c_generic qemu_fw_cfg)
    "$busybox" depmod -b "$tree" "$release"
    mkdir -p "$root/lib/modules/$release"
    module_files "$tree/lib/modules/$release/modules.dep" "${modules[@]}" | while read -r file; do
        mkdir -p "$root/lib/modules/$release/$(dirname "$file")"
        cp "$tree/lib/modules/$release/$file" "$root/lib/modules/$release/$file"
    done
    "$busybox" depmod -b "$root" "$release"
    printf '%s\n' "${modules[@]}" >"$root/modules"

    cp "$here/init" "$root/init"
    cp "$here"/exercise/* "$root/exercise/"
    chmod 755 "$root/init"
    # Not compressed: unpacking it would cost the emulated CPU more than reading it.
    (cd "$root" && find . | sort | "$busybox" cpio -o -H newc -R 0:0 2>/dev/null) >"$kit/initrd.new"
    cp "$tree/boot/vmlinuz-$release" "$kit/vmlinuz.new"
    mv "$kit/vmlinuz.new" "$kit/vmlinuz"
    mv "$kit/initrd.new" "$kit/initrd"
    rm -rf "$kit/work"
}

if [ "$(cat "$kit/packages" 2>/dev/null)" != "$packages_of" ]; then
    rm -rf "$kit/debs.new" "$kit/recipe"
    fetch "$kit/debs.new"
    rm -rf "$kit/debs" "$kit/qemu"
    mv "$kit/debs.new" "$kit/debs"
    echo "$packages_of" >"$kit/packages"
fi
[ -d "$kit/qemu" ] && works || build_qemu
build_initrd
(cd "$kit/debs" && ls -1 qemu/*.deb guest/*.deb) >"$kit/kit.txt"
echo "$recipe" >"$kit/recipe.new"
mv "$kit/recipe.new" "$kit/recipe"
ready || { say "the kit in $kit does not pass its own check"; exit 1; }
say "ready: $("$kit/qemu-system-x86_64" --version | head -n 1); $(du -sh "$kit" | cut -f1) in $kit"
echo "$kit"
