# The small system with a disk in the card's memory and a network that leads nowhere.
echo "[check] note cpus: $(nproc)"
. "${0%/*}/card.sh"
ip link set eth0 up
udhcpc -i eth0 -n -q -t 5 -T 1 -s "${0%/*}/lease.sh" >/tmp/udhcpc 2>&1
lease=$(cat /tmp/lease 2>&1)
[ "$lease" = "10.0.2.15 24 10.0.2.4 debian" ] && ok "address" || fail "address" "$lease, $(cat /tmp/udhcpc)"
