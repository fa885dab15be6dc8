#!/bin/sh
# Keyfit offline kit: the start menu for Linux and macOS.
#
#   sh start.sh                    asks
#   sh start.sh system [BRAND]     1. System Upgrade: what prepares the system
#   sh start.sh driver [BRAND]     2. Driver Installation: the token's driver
#
# Further arguments are handed on, for example: sh start.sh driver acme --silent
# Ends with the exit code of keyfit (see README.txt).

kit=$(CDPATH='' cd -- "$(dirname -- "$0")" && pwd -P) || exit 73

chinese=no
case ${LC_ALL:-${LC_MESSAGES:-${LANG:-}}} in
    zh*) chinese=yes ;;
esac

say() { # English, Chinese
    if [ "$chinese" = yes ]; then printf '%s\n' "$2"; else printf '%s\n' "$1"; fi
}

find_program() {
    case $(uname -s) in
        Linux) system=linux ;;
        Darwin) system=macos ;;
        *) system=unknown ;;
    esac
    case $(uname -m) in
        x86_64 | amd64) architecture=amd64 ;;
        aarch64 | arm64) architecture=arm64 ;;
        i?86) architecture=i386 ;;
        *) architecture=unknown ;;
    esac
    for candidate in "$kit/program/$system-$architecture/keyfit" "$kit/program/$system-universal/keyfit"; do
        if [ -x "$candidate" ]; then
            program=$candidate
            return 0
        fi
    done
    program=$(command -v keyfit) && [ -n "$program" ]
}

# With administrator rights the program runs from a copy that nobody else can change, since whoever handed out the medium, or is
# logged in here, may be able to write on it.
keep_to_ourselves() {
    case $program in
        "$kit"/*) ;;
        *) return 0 ;;
    esac
    [ "$(id -u)" -eq 0 ] || return 0
    copy=$(umask 077 && mktemp -d) || exit 73
    trap 'rm -rf "$copy"' EXIT
    trap 'exit 130' HUP INT TERM
    cp -R "$(dirname "$program")" "$copy/program" || exit 73
    chmod -R go-w "$copy/program"
    program=$copy/program/keyfit
}

install_part() { # system or driver, then what keyfit is to be given
    part=$1
    shift
    [ "$chinese" = no ] || set -- --lang zh_CN "$@" # what is given after it wins
    "$program" install --source "$kit" --part "$part" "$@"
    code=$?
    if [ "$code" -eq 77 ]; then
        say "Administrator rights are needed. Try: sudo sh \"$kit/start.sh\" $part" \
            "需要管理员权限。请尝试：sudo sh \"$kit/start.sh\" $part"
    elif [ "$code" -eq 126 ]; then
        say "The program cannot be run from here: this medium may be mounted without that right. Copy the kit to a disk first." \
            "无法从此处运行程序：该介质可能以禁止执行的方式挂载。请先将套件复制到硬盘。"
    fi
    return "$code"
}

if ! find_program; then
    say "This kit has no Keyfit for this system, and none is installed. Install Keyfit first, then start this again." \
        "本套件中没有适用于此系统的 Keyfit，系统中也未安装。请先安装 Keyfit，然后重新运行。" >&2
    exit 79
fi

keep_to_ourselves

case ${1:-} in
    system | driver)
        part=$1
        shift
        install_part "$part" "$@"
        exit
        ;;
    '') ;;
    *)
        say "Usage: sh start.sh [system|driver [BRAND]]" "用法：sh start.sh [system|driver [品牌]]" >&2
        exit 2
        ;;
esac

code=0
while :; do
    echo
    say "Keyfit offline kit" "Keyfit 离线安装套件"
    say "  1) System Upgrade        first: prepares this computer" "  1) 系统升级    第一步：为本机做好准备"
    say "  2) Driver Installation   then: installs the token's driver" "  2) 驱动安装    第二步：安装令牌（U盾）驱动"
    say "  q) Quit" "  q) 退出"
    printf '> '
    read -r answer || exit "$code"
    case $answer in
        1) install_part system; code=$? ;;
        2) install_part driver; code=$? ;;
        q | Q) exit "$code" ;;
    esac
done
