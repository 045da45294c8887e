#!/bin/sh
# The first program of Linux guests. Words of the kernel's command line tell it what to do:
#   root=DEVICE              go on with the system on that disk
#   hostname=NAME            the guest's name
#   df.run=NAME              run /tests/NAME.sh and power off, in place of a shell
#   df.rows=N df.columns=N   the user's terminal
#   df.term=NAME             its kind
export PATH=/bin HOME=/root TERM=linux

mount -t proc proc /proc
mount -t sysfs sysfs /sys
mount -t devtmpfs devtmpfs /dev
mkdir -p /dev/pts /dev/shm
mount -t devpts devpts /dev/pts
mount -t tmpfs tmpfs /tmp

# In the order of their names, as some need others.
for module in /modules/*; do
    [ -e "$module" ] && insmod "$module"
done

name=guest run= root= rows= columns=
read -r words </proc/cmdline
for word in $words; do
    case $word in
    hostname=*) name=${word#*=} ;;
    root=*) root=${word#*=} ;;
    df.run=*) run=${word#*=} ;;
    df.rows=*) rows=${word#*=} ;;
    df.columns=*) columns=${word#*=} ;;
    df.term=*) TERM=${word#*=} ;;
    esac
done
hostname "$name"
cd /root

# Becomes the first program of the system on the disk; returns if there is none.
switch_to_disk() {
    tries=0
    until [ -b "$root" ] || [ $tries -ge 50 ]; do
        tries=$((tries + 1))
        sleep 0.1
    done
    [ -b "$root" ] || { echo "There is no disk $root."; return; }
    mount "$root" /mnt || { echo "The disk $root has no file system that can be mounted."; return; }
    [ -x /mnt/sbin/init ] || [ -L /mnt/sbin/init ] || { echo "The disk $root has no /sbin/init."; return; }
    mount -t tmpfs -o mode=755 tmpfs /mnt/run
    [ -z "$run" ] || cp -r /tests /mnt/run/tests
    umount /dev/pts /tmp
    for folder in proc sys dev; do mount --move "/$folder" "/mnt/$folder"; done
    exec switch_root /mnt /sbin/init
}
if [ -n "$root" ]; then
    switch_to_disk
    [ -z "$run" ] || { echo "[linux] fail $run: there is no system on $root"; poweroff -f; }
    echo "This is the initial RAM disk's shell; \`exit\` switches the machine off."
fi

while read -r key value unit; do
    case $key in MemTotal:) memory=$((value / 1024)) ;; esac
done </proc/meminfo
echo "Dragonfly guest $name: Linux $(uname -r), $(nproc) CPUs, $memory MiB"

if [ -n "$run" ]; then
    echo "[linux] start $run"
    sh "/tests/$run.sh"
    status=$?
    if [ $status = 0 ]; then echo "[linux] pass $run"; else echo "[linux] fail $run: status $status"; fi
else
    [ -n "$rows" ] && stty rows "$rows" columns "$columns" <>/dev/console
    # A session with the console as its terminal: job control, and Ctrl-C reaches what runs.
    setsid cttyhack sh -l
fi
# Waits until a slow console has all that was said.
stty sane <>/dev/console
poweroff -f
