# The guest that security groups guard: `friend` and `stranger` call it. Before, it holds the limits of its disks to what
# they are: /dev/vdb has one of requests, /dev/vdc one of bytes.
. "${0%/*}/check.sh"
note cpus "$cpus"

# Writes as fast as it may for some seconds; fio says when each was done.
hurry() {
    fio --name="$1" --filename="$2" --size=8m --rw=randwrite --bs="$3" --ioengine=libaio --iodepth=32 --direct=1 \
        --time_based --runtime=11 --eta=never --write_lat_log="/tmp/$1" --output="/tmp/$1.out" 2>&1
}
hurry requests /dev/vdb 4k &
hurry bytes /dev/vdc 16k &
wait
perl "${0%/*}/disk-limits.pl"

perl "${0%/*}/guarded.pl" 2>/tmp/guarded || fail "callers" "$(cat /tmp/guarded)"
kernel_messages
