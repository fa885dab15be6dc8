#!/bin/sh
# Installs the Debian or Ubuntu packages that the fake USB bus and the platform tests need.
#
#   install-packages.sh           install what is missing (as root); otherwise name it and fail
#   install-packages.sh --check   only name what is missing; exit code 1 if anything is
set -eu

# umockdev, gir1.2-umockdev-1.0, python3-gi: the fake bus, driven by the system's own Python
# python3-cryptography: simulated cards compute in that Python
# pcscd, libccid, libpcsclite1: the real smart-card daemon, driver and client library
# usbutils, libusb-1.0-0, libudev1: the real programs that the fake bus is compared with
# softhsm2, opensc, libnss3-tools, gcc, libc6-dev: a real PKCS#11 module, its tools, misbehaving modules, modutil
# libarchive-tools, unzip, shellcheck: offline kits as other programs read them, and their start menu
# nginx-light: the web server that repositories and mirrors are served by
# tinyproxy: a proxy on the way to it
# faketime: another clock for the programs under test
# openssl: keys made as people make them, and a time-stamp authority
# util-linux, iproute2, bash, dpkg, procps: namespaces, and packages installed inside them
# strace: programs cut short, or a call of theirs made to fail, at a chosen moment
# osslsigncode, msitools, wixl, gcab, rpm, zstd, binutils-mingw-w64-*: real signed programs, installers and packages to look into
# chromium, chromium-driver, fonts-wqy-microhei: the download site in a real browser, with Chinese
needed="umockdev gir1.2-umockdev-1.0 python3-gi python3-cryptography
        pcscd libccid libpcsclite1
        usbutils libusb-1.0-0 libudev1
        softhsm2 opensc libnss3-tools gcc libc6-dev
        libarchive-tools unzip shellcheck
        nginx-light tinyproxy faketime openssl
        util-linux iproute2 bash dpkg procps strace
        chromium chromium-driver fonts-wqy-microhei
        osslsigncode msitools wixl gcab rpm zstd binutils-mingw-w64-x86-64 binutils-mingw-w64-i686"

missing=""
for package in $needed; do
    state=$(dpkg-query --show --showformat='${db:Status-Status}' "$package" 2>/dev/null || true)
    [ "$state" = installed ] || missing="$missing $package"
done

if [ -z "$missing" ]; then
    echo "All packages for the platform tests are installed."
    exit 0
fi
if [ "${1:-}" = --check ] || [ "$(id -u)" -ne 0 ]; then
    echo "Packages for the platform tests are missing:$missing" >&2
    echo "Install them as root:  sudo $0" >&2
    exit 1
fi

# The tests start their own pcscd in a namespace. Installing pcscd must not leave one running for the whole machine:
# it would take the user's readers. A pcscd that was there before is left as it was.
fresh_pcscd=no
case " $missing " in *" pcscd "*) fresh_pcscd=yes ;; esac
# The same for nginx, which would serve on port 80, and tinyproxy on port 8888.
fresh_servers=""
case " $missing " in *" nginx-light "*) fresh_servers="nginx" ;; esac
case " $missing " in *" tinyproxy "*) fresh_servers="$fresh_servers tinyproxy" ;; esac

export DEBIAN_FRONTEND=noninteractive
apt-get update
# shellcheck disable=SC2086
apt-get install --yes --no-install-recommends $missing

if [ "$fresh_pcscd" = yes ] && command -v systemctl >/dev/null 2>&1; then
    if [ -d /run/systemd/system ]; then
        systemctl disable --now pcscd.socket pcscd.service
    else
        systemctl disable pcscd.socket
    fi
fi
if command -v systemctl >/dev/null 2>&1; then
    for server in $fresh_servers; do
        if [ -d /run/systemd/system ]; then systemctl disable --now "$server"; else systemctl disable "$server"; fi
    done
fi
