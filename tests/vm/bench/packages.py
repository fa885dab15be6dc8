"""What the machine is made of: the one place where package and kernel module names are listed."""

from __future__ import annotations

SUITE = "bookworm"
"""Debian 12."""

KERNEL_META_PACKAGE = "linux-image-amd64"
"""Depends on the current kernel of the suite; the exact package is looked up through it."""

INSTALLED = (
    "systemd",
    "systemd-sysv",
    "dbus",
    "udev",
    "kmod",
    "usbutils",
    "python3",
    "libusb-1.0-0",
    "ca-certificates",
    "openssl",
    "procps",
    "busybox",
    "p11-kit",
    "apt",
    "debian-archive-keyring",
)
"""In the guest from the start: what a plain desktop has, and python3 for the agent. No smart-card package."""

OFFERED = (
    "pcscd",
    "libccid",
    "libacsccid1",
    "ykcs11",
    "opensc-pkcs11",
    "opensc",
    "yubico-piv-tool",
    "pcsc-tools",
    "libifd-cyberjack6",
    "libnss3-tools",
    "softhsm2",
    "strace",
    "pkexec",
    "sudo",
    "iproute2",
)
"""In the guest's offline repository with everything they depend on, not installed."""

LEFT_OUT_PATHS = ("/usr/share/man/*", "/usr/share/locale/*", "/usr/share/doc/*", "/usr/share/info/*")
"""Never unpacked: nothing a test looks at, and unpacking is slow on an emulated processor."""

INITRAMFS_MODULES = (
    "virtio_ring",
    "virtio",
    "virtio_pci_legacy_dev",
    "virtio_pci_modern_dev",
    "virtio_pci",
    "virtio_blk",
    "virtio_console",
    "failover",
    "net_failover",
    "virtio_net",
    "crc16",
    "mbcache",
    "jbd2",
    "crc32c_generic",
    "ext4",
    "overlay",
)
"""Needed before the root file system is there, in the order they are loaded."""

GUEST_MODULES = (
    "drivers/usb",
    "drivers/hid",
    "drivers/virtio",
    "drivers/block/virtio_blk.ko",
    "drivers/block/loop.ko",
    "drivers/char/virtio_console.ko",
    "drivers/char/uhid.ko",
    "drivers/char/hw_random",
    "drivers/scsi/scsi_mod.ko",
    "drivers/scsi/scsi_common.ko",
    "drivers/scsi/sd_mod.ko",
    "drivers/scsi/sr_mod.ko",
    "drivers/scsi/sg.ko",
    "drivers/cdrom",
    "drivers/net/virtio_net.ko",
    "drivers/net/net_failover.ko",
    "drivers/input",
    "net/core",
    "fs/overlayfs",
    "fs/ext4",
    "fs/jbd2",
    "fs/mbcache.ko",
    "fs/isofs",
    "fs/fat",
    "fs/nls",
    "fs/fuse",
    "lib",
    "crypto",
    "arch/x86/crypto",
)
"""Kernel module families the guest may load, below /lib/modules/VERSION/kernel."""

MASKED_UNITS = (
    "apt-daily.timer",
    "apt-daily-upgrade.timer",
    "console-getty.service",
    "dpkg-db-backup.timer",
    "e2scrub_all.timer",
    "e2scrub_reap.service",
    "fstrim.timer",
    "getty@tty1.service",
    "systemd-journal-flush.service",
    "systemd-random-seed.service",
    "systemd-timesyncd.service",
    "systemd-update-utmp.service",
)
"""Units that would start work of their own in the middle of a test."""
