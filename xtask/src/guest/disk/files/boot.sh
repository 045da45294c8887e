#!/bin/sh
# Brings the system up, once, before there is a console.
export PATH=/usr/sbin:/usr/bin
# The initial RAM disk has done that, if there was one.
[ -e /proc/self ] || mount -t proc proc /proc
[ -e /sys/class ] || mount -t sysfs sysfs /sys
[ -e /dev/null ] || mount -t devtmpfs devtmpfs /dev
mkdir -p /dev/pts /dev/shm
mount -t devpts devpts /dev/pts
mount -t tmpfs tmpfs /dev/shm
mount -t tmpfs tmpfs /tmp
grep -q ' /run ' /proc/mounts || mount -t tmpfs -o mode=755 tmpfs /run

read -r name </etc/hostname
read -r words </proc/cmdline
for word in $words; do
    case $word in hostname=*) name=${word#*=} ;; esac
done
# DHCP may have a better one.
hostname "$name"

ip link set lo up
for path in /sys/class/net/eth*; do
    [ -e "$path" ] || continue
    device=${path##*/}
    ip link set "$device" up
    # It stays and renews the lease, and tries on if nobody answers in three seconds.
    udhcpc -i "$device" -s /usr/sbin/dhcp-event -t 3 -T 1 -A 5 -b >/dev/null 2>&1
done
dropbear -s -r /etc/dropbear/host_key 2>/dev/null
