# A disk that the card serves: it is as described, keeps what is written, forgets what is discarded. `df.rounds=N` writes
# and reads N times more, for the host to disturb.
ok() { echo "[check] ok $1"; }
fail() { echo "[check] fail $1: $2"; }

tries=0
until [ -b /dev/vda ] || [ $tries -ge 100 ]; do
    tries=$((tries + 1))
    sleep 0.1
done
[ -b /dev/vda ] && ok "the disk is found" || fail "the disk is found" "there is no /dev/vda"
described="$(cat /sys/block/vda/size) $(cat /sys/block/vda/serial) $(cat /sys/block/vda/ro)"
[ "$described" = "131072 card-test 0" ] && ok "it is as described" || fail "it is as described" "$described"

# So many MiB of noise onto the disk; whether they are read again, past the page cache.
written_is_read() {
    dd if=/dev/urandom of=/tmp/noise bs=1M count="$1" 2>/dev/null
    dd if=/tmp/noise of=/dev/vda bs=64k conv=notrunc,fsync 2>/dev/null || return 1
    echo 3 >/proc/sys/vm/drop_caches
    [ "$(dd if=/dev/vda bs=1M count="$1" 2>/dev/null | md5sum)" = "$(md5sum </tmp/noise)" ]
}
written_is_read 16 && ok "what is written is read" || fail "what is written is read" "it is not the same"

rounds=0
for word in $(cat /proc/cmdline); do
    case $word in df.rounds=*) rounds=${word#*=} ;; esac
done
round=0
bad=
while [ $round -lt "$rounds" ]; do
    round=$((round + 1))
    echo "[check] note round: $round"
    written_is_read 4 || bad="$bad $round"
done
[ -z "$bad" ] && ok "each round is whole" || fail "each round is whole" "not these:$bad"

blkdiscard /dev/vda
echo 3 >/proc/sys/vm/drop_caches
left=$(dd if=/dev/vda bs=1M count=16 2>/dev/null | tr -d '\0' | wc -c)
[ "$left" = 0 ] && ok "what is discarded is gone" || fail "what is discarded is gone" "$left bytes are left"
