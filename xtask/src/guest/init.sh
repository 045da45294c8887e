#!/bin/sh
# The first program of Linux guests. Words of the kernel's command line tell it what to do:
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

name=guest run= rows= columns=
read -r words </proc/cmdline
for word in $words; do
    case $word in
    hostname=*) name=${word#*=} ;;
    df.run=*) run=${word#*=} ;;
    df.rows=*) rows=${word#*=} ;;
    df.columns=*) columns=${word#*=} ;;
    df.term=*) TERM=${word#*=} ;;
    esac
done
hostname "$name"
cd /root

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
poweroff -f
