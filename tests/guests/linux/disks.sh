# Disks of every kind beside the one with the system, known by their serial numbers, as the host's tables of them say. Each
# keeps what random writes leave there, and holds a file system that is in order after its use.
disk() {
    for block in /sys/block/vd*; do
        if [ "$(cat "$block/serial")" = "$1" ]; then echo "/dev/${block##*/}"; fi
    done
}

# The host has put these onto some disks: the numbers from 1 on, a MiB of lines.
lines=$(seq 1 200000 | head -c 1048576 | md5sum)
has_lines() { [ "$(dd if="$1" bs=64k count=16 iflag=direct 2>/dev/null | md5sum)" = "$lines" ]; }

made_and_whole() {
    mkfs.ext4 -q -F "$1" && mount "$1" /mnt || return 1
    cp -r /usr/share/ca-certificates /mnt/copy && sync
    echo 3 >/proc/sys/vm/drop_caches
    diff -r /usr/share/ca-certificates /mnt/copy || return 1
    umount /mnt && fsck.ext4 -f -n "$1"
}

# verify NAME DISK SIZE
verify() {
    answer=$(verified "$2" "$3") && ok "$1" || fail "$1" "$answer $(cat /tmp/fio)"
}

disks_of_every_kind() {
    verify "fio on a disk in memory" "$(disk ram)" 8m
    verify "fio on a disk of the machine" /fio.dat 8m
    rm -f /fio.dat
    verify "fio on an encrypted disk" "$(disk cipher)" 4m
    verify "fio on a volume" "$(disk plain)" 4m
    has_lines "$(disk live)" && has_lines "$(disk before)" && ok "contents of a snapshot" ||
        fail "contents of a snapshot" "they are not what the host put there"
    verify "fio on a disk with snapshots" "$(disk live)" 4m
    verify "fio on a limited disk" "$(disk limited)" 1m

    for name in ram cipher plain live; do
        answer=$(made_and_whole "$(disk $name)" 2>&1) || fail "new file systems" "$name: $answer"
    done
    ok "new file systems"
    has_lines "$(disk live)" && fail "a snapshot stays as it was" "nothing was written to the disk itself"
    has_lines "$(disk before)" && ok "a snapshot stays as it was" || fail "a snapshot stays as it was" "it has changed"

    # The table allows 100 requests per second, and 10 at once.
    start=$(now)
    dd if="$(disk limited)" of=/dev/null bs=4k count=100 iflag=direct 2>/dev/null
    passed=$(($(now) - start))
    [ $passed -ge 88 ] && ok "a limited disk" || fail "a limited disk" "100 requests took $passed hundredths of a second"

    slow_disk

    for name in cipher plain; do
        yes "marked by the guest" | head -c 4096 | dd of="$(disk $name)" bs=4k seek=4095 oflag=direct 2>/dev/null
    done
}

# Hundredths of a second that ten reads of a disk take.
ten_reads() {
    start=$(now)
    dd if="$1" of=/dev/null bs=4k count=10 iflag=direct 2>/dev/null
    echo $(($(now) - start))
}

# Each request to it takes half a second, which no frame and no other disk waits for.
slow_disk() {
    alone=$(ten_reads "$(disk plain)")
    dd if="$(disk slow)" of=/dev/null bs=4k count=10 iflag=direct 2>/dev/null &
    sleep 0.2
    answer=$(ping -c 10 -i 0.2 -W 2 10.0.2.4 2>&1)
    longest=${answer##*rtt min/avg/max/mdev = }
    longest=${longest#*/*/}
    longest=${longest%%[./]*}
    beside=$(ten_reads "$(disk plain)")
    kill -0 $! 2>/dev/null || fail "a slow disk keeps nobody waiting" "it is not slow"
    note "beside a slow disk" "pings up to $longest ms, ten reads of another in $beside in place of $alone hundredths of a second"
    [ "$longest" -lt 300 ] && [ $beside -lt $((100 + 3 * alone)) ] && ok "a slow disk keeps nobody waiting" ||
        fail "a slow disk keeps nobody waiting" "pings up to $longest ms, ten reads of another $beside hundredths of a second"
    wait
}

# The kernel complains of this, so its messages have been shown before.
read_only_disk() {
    kept=$(disk kept)
    [ "$(blockdev --getro "$kept")" = 1 ] || fail "a read-only disk" "the kernel takes it for another"
    head -c 4096 /dev/urandom | dd of="$kept" bs=4k oflag=direct 2>/dev/null && fail "a read-only disk" "it was written to"
    has_lines "$kept" && ok "a read-only disk" || fail "a read-only disk" "it has changed"
}
