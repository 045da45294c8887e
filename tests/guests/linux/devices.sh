# Debian on disks and a network of the card's: /dev/vda is a disk of the machine with the system on it, /dev/vdb one in the
# card's memory, others are of every kind (disks.sh), and 10.0.2.2 is the machine's gateway.
. "${0%/*}/check.sh"
. "${0%/*}/random.sh"
. "${0%/*}/disks.sh"
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

disks_of_every_kind
answer=$(blkdiscard -f /dev/vdb 2>&1) || fail "discard" "$answer"
left=$(dd if=/dev/vdb bs=1M count=16 iflag=direct 2>/dev/null | tr -d '\0' | wc -c)
[ "$left" = 0 ] && ok "discard" || fail "discard" "$left bytes are left"

random_numbers
clock_source
kernel_messages
read_only_disk
