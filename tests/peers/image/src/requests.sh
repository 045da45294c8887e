#!/bin/busybox sh
cd /
bin/busybox mount -t devtmpfs dev dev
bin/busybox mount -t proc proc proc
bin/busybox mount -t sysfs sys sys
bin/busybox mount -t debugfs debug debug
for module in $(bin/busybox cat modules/order); do bin/busybox insmod modules/$module; done
bin/busybox brctl addbr bridge0
bin/busybox ip link set bridge0 up
while read -r counts; do
    bin/kvm-peer count debug/kvm/exits \
        qemu/ld-linux-x86-64.so.2 --library-path /qemu qemu/qemu-system-x86_64 -L /qemu \
        -nodefaults -no-user-config -no-reboot -display none -serial stdio -M microvm,accel=kvm,pcie=on,rtc=on \
        -cpu host -smp 1 -m 64M -kernel guest -append "$counts" \
        -object iothread,id=disk -blockdev null-co,node-name=disk,size=8388608,read-zeroes=on \
        -device virtio-blk-pci,drive=disk,iothread=disk,disable-legacy=on \
        -netdev tap,id=out,ifname=tap0,script=/connect,downscript=no,vhost=on \
        -device virtio-net-pci,netdev=out,mac=52:54:00:00:00:01,disable-legacy=on,romfile= \
        -netdev tap,id=in,ifname=tap1,script=/connect,downscript=no,vhost=on \
        -device virtio-net-pci,netdev=in,mac=52:54:00:00:00:02,disable-legacy=on,romfile= </dev/null
done <runs
# A change of mode waits for the serial port to have written everything.
bin/busybox stty -echo <dev/console
bin/busybox poweroff -f
