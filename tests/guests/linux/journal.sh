# Records on a file system on /dev/vdb, each reported once it is safe, until the power is cut. What the last boot left is
# judged first; then the host says whether to go on.
. "${0%/*}/check.sh"
note cpus "$cpus"
dumpe2fs -h /dev/vdb >/dev/null 2>&1 || mkfs.ext4 -q -F /dev/vdb

# Mounting replays the journal; nothing else is to be put right.
in_order() { mount /dev/vdb /mnt && umount /mnt && fsck.ext4 -f -n /dev/vdb; }
answer=$(in_order 2>&1) && ok "the file system is in order" || fail "the file system is in order" "$answer"

mount /dev/vdb /mnt
perl "${0%/*}/journal.pl"
umount /mnt
