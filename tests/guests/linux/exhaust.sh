# Memory runs out while neighbours work. `panic=-1` turns that into a request to reboot.
. "${0%/*}/check.sh"
note cpus "$cpus"
echo 2 >/proc/sys/vm/panic_on_oom
mkdir -p /fill
mount -t tmpfs -o size=400% fill /fill
ok "exhaust"
cat /dev/zero >/fill/zeroes
