#!/bin/sh
# The console: a shell, or the script that the kernel's command line names, and then the end of the machine. Words there:
#   df.run=NAME              run /run/tests/NAME.sh, which the initial RAM disk brought, in place of a shell
#   df.rows=N df.columns=N   the user's terminal
#   df.term=NAME             its kind
export PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin HOME=/root USER=root TERM=linux LANG=C.UTF-8
run= rows= columns=
read -r words </proc/cmdline
for word in $words; do
    case $word in
    df.run=*) run=${word#*=} ;;
    df.rows=*) rows=${word#*=} ;;
    df.columns=*) columns=${word#*=} ;;
    df.term=*) TERM=${word#*=} ;;
    esac
done
cd /root

while read -r key value _; do
    case $key in MemTotal:) memory=$((value / 1024)) ;; esac
done </proc/meminfo
addresses=
for address in $(hostname -I 2>/dev/null); do addresses="$addresses, $address"; done
echo "Dragonfly guest $(hostname): Debian $(cat /etc/debian_version), Linux $(uname -r), $(nproc) CPUs, $memory MiB$addresses"

if [ -n "$run" ]; then
    echo "[linux] start $run"
    sh "/run/tests/$run.sh"
    status=$?
    if [ $status = 0 ]; then echo "[linux] pass $run"; else echo "[linux] fail $run: status $status"; fi
else
    [ -n "$rows" ] && stty rows "$rows" columns "$columns"
    bash -l
fi
# What poweroff alone does too, but for the seconds that it gives to programs.
sync
mount -o remount,ro / 2>/dev/null
poweroff -f
