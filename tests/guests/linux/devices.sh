# Debian on a disk and a network of the card's: /dev/vda is a disk of the machine with the system on it, /dev/vdb one in the
# card's memory, and 10.0.2.2 is the machine's gateway.
. "${0%/*}/check.sh"
. "${0%/*}/random.sh"
note cpus "$cpus"
read -r uptime _ </proc/uptime
note uptime "$uptime"
time_stamp

case $(grep ' / ' /proc/mounts) in
/dev/vda*ext4*rw*) ok "root is on the disk" ;;
*) fail "root is on the disk" "$(grep ' / ' /proc/mounts)" ;;
esac

address=$(ip -4 -o address show dev eth0 2>&1)
case $address in
*' 10.0.2.15/24 '*) ok "address" ;;
*) fail "address" "$address" ;;
esac
[ "$(hostname)" = debian ] && ok "name" || fail "name" "it is $(hostname)"

answer=$(ping -c 3 -W 2 10.0.2.2 2>&1) && ok "gateway" || fail "gateway" "$answer"
answer=$(getent ahostsv4 debian.dragonfly 2>&1)
case $answer in
10.0.2.15*) ok "names" ;;
*) fail "names" "$answer" ;;
esac

answer=$(verified /dev/vdb) && ok "fio on a disk in memory" || fail "fio on a disk in memory" "$answer $(cat /tmp/fio)"
answer=$(verified /fio.dat) && ok "fio on a disk of the machine" || fail "fio on a disk of the machine" "$answer $(cat /tmp/fio)"
rm -f /fio.dat

made_and_whole() {
    mkfs.ext4 -q -F /dev/vdb && mount /dev/vdb /mnt || return 1
    cp -r /usr/share/ca-certificates /mnt/copy && sync
    echo 3 >/proc/sys/vm/drop_caches
    diff -r /usr/share/ca-certificates /mnt/copy || return 1
    umount /mnt && fsck.ext4 -f -n /dev/vdb
}
answer=$(made_and_whole 2>&1) && ok "a new file system" || fail "a new file system" "$answer"
answer=$(blkdiscard -f /dev/vdb 2>&1) || fail "discard" "$answer"
left=$(dd if=/dev/vdb bs=1M count=16 iflag=direct 2>/dev/null | tr -d '\0' | wc -c)
[ "$left" = 0 ] && ok "discard" || fail "discard" "$left bytes are left"

random_numbers
clock_source
kernel_messages
