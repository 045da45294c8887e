#!/bin/busybox sh
cd /
bin/busybox mount -t devtmpfs dev dev
bin/busybox mount -t proc proc proc
if bin/busybox grep -q -w svm proc/cpuinfo; then maker=amd; else maker=intel; fi
for module in irqbypass kvm kvm-$maker; do bin/busybox insmod modules/$module.ko; done
if [ -d linux ]; then
    bin/kvm-peer start "$(bin/busybox cat linux/marker)" \
        qemu/ld-linux-x86-64.so.2 --library-path /qemu qemu/qemu-system-x86_64-microvm -L /qemu \
        -nodefaults -no-user-config -no-reboot -display none -serial stdio -M microvm,accel=kvm,pcie=on,rtc=on \
        -cpu host -smp "$(bin/busybox cat linux/vcpus)" -m "$(bin/busybox cat linux/memory-mib)M" \
        -kernel linux/kernel -initrd linux/initrd -append "$(bin/busybox cat linux/command-line)"
fi
# Last, as its last line says that all is done.
bin/kvm-peer exits guest "$(bin/busybox nproc)"
# A change of mode waits for the serial port to have written everything.
bin/busybox stty -echo <dev/console
bin/busybox poweroff -f
